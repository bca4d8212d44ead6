//! Signals: a policy follows a number from Prometheus or from a JSON document, and whatever happens to its source, a pool
//! does not shrink for want of it.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use stoker_api::HotStandbyDeployment;
use stoker_e2e::prometheus::{self, Prometheus};
use stoker_e2e::web::Web;
use stoker_e2e::{World, condition, root};

/// A pool that keeps one pod ready for every four things that wait.
fn by_queue(signals: &Value) -> Value {
    let policy = json!({"builtin": "queue-depth", "config": {"perReplica": 4}});
    json!({"idleTarget": 1, "scaleDownDelaySeconds": 0, "policy": policy, "signals": signals})
}

fn is(status: &str, words: &str) -> impl Fn(&HotStandbyDeployment) -> bool {
    let (status, words) = (status.to_owned(), words.to_owned());
    move |pool| condition(pool, "SignalsHealthy").is_some_and(|(s, _, w)| s == status && w.contains(&words))
}

fn why(pool: &HotStandbyDeployment) -> String {
    let decision = pool.status.as_ref().and_then(|status| status.last_decision.clone());
    decision.unwrap_or_default().reason
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i3_a_pool_follows_prometheus_and_does_not_shrink_while_it_is_away() -> Result<()> {
    if !prometheus::is_installed() {
        return Ok(());
    }
    let web = Web::start();
    let waits = |count: u32| {
        web.set(
            "/metrics",
            200,
            &format!("# TYPE queue gauge\nqueue{{kind=\"a\"}} {count}\nqueue{{kind=\"b\"}} 2\n"),
        )
    };
    waits(10);
    let mut prometheus = Prometheus::start(&format!("127.0.0.1:{}", web.port));
    let world = World::start_with("signals", &["--signal-hosts", "127.0.0.1"]).await?;
    let url = format!("http://127.0.0.1:{}", prometheus.port);
    let signal = |query: &str| json!([{"name": "queue", "prometheus": {"url": url, "query": query}, "periodSeconds": 1, "timeoutSeconds": 1}]);
    world.apply_pool("shop", by_queue(&signal("sum(queue)"))).await?;
    world.counts("shop", 0, 3, 3).await?;
    let pool = world.status("shop", "well supplied", is("True", "new enough")).await?;
    assert_eq!(why(&pool), "0 busy + queue 12 at 4 a pod, at least 1");
    waits(18);
    world.counts("shop", 0, 5, 5).await?;

    prometheus.kill();
    let pool =
        world.status("shop", "without its signal", is("False", "signal queue: cannot connect")).await?;
    assert!(why(&pool).contains("; cannot connect") || why(&pool).contains("no queue for"), "{}", why(&pool));
    assert!(why(&pool).ends_with("holding the last 5"), "{}", why(&pool));
    waits(2);
    // Work goes on as before: what turns busy is replaced.
    world.set_busy(&world.alive("shop").await?[..5], true).await?;
    world.counts("shop", 5, 1, 6).await?;

    prometheus.run();
    world.status("shop", "well supplied again", is("True", "new enough")).await?;
    world.counts("shop", 5, 1, 6).await?;
    world.set_busy(&world.alive("shop").await?, false).await?;
    world.counts("shop", 0, 1, 1).await?;

    // What a query does not find is no zero.
    waits(18);
    world.counts("shop", 0, 5, 5).await?;
    for (query, words) in [
        ("sum(no_such_metric)", "the query has no result"),
        ("queue", "the query has 2 results: make them one, as with sum()"),
        ("sum(", "Prometheus refuses the query: "),
        ("sum(queue) / 0", "the number is inf"),
    ] {
        world.patch_pool("shop", json!({"signals": signal(query)})).await?;
        let pool = world.status("shop", "told what is wrong", is("False", words)).await?;
        assert_eq!(pool.status.as_ref().unwrap().desired_replicas, 5, "{query}: {}", why(&pool));
    }
    let failed =
        world.operator().metric("stoker_signal_fetch_duration_seconds_count", "outcome=\"failed\"")?;
    assert!(failed >= 4.0, "{failed}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_examples_pool_follows_its_queue_and_tries_another_rule_beside() -> Result<()> {
    if !prometheus::is_installed() {
        return Ok(());
    }
    let web = Web::start();
    web.set("/metrics", 200, "# TYPE shop_orders_waiting gauge\nshop_orders_waiting 20\n");
    let prometheus = Prometheus::start(&format!("127.0.0.1:{}", web.port));
    let world = World::start_with("queued", &["--signal-hosts", "127.0.0.1"]).await?;
    let file = root().join("examples/hot-standby-deployment/queue-depth.yaml");
    let text = std::fs::read_to_string(file)?;
    let address = "http://prometheus.monitoring.svc:9090";
    assert!(text.contains(address));
    let text = text.replace(address, &format!("http://127.0.0.1:{}", prometheus.port));
    let pool: HotStandbyDeployment = serde_yaml::from_str(&text)?;
    world.pools().create(&PostParams::default(), &pool).await?;
    world.counts("queued", 0, 4, 4).await?;
    let differs = |pool: &HotStandbyDeployment| {
        let policy = pool.status.as_ref().and_then(|status| status.policy.clone());
        let shadow = policy.and_then(|policy| policy.shadow).unwrap_or_default();
        shadow.would_keep == Some(2) && shadow.differs.is_some_and(|words| words.contains("2 instead of 4"))
    };
    world.status("queued", "told what the other rule would keep", differs).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_pool_follows_a_json_document_that_wants_a_token() -> Result<()> {
    let web = Web::start();
    web.set("/queues?of=shop", 200, r#"{"queues": [{"waiting": "8"}]}"#);
    let world = World::start_with("documents", &["--signal-hosts", "127.0.0.1"]).await?;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &world.namespace);
    let secret = json!({"metadata": {"name": "queue"}, "stringData": {"token": "t0ken\n"}});
    let url = format!("http://127.0.0.1:{}/queues?of=shop", web.port);
    let signal = json!([{"name": "queue", "http": {"url": url, "pointer": "/queues/0/waiting"}, "token": {"name": "queue"},
        "periodSeconds": 1, "timeoutSeconds": 1}]);
    world.apply_pool("shop", by_queue(&signal)).await?;
    let missing = format!("Secret {}/queue does not exist", world.namespace);
    world.status("shop", "told that its Secret is missing", is("False", &missing)).await?;
    world.counts("shop", 0, 1, 1).await?;
    secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    world.counts("shop", 0, 2, 2).await?;
    assert!(
        web.heads().iter().all(|head| head.contains("authorization: bearer t0ken\n")),
        "{:?}",
        web.heads()
    );
    web.set("/queues?of=shop", 503, r#"{"queues": [{"waiting": "0"}]}"#);
    let pool = world.status("shop", "told that its source fails", is("False", "HTTP 503")).await?;
    assert_eq!(pool.status.unwrap().desired_replicas, 2);
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn signals_come_from_no_host_that_is_not_meant_for_them() -> Result<()> {
    let web = Web::start();
    web.set("/", 200, "8");
    let signal = |host: &str| {
        let url = format!("http://{host}:{}/", web.port);
        json!([{"name": "queue", "http": {"url": url}, "periodSeconds": 1, "timeoutSeconds": 1}])
    };
    let world = World::start("hosts").await?;
    world.apply_pool("shop", by_queue(&signal("localhost"))).await?;
    let words = "localhost is the operator's own machine or link, which --signal-hosts must allow by name";
    world.status("shop", "refused its source", is("False", words)).await?;
    assert!(web.heads().is_empty(), "{:?}", web.heads());
    world.finish().await?;

    let world = World::start_with("named-hosts", &["--signal-hosts", "*.example.com,127.0.0.1:1"]).await?;
    world.apply_pool("shop", by_queue(&signal("127.0.0.1"))).await?;
    let words =
        format!("127.0.0.1:{} is none of the hosts that the operator's --signal-hosts names", web.port);
    world.status("shop", "refused its source", is("False", &words)).await?;
    assert!(web.heads().is_empty(), "{:?}", web.heads());
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn signals_that_cannot_be_meant_are_refused_at_admission() -> Result<()> {
    let world = World::without_operator("signal-rules").await?;
    let http = |url: &str| json!({"name": "queue", "http": {"url": url, "pointer": "/a"}});
    for (signals, words) in [
        (json!([{"name": "queue"}]), "a signal needs exactly one source"),
        (json!([http("ftp://shop/")]), "http.url must be http://HOST"),
        (json!([http("http://user:word@shop/")]), "http.url must be http://HOST"),
        (json!([http("http://shop/a b")]), "http.url must be http://HOST"),
        (
            json!([{"name": "queue", "http": {"url": "http://shop", "pointer": "a"}}]),
            "http.pointer must be a JSON pointer",
        ),
        (
            json!([{"name": "queue", "prometheus": {"url": "http://shop?query=1", "query": "up"}}]),
            "prometheus.url must be",
        ),
        (
            json!([{"name": "queue", "http": {"url": "http://shop"}, "periodSeconds": 2}]),
            "timeoutSeconds must not be greater",
        ),
        (
            json!([{"name": "queue", "http": {"url": "http://shop"}, "maxAgeSeconds": 2}]),
            "maxAgeSeconds must not be smaller",
        ),
        (json!([{"name": "Queue", "http": {"url": "http://shop"}}]), "spec.signals[0].name"),
        (json!([http("http://shop/"), http("http://shop/")]), "uplicate"),
    ] {
        let refused = world.apply_pool("shop", by_queue(&signals)).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{signals}: {refused}");
    }
    let fine = json!([http("https://[fd00::1]:8443/queues?of=shop")]);
    world.apply_pool("shop", by_queue(&fine)).await?;
    world.finish().await
}
