//! The lines between two layers of a terminal's picture: where they leave and arrive, and which row each turns in.
//!
//! Lines of different bundles never share a column or a row's stretch, so what is joined is joined by meaning. Where
//! they cross, the line down interrupts the line across.

use std::collections::BTreeMap;

use crate::bundle::Bundle;
use crate::place::packed;
use crate::text;

/// Least distance of two lines at one box.
const APART: i64 = 2;
/// How far from a box's corners lines leave it and arrive: one that arrives may yet be moved aside.
const LEAVING: i64 = 1;
const ARRIVING: i64 = 2;

/// What a node is to its lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    /// Its middle column; of a bend the one where its line comes in.
    pub(crate) centre: i64,
    pub(crate) half: i64,
    /// A bend is a line itself, so lines arrive in its middle.
    pub(crate) bend: bool,
}

impl Spot {
    /// The columns that are so far inside.
    fn inner(self, inside: i64) -> (i64, i64) {
        let inside = if self.bend { 0 } else { inside };
        (self.centre - self.half + inside, self.centre + self.half - inside)
    }
}

/// A bundle on its way from a layer to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wire {
    /// The columns where it leaves, each with its node.
    pub(crate) tops: Vec<(i64, usize)>,
    /// The columns where it arrives, each with its node.
    pub(crate) bottoms: Vec<(i64, usize)>,
    pub(crate) label: Option<String>,
    /// The row in which it runs across; none if it goes straight down.
    pub(crate) row: Option<usize>,
}

impl Wire {
    fn columns(&self) -> impl Iterator<Item = i64> + '_ {
        self.tops.iter().chain(&self.bottoms).map(|&(column, _)| column)
    }

    /// Its leftmost and its rightmost column.
    pub(crate) fn span(&self) -> (i64, i64) {
        (self.columns().min().unwrap_or(0), self.columns().max().unwrap_or(0))
    }

    fn straight(&self) -> bool {
        let (left, right) = self.span();
        left == right
    }

    /// The columns of a label and of the line that it is written beside.
    pub(crate) fn label_room(label: Option<&String>) -> i64 {
        label.map_or(0, |label| columns(text::width(label)) + 1)
    }
}

/// A text's width as a column.
pub(crate) fn columns(width: usize) -> i64 {
    i64::try_from(width).unwrap_or(i64::MAX / 4)
}

/// Half the breadth that a box needs for its lines.
pub(crate) fn half_for(arriving: &[&Bundle], leaving: usize) -> i64 {
    let labels: i64 = arriving.iter().map(|bundle| Wire::label_room(bundle.label.as_ref())).sum();
    let above = labels + APART * columns(arriving.len().saturating_sub(1)) + if labels > 0 { 3 } else { 4 };
    let below = APART * columns(leaving.saturating_sub(1)) + 2;
    (above.max(below) + 1) / 2
}

/// Routes all bundles of a gap. Bends below may be moved aside by a column.
pub(crate) fn route(bundles: &[Bundle], spots: &mut [Spot]) -> Vec<Wire> {
    let mut wires: Vec<Wire> = bundles
        .iter()
        .map(|bundle| Wire { tops: Vec::new(), bottoms: Vec::new(), label: bundle.label.clone(), row: None })
        .collect();
    leave(bundles, spots, &mut wires);
    arrive(bundles, spots, &mut wires);
    move_aside(&mut wires, spots);
    assign_rows(&mut wires);
    wires
}

/// The bundles at each node, in the order of what they lead to.
fn at_nodes<'a>(
    bundles: &'a [Bundle],
    spots: &[Spot],
    ends: impl Fn(&'a Bundle) -> (&'a [usize], &'a [usize]),
) -> BTreeMap<usize, Vec<usize>> {
    let mut at: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, bundle) in bundles.iter().enumerate() {
        ends(bundle).0.iter().for_each(|&node| at.entry(node).or_default().push(index));
    }
    let mean = |index: usize| {
        let others = ends(&bundles[index]).1;
        others.iter().map(|&node| spots[node].centre as f64).sum::<f64>() / others.len().max(1) as f64
    };
    at.values_mut().for_each(|here| here.sort_by(|&a, &b| mean(a).total_cmp(&mean(b))));
    at
}

/// Spreads the lines that leave each node.
fn leave(bundles: &[Bundle], spots: &[Spot], wires: &mut [Wire]) {
    for (node, here) in at_nodes(bundles, spots, |bundle| (&bundle.sources, &bundle.targets)) {
        let spot = spots[node];
        let wanted = here.iter().map(|&index| {
            match (bundles[index].sources.as_slice(), bundles[index].targets.as_slice()) {
                ([_], [target]) => straight_down(spot, spots[*target]),
                _ => spot.centre,
            }
        });
        let rooms = vec![0; here.len()];
        for (&index, column) in here.iter().zip(spread(wanted, &rooms, spot, LEAVING)) {
            wires[index].tops.push((column, node));
        }
    }
}

/// Where a line that joins two nodes only leaves: so that it can go straight down, if that is possible at all.
fn straight_down(from: Spot, to: Spot) -> i64 {
    let (from_left, from_right) = from.inner(LEAVING);
    let (to_left, to_right) = to.inner(ARRIVING);
    let (left, right) = (from_left.max(to_left), from_right.min(to_right));
    if left <= right { from.centre.clamp(left, right) } else { from.centre }
}

