//! What people, programs and Prometheus get to see.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use common::{EXECUTION, Fake, Service, execution, job, job_key, kept, slot, tree, urls};
use serde_json::Value;
use stoker_reports::{Limits, NodeState, Retention, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

async fn report(service: &Service, execution: &str, node: &str, value: f64) {
    let body = format!(r#"{{"plain":[{{"value":{value}}}]}}"#);
    assert_eq!(service.post(&urls(&slot(execution, node)).result, body).await.code(), 200);
}

fn series(name: &str, node: &str, execution: &str, value: &str) -> String {
    format!(
        "foo_{name}{{node_batch_job=\"ops/disks\",node=\"{node}\",executionID=\"{execution}\"}} {value}\n"
    )
}

#[tokio::test]
async fn programs_get_json_and_people_pages() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1", "n2"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    report(&service, EXECUTION, "n1", 1.0).await;
    let file = urls(&slot(EXECUTION, "n1")).file;
    for name in ["%3Cb%3Ex%3C%2Fb%3E.html", "container-main.log"] {
        assert_eq!(service.post(&format!("{file}?name={name}"), "<script>1</script>").await.code(), 200);
    }
    cluster.state(EXECUTION, "n2", NodeState::Failed);

    let jobs: Value = serde_json::from_slice(&service.get("/reports/").await.body).unwrap();
    assert_eq!(jobs, serde_json::json!([{"namespace": "ops", "name": "disks", "exists": true}]));
    let executions: Value = serde_json::from_slice(&service.get("/reports/ops/disks/").await.body).unwrap();
    assert_eq!((&executions[0]["id"], &executions[0]["failed"]), (&EXECUTION.into(), &1.into()));
    let detail: Value =
        serde_json::from_slice(&service.get("/reports/ops/disks/latest/").await.body).unwrap();
    let (one, two) = (&detail["nodes"][0], &detail["nodes"][1]);
    assert_eq!(one["result"]["name"], "n1.json");
    assert_eq!(one["files"][0]["name"], "n1-<b>x<_b>.html");
    assert_eq!(one["logs"][0]["name"], "n1-container-main.log");
    assert_eq!((&two["node"], &two["state"], two.get("result")), (&"n2".into(), &"failed".into(), None));

    for path in ["/reports/", "/reports/ops/disks/", "/reports/ops/disks/latest/"] {
        let page = service.get_with(path, &[HTML]).await;
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
        assert!(page.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        let text = page.text();
        assert!(
            text.starts_with("<!DOCTYPE html><html lang=\"en\">") && text.contains("<main><h1>"),
            "{text}"
        );
        assert!(!text.contains("<b>x") && !text.contains("<script"), "{text}");
        assert_eq!(
            service.get_with(&format!("{path}?format=json"), &[HTML]).await.text(),
            service.get(path).await.text()
        );
    }
    assert!(service.get("/style.css").await.header("content-type").starts_with("text/css"));
}

#[tokio::test]
async fn nothing_that_was_uploaded_runs_in_a_browser() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    report(&service, EXECUTION, "n1", 1.0).await;
    let url = urls(&slot(EXECUTION, "n1")).file;
    for name in ["a.html", "a.svg", "a.js", "a.txt", "a\"b.log"] {
        let encoded = name.replace('"', "%22");
        assert_eq!(service.post(&format!("{url}?name={encoded}"), "<script>1</script>").await.code(), 200);
        let file = service.get(&format!("/reports/ops/disks/{EXECUTION}/n1-{encoded}")).await;
        assert_eq!((file.code(), file.text().as_str()), (200, "<script>1</script>"), "{name}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert!(file.header("content-security-policy").contains("sandbox"));
        let inert = file.header("content-type").starts_with("text/plain")
            || file.header("content-disposition").starts_with("attachment");
        assert!(inert, "{name}: {:?}", file.headers);
    }
    let result = service.get("/reports/ops/disks/latest/n1.json").await;
    assert_eq!((result.code(), result.header("content-type")), (200, "application/json"));
}

#[tokio::test]
async fn never_reads_outside_the_store() {
    let outer = tempfile::tempdir().unwrap();
    std::fs::write(outer.path().join("secret"), "s").unwrap();
    let service = Service::start(&outer.path().join("store"), Fake::with(&["n1"])).await;
    report(&service, EXECUTION, "n1", 1.0).await;
    for path in [
        "/reports/ops/disks/202608030910/..%2F..%2F..%2F..%2Fsecret",
        "/reports/ops/disks/..%2F..%2F../secret",
        "/reports/%2e%2e/%2e%2e/%2e%2e/secret",
        "/reports/ops/../../secret",
        "/reports/ops/disks/202608030910/.execution.json",
        "/reports/ops/disks/202608030910/n1.json%231",
        "/reports/ops/disks/202608030910/n1.json%00",
        "/reports/ops/disks/202608030910/none",
        "/reports/ops/other/",
        "/reports/ops/disks/202608030911/",
        "/reports/ops/disks/%2e%2e/",
        "/secret",
    ] {
        assert_eq!(service.get(path).await.code(), 404, "{path}");
    }
    let long = format!("/reports/ops/disks/202608030910/{}", "x".repeat(4000));
    assert_eq!(service.get(&long).await.code(), 404);
}

#[tokio::test]
async fn a_folder_without_its_slash_leads_to_it() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    for (path, to) in [
        ("/reports", "./reports/"),
        ("/reports/ops/disks", "./disks/"),
        ("/reports/ops/disks/latest", "./latest/"),
    ] {
        let answer = service.get(path).await;
        assert_eq!((answer.code(), answer.header("location")), (308, to));
    }
    assert_eq!(service.get("/").await.header("location"), "reports/");
}

#[tokio::test]
async fn never_lets_a_late_report_hide_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1", "n2"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    let running = service.metrics().await;
    assert!(running.contains(&series("processing", "n1", EXECUTION, "1.0")), "{running}");
    report(&service, EXECUTION, "n1", 1.0).await;
    cluster.state(EXECUTION, "n1", NodeState::Succeeded);
    cluster.state(EXECUTION, "n2", NodeState::Failed);
    report(&service, EXECUTION, "n2", 2.0).await;
    let metrics = service.metrics().await;
    assert!(metrics.contains(&series("processing", "n1", EXECUTION, "0.0")), "{metrics}");
    assert!(metrics.contains(&series("processing", "n2", EXECUTION, "1.0")), "the node failed: {metrics}");
    assert!(metrics.contains(&series("plain", "n2", EXECUTION, "2.0")), "its values are there all the same");
    let page = service.get("/reports/ops/disks/latest/").await.text();
    assert!(page.contains("\"state\":\"failed\""));
}

