//! Which layer each step stands in, and in which order: what a terminal and SVG have in common.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Edge, Graph};
use crate::{order, text};

/// Edges are drawn in pieces, one for each layer they go down. With more pieces than this, edges that others imply
/// are left out.
const MOST_PIECES: usize = 4_000;

/// A graph of which each step has its layer and its place in it.
#[derive(Debug, Clone)]
pub struct Layout {
    pub(crate) graph: Graph,
    /// Steps first, under their numbers, then bends.
    pub(crate) nodes: Vec<Node>,
    /// From the top; in each, the nodes from the left. Empty if there is a circle.
    pub(crate) layers: Vec<Vec<usize>>,
    /// The pieces of edges between a layer and the next, one list shorter than the layers.
    pub(crate) gaps: Vec<Vec<Piece>>,
    /// Steps that run once all others have ended.
    pub(crate) closing: Vec<usize>,
    /// The layer of each step; none for those in or behind a circle, and for closing ones.
    pub(crate) depths: Vec<Option<usize>>,
}

/// What takes a place in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    /// The step of this number.
    Step(usize),
    /// Where edges from one step pass a layer.
    Bend,
}

/// The part of an edge between a layer and the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) label: Option<String>,
}

impl Layout {
    /// Lays out a graph. One with a circle gets no layers and a note that names the circle.
    pub fn new(mut graph: Graph) -> Self {
        clean(&mut graph);
        let count = graph.steps.len();
        let closing: Vec<usize> = (0..count).filter(|&step| graph.steps[step].closing).collect();
        let depths = depths(&graph);
        let mut layout =
            Self { graph, nodes: Vec::new(), layers: Vec::new(), gaps: Vec::new(), closing, depths };
        if let Some(circle) = circle(&layout.graph, &layout.depths) {
            let names: Vec<&str> =
                circle.iter().map(|&step| layout.graph.steps[step].name.as_str()).collect();
            layout
                .graph
                .notes
                .push(format!("a circle, so none of it can start: {}", shortened(&names).join(" → ")));
            return layout;
        }
        let drawn = layout.drawn_edges();
        let left_out = layout.graph.edges.len() - drawn.len();
        if left_out > 0 {
            layout.graph.notes.push(format!("{left_out} dependencies that others imply are not drawn"));
        }
        layout.stack(&drawn);
        order::reduce_crossings(&mut layout.layers, &layout.gaps, layout.nodes.len());
        layout
    }

    /// What a node stands for, if it is a step.
    pub(crate) fn step(&self, node: usize) -> Option<usize> {
        match self.nodes[node] {
            Node::Step(step) => Some(step),
            Node::Bend => None,
        }
    }

    /// Whether steps wait for each other, so that there are no layers.
    pub(crate) fn circled(&self) -> bool {
        self.layers.is_empty() && self.closing.len() < self.graph.steps.len()
    }

    /// The edges to draw: all, or those that no others imply if they are too many.
    fn drawn_edges(&self) -> Vec<Edge> {
        let depth = |step: usize| self.depths[step].unwrap_or(0);
        let pieces: usize = self.graph.edges.iter().map(|edge| depth(edge.to) - depth(edge.from)).sum();
        let long = self.graph.edges.iter().any(|edge| depth(edge.to) - depth(edge.from) > 1);
        if pieces <= MOST_PIECES || !long {
            return self.graph.edges.clone();
        }
        not_implied(&self.graph, &self.depths)
    }

    /// Puts steps into layers, and a bend into each layer that an edge passes. Edges from one step share bends.
    fn stack(&mut self, edges: &[Edge]) {
        self.nodes = (0..self.graph.steps.len()).map(Node::Step).collect();
        let height = self.depths.iter().flatten().max().map_or(0, |deepest| deepest + 1);
        self.layers = vec![Vec::new(); height];
        let mut gaps = vec![BTreeSet::new(); height.saturating_sub(1)];
        for (step, depth) in self.depths.iter().enumerate() {
            if let Some(depth) = depth {
                self.layers[*depth].push(step);
            }
        }
        let mut bends: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for edge in edges {
            let (Some(first), Some(last)) = (self.depths[edge.from], self.depths[edge.to]) else { continue };
            let mut above = edge.from;
            for depth in first + 1..last {
                let bend = *bends.entry((edge.from, depth)).or_insert_with(|| {
                    self.nodes.push(Node::Bend);
                    self.layers[depth].push(self.nodes.len() - 1);
                    self.nodes.len() - 1
                });
                gaps[depth - 1].insert(Piece { from: above, to: bend, label: None });
                above = bend;
            }
            gaps[last - 1].insert(Piece { from: above, to: edge.to, label: edge.label.clone() });
        }
        self.gaps = gaps.into_iter().map(|gap| gap.into_iter().collect()).collect();
    }
}

