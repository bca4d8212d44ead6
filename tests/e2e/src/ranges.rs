//! Measured figures beside their budgets and the last ones, from `tests/bench/ranges.yaml`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::root;

/// What is known of one figure.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Range {
    /// No more than this is allowed.
    budget: Option<f64>,
    /// What was measured the last time.
    last: Option<f64>,
}

/// Ranges by number of pools and figure.
pub struct Ranges(BTreeMap<usize, BTreeMap<String, Range>>);

impl Ranges {
    pub fn read() -> Result<Self> {
        let file = root().join("tests/bench/ranges.yaml");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(Self(serde_yaml::from_str(&text)?))
    }

    /// Prints a figure, and says in words if its budget is missed.
    pub fn tell(&self, pools: usize, name: &str, figure: f64) -> Option<String> {
        let range = self.0.get(&pools).and_then(|known| known.get(name)).copied().unwrap_or_default();
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v}"));
        println!(
            "{pools:>5} pools  {name:<32} {figure:>10.2}   budget {:>6}   last {:>8}",
            shown(range.budget),
            shown(range.last)
        );
        let budget = range.budget.filter(|budget| figure > *budget)?;
        Some(format!("{pools} pools: {name} is {figure:.2}, its budget {budget}"))
    }
}
