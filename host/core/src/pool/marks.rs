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
    if !rules.state {
        labels.insert(keys::STATE.to_owned(), None);
    }
    of_state(verdict, rules, &mut labels, &mut annotations);
    if rules.used && verdict == Verdict::Busy {
        annotations.insert(keys::USED.to_owned(), Some("true".to_owned()));
    }
    for (marks, present) in [(&mut labels, &pod.labels), (&mut annotations, &pod.annotations)] {
        marks.retain(|key, wanted| present.get(key) != wanted.as_ref());
    }
    let nothing = labels.is_empty() && annotations.is_empty();
    (!nothing).then(|| Action::Mark {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        resource_version: None,
        labels,
        annotations,
    })
}

/// What tells others what a pod does.
pub(crate) fn of_state(verdict: Verdict, rules: MarkRules, labels: &mut Marks, annotations: &mut Marks) {
    let text = |text: &str| Some(text.to_owned());
    if rules.state {
        labels.insert(keys::STATE.to_owned(), text(verdict.as_str()));
    }
    if rules.disruption {
        let at_work = matches!(verdict, Verdict::Busy | Verdict::Claimed | Verdict::Unknown);
        let (evict, disrupt) = if at_work { ("false", text("true")) } else { ("true", None) };
        annotations.insert(keys::SAFE_TO_EVICT.to_owned(), text(evict));
        annotations.insert(keys::DO_NOT_DISRUPT.to_owned(), disrupt);
    }
}