/// Spreads the lines that arrive at each node, with room for their labels.
fn arrive(bundles: &[Bundle], spots: &[Spot], wires: &mut [Wire]) {
    for (node, here) in at_nodes(bundles, spots, |bundle| (&bundle.targets, &bundle.sources)) {
        let spot = spots[node];
        if spot.bend {
            here.iter().for_each(|&index| wires[index].bottoms.push((spot.centre, node)));
            continue;
        }
        let wanted = here.iter().map(|&index| {
            match (wires[index].tops.as_slice(), bundles[index].targets.as_slice()) {
                ([(top, _)], [_]) if (spot.inner(ARRIVING).0..=spot.inner(ARRIVING).1).contains(top) => *top,
                _ => spot.centre,
            }
        });
        let rooms: Vec<i64> =
            here.iter().map(|&index| Wire::label_room(wires[index].label.as_ref())).collect();
        for (&index, column) in
            here.iter().zip(spread(wanted.collect::<Vec<_>>().into_iter(), &rooms, spot, ARRIVING))
        {
            wires[index].bottoms.push((column, node));
        }
    }
}

/// Columns at a node, in order, as near to the wanted ones as its breadth allows, each with room to its right.
fn spread(wanted: impl Iterator<Item = i64>, rooms: &[i64], spot: Spot, inside: i64) -> Vec<i64> {
    let (least, most) = spot.inner(inside);
    let steps: Vec<i64> = rooms.iter().map(|room| room + APART).collect();
    let wanted: Vec<(f64, f64)> = wanted.map(|x| (x.clamp(least, most.max(least)) as f64, 1.0)).collect();
    let apart: Vec<f64> = steps.iter().take(steps.len().saturating_sub(1)).map(|&step| step as f64).collect();
    let mut columns: Vec<i64> =
        packed(&wanted, &apart).into_iter().map(|x| (x + 0.5).floor() as i64).collect();
    let mut limit = most;
    for (place, column) in columns.iter_mut().enumerate().rev() {
        // A label may reach up to the frame.
        let room = if place + 1 == rooms.len() { (rooms[place] + 1 - inside).max(0) } else { 0 };
        *column = (*column).min(limit - room);
        limit = *column - if place > 0 { steps[place - 1] } else { 0 };
    }
    let mut limit = least;
    for (column, step) in columns.iter_mut().zip(&steps) {
        *column = (*column).max(limit);
        limit = *column + step;
    }
    columns
}

/// Whether one wire must turn above another: the one comes down in a column that the other goes on in.
fn above(upper: &Wire, lower: &Wire) -> bool {
    upper.tops.iter().any(|&(top, _)| lower.bottoms.iter().any(|&(bottom, _)| bottom == top))
}

/// Moves arrivals aside by a column where wires would each have to turn above the other.
fn move_aside(wires: &mut [Wire], spots: &mut [Spot]) {
    loop {
        let mut left: Vec<usize> = (0..wires.len()).collect();
        let free = |left: &[usize], index: usize| {
            !left.iter().any(|&o| o != index && above(&wires[o], &wires[index]))
        };
        while let Some(place) = left.iter().position(|&index| free(&left, index)) {
            left.remove(place);
        }
        let Some(&index) = left.first() else { return };
        let others = left.iter().filter(|&&other| other != index);
        let tops: Vec<i64> =
            others.flat_map(|&other| wires[other].tops.iter().map(|&(top, _)| top)).collect();
        for (column, node) in wires[index].bottoms.iter_mut().filter(|(column, _)| tops.contains(column)) {
            // Lines that leave are two columns apart at least, so the next column has none.
            *column += 1;
            if spots[*node].bend {
                spots[*node].centre = *column;
            }
        }
    }
}

/// Gives wires that run across their rows: what must be above is, and otherwise so that they cross little.
fn assign_rows(wires: &mut [Wire]) {
    let mut order: Vec<usize> = Vec::new();
    let mut left: Vec<usize> = (0..wires.len()).collect();
    left.sort_by_key(|&index| wires[index].span());
    while !left.is_empty() {
        let free = |&index: &usize| !left.iter().any(|&o| o != index && above(&wires[o], &wires[index]));
        order.push(left.remove(left.iter().position(free).unwrap_or(0)));
    }
    order.retain(|&index| !wires[index].straight());
    for _ in 0..order.len() {
        for place in 1..order.len() {
            let (a, b) = (&wires[order[place - 1]], &wires[order[place]]);
            if !above(a, b) && crossings(b, a) < crossings(a, b) {
                order.swap(place - 1, place);
            }
        }
    }
    for place in 0..order.len() {
        let (left, right) = wires[order[place]].span();
        let meets = |wire: &Wire| {
            let span = wire.span();
            span.0 <= right && left <= span.1
        };
        let over = order[..place].iter().map(|&index| &wires[index]).filter(|wire| meets(wire));
        wires[order[place]].row = Some(over.filter_map(|wire| wire.row).max().map_or(0, |row| row + 1));
    }
}

/// How often two wires cross if one turns above the other.
fn crossings(upper: &Wire, lower: &Wire) -> usize {
    let within = |column: i64, wire: &Wire| {
        let (left, right) = wire.span();
        left < column && column < right
    };
    lower.tops.iter().filter(|&&(column, _)| within(column, upper)).count()
        + upper.bottoms.iter().filter(|&&(column, _)| within(column, lower)).count()
}
