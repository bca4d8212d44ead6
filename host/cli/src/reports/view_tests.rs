//! Views, from what was seen.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use stoker_api::NodeRecord;
use stoker_core::Phase;
use stoker_core::fan_out::NodeView as CoreNode;

use super::super::fixtures::{EXECUTION, node, object, pod};
use super::*;

/// What is looked at in a node's view: the number of the pod's attempt, those of the earlier ones, and the state.
type Seen = (u16, Vec<u16>, NodeState);

fn name(attempt: u16) -> String {
    node_batch::pod_name("disks", "job-uid", "n1", "n1-uid", EXECUTION, attempt)
}

fn record(change: impl FnOnce(&mut Record, NodeKey)) -> NodeRecord {
    let mut record = Record::default();
    change(&mut record, NodeKey::of("n1-uid"));
    record.write()
}

fn execution(record: NodeRecord, over: bool, more: Value) -> Value {
    let mut execution = json!({
        "id": EXECUTION, "cause": "Schedule", "startTime": "2026-08-03T09:10:00Z", "state": "Running",
        "nodes": {"desired": 1, "running": 0, "succeeded": 0, "failed": 0, "pending": 0, "gone": 0},
        "record": record,
    });
    if over {
        execution["state"] = json!("Failed");
        execution["completionTime"] = json!("2026-08-03T09:20:00Z");
    }
    if let (Some(execution), Value::Object(more)) = (execution.as_object_mut(), more) {
        execution.extend(more);
    }
    execution
}

fn nodes(all: &[CoreNode]) -> Nodes {
    let mut nodes = Nodes::default();
    for node in all {
        nodes.put(node.clone());
    }
    nodes
}

fn seen(executions: Value, pods: &[NodePod], nodes: &Nodes) -> JobView {
    view(&object(json!({"executions": executions})), pods.iter(), nodes)
}

fn of_n1(view: &JobView) -> Option<Seen> {
    let node = view.executions.get(&EXECUTION.parse().unwrap())?.nodes.get("n1")?;
    let attempt = |pod: &String| (1..20).find(|attempt| name(*attempt) == *pod).unwrap_or(0);
    Some((attempt(&node.pod), node.earlier.iter().map(attempt).collect(), node.state))
}

fn ended(attempt: u16, phase: Phase) -> NodePod {
    NodePod { phase, ended: Some(Timestamp::UNIX_EPOCH), ran: Some(Duration::from_secs(3)), ..pod(attempt) }
}

#[test]
fn what_became_of_a_node_is_the_records_word_and_else_its_last_pods() {
    use NodeState::{Failed, Gone, Running, Succeeded, Waiting};
    let nothing = || NodeRecord::default();
    let succeeded = || record(|record, key| record.succeed(key));
    let fail = |attempt, retries| {
        record(|record, key| {
            record.fail(key, attempt, retries);
        })
    };
    let (tried, failed) = (|attempt| fail(attempt, 9), |attempt| fail(attempt, 0));
    let gone = || record(|record, key| record.leave(key));
    let deleted = |attempt| NodePod { gone: true, ..pod(attempt) };
    let going = |attempt| NodePod { terminating: true, ..pod(attempt) };
    // Record, over, pods, what is seen.
    type Case = (NodeRecord, bool, Vec<NodePod>, Seen);
    let cases: Vec<Case> = vec![
        (nothing(), false, vec![], (1, vec![], Waiting)),
        (nothing(), false, vec![pod(1)], (1, vec![], Running)),
        (nothing(), false, vec![going(1)], (1, vec![], Running)),
        (nothing(), false, vec![ended(1, Phase::Succeeded)], (1, vec![], Succeeded)),
        (nothing(), false, vec![ended(1, Phase::Failed)], (1, vec![], Failed)),
        (nothing(), false, vec![deleted(1)], (1, vec![], Waiting)),
        (nothing(), false, vec![ended(1, Phase::Failed), pod(2)], (2, vec![1], Running)),
        (tried(1), false, vec![], (2, vec![1], Waiting)),
        (tried(1), false, vec![ended(1, Phase::Failed)], (2, vec![1], Waiting)),
        (tried(1), false, vec![ended(1, Phase::Failed), pod(2)], (2, vec![1], Running)),
        (tried(3), false, vec![pod(4)], (4, vec![1, 2, 3], Running)),
        (succeeded(), false, vec![], (1, vec![], Succeeded)),
        (succeeded(), false, vec![ended(2, Phase::Succeeded)], (2, vec![1], Succeeded)),
        (
            succeeded(),
            false,
            vec![NodePod { gone: true, ..ended(2, Phase::Succeeded) }],
            (2, vec![1], Succeeded),
        ),
        (failed(2), false, vec![], (2, vec![1], Failed)),
        (failed(1), false, vec![ended(1, Phase::Succeeded)], (1, vec![], Failed)),
        (gone(), false, vec![pod(1)], (1, vec![], Gone)),
        // An execution that is over: nothing is tried again.
        (tried(2), true, vec![], (2, vec![1], Failed)),
        (nothing(), true, vec![deleted(1)], (1, vec![], Failed)),
        (nothing(), true, vec![going(1)], (1, vec![], Failed)),
        (nothing(), true, vec![pod(1)], (1, vec![], Running)),
        (succeeded(), true, vec![], (1, vec![], Succeeded)),
    ];
    let nodes = nodes(&[node("n1")]);
    for (number, (record, over, pods, wanted)) in cases.into_iter().enumerate() {
        let view = seen(json!([execution(record, over, json!({}))]), &pods, &nodes);
        assert_eq!(of_n1(&view), Some(wanted), "case {number}");
    }
}

