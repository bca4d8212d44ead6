//! How executions ended stays known when the cluster has forgotten it: the status, the pods, and the nodes.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{EXECUTION, Fake, Service, execution, job_key, slot, tree, urls};
use serde_json::Value;
use stoker_reports::{NodeState, Retention};

const RESULT: &str = r#"{"plain":[{"value":1}]}"#;

async fn report(service: &Service, execution: &str, node: &str) {
    assert_eq!(service.post(&urls(&slot(execution, node)).result, RESULT).await.code(), 200);
}

async fn json(service: &Service, path: &str) -> Value {
    serde_json::from_slice(&service.get(path).await.body).unwrap()
}

fn series(name: &str, node: &str, execution: &str, value: &str) -> String {
    format!(
        "foo_{name}{{node_batch_job=\"ops/disks\",node=\"{node}\",executionID=\"{execution}\"}} {value}\n"
    )
}

fn manifests(root: &Path) -> Vec<String> {
    let files = tree(root).into_keys();
    files.filter_map(|name| name.strip_suffix("/.execution.json").map(|at| at[10..].to_owned())).collect()
}

/// The cluster forgets the nodes of all executions that are over.
fn forget(cluster: &Fake) {
    cluster.change(|job| {
        for execution in job.executions.values_mut().filter(|execution| execution.ended.is_some()) {
            execution.nodes.clear();
            execution.complete = false;
        }
    });
}

#[tokio::test]
async fn missing_results_and_failures_stay_when_the_cluster_forgets_and_over_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1", "n2", "n3", "n4"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    report(&service, EXECUTION, "n1").await;
    report(&service, EXECUTION, "n2").await;
    cluster.end(EXECUTION, NodeState::Succeeded);
    cluster.state(EXECUTION, "n2", NodeState::Failed);
    cluster.state(EXECUTION, "n4", NodeState::Gone);
    service.reports.upkeep().await.unwrap();
    forget(&cluster);
    let restarted = Service::start(root.path(), cluster.clone()).await;
    for service in [service, restarted] {
        let metrics = service.metrics().await;
        for (node, value) in [("n1", "0.0"), ("n2", "1.0"), ("n3", "1.0")] {
            assert!(metrics.contains(&series("processing", node, EXECUTION, value)), "{node}: {metrics}");
            assert!(metrics.contains(&series("duration", node, EXECUTION, "1500.0")), "{node}: {metrics}");
        }
        assert!(!metrics.contains("n4"), "nothing is expected of a node that left: {metrics}");
        assert!(metrics.contains("foo_pods{node_batch_job=\"ops/disks\"} 4.0"), "{metrics}");
        let entry = &json(&service, "/reports/ops/disks/").await[0];
        assert_eq!(
            (&entry["nodes"], &entry["failed"], &entry["reported"]),
            (&3.into(), &1.into(), &2.into())
        );
        assert!(entry["ended"].is_string());
        let detail = json(&service, "/reports/ops/disks/latest/").await;
        let states: Vec<_> = detail["nodes"].as_array().unwrap().iter().map(|n| &n["state"]).collect();
        assert_eq!(states, ["succeeded", "failed", "succeeded", "gone"]);
        let silent = &detail["nodes"][2];
        assert_eq!((silent.get("result"), &silent["durationMilliseconds"]), (None, &1500.into()));
        assert_eq!(silent["pod"], format!("disks-job-n3-{EXECUTION}"));
    }
}

