//! Where nodes stand along their layers: near what they are joined to, and never on each other.

use crate::layout::{Layout, Node};

/// Rounds of pulling, down and up.
const ROUNDS: usize = 24;
/// How hard an edge between two bends is pulled straight, and one between a bend and a step.
const BEND_TO_BEND: f64 = 8.0;
const BEND_TO_STEP: f64 = 2.0;

/// The centre of each node, from 0 at the left edge of the leftmost. `half` is half of each node's breadth, without
/// its middle; `gap` the least distance between nodes.
pub(crate) fn centres(layout: &Layout, half: &[i64], middle: i64, gap: i64) -> Vec<i64> {
    let pulls = pulls(layout);
    let apart = |a: usize, b: usize| half[a] + half[b] + middle + gap;
    let mut at = vec![0.0; layout.nodes.len()];
    for layer in &layout.layers {
        let mut x = 0.0;
        for pair in layer.windows(2) {
            x += apart(pair[0], pair[1]) as f64;
            at[pair[1]] = x;
        }
        // Layers begin centred on each other.
        for &node in layer {
            at[node] -= x / 2.0;
        }
    }
    for round in 0..ROUNDS {
        let down = round % 2 == 0;
        // The last rounds look both ways.
        let both = round + 4 >= ROUNDS;
        for turn in 0..layout.layers.len() {
            let layer = &layout.layers[if down { turn } else { layout.layers.len() - 1 - turn }];
            let wanted: Vec<(f64, f64)> = layer
                .iter()
                .map(|&node| {
                    let (above, below) = &pulls[node];
                    let mut pulls: Vec<(usize, f64)> = Vec::new();
                    if both || down || below.is_empty() {
                        pulls.extend(above);
                    }
                    if both || !down || above.is_empty() {
                        pulls.extend(below);
                    }
                    let weight: f64 = pulls.iter().map(|&(_, weight)| weight).sum();
                    if weight == 0.0 {
                        return (at[node], 0.1);
                    }
                    (pulls.iter().map(|&(other, weight)| at[other] * weight).sum::<f64>() / weight, weight)
                })
                .collect();
            let apart: Vec<f64> = layer.windows(2).map(|pair| apart(pair[0], pair[1]) as f64).collect();
            for (&node, x) in layer.iter().zip(packed(&wanted, &apart)) {
                at[node] = x;
            }
        }
    }
    // Whole distances are kept by rounding.
    let mut at: Vec<i64> = at.into_iter().map(|x| (x + 0.5).floor() as i64).collect();
    straighten(layout, &mut at, &apart);
    straighten_bends(layout, &mut at, &apart);
    let left = layout.layers.iter().flatten().map(|&node| at[node] - half[node]).min().unwrap_or(0);
    at.iter_mut().for_each(|x| *x -= left);
    at
}

/// For each node what pulls it, above and below, and how hard.
type Pulls = (Vec<(usize, f64)>, Vec<(usize, f64)>);

fn pulls(layout: &Layout) -> Vec<Pulls> {
    let mut pulls: Vec<Pulls> = vec![Pulls::default(); layout.nodes.len()];
    let bend = |node: usize| layout.nodes[node] == Node::Bend;
    for piece in layout.gaps.iter().flatten() {
        let weight = match (bend(piece.from), bend(piece.to)) {
            (true, true) => BEND_TO_BEND,
            (false, false) => 1.0,
            _ => BEND_TO_STEP,
        };
        pulls[piece.to].0.push((piece.from, weight));
        pulls[piece.from].1.push((piece.to, weight));
    }
    pulls
}

