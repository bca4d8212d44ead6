//! Measures an operator at scale, `scale [POOLS…]` (20, 500 and 2,000 unless told), each number in a namespace of its
//! own with pools of 5 idle pods: how fast flips are answered, one by one and in a burst, and what it costs.
//! 2,000 pools need `make cluster-up SIM_NODES=30`.

use anyhow::{Context as _, Result};
use stoker_e2e::ranges::Ranges;
use stoker_e2e::scale::measure;

#[tokio::main]
async fn main() -> Result<()> {
    let given: Vec<usize> = std::env::args()
        .skip(1)
        .map(|text| text.parse().with_context(|| format!("{text} is not a number")))
        .collect::<Result<_>>()?;
    let sizes = if given.is_empty() { vec![20, 500, 2000] } else { given };
    let ranges = Ranges::read()?;
    let mut missed = Vec::new();
    for pools in sizes {
        for (name, figure) in measure(pools).await? {
            missed.extend(ranges.tell(pools, name, figure));
        }
    }
    if missed.is_empty() {
        println!("every budget is kept");
    }
    for words in missed {
        println!("MISSED: {words}");
    }
    Ok(())
}
