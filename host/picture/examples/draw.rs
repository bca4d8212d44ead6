//! Draws what standard input describes, for a look at it: `NAME STATE DETAIL…` for a step, `A -> B LABEL` for an edge,
//! `end NAME STATE DETAIL…` for a step at the end. `cargo run -p stoker-picture --example draw -- [svg | WIDTH]`

use std::io::Read as _;

use stoker_picture::{Edge, Graph, Layout, State, Step, svg, terminal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let mut graph = Graph { title: "drawn from standard input".to_owned(), ..Graph::default() };
    let place = |graph: &Graph, name: &str| graph.steps.iter().position(|step| step.name == name);
    for line in text.lines() {
        let (line, closing) = line.strip_prefix("end ").map_or((line, false), |rest| (rest, true));
        let mut words = line.split_whitespace();
        let (Some(name), Some(second)) = (words.next(), words.next()) else { continue };
        let state = match second {
            "->" => {
                let to = words.next().and_then(|to| place(&graph, to)).ok_or(line)?;
                let label = words.next().map(str::to_owned);
                graph.edges.push(Edge { from: place(&graph, name).ok_or(line)?, to, label });
                continue;
            }
            "succeeded" => State::Succeeded,
            "failed" => State::Failed,
            "running" => State::Running,
            "skipped" => State::Skipped,
            _ => State::Waiting,
        };
        let detail = words.collect::<Vec<_>>().join(" ");
        graph.steps.push(Step { name: name.to_owned(), state, detail, closing });
    }
    let layout = Layout::new(graph);
    match std::env::args().nth(1).as_deref() {
        Some("svg") => print!("{}", svg(&layout)),
        width => print!("{}", terminal(&layout, width.unwrap_or("100").parse()?, width.is_none())),
    }
    Ok(())
}