#[test]
fn a_duration_is_that_of_the_last_pod_once_it_has_ended() {
    let nodes = nodes(&[node("n1")]);
    let duration = |pods: &[NodePod]| {
        let view = seen(json!([execution(NodeRecord::default(), false, json!({}))]), pods, &nodes);
        view.executions[&EXECUTION.parse().unwrap()].nodes["n1"].duration
    };
    assert_eq!(duration(&[ended(1, Phase::Succeeded)]), Some(Duration::from_secs(3)));
    assert_eq!(duration(&[ended(1, Phase::Failed), pod(2)]), None);
}

#[test]
fn nodes_that_are_chosen_are_expected_and_others_are_not() {
    let mut tainted = node("n2");
    tainted.taints = vec![stoker_core::fan_out::Taint {
        key: "gpu".into(),
        value: "".into(),
        effect: "NoSchedule".into(),
    }];
    let unready = CoreNode { ready: false, ..node("n3") };
    let cordoned = CoreNode { unschedulable: true, ..node("n4") };
    let all = nodes(&[node("n1"), tainted, unready, cordoned]);
    let names = |executions: Value, pods: &[NodePod]| -> Vec<String> {
        let view = seen(executions, pods, &all);
        view.executions[&EXECUTION.parse().unwrap()].nodes.keys().cloned().collect()
    };
    let running = json!([execution(NodeRecord::default(), false, json!({}))]);
    assert_eq!(names(running.clone(), &[]), ["n1"]);
    // It has begun before it was tainted.
    let begun =
        NodePod { node: "n2".into(), node_uid: "n2-uid".into(), key: NodeKey::of("n2-uid"), ..pod(1) };
    assert_eq!(names(running, &[begun]), ["n1", "n2"]);
    let over = json!([execution(record(|record, key| record.succeed(key)), true, json!({}))]);
    assert_eq!(names(over, &[]), ["n1"], "that no new ones are expected");
}

#[test]
fn a_node_that_left_is_told_of_by_its_record_its_pod_and_the_list_of_failures() {
    let mut left = nodes(&[node("n1")]);
    left.retain(|_| false);
    let gone = execution(record(|record, key| record.leave(key)), true, json!({}));
    assert_eq!(of_n1(&seen(json!([gone.clone()]), &[], &left)), Some((1, vec![], NodeState::Gone)));
    let nobody = Nodes::default();
    assert_eq!(of_n1(&seen(json!([gone.clone()]), &[], &nobody)), None, "its name is nowhere");
    assert_eq!(of_n1(&seen(json!([gone]), &[pod(1)], &nobody)), Some((1, vec![], NodeState::Gone)));
    let failures = json!([{"node": "n1", "pod": name(3), "attempts": 3, "reason": "Error"}]);
    let old = execution(NodeRecord::default(), true, json!({"failedNodes": failures}));
    let view = seen(json!([old]), &[], &nobody);
    assert_eq!(of_n1(&view), Some((3, vec![], NodeState::Failed)));
    assert!(!view.executions[&EXECUTION.parse().unwrap()].complete, "others may have succeeded");
}

