//! What pods of NodeBatchJobs report: from the real node as the examples do, and in the name of simulated pods, whose addresses
//! stand in their environment.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use serde_json::{Value, json};
use stoker_api::{Execution, ExecutionState};
use stoker_e2e::node_batches::{NodeBatch, node, ready_nodes, runs};
use stoker_e2e::{World, netns};

/// A namespace whose pods on the real node reach a report service; None where there is no such node.
async fn on_the_real_node(name: &str) -> Result<Option<World>> {
    if !netns::is_there() {
        return Ok(None);
    }
    let world = World::with_reports_inside(name).await?;
    if world.has_real_node().await? {
        return Ok(Some(world));
    }
    println!("skipped: this cluster has no real node");
    world.finish().await?;
    Ok(None)
}

/// The file's name and size in a list of a listing.
fn files(list: &Value) -> Vec<(String, u64)> {
    let file = |file: &Value| (file["name"].as_str().unwrap().to_owned(), file["bytes"].as_u64().unwrap());
    list.as_array().unwrap().iter().map(file).collect()
}

/// A value that a node reported.
async fn value(world: &World, metric: &str, node: &str, execution: &str) -> Result<Option<f64>> {
    let labels = [format!("node=\"{node}\""), format!("executionID=\"{execution}\"")];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    world.reports().metric(metric, &labels).await
}

