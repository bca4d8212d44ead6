//! Claims: a standby pod is handed out exactly once, to those who may, and is theirs until its work is done.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use stoker_api::keys;
use stoker_e2e::World;
use stoker_e2e::audit::pod_events;
use stoker_e2e::claims::{CLAIMS, Claimant, account};
use stoker_e2e::operator::Operator;

/// The pool's pods that carry a claim.
async fn claimed_pods(world: &World, pool: &str) -> Result<Vec<Pod>> {
    let pods = world.alive(pool).await?;
    Ok(pods.into_iter().filter(|p| p.annotations().contains_key(keys::CLAIM)).collect())
}

fn annotation(pod: &Pod) -> Value {
    serde_json::from_str(&pod.annotations()[keys::CLAIM]).unwrap()
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_claim_hands_out_a_standby_pod_and_another_takes_its_place() -> Result<()> {
    let (world, token) = World::with_claims("claim").await?;
    world.apply_pool("game", json!({"idleTarget": 2, "stateLabels": true})).await?;
    world.counts("game", 0, 2, 2).await?;
    let claimant = world.claimant(&token, "game")?;

    let body = json!({"ttlSeconds": 600, "metadata": {"match": "42"}});
    let answer = claimant.claim(body).await?;
    let (id, name) = (answer.id()?, answer.pod()?);
    let pod = world.pods().get(&name).await?;
    let granted = &answer.body["pod"];
    assert_eq!(granted["uid"].as_str(), pod.uid().as_deref());
    assert_eq!(granted["ip"].as_str(), pod.status.as_ref().unwrap().pod_ip.as_deref());
    assert_eq!(granted["node"].as_str(), pod.spec.as_ref().unwrap().node_name.as_deref());
    assert_eq!(pod.labels()[keys::STATE], "claimed");
    let noted = annotation(&pod);
    assert_eq!((&noted["id"], &noted["metadata"]["match"]), (&json!(id), &json!("42")));
    let who = format!("system:serviceaccount:{}:claimant", world.namespace);
    assert_eq!((answer.text("claimedBy"), &noted["by"]), (who.as_str(), &json!(who)));
    world.claimed("game", 1, 0, 2).await?;
    let reason = world.pool("game").await?.status.unwrap().last_decision.unwrap().reason;
    assert_eq!(reason, "0 busy + 1 claimed + 2 idle");

    // It is listed, shown, and renewed.
    let list = claimant.get("").await?;
    assert_eq!((list.status, &list.body["claims"][0]["id"]), (200, &json!(id)), "{list:?}");
    let before: Timestamp = claimant.get(&format!("/{id}")).await?.text("expiresAt").parse()?;
    let renewed = claimant.send(Method::POST, &format!("/{id}/renew"), json!({"ttlSeconds": 6000})).await?;
    let after: Timestamp = renewed.text("expiresAt").parse()?;
    assert!(after.duration_since(before).as_secs() > 5000, "{before} {after}");

    // Released it is standby again, and the surplus goes.
    assert_eq!(claimant.release(&id).await?.status, 200);
    world.claimed("game", 0, 0, 2).await?;
    let gone = claimant.release(&id).await?;
    assert_eq!((gone.status, gone.text("reason")), (404, "NoSuchClaim"), "{gone:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_requests_that_cannot_be_granted_are_refused_in_words() -> Result<()> {
    let (world, token) = World::with_claims("claim-refused").await?;
    world.apply_pool("game", json!({"idleTarget": 0})).await?;
    world.counts("game", 0, 0, 0).await?;
    let claimant = world.claimant(&token, "game")?;

    for given in [None, Some("no-token")] {
        let stranger = Claimant::new(&world, world.operator(), given, "game")?;
        let answer = stranger.claim(Value::Null).await?;
        assert_eq!((answer.status, answer.text("reason")), (401, "Unauthenticated"), "{answer:?}");
        assert!(answer.text("message").contains("Authorization: Bearer"), "{answer:?}");
    }
    let other = account(&world, "other", &[]).await?;
    let answer = world.claimant(&other, "game")?.claim(Value::Null).await?;
    assert_eq!((answer.status, answer.text("reason")), (403, "Forbidden"), "{answer:?}");
    let words = format!(
        "system:serviceaccount:{0}:other may not create hotstandbydeployments/claim game in namespace {0}: bind it to a role that allows the verb create on the resource hotstandbydeployments/claim of the group stoker.dev",
        world.namespace
    );
    assert_eq!(answer.text("message"), words);

    let answer = world.claimant(&token, "gone")?.claim(Value::Null).await?;
    assert_eq!((answer.status, answer.text("reason")), (404, "NoSuchPool"), "{answer:?}");
    let answer = claimant.get("/game-0.0123").await?;
    assert_eq!((answer.status, answer.text("reason")), (404, "NoSuchClaim"), "{answer:?}");
    let answer = claimant.claim(Value::Null).await?;
    assert_eq!((answer.status, answer.text("reason")), (409, "NoStandby"), "{answer:?}");
    assert!(answer.retry_after.is_some());

    for (body, words) in [
        (json!({"ttl": 5}), "unknown field `ttl`"),
        (json!({"ttlSeconds": 0}), "ttlSeconds must be 1 to 31536000"),
        (json!({"waitSeconds": -1}), "invalid value"),
        (json!(["match-7"]), "it must be a JSON object"),
    ] {
        let answer = claimant.claim(body.clone()).await?;
        assert_eq!((answer.status, answer.text("reason")), (400, "BadRequest"), "{body}: {answer:?}");
        assert!(answer.text("message").contains(words), "{body}: {answer:?}");
    }
    let answer = claimant.send_raw(Method::POST, "", b"{".to_vec()).await?;
    assert_eq!(answer.status, 400, "{answer:?}");
    let answer = claimant.send_raw(Method::POST, "", vec![b' '; 200 << 10]).await?;
    assert_eq!((answer.status, answer.text("reason")), (413, "BadRequest"), "{answer:?}");
    let answer = claimant.send(Method::POST, "?kind=Pod", Value::Null).await?;
    assert_eq!((answer.status, answer.text("reason")), (400, "NoSuchKind"), "{answer:?}");
    let answer = claimant.send(Method::PUT, "", Value::Null).await?;
    assert_eq!(answer.status, 405, "{answer:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn an_account_that_asks_too_often_is_told_when_to_come_back() -> Result<()> {
    let flags = ["--claims", "127.0.0.1:0", "--claims-per-second", "1"];
    let world = World::start_with("claim-rate", &flags).await?;
    let token = account(&world, "claimant", &CLAIMS).await?;
    world.apply_pool("game", json!({"idleTarget": 0})).await?;
    world.counts("game", 0, 0, 0).await?;
    let claimant = world.claimant(&token, "game")?;
    // Ten at once, and one more each second: of so many some come too often, however slow the machine is.
    let began = Instant::now();
    loop {
        let answers: Vec<_> = futures::future::join_all((0..40).map(|_| claimant.get(""))).await;
        let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
        assert!(answers.iter().all(|a| matches!(a.status, 200 | 429)), "{answers:?}");
        if let Some(refused) = answers.iter().find(|a| a.status == 429) {
            assert_eq!(refused.text("reason"), "TooManyRequests");
            assert!(refused.retry_after.is_some());
            break;
        }
        assert!(began.elapsed() < stoker_e2e::DEADLINE, "never too often");
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_request_that_is_repeated_with_its_token_gets_the_same_pod() -> Result<()> {
    let (world, token) = World::with_claims("claim-token").await?;
    world.apply_pool("game", json!({"idleTarget": 4})).await?;
    world.counts("game", 0, 4, 4).await?;
    let claimant = world.claimant(&token, "game")?;
    let body = json!({"token": "match-7", "waitSeconds": 120});
    let answers = claimant.claims(20, &body).await?;
    let ids = answers.iter().map(|a| a.id()).collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(ids.len(), 1, "{answers:?}");
    world.claimed("game", 1, 0, 4).await?;

    // The operator forgets everything, the pod does not.
    let mut world = world;
    world.operator.as_mut().unwrap().restart()?;
    let served = |o: &Operator| {
        Ok(o.log().matches("serving claims").count() == 2 && o.log().matches(" running ").count() == 2)
    };
    world.wait("game", "running again", served).await?;
    let again = world.claimant(&token, "game")?;
    assert_eq!(ids, BTreeSet::from([again.claim(body.clone()).await?.id()?]));

    // Another account's token is another token, and a released claim is not granted again.
    let other = account(&world, "other", &CLAIMS).await?;
    let others = world.claimant(&other, "game")?.claim(body.clone()).await?.id()?;
    assert!(!ids.contains(&others));
    assert_eq!(again.release(ids.first().unwrap()).await?.status, 200);
    let new = again.claim(body).await?.id()?;
    assert!(!ids.contains(&new));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn each_pod_is_handed_out_once_by_two_operators_that_are_asked_at_once() -> Result<()> {
    let (world, token) = World::with_claims("claim-two").await?;
    let flags = ["--claims", "127.0.0.1:0", "--claims-per-second", "10000"];
    world.apply_pool("game", json!({"idleTarget": 30, "maxReplicas": 30})).await?;
    world.counts("game", 0, 30, 30).await?;
    let one = world.claimant(&token, "game")?;
    let other = Operator::start(&world.namespace, &flags).await?;
    // Both write to the same log, in which the second's address is the later one.
    let two = Claimant::new(&world, &other, Some(&token), "game")?;
    let body = json!({"waitSeconds": 2});
    let (ones, twos) = futures::future::try_join(one.claims(25, &body), two.claims(25, &body)).await?;
    let answers: Vec<_> = ones.into_iter().chain(twos).collect();
    assert!(answers.iter().all(|a| matches!(a.status, 201 | 409)), "{answers:?}");
    let granted: Vec<_> = answers.iter().filter_map(|a| a.pod().ok()).collect();
    let distinct: BTreeSet<_> = granted.iter().collect();
    assert_eq!((granted.len(), distinct.len()), (30, 30), "{}", world.tell("game").await);
    world.claimed("game", 30, 0, 0).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn claims_that_wait_are_demand_so_that_an_idle_target_of_nothing_works() -> Result<()> {
    let (world, token) = World::with_claims("claim-wait").await?;
    world.apply_pool("game", json!({"idleTarget": 0, "maxReplicas": 5})).await?;
    world.counts("game", 0, 0, 0).await?;
    let claimant = world.claimant(&token, "game")?;
    let answers = claimant.claims(3, &json!({"waitSeconds": 150})).await?;
    let pods = answers.iter().map(|a| a.pod()).collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(pods.len(), 3);
    world.claimed("game", 3, 0, 0).await?;
    assert_eq!(world.alive("game").await?.len(), 3, "one pod for each claim");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_policy_sees_claims_that_wait_and_those_that_missed() -> Result<()> {
    let (world, token) = World::with_claims("claim-policy").await?;
    let config = json!({"desired": "waiting > 0 || misses > 0 ? 2 : busy + claimed"});
    let policy = json!({"builtin": "expression", "config": config});
    world
        .apply_pool("game", json!({"idleTarget": 0, "scaleDownDelaySeconds": 600, "policy": policy}))
        .await?;
    world
        .status("game", "decided by the policy", |p| {
            p.status
                .as_ref()
                .and_then(|s| s.last_decision.as_ref())
                .is_some_and(|d| d.by == "builtin/expression")
        })
        .await?;
    let claimant = world.claimant(&token, "game")?;
    let missed = claimant.claim(Value::Null).await?;
    assert_eq!(missed.status, 409, "{missed:?}");
    world.status("game", "grown", |p| p.status.as_ref().is_some_and(|s| s.total_count == 2)).await?;
    claimant.claim(json!({"waitSeconds": 150})).await?.pod()?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_a_claimed_pod_is_not_removed_by_anything_that_asks_for_fewer() -> Result<()> {
    let (world, token) = World::with_claims("claim-spared").await?;
    world.apply_pool("game", json!({"idleTarget": 4})).await?;
    world.counts("game", 0, 4, 4).await?;
    let claimant = world.claimant(&token, "game")?;
    let claimed = [claimant.claim(Value::Null).await?.pod()?, claimant.claim(Value::Null).await?.pod()?];
    world.claimed("game", 2, 0, 4).await?;
    let all_there = |pods: &[Pod]| claimed.iter().all(|c| pods.iter().any(|p| p.name_any() == *c));
    for fields in [
        json!({"idleTarget": 0}),
        json!({"maxReplicas": 1}),
        json!({"podTemplate": {"metadata": {"annotations": {"rollout": "1"}}}}),
    ] {
        world.patch_pool("game", fields).await?;
        world.claimed("game", 2, 0, 0).await?;
        world.holds("game", Duration::from_secs(2), "the claimed pods stay", all_there).await?;
    }
    // Once released they go.
    for pod in claimed_pods(&world, "game").await? {
        assert_eq!(claimant.release(annotation(&pod)["id"].as_str().unwrap()).await?.status, 200);
    }
    world.claimed("game", 0, 0, 0).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_claims_race_scale_downs_and_no_claimed_pod_goes() -> Result<()> {
    let (world, token) = World::with_claims("claim-race").await?;
    world.apply_pool("game", json!({"idleTarget": 12, "maxReplicas": 40})).await?;
    world.counts("game", 0, 12, 12).await?;
    let claimant = world.claimant(&token, "game")?;
    let mut held = Vec::new();
    for round in 0..8 {
        let target = if round % 2 == 0 { 0 } else { 12 };
        let fewer = world.patch_pool("game", json!({"idleTarget": target}));
        let body = json!({"waitSeconds": 100});
        let (_, answers) = futures::future::try_join(fewer, claimant.claims(4, &body)).await?;
        for answer in answers {
            held.push((answer.pod()?, answer.id()?));
        }
    }
    let distinct: BTreeSet<_> = held.iter().map(|(pod, _)| pod).collect();
    assert_eq!((held.len(), distinct.len()), (32, 32));
    let claimed = claimed_pods(&world, "game").await?;
    let ids: BTreeSet<_> = claimed.iter().map(|p| annotation(p)["id"].as_str().unwrap().to_owned()).collect();
    assert!(held.iter().all(|(_, id)| ids.contains(id)), "a claim was lost: {}", world.tell("game").await);
    let deleted = pod_events(&world.namespace, keys::CLAIM)?;
    println!("{} events", deleted.len());
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_claim_ends_with_the_work_of_its_pod_which_is_used_again_or_replaced() -> Result<()> {
    let (world, token) = World::with_claims("claim-work").await?;
    for (name, after_use) in [("reused", "Reuse"), ("replaced", "Replace")] {
        world.apply_pool(name, json!({"idleTarget": 1, "afterUse": after_use})).await?;
        world.counts(name, 0, 1, 1).await?;
        let claimant = world.claimant(&token, name)?;
        let pod = claimant.claim(Value::Null).await?.pod()?;
        world.claimed(name, 1, 0, 1).await?;
        let pods = [world.pods().get(&pod).await?];
        world.set_busy(&pods, true).await?;
        world.claimed(name, 0, 1, 1).await?;
        let worked = || async { Ok(annotation(&world.pods().get(&pod).await?)["workedAt"].is_string()) };
        world.until(name, "noted to be at work", worked).await?;
        world.set_busy(&pods, false).await?;
        world.claimed(name, 0, 0, 1).await?;
        let left = world.alive(name).await?;
        assert!(left.iter().all(|p| !p.annotations().contains_key(keys::CLAIM)));
        if after_use == "Replace" {
            assert!(left.iter().all(|p| p.name_any() != pod || p.uid() != pods[0].uid()), "it is used again");
        }
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_claim_that_no_work_follows_times_out_and_one_with_a_ttl_expires() -> Result<()> {
    let (world, token) = World::with_claims("claim-timeout").await?;
    let spec = |after: &str| json!({"idleTarget": 1, "claimTimeoutSeconds": 2, "afterClaimTimeout": after});
    world.apply_pool("replaced", spec("Replace")).await?;
    // Where there is room for one only, the returned one is the one that stays.
    world.apply_pool("returned", spec("Return")).await?;
    world.patch_pool("returned", json!({"maxReplicas": 1})).await?;
    world.apply_pool("expired", json!({"idleTarget": 1, "maxReplicas": 1})).await?;
    for (name, body) in
        [("replaced", json!({})), ("returned", json!({})), ("expired", json!({"ttlSeconds": 2}))]
    {
        world.counts(name, 0, 1, 1).await?;
        let answer = world.claimant(&token, name)?.claim(body).await?;
        answer.id()?;
        let uid = answer.body["pod"]["uid"].as_str().map(str::to_owned);
        // It is gone, or there without its claim.
        let over = || async {
            let found = world.alive(name).await?.into_iter().find(|p| p.uid() == uid);
            Ok(match name {
                "replaced" => found.is_none(),
                _ => found.is_some_and(|p| !p.annotations().contains_key(keys::CLAIM)),
            })
        };
        world.until(name, "over", over).await?;
        world.counts(name, 0, 1, 1).await?;
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn who_goes_away_while_waiting_leaves_no_claim_behind() -> Result<()> {
    let (world, token) = World::with_claims("claim-gone").await?;
    world.apply_pool("game", json!({"idleTarget": 0, "maxReplicas": 1, "paused": true})).await?;
    world.counts("game", 0, 0, 0).await?;
    let claimant = world.claimant(&token, "game")?;
    let waits = tokio::spawn({
        let claimant = claimant.clone();
        async move { claimant.claim(json!({"waitSeconds": 600})).await }
    });
    let waiting = |count: u64| {
        let claimant = claimant.clone();
        move || {
            let claimant = claimant.clone();
            async move { Ok(claimant.get("").await?.body["waiting"].as_u64() == Some(count)) }
        }
    };
    world.until("game", "waiting", waiting(1)).await?;
    waits.abort();
    world.until("game", "gone", waiting(0)).await?;
    world.patch_pool("game", json!({"paused": false, "idleTarget": 1})).await?;
    world.claimed("game", 0, 0, 1).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_claim_asks_for_labels() -> Result<()> {
    let (world, token) = World::with_claims("claim-labels").await?;
    world.apply_pool("game", json!({"idleTarget": 3})).await?;
    world.counts("game", 0, 3, 3).await?;
    let pods = world.alive("game").await?;
    let patch = json!({"metadata": {"labels": {"size": "large"}}});
    let name = pods[2].name_any();
    world.pods().patch(&name, &Default::default(), &kube::api::Patch::Merge(&patch)).await?;
    let claimant = world.claimant(&token, "game")?;
    let body = json!({"selector": {"size": "large"}, "waitSeconds": 100});
    assert_eq!(claimant.claim(body).await?.pod()?, name);
    let none = claimant.claim(json!({"selector": {"size": "huge"}})).await?;
    assert_eq!((none.status, none.text("reason")), (409, "NoStandby"));
    world.finish().await
}
