//! The edges of a picture: curves from box to box, through a point where many go to many.

use std::fmt::Write as _;

use super::paper::{LINE, Paper, Point};
use crate::bundle::Bundle;

/// Which way the layers follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Down,
    Right,
}

impl Way {
    /// A point from how far along it is and how far across.
    pub(crate) fn point(self, along: i64, across: i64) -> Point {
        match self {
            Self::Down => (across, along),
            Self::Right => (along, across),
        }
    }
}

/// A stretch between two layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) way: Way,
    /// Where the layer above ends.
    pub(crate) from: i64,
    /// Where the layer below begins.
    pub(crate) to: i64,
}

/// Curves, and what is written on them once all curves are drawn.
pub(crate) struct Edges {
    paths: String,
    points: String,
    labels: Vec<(Point, String)>,
}

impl Edges {
    pub(crate) fn new() -> Self {
        Self { paths: String::new(), points: String::new(), labels: Vec::new() }
    }

    /// One bundle. `ends` gives where a node stands across, and whether it is a bend.
    pub(crate) fn bundle(&mut self, bundle: &Bundle, stretch: Stretch, ends: impl Fn(usize) -> (i64, bool)) {
        let (sources, targets) = (bundle.sources.len(), bundle.targets.len());
        let Stretch { way, from, to } = stretch;
        let middle = (from + to) / 2;
        if sources * targets <= sources + targets {
            for &source in &bundle.sources {
                for &target in &bundle.targets {
                    let (start, (end, bend)) = (ends(source).0, ends(target));
                    self.curve(way, (from, start), (to, end), !bend);
                    if let Some(label) = &bundle.label {
                        self.label(way.point(middle, (start + end) / 2), label);
                    }
                }
            }
            return;
        }
        // All to all: through one point.
        let all = || bundle.sources.iter().chain(&bundle.targets).map(|&node| ends(node).0);
        let across = all().sum::<i64>() / i64::try_from(sources + targets).unwrap_or(1);
        for &source in &bundle.sources {
            self.curve(way, (from, ends(source).0), (middle, across), false);
        }
        for &target in &bundle.targets {
            let (end, bend) = ends(target);
            self.curve(way, (middle, across), (to, end), !bend);
        }
        let (x, y) = way.point(middle, across);
        writeln!(self.points, r#"<circle cx="{x}" cy="{y}" r="3"/>"#).ok();
        if let Some(label) = &bundle.label {
            self.label(way.point(middle + 14, across), label);
        }
    }

    /// The line of a bend through its layer.
    pub(crate) fn through(&mut self, stretch: Stretch, across: i64) {
        let ((x0, y0), (x1, y1)) =
            (stretch.way.point(stretch.from, across), stretch.way.point(stretch.to, across));
        writeln!(self.paths, r#"<path d="M{x0} {y0}L{x1} {y1}"/>"#).ok();
    }

    /// A curve that leaves and arrives along the way.
    fn curve(&mut self, way: Way, start: (i64, i64), end: (i64, i64), arrow: bool) {
        let middle = (start.0 + end.0) / 2;
        let ((x0, y0), (x3, y3)) = (way.point(start.0, start.1), way.point(end.0, end.1));
        let ((x1, y1), (x2, y2)) = (way.point(middle, start.1), way.point(middle, end.1));
        let curve = if start.1 == end.1 {
            format!("M{x0} {y0}L{x3} {y3}")
        } else {
            format!("M{x0} {y0}C{x1} {y1} {x2} {y2} {x3} {y3}")
        };
        let (class, arrow) =
            if arrow { (" class=\"arrives\"", " marker-end=\"url(#stoker-arrow)\"") } else { ("", "") };
        writeln!(self.paths, r#"<path{class} d="{curve}"{arrow}/>"#).ok();
    }

    fn label(&mut self, (x, y): Point, label: &str) {
        self.labels.push(((x, y + 4), label.to_owned()));
    }

    pub(crate) fn draw(self, paper: &mut Paper) {
        paper.raw(&format!(
            "<g class=\"edges\" fill=\"none\" stroke=\"{LINE}\" stroke-width=\"1.5\">\n{}</g>\n<g fill=\"{LINE}\">\n{}</g>",
            self.paths, self.points
        ));
        for (at, label) in self.labels {
            paper.label(at, &label);
        }
    }
}