#[tokio::test]
async fn the_latest_series_follow_the_newest_execution_and_leave_with_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1", "n2", "n3"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    let next = "202608030920";
    for node in ["n1", "n2", "n3"] {
        report(&service, EXECUTION, node, 1.0).await;
        cluster.state(EXECUTION, node, NodeState::Succeeded);
    }
    cluster.change(|job| {
        drop(job.executions.insert(next.parse().unwrap(), execution(next, &["n1", "n2", "n3"])))
    });
    report(&service, next, "n1", 2.0).await;
    cluster.state(next, "n2", NodeState::Failed);
    // Late, for the execution before.
    report(&service, EXECUTION, "n1", 9.0).await;
    let metrics = service.metrics().await;
    assert!(metrics.contains(&series("plain", "n1", "latest", "2.0")), "{metrics}");
    assert!(metrics.contains(&series("plain", "n1", EXECUTION, "9.0")));
    assert!(
        !metrics.contains("foo_plain{node_batch_job=\"ops/disks\",node=\"n2\",executionID=\"latest\"}"),
        "it failed since"
    );
    assert!(metrics.contains(&series("plain", "n3", "latest", "1.0")), "it has yet to report");
    assert!(metrics.contains(&series("processing", "n2", "latest", "1.0")));
    assert!(metrics.contains("foo_current_execution_id{node_batch_job=\"ops/disks\"} 202608030920.0"));
    assert!(metrics.contains("foo_pods{node_batch_job=\"ops/disks\"} 3.0"));
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn never_grows_metrics_without_bound() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    cluster.change(|job| job.metrics.as_mut().unwrap().max_series = 20);
    let service = Service::start(root.path(), cluster.clone()).await;
    for round in 0..5 {
        let id = format!("20260803100{round}");
        cluster.change(|job| drop(job.executions.insert(id.parse().unwrap(), execution(&id, &["n1"]))));
        let values: Vec<_> =
            (0..100).map(|n| format!(r#"{{"value":{n},"labels":{{"label_a":"{round}-{n}"}}}}"#)).collect();
        let body = format!(r#"{{"my_metric":[{}]}}"#, values.join(","));
        assert_eq!(service.post(&urls(&slot(&id, "n1")).result, body).await.code(), 200);
    }
    let metrics = service.metrics().await;
    let lines = metrics.lines().filter(|line| line.starts_with("foo_my_metric{")).count();
    assert_eq!(lines, 20, "10 values, each a second time as the latest");
    assert!(metrics.contains("label_a=\"4-0\""), "the newest execution has its series");
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("stoker_reports_series_dropped_total{") && !line.ends_with(" 0"))
    );
    assert_eq!(tree(root.path()).keys().filter(|name| name.ends_with("n1.json")).count(), 5);
}

