//! The order within layers: few crossings, by barycentres.

use crate::layout::Piece;

/// Passes up and down; more change little.
const PASSES: usize = 16;
/// Passes without a better order after which no more are made.
const PATIENCE: usize = 4;
/// Up to so many nodes, neighbours are also swapped one by one.
const FEW_NODES: usize = 400;

/// Neighbours of each node, in the layer above and in the one below.
struct Neighbours {
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
}

pub(crate) fn reduce_crossings(layers: &mut Vec<Vec<usize>>, gaps: &[Vec<Piece>], nodes: usize) {
    let mut neighbours = Neighbours { above: vec![Vec::new(); nodes], below: vec![Vec::new(); nodes] };
    for piece in gaps.iter().flatten() {
        neighbours.above[piece.to].push(piece.from);
        neighbours.below[piece.from].push(piece.to);
    }
    let mut places = vec![0; nodes];
    layers.iter().for_each(|layer| number(layer, &mut places));
    let mut best = layers.clone();
    let mut fewest = crossings(gaps, &places);
    let mut without = 0;
    for pass in 0..PASSES {
        if fewest == 0 || without == PATIENCE {
            break;
        }
        sweep(layers, &neighbours, &mut places, pass % 2 == 0);
        if nodes <= FEW_NODES {
            swap_neighbours(layers, &neighbours, &mut places);
        }
        let crossings = crossings(gaps, &places);
        if crossings < fewest {
            fewest = crossings;
            best.clone_from(layers);
            without = 0;
        } else {
            without += 1;
        }
    }
    *layers = best;
}

fn number(layer: &[usize], places: &mut [usize]) {
    for (place, &node) in layer.iter().enumerate() {
        places[node] = place;
    }
}

/// Sorts each layer by where the neighbours of its nodes stand in the layer before.
fn sweep(layers: &mut [Vec<usize>], neighbours: &Neighbours, places: &mut [usize], down: bool) {
    let count = layers.len();
    for turn in 1..count {
        let layer = &mut layers[if down { turn } else { count - 1 - turn }];
        let towards = if down { &neighbours.above } else { &neighbours.below };
        let keys: Vec<f64> = layer.iter().map(|&node| barycentre(node, &towards[node], places)).collect();
        let mut sorted: Vec<usize> = (0..layer.len()).collect();
        sorted.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        *layer = sorted.into_iter().map(|place| layer[place]).collect();
        number(layer, places);
    }
}

/// The mean place of a node's neighbours; one without any stays about where it is.
fn barycentre(node: usize, neighbours: &[usize], places: &[usize]) -> f64 {
    if neighbours.is_empty() {
        return places[node] as f64;
    }
    neighbours.iter().map(|&other| places[other] as f64).sum::<f64>() / neighbours.len() as f64
}

/// Swaps nodes that stand side by side where that saves crossings, until none does.
fn swap_neighbours(layers: &mut [Vec<usize>], neighbours: &Neighbours, places: &mut [usize]) {
    let mut better = true;
    let mut rounds = 0;
    while better && rounds < PASSES {
        better = false;
        rounds += 1;
        for layer in layers.iter_mut() {
            for left in 1..layer.len() {
                let (a, b) = (layer[left - 1], layer[left]);
                let between = |a: usize, b: usize| {
                    pair(&neighbours.above[a], &neighbours.above[b], places)
                        + pair(&neighbours.below[a], &neighbours.below[b], places)
                };
                if between(b, a) < between(a, b) {
                    layer.swap(left - 1, left);
                    places.swap(a, b);
                    better = true;
                }
            }
        }
    }
}

/// The crossings between the edges of a node and of one to its right.
fn pair(left: &[usize], right: &[usize], places: &[usize]) -> usize {
    left.iter().map(|&l| right.iter().filter(|&&r| places[r] < places[l]).count()).sum()
}

fn crossings(gaps: &[Vec<Piece>], places: &[usize]) -> usize {
    gaps.iter().map(|gap| crossings_in(gap, places)).sum()
}

/// Counts inversions with a tree of sums over the places below.
fn crossings_in(gap: &[Piece], places: &[usize]) -> usize {
    let mut ends: Vec<(usize, usize)> =
        gap.iter().map(|piece| (places[piece.from], places[piece.to])).collect();
    ends.sort_unstable();
    let width = ends.iter().map(|&(_, below)| below + 1).max().unwrap_or(0);
    let mut sums = vec![0_usize; width + 1];
    let mut crossings = 0;
    for (seen, &(_, below)) in ends.iter().enumerate() {
        let mut not_right = 0;
        let mut at = below + 1;
        while at > 0 {
            not_right += sums[at];
            at &= at - 1;
        }
        crossings += seen - not_right;
        at = below + 1;
        while at <= width {
            sums[at] += 1;
            at += at & at.wrapping_neg();
        }
    }
    crossings
}
