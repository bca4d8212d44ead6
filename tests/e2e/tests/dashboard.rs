//! The dashboard and the alerts, put to a Prometheus that reads an operator and a report service at work: whatever they ask for
//! is there, by the names and labels by which they ask.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::{
    DaemonJob, DaemonJobState, ExecutionState, HotStandbyDeployment, JobFlow, PreScaledCronJob,
};
use stoker_e2e::claims::{CLAIMS, account};
use stoker_e2e::crons::{Cron, FLAGS, work_that_tells};
use stoker_e2e::node_batches::{NodeBatch, ready_nodes, runs};
use stoker_e2e::nodes::PrivateNode;
use stoker_e2e::operator::Operator;
use stoker_e2e::prometheus::{self, Prometheus};
use stoker_e2e::reports::ReportService;
use stoker_e2e::web::Web;
use stoker_e2e::{World, built_policy, condition, root};

/// Metrics that have no sample while all is well, and when they get one.
const SELDOM: [(&str, &str); 3] = [
    ("stoker_decisions_dropped_total", "what a decision was made for changed before it was carried out"),
    ("stoker_probes_left_out_total", "there are more pods to ask than the operator manages"),
    (
        "stoker_node_batch_left_out_total",
        "an instant passed while no operator ran, or an execution took too long",
    ),
];

/// Metrics of which simulated pods make none: their containers pull nothing, wait for nothing and log nothing.
const OF_CONTAINERS: [&str; 3] =
    ["stoker_run_pull_seconds_bucket", "stoker_run_held_seconds_bucket", "stoker_node_batch_logs_total"];

/// Metrics of questions, which simulated pods answer in a cluster with a network of its own.
const OF_QUESTIONS: [&str; 4] = [
    "stoker_probe_answers_total",
    "stoker_probe_duration_seconds_bucket",
    "stoker_probe_duration_seconds_count",
    "stoker_probe_lateness_seconds_bucket",
];

/// The label by which a node tells its pool.
const POOL: (&str, &str) = ("node.kubernetes.io/nodepool", "e2e");

/// A query of the dashboard or of an alert.
struct Query {
    whence: String,
    expression: String,
    /// Its metrics, each with the labels by which it is asked for.
    metrics: BTreeMap<String, BTreeSet<String>>,
    /// It wants certain values of labels, which need not be there.
    picks: bool,
}

impl Query {
    fn read(whence: &str, expression: &str) -> Self {
        let expression = expression.replace("$__rate_interval", "1m").replace("$namespace", ".*");
        let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let (mut kept, mut picks) = (BTreeSet::new(), false);
        let mut rest = expression.as_str();
        while let Some(begin) = rest.find(|c: char| c.is_ascii_alphabetic()) {
            rest = &rest[begin..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            rest = behind;
            if word == "by" {
                let (labels, behind) = rest.trim_start().trim_start_matches('(').split_once(')').unwrap();
                kept.extend(labels.split(',').map(|label| label.trim().to_owned()));
                rest = behind;
            } else if word == "up" || word.starts_with("stoker_") {
                let labels = metrics.entry(word.to_owned()).or_default();
                let Some(selector) = rest.strip_prefix('{') else { continue };
                let (selector, behind) = selector.split_once('}').unwrap();
                rest = behind;
                for matcher in selector.split(',') {
                    let label = matcher[..matcher.find(['=', '!']).unwrap()].trim();
                    picks |= !["namespace", "job"].contains(&label);
                    labels.insert(label.to_owned());
                }
            }
        }
        for (metric, labels) in &mut metrics {
            let of_it = |label: &&String| label.as_str() != "le" || metric.ends_with("_bucket");
            labels.extend(kept.iter().filter(of_it).cloned());
        }
        Self { whence: whence.to_owned(), expression, metrics, picks }
    }
}

fn panels(all: &Value, into: &mut Vec<Query>) {
    for panel in all.as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let whence = format!("panel {}", panel["title"]);
            into.push(Query::read(&whence, target["expr"].as_str().unwrap()));
        }
        panels(&panel["panels"], into);
    }
}