/// Waits until such a value is told, or that there is none any more.
async fn until_value(
    world: &World,
    (metric, node, execution): (&str, &str, &str),
    wanted: Option<f64>,
) -> Result<()> {
    let what = format!("{metric} of {node} in {execution} {wanted:?}");
    world.until(metric, &what, || async { Ok(value(world, metric, node, execution).await? == wanted) }).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_example_sends_a_file_an_event_and_a_value_from_the_real_node() -> Result<()> {
    let Some(world) = on_the_real_node("nbj-first").await? else { return Ok(()) };
    world.apply_example("node-batch-job/first.yaml").await?;
    let first = NodeBatch { world: &world, name: "first" };
    let id = first.run().await?.id;
    first.over(ExecutionState::Succeeded, "1/1").await?;
    let pod = first.pods().await?.remove(0);
    assert_eq!(pod.name_any(), format!("first-job-real-{id}"));

    let reports = world.reports();
    let sent = "a file from real\n";
    for execution in [id.as_str(), "latest"] {
        let file = reports.kept(&format!("first/{execution}/real-test.txt")).await?;
        assert_eq!((file.status, file.text().as_str()), (200, sent));
    }
    let result = reports.listing("first/latest/real.json").await?;
    assert_eq!(result["my_metric"][0]["value"], json!(1.0), "the body as it was sent: {result}");
    assert_eq!(world.event(&pod.name_any(), "TestReason").await?, "test message with an argument");
    for execution in [id.as_str(), "latest"] {
        until_value(&world, ("first_my_metric", "real", execution), Some(1.0)).await?;
        until_value(&world, ("first_processing", "real", execution), Some(0.0)).await?;
    }
    let labels = ["label_a=\"AAA\"", "label_b=\"BBB\"", &format!("\"{}/first\"", world.namespace)];
    assert_eq!(reports.metric("first_my_metric", &labels).await?, Some(1.0));
    assert!(reports.metric("first_duration", &["node=\"real\""]).await?.is_some());
    let current = reports.metric("first_current_execution_id", &[]).await?.unwrap();
    assert!(id.starts_with(&format!("{current:.0}")), "{current}");

    let told = reports.listing(&format!("first/{id}/")).await?;
    let node = &told["nodes"][0];
    assert_eq!((&node["node"], &node["state"]), (&json!("real"), &json!("succeeded")), "{told}");
    assert_eq!(node["result"]["name"], json!("real.json"), "{told}");
    assert_eq!(files(&node["files"]), [("real-test.txt".to_owned(), sent.len() as u64)]);
    let all = reports.listing("first/").await?;
    let one = |field: &str| all[0][field].as_u64();
    assert_eq!((one("nodes"), one("reported"), one("failed")), (Some(1), Some(1), Some(0)), "{all}");
    world.finish_node_batches(Vec::new()).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_example_of_disks_reports_the_real_nodes_and_keeps_its_pods_log() -> Result<()> {
    let Some(world) = on_the_real_node("nbj-disks").await? else { return Ok(()) };
    world.apply_example("node-batch-job/disks.yaml").await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    let id = disks.run().await?.id;
    disks.over(ExecutionState::Succeeded, "1/1").await?;
    let told = || async { Ok(value(&world, "disks_used_percent", "real", "latest").await?.is_some()) };
    world.until("disks", "telling how full the disk is", told).await?;
    let used = value(&world, "disks_used_percent", "real", &id).await?.unwrap();
    assert!((0.0..=100.0).contains(&used), "{used}");
    assert!(value(&world, "disks_free_kibibytes", "real", &id).await?.unwrap() > 0.0);
    let reports = world.reports();
    let table = reports.kept("disks/latest/real-df.txt").await?.text();
    assert!(table.contains("Mounted on") && table.contains("/host/var"), "{table}");
    // The log comes once the pod has ended.
    let saved = || async { Ok(reports.kept("disks/latest/real-container-df.log").await?.status == 200) };
    world.until("disks", "keeping the log", saved).await?;
    let log = reports.kept("disks/latest/real-container-df.log").await?.text();
    let pod = disks.pods().await?.remove(0);
    let pods: Api<Pod> = world.pods();
    assert_eq!(log, pods.logs(&pod.name_any(), &LogParams::default()).await?);
    assert!(log.starts_with(&table) && log.contains(&format!("execution {id} on real")), "{log}");
    let told = reports.listing("disks/latest/").await?;
    assert_eq!(files(&told["nodes"][0]["logs"])[0].0, "real-container-df.log", "{told}");
    world.finish_node_batches(Vec::new()).await
}

/// Fields of a NodeBatchJob whose results become metrics.
fn metrics() -> Value {
    json!({"prefix": "foo", "latestLabel": true, "gauges": {"g": {"help": "A value", "labels": ["a"]}}})
}

/// A result with this value.
fn result(value: f64) -> String {
    json!({"g": [{"value": value, "labels": {"a": "x"}}]}).to_string()
}

/// Posts a result in the name of a pod, which is taken.
async fn post(batch: &NodeBatch<'_>, pod: &Pod, value: f64) -> Result<()> {
    let answer = batch.report(pod, "RESULT", "", &result(value)).await?;
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
    Ok(())
}

/// The pod of a node among those that run.
fn of<'a>(pods: &'a [Pod], name: &str) -> &'a Pod {
    pods.iter().find(|pod| node(pod) == name).unwrap()
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_node_that_reports_nothing_is_told_as_such() -> Result<()> {
    let world = World::with_reports("nbj-missing").await?;
    let all = ready_nodes(&world, &["tells", "silent"]).await?;
    let (tells, silent) = (all[0].name.as_str(), all[1].name.as_str());
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"metrics": metrics()})).await?;
    let id = disks.run().await?.id;
    let pods = disks.until_running(2).await?;
    post(&disks, of(&pods, tells), 7.0).await?;
    let both = || async { Ok(world.reports().metric("foo_pods", &[]).await? == Some(2.0)) };
    world.until("foo_pods", "2", both).await?;
    disks.end(&pods, true).await?;
    disks.over(ExecutionState::Succeeded, "2/2").await?;
    for execution in [id.as_str(), "latest"] {
        until_value(&world, ("foo_g", tells, execution), Some(7.0)).await?;
        until_value(&world, ("foo_processing", tells, execution), Some(0.0)).await?;
        until_value(&world, ("foo_processing", silent, execution), Some(1.0)).await?;
    }
    assert_eq!(value(&world, "foo_g", silent, &id).await?, None);
    let told = world.reports().listing("disks/latest/").await?;
    let nodes = told["nodes"].as_array().unwrap();
    let silent = nodes.iter().find(|entry| entry["node"] == silent).unwrap();
    assert!(silent["state"] == "succeeded" && silent["result"].is_null(), "{told}");
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_does_a_late_report_hide_a_failure() -> Result<()> {
    let world = World::with_reports("nbj-late").await?;
    let all = ready_nodes(&world, &["a"]).await?;
    let name = all[0].name.as_str();
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"metrics": metrics()})).await?;
    let id = disks.run().await?.id;
    let pods = disks.until_running(1).await?;
    post(&disks, &pods[0], 1.0).await?;
    until_value(&world, ("foo_processing", name, &id), Some(0.0)).await?;
    disks.end(&pods, false).await?;
    disks.over(ExecutionState::Failed, "0/1").await?;
    // It is taken, and changes nothing of that.
    post(&disks, &pods[0], 2.0).await?;
    until_value(&world, ("foo_g", name, &id), Some(2.0)).await?;
    for execution in [id.as_str(), "latest"] {
        until_value(&world, ("foo_processing", name, execution), Some(1.0)).await?;
    }
    let told = world.reports().listing("disks/latest/").await?;
    assert_eq!(told["nodes"][0]["state"], json!("failed"), "{told}");
    assert_eq!(disks.over(ExecutionState::Failed, "0/1").await?.id, id);
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_does_a_late_report_of_an_earlier_attempt_replace_that_of_a_later_one() -> Result<()> {
    let world = World::with_reports("nbj-attempts").await?;
    let all = ready_nodes(&world, &["a"]).await?;
    let name = all[0].name.as_str();
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"metrics": metrics(), "retry": {"limit": 1, "backoffSeconds": 0}})).await?;
    let id = disks.run().await?.id;
    let first = disks.until_running(1).await?;
    disks.end(&first, false).await?;
    let another = |pods: &[Pod]| pods.iter().any(|pod| runs(pod) && pod.uid() != first[0].uid());
    let pods = disks.until_pods("trying again", another).await?;
    let second: Vec<Pod> = pods.into_iter().filter(runs).collect();
    post(&disks, &second[0], 2.0).await?;
    post(&disks, &first[0], 1.0).await?;
    disks.end(&second, true).await?;
    disks.over(ExecutionState::Succeeded, "1/1").await?;
    until_value(&world, ("foo_g", name, &id), Some(2.0)).await?;
    let kept = world.reports().kept(&format!("disks/{id}/{name}.json")).await?;
    assert_eq!(kept.text(), result(2.0));
    world.finish_node_batches(all).await
}

