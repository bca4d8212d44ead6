//! What is known, as watches tell it.
#![allow(clippy::unwrap_used)]

use std::thread::sleep;

use serde_json::{Value, json};
use stoker_core::Phase;
use stoker_reports::{NodeState, NodeView};

use super::super::fixtures::{EXECUTION, node, object, pod, slot};
use super::*;

fn running() -> Value {
    json!({"executions": [{
        "id": EXECUTION, "cause": "Schedule", "startTime": "2026-08-03T09:10:00Z", "state": "Running",
    }]})
}

fn over() -> Value {
    let mut status = running();
    status["executions"][0]["completionTime"] = json!("2026-08-03T09:20:00Z");
    status
}

/// One scope, of which all is listed: a job and its node.
fn known(status: Value) -> Known {
    let known = Known::new(1);
    known.put_node(node("n1"));
    known.put_job(object(status));
    for watch in [Watch::Nodes, Watch::Jobs(0), Watch::Pods(0)] {
        known.listed(watch);
    }
    known
}

fn key() -> JobKey {
    JobKey { namespace: "ops".into(), name: "disks".into() }
}

fn seen(known: &Known) -> Option<NodeView> {
    let view = known.job(&key()).unwrap()?;
    view.executions.get(&EXECUTION.parse().unwrap())?.nodes.get("n1").cloned()
}

fn state(known: &Known) -> Option<NodeState> {
    seen(known).map(|node| node.state)
}

#[test]
fn nothing_is_told_before_all_is_listed() {
    let known = Known::new(2);
    known.put_job(object(running()));
    for watch in [Watch::Nodes, Watch::Jobs(0), Watch::Pods(0), Watch::Jobs(1), Watch::Jobs(1)] {
        known.listed(watch);
        assert_eq!(known.job(&key()).unwrap_err(), NotReady);
    }
    known.listed(Watch::Pods(1));
    assert_eq!(known.jobs().unwrap().len(), 1);
}

#[test]
fn a_pod_that_is_new_is_known_at_once_and_what_becomes_of_it_soon() {
    let known = known(running());
    assert_eq!(state(&known), Some(NodeState::Waiting));
    // An attempt that nobody could foresee.
    known.put_pod(pod(4));
    assert_eq!(seen(&known).unwrap().pod, pod(4).name);
    known.put_pod(NodePod { phase: Phase::Succeeded, ..pod(4) });
    sleep(TOGETHER + Duration::from_millis(10));
    assert_eq!(state(&known), Some(NodeState::Succeeded));
}

#[test]
fn many_changes_make_one_view() {
    let known = known(running());
    known.put_pod(pod(1));
    sleep(TOGETHER + Duration::from_millis(10));
    let began = Instant::now();
    let before = known.job(&key()).unwrap().unwrap();
    for phase in [Phase::Pending, Phase::Running].repeat(50) {
        known.put_pod(NodePod { phase, ..pod(1) });
    }
    let after = known.job(&key()).unwrap().unwrap();
    assert!(Arc::ptr_eq(&before, &after) || began.elapsed() >= TOGETHER, "it is young enough");
}

#[test]
fn an_execution_is_known_as_soon_as_the_object_tells_of_it() {
    let known = known(json!({}));
    assert_eq!(state(&known), None);
    let mut changes = known.changes();
    changes.mark_unchanged();
    known.put_job(object(running()));
    assert!(changes.has_changed().unwrap(), "who waits for it looks again");
    assert_eq!(state(&known), Some(NodeState::Waiting));
}

#[test]
fn a_pod_comes_before_its_job_and_its_node() {
    let known = Known::new(1);
    known.put_pod(pod(1));
    known.put_job(object(json!({})));
    for watch in [Watch::Nodes, Watch::Jobs(0), Watch::Pods(0)] {
        known.listed(watch);
    }
    assert_eq!(state(&known), Some(NodeState::Running));
}

#[test]
fn how_a_deleted_pod_ended_is_remembered_until_the_status_forgets_it() {
    let known = known(running());
    let ended = NodePod { phase: Phase::Succeeded, ran: Some(Duration::from_secs(3)), ..pod(1) };
    known.put_pod(ended.clone());
    assert_eq!(known.pod(&slot(&ended)), Some(ended.uid.clone()));
    known.pod_gone(ended.clone());
    assert_eq!(known.pod(&slot(&ended)), None);
    sleep(TOGETHER + Duration::from_millis(10));
    let node = seen(&known).unwrap();
    assert_eq!((node.state, node.duration), (NodeState::Succeeded, Some(Duration::from_secs(3))));
    known.put_job(object(over()));
    assert_eq!(state(&known), None);
    assert!(known.state().pods["job-uid"].is_empty());
}

#[test]
fn a_listing_takes_away_what_is_not_in_it_in_its_namespaces() {
    let known = known(running());
    known.put_pod(pod(1));
    let nothing = HashSet::new();
    known.pods_listed(|namespace| namespace == "elsewhere", &nothing);
    assert!(known.pod(&slot(&pod(1))).is_some());
    known.pods_listed(|_| true, &nothing);
    assert!(known.pod(&slot(&pod(1))).is_none());
    known.retain_jobs(|_| false);
    assert!(known.job(&key()).unwrap().is_none());
    let state = known.state();
    assert!(state.keys.is_empty() && state.pods.is_empty());
}

#[test]
fn a_pod_of_the_same_name_is_another_one() {
    let known = known(running());
    known.put_pod(NodePod { uid: "new".into(), ..pod(1) });
    known.pod_gone(pod(1));
    assert_eq!(known.pod(&slot(&pod(1))), Some("new".into()));
}

#[test]
fn nodes_that_change_are_seen_soon_and_heartbeats_are_no_news() {
    let known = known(running());
    assert!(seen(&known).is_some());
    let mut changes = known.changes();
    changes.mark_unchanged();
    known.put_node(node("n1"));
    assert!(!changes.has_changed().unwrap());
    known.change_nodes(|nodes| nodes.retain(|_| false));
    assert!(changes.has_changed().unwrap());
    sleep(TOGETHER + Duration::from_millis(10));
    assert_eq!(state(&known), None);
}

#[test]
fn a_watch_that_broke_is_told_until_it_works_again() {
    let known = Known::new(1);
    assert!(known.is_current());
    known.broke(Watch::Pods(0));
    known.works(Watch::Jobs(0));
    assert!(!known.is_current());
    known.works(Watch::Pods(0));
    assert!(known.is_current());
}