#[tokio::test]
async fn history_and_age_prune_executions_with_their_metrics() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let ids = ["202608030910", "202608030911", "202608030912", "202608030913"];
    for id in ids {
        cluster.change(|job| drop(job.executions.insert(id.parse().unwrap(), execution(id, &["n1"]))));
    }
    let service = Service::start(root.path(), cluster.clone()).await;
    for id in ids {
        report(&service, id, "n1", 1.0).await;
    }
    let folders = || {
        let tree = tree(root.path());
        tree.keys()
            .filter(|name| name.ends_with("n1.json"))
            .map(|name| name[10..22].to_owned())
            .collect::<Vec<_>>()
    };
    let end = |id: &str| {
        let id = id.parse().unwrap();
        cluster.change(|job| job.executions.get_mut(&id).unwrap().ended = Some(jiff::Timestamp::now()));
    };
    cluster.change(|job| job.retention = Retention { history: 2, ttl: None });
    service.reports.upkeep().await.unwrap();
    assert_eq!(folders(), ids, "none of them has ended");
    end(ids[0]);
    end(ids[1]);
    assert_eq!(service.reports.upkeep().await.unwrap().executions, 2);
    assert_eq!(folders(), ids[2..]);
    let metrics = service.metrics().await;
    assert!(!metrics.contains(&series("plain", "n1", ids[1], "1.0")), "{metrics}");
    assert!(metrics.contains(&series("plain", "n1", ids[2], "1.0")), "{metrics}");
    end(ids[2]);
    cluster.change(|job| job.retention = Retention { history: 9, ttl: Some(Duration::ZERO) });
    tokio::time::sleep(Duration::from_millis(1100)).await;
    service.reports.upkeep().await.unwrap();
    assert_eq!(folders(), ids[3..], "what runs is kept");
}

#[tokio::test]
async fn reports_of_a_deleted_job_stay_for_a_while() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let limits = Limits { orphans: Duration::from_secs(1), ..Limits::default() };
    let service =
        Service::start_with(Store::local(root.path()).unwrap(), cluster.clone(), limits, None).await;
    report(&service, EXECUTION, "n1", 1.0).await;
    cluster.delete(&job_key());
    service.reports.upkeep().await.unwrap();
    let detail = service.get("/reports/ops/disks/latest/").await.text();
    assert!(detail.contains("n1.json"), "{detail}");
    assert!(service.get("/reports/").await.text().contains("\"exists\":false"));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(service.reports.upkeep().await.unwrap().executions, 1);
    assert!(tree(root.path()).is_empty());
}