/// Has a pod report a value, a file and an Event; all three are taken.
async fn report_all(batch: &NodeBatch<'_>, pod: &Pod) -> Result<()> {
    post(batch, pod, 1.0).await?;
    let file = batch.report(pod, "FILE", "?name=x.txt", "content").await?;
    let event = json!({"reason": "HasReported", "message": "so it has"}).to_string();
    let event = batch.report(pod, "EVENT", "", &event).await?;
    assert_eq!((file.status, event.status), (200, 200), "{} {}", file.text(), event.text());
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_is_a_running_pod_turned_away_after_a_restart() -> Result<()> {
    let mut world = World::with_reports("nbj-restart").await?;
    let all = ready_nodes(&world, &["a", "b"]).await?;
    let id = {
        let disks = NodeBatch { world: &world, name: "disks" };
        disks.apply(None, json!({"metrics": metrics(), "parallelism": 1})).await?;
        disks.run().await?.id
    };
    let pods = NodeBatch { world: &world, name: "disks" }.until_running(1).await?;
    world.operator.as_mut().unwrap().restart()?;
    world.reports.as_mut().unwrap().restart()?;
    let disks = NodeBatch { world: &world, name: "disks" };
    // Whoever is answered is taken, however early it asks.
    let answered = || async {
        Ok(disks.report(&pods[0], "RESULT", "", &result(1.0)).await.is_ok_and(|a| a.status != 503))
    };
    world.until("disks", "answered", answered).await?;
    report_all(&disks, &pods[0]).await?;
    assert_eq!(world.event(&pods[0].name_any(), "HasReported").await?, "so it has");
    // So are pods that are made while the report service is away.
    world.reports.as_mut().unwrap().kill();
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.end(&pods, true).await?;
    let other = |running: &[Pod]| running.iter().any(|pod| runs(pod) && pod.uid() != pods[0].uid());
    let running = disks.until_pods("running on the other node", other).await?;
    let running: Vec<Pod> = running.into_iter().filter(runs).collect();
    world.reports.as_mut().unwrap().restart()?;
    world.reports().ready().await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    report_all(&disks, &running[0]).await?;
    disks.end(&running, true).await?;
    disks.over(ExecutionState::Succeeded, "2/2").await?;
    for node in &all {
        until_value(&world, ("foo_processing", &node.name, &id), Some(0.0)).await?;
        let kept = world.reports().kept(&format!("disks/{id}/{}-x.txt", node.name)).await?;
        assert_eq!((kept.status, kept.text().as_str()), (200, "content"));
    }
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_do_nodes_that_share_a_first_dns_label_share_a_pod_or_a_report() -> Result<()> {
    let world = World::with_reports("nbj-labels").await?;
    let all = ready_nodes(&world, &["x.eu", "x.us", "x"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"metrics": metrics()})).await?;
    let id = disks.run().await?.id;
    let pods = disks.until_running(3).await?;
    let names: BTreeSet<String> = pods.iter().map(ResourceExt::name_any).collect();
    let nodes: BTreeSet<String> = pods.iter().map(node).collect();
    assert_eq!((names.len(), nodes.len()), (3, 3), "{names:?}");
    for (number, node) in all.iter().enumerate() {
        post(&disks, of(&pods, &node.name), number as f64).await?;
    }
    for (number, node) in all.iter().enumerate() {
        until_value(&world, ("foo_g", &node.name, &id), Some(number as f64)).await?;
        let kept = world.reports().kept(&format!("disks/{id}/{}.json", node.name)).await?;
        assert_eq!(kept.text(), result(number as f64), "{}", node.name);
    }
    disks.end(&pods, true).await?;
    disks.over(ExecutionState::Succeeded, "3/3").await?;
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_is_a_report_taken_from_who_guesses_its_address() -> Result<()> {
    let world = World::with_reports("nbj-guess").await?;
    let all = ready_nodes(&world, &["a", "b"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({})).await?;
    disks.run().await?;
    let pods = disks.until_running(2).await?;
    let url = stoker_e2e::node_batches::variable(&pods[0], "CALLBACK_SERVICE_RESULT_URL")?;
    let [mine, other] = [0, 1].map(|n| (node(&pods[n]), pods[n].name_any()));
    // The other's node and pod with one's own proof, and one's own with a proof that is made up.
    let others = url.replace(&mine.0, &other.0).replace(&mine.1, &other.1);
    let (stem, _) = url.trim_end_matches("/result").rsplit_once('/').unwrap();
    for guess in [others, format!("{stem}/{}/result", "A".repeat(43))] {
        let answer = world.reports().post(&guess, result(1.0)).await?;
        assert_eq!(answer.status, 403, "{guess}: {}", answer.text());
    }
    assert_eq!(world.reports().post(&url, result(1.0)).await?.status, 200);
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn history_and_age_prune_reports_with_their_metrics() -> Result<()> {
    let world = World::with_reports("nbj-prune").await?;
    let all = ready_nodes(&world, &["a"]).await?;
    let name = all[0].name.as_str();
    let by_name = |name: &'static str| NodeBatch { world: &world, name };
    let (history, age) = (by_name("history"), by_name("age"));
    history.apply(None, json!({"metrics": metrics(), "reports": {"history": 1}})).await?;
    let mut aged = metrics();
    aged["prefix"] = json!("bar");
    age.apply(None, json!({"metrics": aged, "reports": {"ttl": "3s"}})).await?;
    let reported = async |batch: NodeBatch<'_>, value: f64| -> Result<String> {
        let id = batch.run().await?.id;
        let of_it = |pods: &[Pod]| {
            pods.iter().any(|pod| runs(pod) && pod.labels()[stoker_api::keys::EXECUTION] == id)
        };
        let pods: Vec<Pod> = batch.until_pods("at work", of_it).await?.into_iter().filter(runs).collect();
        post(&batch, &pods[0], value).await?;
        batch.end(&pods, true).await?;
        batch.over(ExecutionState::Succeeded, "1/1").await?;
        Ok(id)
    };
    let gone = async |object: &str, id: &str| -> Result<()> {
        let path = format!("{object}/{id}/{name}.json");
        let gone = || async { Ok(world.reports().kept(&path).await?.status == 404) };
        world.until(object, &format!("rid of execution {id}"), gone).await
    };
    let old = reported(age, 5.0).await?;
    let first = reported(history, 1.0).await?;
    until_value(&world, ("foo_g", name, &first), Some(1.0)).await?;
    let second = reported(history, 2.0).await?;
    gone("history", &first).await?;
    until_value(&world, ("foo_g", name, &first), None).await?;
    until_value(&world, ("foo_processing", name, &first), None).await?;
    for execution in [second.as_str(), "latest"] {
        assert_eq!(value(&world, "foo_g", name, execution).await?, Some(2.0));
    }
    let ids = |e: &Execution| e.id.clone();
    let told = history.status("without the older one", |s| s.executions.len() == 1).await?;
    assert_eq!(told.executions.iter().map(ids).collect::<Vec<_>>(), [second]);
    gone("age", &old).await?;
    until_value(&world, ("bar_g", name, &old), None).await?;
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_is_reported_outlives_its_object_for_a_while() -> Result<()> {
    let world = World::with_reports("nbj-orphans").await?;
    let all = ready_nodes(&world, &["a"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({})).await?;
    let id = disks.run().await?.id;
    let pods = disks.until_running(1).await?;
    post(&disks, &pods[0], 1.0).await?;
    world.delete::<stoker_api::NodeBatchJob>("disks").await?;
    let turned_away =
        || async { Ok(disks.report(&pods[0], "RESULT", "", &result(1.0)).await?.status == 406) };
    world.until("disks", "turning the pod away", turned_away).await?;
    assert_eq!(disks.report(&pods[0], "RESULT", "", &result(2.0)).await?.status, 406);
    let kept = world.reports().kept(&format!("disks/{id}/{}.json", all[0].name)).await?;
    assert_eq!(kept.text(), result(1.0));
    world.finish_node_batches(all).await
}
