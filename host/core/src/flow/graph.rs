//! Whether the steps of a flow can be brought into an order, and if not, why, in words.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use stoker_api::Step;

/// Problems that are told at a time.
const TOLD: usize = 8;

/// Steps of a cycle that are told; the rest of a longer one is counted.
const PATH: usize = 24;

/// The steps in an order in which each comes after those that it waits for, by index; or what is wrong.
pub fn order(steps: &[Step]) -> Result<Vec<usize>, String> {
    let mut index: HashMap<&str, usize> = HashMap::with_capacity(steps.len());
    let mut problems = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if index.insert(&step.name, at).is_some() {
            problems.push(format!("two steps are called {}: rename one", step.name));
        }
    }
    let mut waits: Vec<Vec<usize>> = Vec::with_capacity(steps.len());
    for step in steps {
        let mut of_step = Vec::new();
        for name in names(step) {
            match index.get(name) {
                Some(at) if of_step.contains(at) => {
                    let step = &step.name;
                    problems.push(format!(
                        "step {step} names {name} twice: name it once, in dependencies or in waitFor"
                    ));
                }
                Some(at) => of_step.push(*at),
                None => {
                    problems.push(format!("step {} waits for {name}, and no step is called so", step.name))
                }
            }
        }
        waits.push(of_step);
    }
    let order = sorted(&waits);
    if order.len() < steps.len()
        && let Some(cycle) = cycle(&waits, &order)
    {
        problems.push(in_words(steps, &cycle));
    }
    if problems.is_empty() {
        return Ok(order);
    }
    let more = problems.len().saturating_sub(TOLD);
    problems.truncate(TOLD);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(problems.join("; ") + &more)
}

fn names(step: &Step) -> impl Iterator<Item = &str> {
    step.dependencies.iter().map(String::as_str).chain(step.wait_for.iter().map(|wait| wait.name.as_str()))
}

/// As many steps as can be ordered; of those that could come next, the first of the spec.
fn sorted(waits: &[Vec<usize>]) -> Vec<usize> {
    let mut open: Vec<usize> = waits.iter().map(Vec::len).collect();
    let mut dependants: Vec<Vec<usize>> = vec![Vec::new(); waits.len()];
    for (at, of_step) in waits.iter().enumerate() {
        for on in of_step {
            dependants[*on].push(at);
        }
    }
    let mut free: BinaryHeap<Reverse<usize>> =
        open.iter().enumerate().filter(|(_, count)| **count == 0).map(|(at, _)| Reverse(at)).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(Reverse(at)) = free.pop() {
        order.push(at);
        for dependant in &dependants[at] {
            open[*dependant] -= 1;
            if open[*dependant] == 0 {
                free.push(Reverse(*dependant));
            }
        }
    }
    order
}

/// A cycle among the steps that could not be ordered: each waits for the next, and the last for the first. Each of those
/// steps waits for another of them, so that a walk along them comes back to itself.
fn cycle(waits: &[Vec<usize>], ordered: &[usize]) -> Option<Vec<usize>> {
    let mut left = vec![true; waits.len()];
    for at in ordered {
        left[*at] = false;
    }
    let mut at = left.iter().position(|left| *left)?;
    let (mut seen, mut path) = (vec![None; waits.len()], Vec::new());
    loop {
        if let Some(first) = seen[at] {
            return Some(path.split_off(first));
        }
        seen[at] = Some(path.len());
        path.push(at);
        at = waits[at].iter().copied().find(|on| left[*on])?;
    }
}

fn in_words(steps: &[Step], cycle: &[usize]) -> String {
    let mut path: Vec<&str> = cycle.iter().map(|at| steps[*at].name.as_str()).collect();
    let more = path.len().saturating_sub(PATH);
    path.truncate(PATH);
    let first = path.first().copied().unwrap_or_default();
    let more = if more > 0 { format!(" -> ({more} more)") } else { String::new() };
    format!(
        "steps wait for each other in a circle: {}{more} -> {first} (each waits for the next): take one of these dependencies away",
        path.join(" -> ")
    )
}