#[test]
fn two_nodes_of_one_name_are_one_and_the_pods_of_both_may_report() {
    let former = NodePod {
        name: "former".into(),
        node_uid: "old-uid".into(),
        key: NodeKey::of("old-uid"),
        phase: Phase::Failed,
        created: Timestamp::MAX,
        ..pod(1)
    };
    let view = seen(
        json!([execution(NodeRecord::default(), false, json!({}))]),
        &[former, pod(1)],
        &nodes(&[node("n1")]),
    );
    let node = &view.executions[&EXECUTION.parse().unwrap()].nodes["n1"];
    assert_eq!((node.pod.clone(), node.state), (name(1), NodeState::Running));
    assert_eq!(node.earlier, ["former"]);
}

#[test]
fn an_execution_that_the_status_does_not_tell_of_is_known_by_its_pods() {
    let nodes = nodes(&[node("n1"), node("n2")]);
    let id: ExecutionId = EXECUTION.parse().unwrap();
    let view = seen(json!([]), &[pod(1)], &nodes);
    assert_eq!(of_n1(&view), Some((1, vec![], NodeState::Running)));
    let execution = &view.executions[&id];
    assert!(execution.ended.is_none() && !execution.complete);
    assert_eq!(execution.nodes.len(), 1, "which nodes are to come is not known");
    let over = seen(json!([]), &[ended(1, Phase::Succeeded)], &nodes);
    assert_eq!(over.executions[&id].ended, Some(Timestamp::UNIX_EPOCH));
    let deleted = seen(json!([]), &[NodePod { gone: true, ..ended(1, Phase::Succeeded) }], &nodes);
    assert!(deleted.executions.is_empty());
}

#[test]
fn what_the_spec_says_of_reports_and_metrics_is_told() {
    let view = seen(json!([]), &[], &Nodes::default());
    assert_eq!(view.key, JobKey { namespace: "ops".into(), name: "disks".into() });
    assert_eq!(view.uid, "job-uid");
    assert_eq!((view.limits.bytes_per_upload, view.limits.bytes_per_execution), (4096, 8192));
    assert_eq!(view.retention, Retention { history: 3, ttl: Some(Duration::from_secs(5400)) });
    let metrics = view.metrics.unwrap();
    assert_eq!((metrics.prefix.as_str(), metrics.latest_label, metrics.max_series), ("disk", true, 7));
    assert_eq!(metrics.gauges["free"], Gauge { help: "Free bytes".into(), labels: vec!["mount".into()] });
    let mut plain = object(json!({}));
    plain.spec.metrics = None;
    assert!(super::view(&plain, std::iter::empty(), &Nodes::default()).metrics.is_none());
}

#[test]
fn pods_that_are_gone_are_needed_until_the_status_forgets_the_nodes() {
    let needed = |executions: Value| needs_gone_pods(&object(json!({"executions": executions})), EXECUTION);
    let over = |record| execution(record, true, json!({}));
    assert!(needed(json!([execution(NodeRecord::default(), false, json!({}))])));
    assert!(needed(json!([over(record(|record, key| record.succeed(key)))])));
    assert!(!needed(json!([over(NodeRecord::default())])));
    assert!(!needed(json!([])));
}

#[test]
#[ignore = "a measurement"]
fn a_view_of_five_thousand_nodes() {
    let names: Vec<String> = (0..5000).map(|number| format!("node-{number}.eu-west-1.internal")).collect();
    let nodes = nodes(&names.iter().map(|name| node(name)).collect::<Vec<_>>());
    let of = |name: &String| NodePod {
        name: format!("disks-job-{name}"),
        node: name.clone(),
        node_uid: format!("{name}-uid"),
        key: NodeKey::of(&format!("{name}-uid")),
        ..pod(1)
    };
    let pods: Vec<NodePod> = names.iter().take(2500).map(of).collect();
    let object = object(json!({"executions": [execution(NodeRecord::default(), false, json!({}))]}));
    let began = std::time::Instant::now();
    let view = view(&object, pods.iter(), &nodes);
    println!(
        "{} nodes in {:?}",
        view.executions.values().map(|e| e.nodes.len()).sum::<usize>(),
        began.elapsed()
    );
}
