//! StandbyClaim: an object that has a pod for as long as it exists.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, bail};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::{ClaimPhase, StandbyClaim, StandbyClaimStatus, keys};
use stoker_e2e::operator::Operator;
use stoker_e2e::{DEADLINE, World};

fn claims(world: &World) -> Api<StandbyClaim> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

async fn make(world: &World, name: &str, pool: &str, fields: Value) -> Result<StandbyClaim, kube::Error> {
    let mut object = json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "StandbyClaim",
        "metadata": {"name": name},
        "spec": {"poolRef": {"name": pool}},
    });
    stoker_e2e::merge(&mut object["spec"], fields);
    claims(world).patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await
}

/// Waits until a claim's status satisfies a question.
async fn status(
    world: &World,
    name: &str,
    what: &str,
    ok: impl Fn(&StandbyClaimStatus) -> bool,
) -> Result<StandbyClaimStatus> {
    let began = Instant::now();
    loop {
        let claim = claims(world).get(name).await?;
        let status = claim.status.clone().unwrap_or_default();
        if ok(&status) {
            return Ok(status);
        }
        if began.elapsed() > DEADLINE {
            bail!("{name}: not {what} after {DEADLINE:?}: {claim:?}\n{}", world.tell("game").await);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn phase(world: &World, name: &str, phase: ClaimPhase) -> Result<StandbyClaimStatus> {
    status(world, name, &format!("{phase:?}"), |s| s.phase == phase).await
}

fn bound(status: &StandbyClaimStatus) -> (String, String) {
    let condition = status.conditions.iter().find(|c| c.type_ == "Bound").unwrap();
    (condition.reason.clone(), condition.message.clone())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_claim_has_a_pod_until_it_is_deleted() -> Result<()> {
    let world = World::start_process("sbc").await?;
    world.apply_pool("game", json!({"idleTarget": 1})).await?;
    world.counts("game", 0, 1, 1).await?;
    make(&world, "mine", "game", json!({"metadata": {"match": "42"}})).await?;
    let status = phase(&world, "mine", ClaimPhase::Bound).await?;
    let pod = world.pods().get(status.pod_name.as_deref().unwrap()).await?;
    assert_eq!(pod.uid(), status.pod_uid);
    assert_eq!(pod.status.as_ref().unwrap().pod_ip, status.pod_ip);
    let noted: Value = serde_json::from_str(&pod.annotations()[keys::CLAIM])?;
    assert_eq!((&noted["by"], &noted["metadata"]["match"]), (&json!("StandbyClaim mine"), &json!("42")));
    world.claimed("game", 1, 0, 1).await?;

    // A restart forgets nothing.
    let mut world = world;
    world.operator.as_mut().unwrap().restart()?;
    claims(&world).delete("mine", &Default::default()).await?;
    world.claimed("game", 0, 0, 1).await?;
    let gone = || async { Ok(claims(&world).get_opt("mine").await?.is_none()) };
    world.until("game", "without the claim", gone).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn claims_wait_for_pods_and_for_pools() -> Result<()> {
    let world = World::start("sbc-wait").await?;
    make(&world, "early", "game", json!({})).await?;
    let told = status(&world, "early", "told", |s| !s.conditions.is_empty()).await?;
    let words = format!(
        "there is no HotStandbyDeployment {}/game: create it, or correct spec.poolRef",
        world.namespace
    );
    assert_eq!(bound(&told), ("NoSuchPool".to_owned(), words));
    world.apply_pool("game", json!({"idleTarget": 0, "maxReplicas": 1})).await?;
    let early = phase(&world, "early", ClaimPhase::Bound).await?;

    // There is room for one only: another waits until the first gives its pod back.
    make(&world, "late", "game", json!({})).await?;
    let told = status(&world, "late", "told", |s| !s.conditions.is_empty()).await?;
    assert_eq!(bound(&told).0, "Waiting");
    claims(&world).delete("early", &Default::default()).await?;
    let late = phase(&world, "late", ClaimPhase::Bound).await?;
    assert_eq!(early.pod_name, late.pod_name);

    // One that waits is deleted at once.
    make(&world, "never", "game", json!({})).await?;
    status(&world, "never", "told", |s| !s.conditions.is_empty()).await?;
    claims(&world).delete("never", &Default::default()).await?;
    let gone = || async { Ok(claims(&world).get_opt("never").await?.is_none()) };
    world.until("game", "without the claim", gone).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_claim_tells_how_it_ended() -> Result<()> {
    let world = World::start("sbc-end").await?;
    world.apply_pool("game", json!({"idleTarget": 3})).await?;
    world.counts("game", 0, 3, 3).await?;

    make(&world, "short", "game", json!({"ttlSeconds": 1})).await?;
    let status = phase(&world, "short", ClaimPhase::Expired).await?;
    assert_eq!(bound(&status), ("Expired".to_owned(), "its ttlSeconds are over".to_owned()));

    make(&world, "worked", "game", json!({})).await?;
    let name = phase(&world, "worked", ClaimPhase::Bound).await?.pod_name.unwrap();
    let pods = [world.pods().get(&name).await?];
    world.set_busy(&pods, true).await?;
    let noted = || async {
        let claim: Value = serde_json::from_str(&world.pods().get(&name).await?.annotations()[keys::CLAIM])?;
        Ok(claim["workedAt"].is_string())
    };
    world.until("game", "noted to be at work", noted).await?;
    world.set_busy(&pods, false).await?;
    let status = phase(&world, "worked", ClaimPhase::Released).await?;
    assert_eq!(bound(&status), ("Finished".to_owned(), "its pod's work is done".to_owned()));

    make(&world, "lost", "game", json!({})).await?;
    let name = phase(&world, "lost", ClaimPhase::Bound).await?.pod_name.unwrap();
    world.pods().delete(&name, &Default::default()).await?;
    let status = phase(&world, "lost", ClaimPhase::Released).await?;
    assert_eq!(bound(&status), ("Released".to_owned(), "its pod is gone".to_owned()));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn each_claim_gets_one_pod_of_its_own_from_two_operators() -> Result<()> {
    let world = World::start("sbc-two").await?;
    let _other = Operator::start(&world.namespace, &[]).await?;
    world.apply_pool("game", json!({"idleTarget": 6, "maxReplicas": 30})).await?;
    world.counts("game", 0, 6, 6).await?;
    let names: Vec<String> = (0..12).map(|i| format!("claim-{i}")).collect();
    futures::future::try_join_all(names.iter().map(|name| make(&world, name, "game", json!({})))).await?;
    let mut pods = BTreeSet::new();
    for name in &names {
        pods.insert(phase(&world, name, ClaimPhase::Bound).await?.pod_uid.unwrap());
    }
    assert_eq!(pods.len(), 12, "two have the same pod: {}", world.tell("game").await);
    // Whoever was too late has released what it took.
    world.claimed("game", 12, 0, 6).await?;
    let kept = || async {
        let claimed = world.alive("game").await?;
        let claimed = claimed.iter().filter(|p| p.annotations().contains_key(keys::CLAIM));
        Ok(claimed.filter_map(|p| p.uid()).collect::<BTreeSet<_>>() == pods)
    };
    world.until("game", "holding those pods and no others", kept).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_pool_of_jobs_hands_out_pods_too() -> Result<()> {
    use stoker_e2e::jobs::JobPool;

    let world = World::start("sbc-jobs").await?;
    let pool = JobPool { world: &world, name: "game" };
    pool.apply(json!({"idleTarget": 1, "maxReplicas": 3})).await?;
    pool.counts(0, 1, 1).await?;
    make(&world, "mine", "game", json!({"poolRef": {"kind": "HotStandbyJob"}})).await?;
    let name = phase(&world, "mine", ClaimPhase::Bound).await?.pod_name.unwrap();
    let counted = |claimed, idle| {
        move |pool: &stoker_api::HotStandbyJob| {
            pool.status.as_ref().is_some_and(|s| (s.claimed_count, s.idle_count) == (claimed, idle))
        }
    };
    pool.status("claimed", counted(1, 1)).await?;
    let pod = world.pods().get(&name).await?;
    assert!(pod.owner_references().iter().any(|owner| owner.kind == "Job"));
    claims(&world).delete("mine", &Default::default()).await?;
    pool.status("released", counted(0, 1)).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_claims_that_cannot_work_are_refused_in_words() -> Result<()> {
    let world = World::start("sbc-refused").await?;
    let refused = make(&world, "bad", "game", json!({"ttlSeconds": 0})).await.unwrap_err().to_string();
    assert!(refused.contains("ttlSeconds"), "{refused}");
    make(&world, "mine", "game", json!({})).await?;
    let refused = make(&world, "mine", "other", json!({})).await.unwrap_err().to_string();
    assert!(
        refused.contains("poolRef and selector cannot be changed: delete the claim and make another"),
        "{refused}"
    );
    claims(&world).delete("mine", &Default::default()).await?;
    world.finish().await
}