#[tokio::test]
async fn an_execution_is_written_down_soon_after_its_end_though_nobody_reported() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1", "n2"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    while !service.reports.is_ready() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.end(EXECUTION, NodeState::Succeeded);
    cluster.state(EXECUTION, "n2", NodeState::Running);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(manifests(root.path()).is_empty(), "what becomes of n2 is not known");
    cluster.state(EXECUTION, "n2", NodeState::Failed);
    tokio::time::timeout(Duration::from_secs(10), async {
        while manifests(root.path()).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(manifests(root.path()), [EXECUTION]);
}

#[tokio::test]
async fn never_lets_a_report_after_the_end_hide_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1", "n2"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    cluster.end(EXECUTION, NodeState::Failed);
    cluster.state(EXECUTION, "n2", NodeState::Succeeded);
    service.reports.upkeep().await.unwrap();
    report(&service, EXECUTION, "n1").await;
    report(&service, EXECUTION, "n2").await;
    // Whatever the cluster tells later.
    cluster.end(EXECUTION, NodeState::Succeeded);
    let restarted = Service::start(root.path(), cluster.clone()).await;
    for service in [service, restarted] {
        let metrics = service.metrics().await;
        assert!(metrics.contains(&series("processing", "n1", EXECUTION, "1.0")), "{metrics}");
        assert!(
            metrics.contains(&series("processing", "n2", EXECUTION, "0.0")),
            "it reported late: {metrics}"
        );
        assert!(metrics.contains(&series("plain", "n1", EXECUTION, "1.0")), "{metrics}");
        let detail = json(&service, "/reports/ops/disks/latest/").await;
        assert_eq!(detail["nodes"][0]["state"], "failed");
    }
}

/// A cluster with executions that are over, and the last of which runs.
fn with_past(ids: &[&str]) -> Arc<Fake> {
    let cluster = Fake::with(&["n1"]);
    cluster.change(|job| {
        job.executions = ids.iter().map(|id| (id.parse().unwrap(), execution(id, &["n1"]))).collect();
    });
    for id in &ids[..ids.len() - 1] {
        cluster.end(id, NodeState::Succeeded);
    }
    cluster
}

#[tokio::test]
async fn what_is_written_of_executions_is_bounded_as_the_history_is() {
    let root = tempfile::tempdir().unwrap();
    let ids = ["202608030910", "202608030911", "202608030912", "202608030913", "202608030914"];
    let cluster = with_past(&ids);
    cluster.change(|job| job.retention = Retention { history: 2, ttl: None });
    let service = Service::start(root.path(), cluster.clone()).await;
    for _ in 0..3 {
        let metrics = service.metrics().await;
        assert_eq!(manifests(root.path()), ids[2..4], "none is written that would be pruned");
        assert!(metrics.contains(&series("processing", "n1", ids[3], "1.0")), "{metrics}");
        assert!(!metrics.contains(ids[1]), "{metrics}");
        let listed = json(&service, "/reports/ops/disks/").await;
        assert_eq!(listed.as_array().unwrap().len(), 3, "two and the one that runs: {listed}");
    }
    report(&service, ids[4], "n1").await;
    assert_eq!(service.reports.upkeep().await.unwrap().executions, 1);
    assert_eq!(manifests(root.path()), ids[3..]);
    assert!(!service.metrics().await.contains(ids[2]), "its metrics go with it");
}

#[tokio::test]
async fn what_is_too_old_is_neither_written_again_nor_told_of() {
    let root = tempfile::tempdir().unwrap();
    let ids = ["202608030910", "202608030911"];
    let cluster = with_past(&ids);
    let service = Service::start(root.path(), cluster.clone()).await;
    service.reports.upkeep().await.unwrap();
    assert_eq!(manifests(root.path()), ids[..1]);
    cluster.change(|job| job.retention = Retention { history: 9, ttl: Some(Duration::from_millis(100)) });
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(service.reports.upkeep().await.unwrap().executions, 1);
    let restarted = Service::start(root.path(), cluster.clone()).await;
    for service in [service, restarted] {
        let metrics = service.metrics().await;
        assert!(manifests(root.path()).is_empty());
        assert!(!metrics.contains(ids[0]), "{metrics}");
    }
}

#[tokio::test]
async fn a_job_without_metrics_has_pages_and_no_metrics() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    cluster.change(|job| job.metrics = None);
    let service = Service::start(root.path(), cluster.clone()).await;
    report(&service, EXECUTION, "n1").await;
    cluster.end(EXECUTION, NodeState::Succeeded);
    let metrics = service.metrics().await;
    assert!(!metrics.contains("ops/disks"), "{metrics}");
    let entry = &json(&service, "/reports/ops/disks/").await[0];
    assert_eq!((&entry["nodes"], &entry["reported"]), (&1.into(), &1.into()));
    cluster.delete(&job_key());
    let entry = &json(&service, "/reports/ops/disks/").await[0];
    assert_eq!((&entry["nodes"], &entry["failed"]), (&1.into(), &0.into()), "the store tells it");
}
