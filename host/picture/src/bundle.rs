//! Edges that are drawn together: all of some nodes to all of some others. A step of a hundred that wait for the same
//! hundred is so two hundred lines, not ten thousand, and it can be read.

use std::collections::BTreeMap;

use crate::layout::Piece;

/// Every source is joined to every target, and to nothing else by this bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    pub(crate) sources: Vec<usize>,
    pub(crate) targets: Vec<usize>,
    pub(crate) label: Option<String>,
}

type Key<'a> = (&'a Option<String>, Vec<usize>);

/// The pieces between two layers in as few bundles as one of two simple ways gives: targets that share their sources,
/// or sources that share their targets.
pub(crate) fn bundles(gap: &[Piece]) -> Vec<Bundle> {
    let by_target = shared(gap.iter().map(|piece| (piece.to, piece.from, &piece.label)));
    let by_source = shared(gap.iter().map(|piece| (piece.from, piece.to, &piece.label)));
    if by_source.len() < by_target.len() {
        let bundle =
            |((label, targets), sources): (Key<'_>, _)| Bundle { sources, targets, label: label.clone() };
        by_source.into_iter().map(bundle).collect()
    } else {
        let bundle =
            |((label, sources), targets): (Key<'_>, _)| Bundle { sources, targets, label: label.clone() };
        by_target.into_iter().map(bundle).collect()
    }
}

/// Ends that have the same label and the same set of others, under these.
fn shared<'a>(
    pieces: impl Iterator<Item = (usize, usize, &'a Option<String>)>,
) -> BTreeMap<Key<'a>, Vec<usize>> {
    let mut others: BTreeMap<(usize, &Option<String>), Vec<usize>> = BTreeMap::new();
    for (end, other, label) in pieces {
        others.entry((end, label)).or_default().push(other);
    }
    let mut ends: BTreeMap<Key<'_>, Vec<usize>> = BTreeMap::new();
    for ((end, label), mut set) in others {
        set.sort_unstable();
        ends.entry((label, set)).or_default().push(end);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(from: usize, to: usize) -> Piece {
        Piece { from, to, label: None }
    }

    #[test]
    fn all_to_all_is_one_bundle() {
        let gap: Vec<Piece> = (0..100).flat_map(|from| (100..200).map(move |to| piece(from, to))).collect();
        assert_eq!(bundles(&gap).len(), 1);
    }

    #[test]
    fn a_lattice_is_bundled_by_its_sources() {
        let bundles = bundles(&[piece(0, 2), piece(0, 3), piece(1, 3), piece(1, 4)]);
        let bundle = |source, targets: &[usize]| Bundle {
            sources: vec![source],
            targets: targets.to_vec(),
            label: None,
        };
        assert_eq!(bundles, [bundle(0, &[2, 3]), bundle(1, &[3, 4])]);
    }

    #[test]
    fn edges_with_labels_are_apart() {
        let failed = Piece { label: Some("Failed".to_owned()), ..piece(0, 2) };
        assert_eq!(bundles(&[piece(0, 1), failed]).len(), 2);
    }
}