/// Makes what others wrote fit to be shown, and leaves out edges that cannot be drawn.
fn clean(graph: &mut Graph) {
    graph.title = text::line(&graph.title);
    for step in &mut graph.steps {
        step.name = text::line(&step.name);
        step.detail = text::line(&step.detail);
    }
    for note in &mut graph.notes {
        *note = text::line(note);
    }
    let drawn = |step: usize| graph.steps.get(step).is_some_and(|step| !step.closing);
    graph.edges.retain(|edge| drawn(edge.from) && drawn(edge.to));
    for edge in &mut graph.edges {
        edge.label = edge.label.take().map(|label| text::line(&label)).filter(|label| !label.is_empty());
    }
    let mut seen = BTreeSet::new();
    graph.edges.retain(|edge| seen.insert(edge.clone()));
}

/// The length of the longest path to each step; none for steps that a circle keeps from ever starting.
fn depths(graph: &Graph) -> Vec<Option<usize>> {
    let count = graph.steps.len();
    let mut waits = vec![0_usize; count];
    let mut next = vec![Vec::new(); count];
    for edge in &graph.edges {
        waits[edge.to] += 1;
        next[edge.from].push(edge.to);
    }
    let mut depths = vec![None; count];
    let mut reached = vec![0; count];
    let mut ready: Vec<usize> =
        (0..count).filter(|&step| waits[step] == 0 && !graph.steps[step].closing).collect();
    while let Some(step) = ready.pop() {
        depths[step] = Some(reached[step]);
        for &after in &next[step] {
            reached[after] = reached[after].max(reached[step] + 1);
            waits[after] -= 1;
            if waits[after] == 0 {
                ready.push(after);
            }
        }
    }
    depths
}

/// Steps that wait for each other, the first once more at the end.
fn circle(graph: &Graph, depths: &[Option<usize>]) -> Option<Vec<usize>> {
    let stuck = |step: usize| depths[step].is_none() && !graph.steps[step].closing;
    let start = (0..graph.steps.len()).find(|&step| stuck(step))?;
    // Each step that is stuck waits for one that is stuck: going back along those must come round.
    let mut awaited = BTreeMap::new();
    for edge in graph.edges.iter().filter(|edge| stuck(edge.from) && stuck(edge.to)) {
        awaited.entry(edge.to).or_insert(edge.from);
    }
    let mut path = vec![start];
    let mut at: BTreeMap<usize, usize> = BTreeMap::from([(start, 0)]);
    loop {
        let before = *awaited.get(path.last()?)?;
        path.push(before);
        if let Some(&first) = at.get(&before) {
            let mut circle = path.split_off(first);
            circle.reverse();
            // It begins with the step that was written first.
            circle.pop();
            let least =
                circle.iter().enumerate().min_by_key(|&(_, step)| *step).map_or(0, |(place, _)| place);
            circle.rotate_left(least);
            circle.push(circle[0]);
            return Some(circle);
        }
        at.insert(before, path.len() - 1);
    }
}

/// The ends of a long list.
fn shortened<'a>(names: &[&'a str]) -> Vec<&'a str> {
    const MOST: usize = 12;
    if names.len() <= MOST {
        return names.to_vec();
    }
    [&names[..MOST - 3], &["…"], &names[names.len() - 2..]].concat()
}

/// The edges without those between steps that a longer way joins as well. Labelled ones say more than their order,
/// so they stay.
fn not_implied(graph: &Graph, depths: &[Option<usize>]) -> Vec<Edge> {
    let count = graph.steps.len();
    let words = count.div_ceil(64);
    let mut steps: Vec<usize> = (0..count).filter(|&step| depths[step].is_some()).collect();
    steps.sort_by_key(|&step| depths[step]);
    let mut before: Vec<Vec<&Edge>> = vec![Vec::new(); count];
    for edge in &graph.edges {
        before[edge.to].push(edge);
    }
    // Which steps come before each, a bit for each step.
    let mut earlier = vec![vec![0_u64; words]; count];
    let mut kept = Vec::new();
    for step in steps {
        // From the nearest: a far one that a near one reaches is implied.
        before[step].sort_by_key(|edge| (std::cmp::Reverse(depths[edge.from]), edge.from));
        let mut reached = vec![0_u64; words];
        for &edge in &before[step] {
            let from = edge.from;
            if reached[from / 64] >> (from % 64) & 1 == 0 || edge.label.is_some() {
                kept.push(edge.clone());
            }
            for (word, more) in reached.iter_mut().zip(&earlier[from]) {
                *word |= more;
            }
            reached[from / 64] |= 1 << (from % 64);
        }
        earlier[step] = reached;
    }
    kept.sort_by_key(|edge| (edge.from, edge.to));
    kept
}