fn dashboard() -> Result<Vec<Query>> {
    let text = std::fs::read_to_string(root().join("deploy/helm/stoker/files/dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut all = Vec::new();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        // Such as label_values(METRIC, LABEL), which is Grafana's.
        let Some(words) = variable["query"]["query"].as_str() else { continue };
        let words = words.strip_prefix("label_values(").and_then(|words| words.strip_suffix(')')).unwrap();
        let (metric, label) = words.rsplit_once(',').unwrap();
        all.push(Query::read(
            &format!("variable {}", variable["name"]),
            &format!("sum by ({label}) ({metric})"),
        ));
    }
    panels(&dashboard["panels"], &mut all);
    Ok(all)
}

fn alerts() -> Result<Vec<Query>> {
    let text = std::fs::read_to_string(root().join("deploy/helm/stoker/files/alerts.yaml"))?;
    let alerts: Value = serde_yaml::from_str(&text)?;
    let groups = alerts["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let query =
        |rule: &Value| Query::read(&format!("alert {}", rule["alert"]), rule["expr"].as_str().unwrap());
    Ok(rules.map(query).collect())
}

#[test]
fn names_and_labels_are_found_in_queries() {
    let text = "sum by (namespace, le) (rate(stoker_a_bucket{namespace=~\"$namespace\"}[$__rate_interval])) / stoker_b{outcome!=\"ok\"} offset 1h";
    let query = Query::read("here", text);
    let labels = |metric: &str| query.metrics[metric].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(labels("stoker_a_bucket"), ["le", "namespace"]);
    assert_eq!(labels("stoker_b"), ["namespace", "outcome"]);
    assert!(query.picks && query.metrics.len() == 2);
    assert!(query.expression.contains("{namespace=~\".*\"}[1m]"), "{}", query.expression);
}

/// What a Prometheus answers to an expression; errors and warnings are failures.
async fn ask(prometheus: &Prometheus, whence: &str, expression: &str) -> Result<Vec<Value>> {
    let mut answer = prometheus.query(expression).await?;
    ensure!(answer["status"] == "success", "{whence}: {expression}: {answer}");
    let warnings = answer["warnings"].as_array().is_none_or(Vec::is_empty);
    ensure!(warnings, "{whence}: {expression}: {}", answer["warnings"]);
    match answer["data"]["result"].take() {
        Value::Array(results) => Ok(results),
        other => anyhow::bail!("{whence}: {expression}: {other}"),
    }
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_the_dashboard_and_the_alerts_ask_for_is_there() -> Result<()> {
    if !prometheus::is_installed() {
        return Ok(());
    }
    let web = Web::start();
    web.set("/queue", 200, "4");
    let mut world = World::without_operator("dashboard").await?;
    let service = ReportService::start(&world.namespace, false).await?;
    let of_reports = service.flags();
    let flags = ["--claims", "127.0.0.1:0", "--signal-hosts", "127.0.0.1"];
    let flags: Vec<&str> = of_reports.iter().map(String::as_str).chain(flags).chain(FLAGS).collect();
    world.operator = Some(Operator::start(&world.namespace, &flags).await?);
    let readers = service.log();
    let (_, readers) = readers.rsplit_once(" readers=http://").context("no readers")?;
    let readers = readers.split_whitespace().next().context("no address")?.to_owned();
    world.reports = Some(service);
    let operator = world.operator().addresses().pop().context("nothing is served")?;
    // As the chart's ServiceMonitor calls them.
    let jobs = [("stoker", operator.as_str()), ("stoker-reports", readers.as_str())];
    let prometheus = Prometheus::start_jobs(&jobs, &[("namespace", "stoker-system")]);

    let (real, asked) = (world.has_real_node().await?, world.answers_commands().await?);
    let nodes = work(&world, &web, real, asked).await?;
    let mut absent: BTreeSet<&str> = SELDOM.iter().map(|(metric, _)| *metric).collect();
    if !real {
        println!("without a node that runs containers there is none of {OF_CONTAINERS:?}");
        absent.extend(OF_CONTAINERS);
    }
    if !asked {
        println!("as simulated pods answer no commands, there is none of {OF_QUESTIONS:?}");
        absent.extend(OF_QUESTIONS);
    }
    let (dashboard, alerts) = (dashboard()?, alerts()?);
    ensure!(dashboard.len() > 50 && alerts.len() > 20, "{} and {} queries", dashboard.len(), alerts.len());

    // All that is told has been read twice before anything is asked, as rates need two samples.
    for metric in ["stoker_reconciles_total", "stoker_reports_callbacks_total"] {
        let twice = format!("timestamp({metric}) > {}", jiff::Timestamp::now().as_second() + 2);
        let read = || async { Ok(!ask(&prometheus, metric, &twice).await?.is_empty()) };
        world.until(metric, "read twice", read).await?;
    }
    for query in dashboard.iter().chain(&alerts) {
        for (metric, labels) in &query.metrics {
            let found = ask(&prometheus, &query.whence, &format!("last_over_time({metric}[1h])")).await?;
            // hack/monitoring-lint.py sees to it that somebody could tell it.
            if found.is_empty() && absent.contains(metric.as_str()) {
                continue;
            }
            let has_all = |series: &Value| labels.iter().all(|label| series["metric"][label].is_string());
            ensure!(found.iter().any(has_all), "{}: no {metric} with {labels:?}: {found:?}", query.whence);
        }
        let results = ask(&prometheus, &query.whence, &query.expression).await?;
        let silent = ["StokerDown", "StokerNoLeader", "StokerReportsDown"];
        if silent.iter().any(|alert| query.whence.contains(&format!("\"{alert}\""))) {
            ensure!(results.is_empty(), "{}: {results:?}", query.whence);
        }
    }
    for query in dashboard {
        let there = query.metrics.keys().all(|metric| !absent.contains(metric.as_str()));
        let results = ask(&prometheus, &query.whence, &query.expression).await?;
        ensure!(
            query.picks || !there || !results.is_empty(),
            "{}: {} shows nothing",
            query.whence,
            query.expression
        );
    }
    for (metric, why) in SELDOM {
        ensure!(alerts_or_panels(metric)?, "nothing asks for {metric} any more, which is there when {why}");
    }

    world.delete_all::<PreScaledCronJob>().await?;
    world.delete_all::<JobFlow>().await?;
    world.delete_all::<DaemonJob>().await?;
    world.delete_all::<HotStandbyDeployment>().await?;
    world.finish_node_batches(nodes).await
}

fn alerts_or_panels(metric: &str) -> Result<bool> {
    Ok(dashboard()?.iter().chain(&alerts()?).any(|query| query.metrics.contains_key(metric)))
}

/// Has operator and report service do something of everything.
async fn work(world: &World, web: &Web, real: bool, asked: bool) -> Result<Vec<PrivateNode>> {
    let nodes = ready_nodes(world, &["a", "b"]).await?;
    let api: Api<Node> = Api::all(world.client.clone());
    for node in &nodes {
        let labels = json!({"metadata": {"labels": {POOL.0: POOL.1}}});
        api.patch(&node.name, &PatchParams::default(), &Patch::Merge(labels)).await?;
    }
    // Their instants come within a minute, while the rest is at work.
    let cron = Cron { world, name: "on-a-pool" };
    let there = json!({"nodeSelector": {"e2e": world.namespace}, "tolerations": [{"key": "e2e", "operator": "Exists"}]});
    let job =
        |template: Value| json!({"cronJob": {"spec": {"jobTemplate": {"spec": {"template": template}}}}});
    cron.apply(job(json!({"spec": there}))).await?;
    if real {
        Cron { world, name: "on-the-real-node" }.apply(job(work_that_tells())).await?;
    }
    pools(world, web, asked).await?;
    flows(world).await?;
    node_batches(world, real).await?;

    let wait = |metric: &'static str, labels: &'static str| {
        world.wait("on-a-pool", metric, move |operator| Ok(operator.metric(metric, labels)? >= 1.0))
    };
    wait("stoker_run_skew_seconds_count", "node_pool=\"e2e\"").await?;
    world.annotate(&cron.pods().await?, "sim.stoker.dev/phase", Some("Succeeded")).await?;
    wait("stoker_run_start_seconds_count", "node_pool=\"e2e\"").await?;
    if real {
        wait("stoker_run_pull_seconds_count", "").await?;
        wait("stoker_run_held_seconds_count", "").await?;
    }
    Ok(nodes)
}

async fn pools(world: &World, web: &Web, asked: bool) -> Result<()> {
    world.put_policy("rush-hour", &built_policy("buffer")?).await?;
    let shadow = json!({"builtin": "percent-buffer", "config": {"percent": 200}});
    let policy = json!({"configMap": {"name": "rush-hour", "key": "policy.wasm"}, "shadow": shadow});
    world.apply_pool("game", json!({"policy": policy})).await?;
    let policy = json!({"builtin": "queue-depth", "config": {"perReplica": 2}});
    let queue = json!({"url": format!("http://127.0.0.1:{}/queue", web.port)});
    let signals = json!([{"name": "queue", "http": queue, "periodSeconds": 1, "timeoutSeconds": 1}]);
    world.apply_pool("shop", json!({"idleTarget": 1, "policy": policy, "signals": signals})).await?;
    world.apply_pool("desk", json!({"idleTarget": 1})).await?;
    if asked {
        let exec = json!({"command": ["true"], "periodSeconds": 1, "timeoutSeconds": 1});
        world.apply_pool("asked", json!({"busyProbe": {"mode": "exec", "exec": exec}})).await?;
        world.counts("asked", 0, 2, 2).await?;
    }
    world.counts("shop", 0, 2, 2).await?;
    world.counts("desk", 0, 1, 1).await?;
    let token = account(world, "claimant", &CLAIMS).await?;
    let claimant = world.claimant(&token, "desk")?;
    let id = claimant.claim(json!({"ttlSeconds": 600})).await?.id()?;
    claimant.release(&id).await?;

    let decides = |pool: &HotStandbyDeployment| {
        condition(pool, "PolicyHealthy").is_some_and(|(status, ..)| status == "True")
    };
    world.status("game", "decided by its policy", decides).await?;
    world.counts("game", 0, 2, 2).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 2, 2, 4).await?;
    world.set_busy(&world.alive("game").await?, false).await?;
    world.counts("game", 0, 2, 2).await?;
    for metric in
        ["stoker_claim_ends_total", "stoker_policy_shadow_decisions_total", "stoker_reaction_seconds_count"]
    {
        world.wait("game", metric, |operator| Ok(operator.metric(metric, "")? >= 1.0)).await?;
    }
    Ok(())
}

async fn flows(world: &World) -> Result<()> {
    let ends = json!({"annotations": {"sim.stoker.dev/complete-after": "100ms"}});
    let main = json!([{"name": "main", "image": "docker.io/local/busybox:1"}]);
    let step = json!({"template": {"metadata": ends, "spec": {"containers": main}}});
    let steps = json!([{"name": "a", "jobTemplate": step.clone()}, {"name": "b", "dependencies": ["a"], "jobTemplate": step}]);
    world.apply::<JobFlow>("flow", json!({"flows": steps})).await?;
    let template = json!({"metadata": ends, "spec": {
        "tolerations": [{"key": "e2e", "operator": "Exists"}],
        "containers": main,
    }});
    let daemon = json!({"nodeSelector": {"e2e": world.namespace}, "template": template});
    world.apply::<DaemonJob>("daemon", daemon).await?;
    let ended = |flow: &JobFlow| flow.status.as_ref().is_some_and(|status| status.completion_time.is_some());
    world.object("flow", "ended", ended).await?;
    let ended = |object: &DaemonJob| {
        object.status.as_ref().is_some_and(|status| status.state == Some(DaemonJobState::Succeed))
    };
    world.object("daemon", "ended", ended).await?;
    Ok(())
}

async fn node_batches(world: &World, real: bool) -> Result<()> {
    let logged = NodeBatch { world, name: "logged" };
    if real {
        let spec = json!({
            "nodes": {"selector": {"e2e": null, "stoker.dev/node": "real"}},
            "savePodLog": true,
            "podTemplate": {"spec": {
                "tolerations": [{"key": "stoker.dev/node", "operator": "Exists"}],
                "containers": [{
                    "name": "work",
                    "image": "docker.io/local/busybox:1",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["echo", "done"],
                }],
            }},
        });
        logged.apply(None, spec).await?;
        logged.run().await?;
    }
    let disks = NodeBatch { world, name: "disks" };
    let metrics = json!({"prefix": "foo", "gauges": {"g": {"help": "A value"}}});
    disks.apply(None, json!({"parallelism": 1, "metrics": metrics})).await?;
    disks.run().await?;
    let mut done = BTreeSet::new();
    for _ in 0..2 {
        let news = |pod: &Pod| runs(pod) && !done.contains(&pod.name_any());
        let pods = disks.until_pods("at work on another node", |pods| pods.iter().any(news)).await?;
        let pod = pods.into_iter().find(news).context("no pod")?;
        let answer = disks.report(&pod, "RESULT", "", "{\"g\": [{\"value\": 1}]}").await?;
        ensure!(answer.status == 200, "{answer:?}");
        disks.end(std::slice::from_ref(&pod), true).await?;
        done.insert(pod.name_any());
    }
    disks.over(ExecutionState::Succeeded, "2/2").await?;
    if real {
        logged.newest("over", |execution| execution.completion_time.is_some()).await?;
        world
            .wait("logged", "saved", |operator| {
                Ok(operator.metric("stoker_node_batch_logs_total", "")? >= 1.0)
            })
            .await?;
    }
    Ok(())
}
