//! What pods carry to tell others what they do: for Services, disruption budgets, autoscalers, and for an operator
//! that is restarted. One patch of a pod for each transition, and none where nothing is to be told.

use std::collections::BTreeMap;

use stoker_api::keys;

use super::{Action, Snapshot};
use crate::PodView;
use crate::verdict::Verdict;

/// What a pool's pods are to carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkRules {
    /// That they were at work, because they are not used again.
    pub used: bool,
    /// Their state as a label.
    pub state: bool,
    /// The autoscalers' annotations.
    pub disruption: bool,
}

/// Values by key; none = the key is removed.
pub type Marks = BTreeMap<String, Option<String>>;

/// The patches that are due.
pub fn marks(snapshot: Snapshot<'_>, rules: MarkRules) -> Vec<Action> {
    snapshot.pods.iter().filter(|p| p.alive()).filter_map(|p| mark(snapshot, p, rules)).collect()
}

fn mark(snapshot: Snapshot<'_>, pod: &PodView, rules: MarkRules) -> Option<Action> {
    let verdict = snapshot.verdict(pod);
    let (mut labels, mut annotations) = (Marks::new(), Marks::new());
    let state = rules.state.then(|| verdict.as_str());
    due(&mut labels, &pod.labels, keys::STATE, state);
    if rules.used && verdict == Verdict::Busy {
        due(&mut annotations, &pod.annotations, keys::USED, Some("true"));
    }
    if rules.disruption {
        let at_work = matches!(verdict, Verdict::Busy | Verdict::Unknown);
        let (evict, disrupt) = if at_work { ("false", Some("true")) } else { ("true", None) };
        due(&mut annotations, &pod.annotations, keys::SAFE_TO_EVICT, Some(evict));
        due(&mut annotations, &pod.annotations, keys::DO_NOT_DISRUPT, disrupt);
    }
    let nothing = labels.is_empty() && annotations.is_empty();
    (!nothing).then(|| Action::Mark { name: pod.name.clone(), uid: pod.uid.clone(), labels, annotations })
}

fn due(into: &mut Marks, present: &BTreeMap<String, String>, key: &str, wanted: Option<&str>) {
    if present.get(key).map(String::as_str) != wanted {
        into.insert(key.to_owned(), wanted.map(str::to_owned));
    }
}