/// Places in order, each at least `apart` from the one before, that are as near to the wanted ones as can be (least
/// sum of weighted squares). Those that would come too near each other move as one block.
pub(crate) fn packed(wanted: &[(f64, f64)], apart: &[f64]) -> Vec<f64> {
    struct Block {
        sum: f64,
        weight: f64,
        count: usize,
    }
    let offsets: Vec<f64> = std::iter::once(0.0)
        .chain(apart.iter().scan(0.0, |sum, distance| {
            *sum += distance;
            Some(*sum)
        }))
        .collect();
    let mut blocks: Vec<Block> = Vec::new();
    for (&(x, weight), offset) in wanted.iter().zip(&offsets) {
        let mut block = Block { sum: (x - offset) * weight, weight, count: 1 };
        while let Some(last) = blocks.pop() {
            if last.sum / last.weight <= block.sum / block.weight {
                blocks.push(last);
                break;
            }
            block.sum += last.sum;
            block.weight += last.weight;
            block.count += last.count;
        }
        blocks.push(block);
    }
    let bases = blocks.iter().flat_map(|block| std::iter::repeat_n(block.sum / block.weight, block.count));
    bases.zip(offsets).map(|(base, offset)| base + offset).collect()
}

/// Takes small bends out of edges that join two nodes and nothing else, where there is room.
fn straighten(layout: &Layout, at: &mut [i64], apart: &impl Fn(usize, usize) -> i64) {
    let mut above = vec![Vec::new(); at.len()];
    let mut below = vec![Vec::new(); at.len()];
    for piece in layout.gaps.iter().flatten() {
        above[piece.to].push(piece.from);
        below[piece.from].push(piece.to);
    }
    let only = |nodes: &[usize]| if let [node] = nodes { Some(*node) } else { None };
    let mut fit = |layer: &[usize], from: &[Vec<usize>], back: &[Vec<usize>]| {
        for (place, &node) in layer.iter().enumerate() {
            let Some(other) = only(&from[node]) else { continue };
            if only(&back[other]) != Some(node) {
                continue;
            }
            let free_left = place == 0 || at[other] - at[layer[place - 1]] >= apart(layer[place - 1], node);
            let free_right =
                layer.get(place + 1).is_none_or(|&right| at[right] - at[other] >= apart(node, right));
            if free_left && free_right {
                at[node] = at[other];
            }
        }
    };
    for layer in &layout.layers {
        fit(layer, &above, &below);
    }
    for layer in layout.layers.iter().rev() {
        fit(layer, &below, &above);
    }
}

/// Puts the bends of a long edge into one line, where all their layers have room for it.
fn straighten_bends(layout: &Layout, at: &mut [i64], apart: &impl Fn(usize, usize) -> i64) {
    let mut below = vec![Vec::new(); at.len()];
    let mut first = vec![true; at.len()];
    let bend = |node: usize| layout.nodes[node] == Node::Bend;
    for piece in layout.gaps.iter().flatten().filter(|piece| bend(piece.from) && bend(piece.to)) {
        below[piece.from].push(piece.to);
        first[piece.to] = false;
    }
    let mut place = vec![(0, 0); at.len()];
    for (depth, layer) in layout.layers.iter().enumerate() {
        layer.iter().enumerate().for_each(|(index, &node)| place[node] = (depth, index));
    }
    for start in (0..at.len()).filter(|&node| bend(node) && first[node]) {
        let mut chain = vec![start];
        while let Some(&[next]) = chain.last().map(|&node| below[node].as_slice()) {
            chain.push(next);
        }
        let (mut least, mut most) = (i64::MIN, i64::MAX);
        for &node in &chain {
            let (depth, index) = place[node];
            let layer = &layout.layers[depth];
            if let Some(&left) = index.checked_sub(1).and_then(|left| layer.get(left)) {
                least = least.max(at[left] + apart(left, node));
            }
            if let Some(&right) = layer.get(index + 1) {
                most = most.min(at[right] - apart(node, right));
            }
        }
        if least <= most {
            let mut columns: Vec<i64> = chain.iter().map(|&node| at[node]).collect();
            columns.sort_unstable();
            let column = columns[columns.len() / 2].clamp(least, most);
            chain.iter().for_each(|&node| at[node] = column);
        }
    }
}
