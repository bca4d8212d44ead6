//! Which nodes are chosen: a table of nodes and of what a spec and its pods demand.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stoker_core::fan_out::{NodeView, PassedOver, Rules, Taint};

fn node(labels: &[(&str, &str)]) -> NodeView {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    NodeView {
        name: "a".to_owned(),
        uid: "1".to_owned(),
        labels: labels.collect(),
        ready: true,
        ..NodeView::default()
    }
}

fn tainted(key: &str, value: &str, effect: &str) -> NodeView {
    let taint = Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() };
    NodeView { taints: vec![taint], ..node(&[]) }
}

fn rules(pod: Value) -> Rules {
    Rules::of_pod(pod.as_object().unwrap())
}

fn affinity(terms: Value) -> Rules {
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    rules(json!({"affinity": {"nodeAffinity": required}}))
}

#[test]
fn a_node_that_is_ready_and_has_no_taints_is_chosen() {
    assert_eq!(rules(json!({})).choose(&node(&[])), Ok(()));
}

#[test]
fn nodes_that_are_not_ready_are_never_chosen_and_cordoned_ones_by_choice() {
    let unready = NodeView { ready: false, ..node(&[]) };
    let cordoned =
        NodeView { unschedulable: true, ..tainted("node.kubernetes.io/unschedulable", "", "NoSchedule") };
    let mut rules = rules(json!({}));
    assert_eq!(rules.choose(&unready), Err(PassedOver::NotReady));
    assert_eq!(rules.choose(&cordoned), Err(PassedOver::Cordoned));
    rules.cordoned = true;
    assert_eq!(rules.choose(&cordoned), Ok(()));
    assert_eq!(rules.choose(&unready), Err(PassedOver::NotReady));
}

#[test]
fn names_and_labels_choose_and_exclude() {
    let by = |change: fn(&mut Rules)| {
        let mut rules = rules(json!({}));
        change(&mut rules);
        rules.choose(&node(&[("disk", "ssd")]))
    };
    let excluded = Err(PassedOver::Excluded);
    assert_eq!(by(|rules| rules.excluded = ["a".to_owned()].into()), excluded);
    assert_eq!(by(|rules| rules.excluded = ["b".to_owned()].into()), Ok(()));
    assert_eq!(by(|rules| rules.only = Some("b".to_owned())), excluded);
    assert_eq!(by(|rules| rules.only = Some("a".to_owned())), Ok(()));
    let labels = |value: &str| BTreeMap::from([("disk".to_owned(), value.to_owned())]);
    let mut wanted = rules(json!({}));
    wanted.labels = labels("hdd");
    assert_eq!(wanted.choose(&node(&[("disk", "ssd")])), Err(PassedOver::Unselected));
    wanted.labels = labels("ssd");
    assert_eq!(wanted.choose(&node(&[("disk", "ssd")])), Ok(()));
    let of_pod = rules(json!({"nodeSelector": {"disk": "hdd"}}));
    assert_eq!(of_pod.choose(&node(&[("disk", "ssd")])), Err(PassedOver::Unselected));
    assert_eq!(rules(json!({"nodeName": "b"})).choose(&node(&[])), excluded);
}

#[test]
fn taints_repel_unless_they_are_tolerated() {
    let gpu = json!({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"});
    let table = [
        (json!([]), "NoSchedule", false),
        (json!([]), "NoExecute", false),
        (json!([]), "PreferNoSchedule", true),
        (json!([gpu]), "NoSchedule", true),
        (json!([gpu]), "NoExecute", false),
        (json!([{"key": "gpu", "value": "yes"}]), "NoExecute", true),
        (json!([{"key": "gpu", "value": "no"}]), "NoSchedule", false),
        (json!([{"key": "gpu", "operator": "Exists"}]), "NoSchedule", true),
        (json!([{"operator": "Exists"}]), "NoExecute", true),
        (json!([{"operator": "Exists", "effect": "NoExecute"}]), "NoSchedule", false),
        (json!([{"key": "other", "operator": "Exists"}]), "NoSchedule", false),
        (json!([{"key": "gpu", "operator": "Gt", "value": "1"}]), "NoSchedule", false),
    ];
    for (tolerations, effect, chosen) in table {
        let found = rules(json!({"tolerations": tolerations})).choose(&tainted("gpu", "yes", effect));
        let expected = if chosen { Ok(()) } else { Err(PassedOver::Tainted) };
        assert_eq!(found, expected, "{tolerations} {effect}");
    }
}

#[test]
fn required_node_affinity_is_read_as_the_scheduler_reads_it() {
    let node = node(&[("zone", "a"), ("cpus", "8")]);
    let expression = |key: &str, operator: &str, values: &[&str]| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
    let table = [
        (expression("zone", "In", &["a", "b"]), true),
        (expression("zone", "In", &["b"]), false),
        (expression("none", "In", &["a"]), false),
        (expression("zone", "NotIn", &["a"]), false),
        (expression("zone", "NotIn", &["b"]), true),
        (expression("none", "NotIn", &["a"]), true),
        (expression("zone", "Exists", &[]), true),
        (expression("none", "Exists", &[]), false),
        (expression("zone", "DoesNotExist", &[]), false),
        (expression("none", "DoesNotExist", &[]), true),
        (expression("cpus", "Gt", &["7"]), true),
        (expression("cpus", "Gt", &["8"]), false),
        (expression("cpus", "Lt", &["9"]), true),
        (expression("zone", "Lt", &["9"]), false),
        (expression("none", "Gt", &["1"]), false),
        (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]), true),
        (json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]}]), false),
        (json!([{"matchFields": [{"key": "metadata.uid", "operator": "NotIn", "values": ["a"]}]}]), false),
        // One of the terms is enough; one that demands nothing never holds.
        (json!([{}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]), true),
        (json!([{}]), false),
        (json!([]), false),
        // All of a term's demands must be met.
        (
            json!([{"matchExpressions": [
                {"key": "zone", "operator": "Exists"}, {"key": "none", "operator": "Exists"}]}]),
            false,
        ),
    ];
    for (terms, chosen) in table {
        let expected = if chosen { Ok(()) } else { Err(PassedOver::Unselected) };
        assert_eq!(affinity(terms.clone()).choose(&node), expected, "{terms}");
    }
    let preferred =
        json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}});
    assert_eq!(rules(preferred).choose(&node), Ok(()));
}
