//! Pods that cannot be made or do not run: whoever is in the way is told, nothing spins or piles up, and the pool fills by
//! itself once the way is free.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use stoker_e2e::audit::operators_requests;
use stoker_e2e::nodes::PrivateNode;
use stoker_e2e::{World, stalled};

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn pods_that_an_admission_policy_refuses_are_told_and_made_once_it_allows_them() -> Result<()> {
    let world = World::start("denied").await?;
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    let denial = Denial::begin(&world).await?;

    // The one has a template that was accepted before; the other's is refused at its dry run.
    world.set_busy(&world.alive("game").await?, true).await?;
    world.apply_pool("late", json!({})).await?;
    for (name, reason) in [("game", "CreationRefused"), ("late", "TemplateRefused")] {
        let pool = world.status(name, "stalled", |p| stalled(p).is_some()).await?;
        let words = stalled(&pool).unwrap();
        assert!(words.starts_with(reason) && words.contains(DENIED), "{name}: {words}");
    }
    // Back-off, not a spin: the first wait is nearly 4 s, and the next ones are longer.
    let tries =
        || anyhow::Ok(operators_requests(&world.namespace)?.iter().filter(|r| r.verb == "create").count());
    let (before, began) = (tries()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (tried, span) = (tries()? - before, began.elapsed());
    assert!(tried as u64 <= 3 * (1 + span.as_secs() / 4), "{tried} tries in {span:?}");

    // Nobody touches the pools; they try again by themselves.
    denial.end().await?;
    world.counts("game", 2, 2, 4).await?;
    world.counts("late", 0, 2, 2).await?;
    for name in ["game", "late"] {
        world.status(name, "no longer stalled", |p| stalled(p).is_none()).await?;
    }
    world.finish().await
}

const DENIED: &str = "no pods today";

/// An admission policy that refuses every pod of a test's namespace.
struct Denial<'a> {
    world: &'a World,
}

impl<'a> Denial<'a> {
    /// Waits until the API server obeys it.
    async fn begin(world: &'a World) -> Result<Self> {
        let name = world.namespace.clone();
        let policy = json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                    "resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                    ],
                },
                "validations": [{"expression": "false", "message": DENIED}],
            },
        });
        let binding = json!({
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(world.client.clone());
        policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(world.client.clone());
        bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
        let denial = Self { world };
        world.until("game", "denied pods", || denial.denies()).await?;
        Ok(denial)
    }

    async fn denies(&self) -> Result<bool> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "asks"},
            "spec": {"containers": [{"name": "app", "image": "docker.io/local/busybox:1"}]},
        }))?;
        match self.world.pods().create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(status)) if status.message.contains(DENIED) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    async fn end(self) -> Result<()> {
        let name = &self.world.namespace;
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.world.client.clone());
        bindings.delete(name, &DeleteParams::default()).await?;
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.world.client.clone());
        policies.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn pods_without_a_node_are_told_do_not_pile_up_and_run_when_there_is_one() -> Result<()> {
    let world = World::start("nowhere").await?;
    let spec = json!({
        "startupTimeoutSeconds": 2,
        "podTemplate": {"spec": {
            "nodeSelector": {"e2e": world.namespace},
            "tolerations": [{"key": "e2e", "operator": "Exists"}],
        }},
    });
    world.apply_pool("game", spec).await?;
    let pool = world.status("game", "stalled", |p| stalled(p).is_some()).await?;
    let words = stalled(&pool).unwrap();
    for said in ["PodsNotStarting", "no node has room for it"] {
        assert!(words.contains(said), "{said}: {words}");
    }
    world.holds("game", Duration::from_secs(2), "two pods", |pods| pods.len() == 2).await?;
    let waiting = world.alive("game").await?;

    let node = PrivateNode::create(&world, "a").await?;
    world.counts("game", 0, 2, 2).await?;
    world.status("game", "no longer stalled", |p| stalled(p).is_none()).await?;
    let now = world.alive("game").await?;
    assert!(now.iter().map(Pod::uid).eq(waiting.iter().map(Pod::uid)), "the same pods");
    node.delete().await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn an_image_that_is_not_there_is_told_and_no_pile_of_pods_grows() -> Result<()> {
    let world = World::start("image").await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    let spec = json!({
        "idleTarget": 1,
        "startupTimeoutSeconds": 3,
        "podTemplate": {"spec": {
            "nodeSelector": {"stoker.dev/node": "real"},
            "tolerations": [{"key": "stoker.dev/node", "operator": "Exists"}],
            "containers": [{"name": "app", "image": "docker.io/local/none:1", "imagePullPolicy": "Never"}],
        }},
    });
    world.apply_pool("game", spec).await?;
    let pool = world.status("game", "stalled", |p| stalled(p).is_some()).await?;
    let words = stalled(&pool).unwrap();
    assert!(words.contains("ErrImageNeverPull"), "{words}");
    world.holds("game", Duration::from_secs(2), "one pod", |pods| pods.len() == 1).await?;
    world.finish().await
}