#[tokio::test]
async fn what_a_spec_or_a_report_says_breaks_no_metrics() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    cluster.change(|job| {
        let gauge = |help: &str, labels: &[&str]| stoker_reports::Gauge {
            help: help.into(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        };
        let gauges = &mut job.metrics.as_mut().unwrap().gauges;
        gauges.insert("helped".into(), gauge("a\nforged 1\n", &["node", "bad-label", "ok", "ok"]));
        gauges.insert("processing".into(), gauge("", &[]));
    });
    let service = Service::start(root.path(), cluster).await;
    let body = r#"{"helped":[{"value":1,"labels":{"ok":"x\"\n} 1\nforged 2","node":"n9"}}],"processing":[{"value":9}]}"#;
    assert_eq!(service.post(&urls(&slot(EXECUTION, "n1")).result, body).await.code(), 200);
    let metrics = service.metrics().await;
    assert!(!metrics.lines().any(|line| line.starts_with("forged")), "{metrics}");
    let labels = r#"node="n1",executionID="202608030910",ok="x\"\n} 1\nforged 2"} 1.0"#;
    assert!(metrics.contains(labels), "{metrics}");
    assert!(metrics.contains(&series("processing", "n1", EXECUTION, "0.0")));
    assert!(!metrics.contains(" 9.0"));
}

#[tokio::test]
#[ignore = "waits for 15 s"]
async fn silent_connections_are_closed() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    for said in ["", "POST / HT", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        for at in [service.callbacks, service.readers] {
            let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut heard)).await;
            assert!(closed.is_ok(), "{said:?}");
        }
    }
}

#[tokio::test]
async fn metrics_follow_a_changed_spec() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    let body = r#"{"plain":[{"value":1}],"other":[{"value":5}]}"#;
    assert_eq!(service.post(&urls(&slot(EXECUTION, "n1")).result, body).await.code(), 200);
    assert!(!service.metrics().await.contains("foo_other"));
    let mut other = job(&["n1"]);
    other.metrics.as_mut().unwrap().gauges.insert("other".into(), stoker_reports::Gauge::default());
    cluster.put(other);
    let metrics = service.metrics().await;
    assert!(metrics.contains(&series("other", "n1", EXECUTION, "5.0")), "{metrics}");
    assert!(metrics.contains(&series("plain", "n1", EXECUTION, "1.0")), "{metrics}");
}

#[tokio::test]
async fn metrics_of_a_job_that_is_new_are_there_soon() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let key = job_key();
    cluster.delete(&key);
    let service = Service::start(root.path(), cluster.clone()).await;
    while service.get("/readyz").await.code() != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.put(job(&["n1"]));
    report(&service, EXECUTION, "n1", 1.0).await;
    tokio::time::timeout(Duration::from_secs(10), async {
        while !service.get("/metrics").await.text().contains(&series("plain", "n1", EXECUTION, "1.0")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn pods_may_report_over_tls() {
    let root = tempfile::tempdir().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    provider.as_ref().clone().install_default().ok();
    let made = rcgen::generate_simple_self_signed(vec!["reports".into()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let config = RustlsConfig::from_pem(certificate.into(), key.into()).await.unwrap();
    let store = Store::local(root.path()).unwrap();
    let service = Service::start_with(store, Fake::with(&["n1"]), Limits::default(), Some(config)).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(service.callbacks).await.unwrap();
    let name = "reports".try_into().unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, tcp).await.unwrap();
    let url = urls(&slot(EXECUTION, "n1")).file;
    let request = format!(
        "POST {}?name=t HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        common::path(&url)
    );
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    tls.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    assert_eq!(kept(root.path())["n1-t"], b"ok");
}
