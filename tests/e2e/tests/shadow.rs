//! A policy on trial is asked, compared and told, and nothing of it is applied; it is promoted by one field. What policies
//! ask to be given back survives a restart.
#![allow(clippy::unwrap_used)]

mod policies;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use stoker_api::{HotStandbyDeployment, PreScaledCronJob, ShadowStatus};
use stoker_e2e::guests::{bad_policies, wants};
use stoker_e2e::operator::Operator;
use stoker_e2e::{World, audit};

use crate::policies::healthy;

fn shadow(pool: &HotStandbyDeployment) -> ShadowStatus {
    let policy = pool.status.as_ref().and_then(|status| status.policy.clone());
    policy.and_then(|policy| policy.shadow).unwrap_or_default()
}

fn differs(words: &str) -> impl Fn(&HotStandbyDeployment) -> bool {
    let words = words.to_owned();
    move |pool| shadow(pool).differs.as_deref() == Some(&words)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_policy_on_trial_is_compared_never_applied_and_promoted_by_one_field() -> Result<()> {
    let world = World::start("shadow").await?;
    let percent = json!({"builtin": "percent-buffer", "config": {"percent": 200}});
    world
        .apply_pool(
            "game",
            json!({"scaleDownDelaySeconds": 0, "policy": {"builtin": "buffer", "shadow": percent}}),
        )
        .await?;
    world.counts("game", 0, 2, 2).await?;
    let same =
        |pool: &HotStandbyDeployment| shadow(pool).would_keep == Some(2) && shadow(pool).differs.is_none();
    let pool = world.status("game", "with a trial that agrees", same).await?;
    assert_eq!(shadow(&pool).source, "builtin/percent-buffer");
    world.set_busy(&world.alive("game").await?, true).await?;
    let pool =
        world.status("game", "with a trial that differs", differs("would keep 6 instead of 4")).await?;
    assert_eq!(shadow(&pool).reason.as_deref(), Some("2 busy + 200 % of 2 rounded up, at least 2"));
    world.counts("game", 2, 2, 4).await?;
    let tried = |outcome: &str| {
        world.operator().metric("stoker_policy_shadow_decisions_total", &format!("outcome=\"{outcome}\""))
    };
    assert!(tried("same")? >= 1.0 && tried("differs")? >= 1.0);
    // As many were made as the one that decides wanted.
    assert_eq!(audit::pod_events(&world.namespace, "")?.len(), 4);

    world.patch_pool("game", json!({"policy": {"shadow": {"promote": true}}})).await?;
    world.counts("game", 2, 4, 6).await?;
    let pool = world
        .status("game", "with the two in each other's place", differs("would keep 4 instead of 6"))
        .await?;
    assert_eq!(shadow(&pool).source, "builtin/buffer");
    assert_eq!(pool.status.unwrap().policy.unwrap().source, "builtin/percent-buffer");
    world.patch_pool("game", json!({"policy": {"shadow": {"promote": false}}})).await?;
    world.counts("game", 2, 2, 4).await?;
    world.patch_pool("game", json!({"policy": {"shadow": null}})).await?;
    let gone = |pool: &HotStandbyDeployment| healthy(pool) && shadow(pool) == ShadowStatus::default();
    world.status("game", "without a trial", gone).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i8_the_worst_policy_on_trial_changes_nothing() -> Result<()> {
    let world = World::start("shadow-bad").await?;
    world.apply_pool("game", json!({"policy": {"builtin": "buffer"}})).await?;
    world.counts("game", 0, 2, 2).await?;
    let mut busy = 0;
    for (number, (what, component)) in bad_policies().into_iter().enumerate() {
        let name = format!("bad-{number}");
        world.put_policy(&name, &component).await?;
        let on_trial = json!({"configMap": {"name": name, "key": "policy.wasm"}});
        world.patch_pool("game", json!({"policy": {"shadow": null}})).await?;
        world.patch_pool("game", json!({"policy": {"shadow": on_trial}})).await?;
        let told = |pool: &HotStandbyDeployment| {
            let shadow = shadow(pool);
            shadow.source.contains(&name) && shadow.error.is_some()
        };
        let pool = world.status("game", &format!("told of {what}"), told).await?;
        assert!(healthy(&pool), "{what}: {:?}", pool.status);
        // Flips are answered as if there were no trial.
        if busy < 4 {
            let pods = world.alive("game").await?;
            world.set_busy(&pods[busy as usize..busy as usize + 1], true).await?;
            busy += 1;
        }
        world.counts("game", busy, 2, busy + 2).await?;
    }
    assert_eq!(audit::pod_events(&world.namespace, "")?.len() as u32, busy + 2);
    world.finish().await
}

/// The first input that the operator has recorded of a pool since it started.
fn first_input(operator: &Operator, namespace: &str) -> Result<Value> {
    let log = operator.log();
    let address = log.rsplit(" listens=").next().and_then(|rest| rest.split_whitespace().next());
    let path = format!("/records/HotStandbyDeployment/{namespace}/game");
    let answer = operator.get(address.context("nothing is served")?, &path)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let first = body.lines().next().with_context(|| format!("no record: {answer}"))?;
    Ok(serde_json::from_str::<Value>(first)?["input"].clone())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_a_policy_asked_to_be_given_back_survives_a_restart() -> Result<()> {
    let mut world = World::start_with("state", &["--decisions", "127.0.0.1:0"]).await?;
    world.put_policy("plain", &wants(2)).await?;
    let learns = json!({"builtin": "predictive", "config": {"season": "day"}});
    world.apply_pool("game", json!({"policy": learns.clone()})).await?;
    world.counts("game", 0, 2, 2).await?;
    let kept = |pool: &HotStandbyDeployment| {
        let policy = pool.status.as_ref().and_then(|status| status.policy.clone());
        policy.and_then(|policy| policy.state).map(|state| state.data)
    };
    let pool = world.status("game", "with a state", |pool| kept(pool).is_some()).await?;
    let before = kept(&pool);
    assert_eq!(first_input(world.operator(), &world.namespace)?["state"], json!([]));
    world.operator.as_mut().unwrap().restart()?;
    let asked = |o: &Operator| Ok(first_input(o, &world.namespace).is_ok());
    world.wait("game", "asked again", asked).await?;
    let given = first_input(world.operator(), &world.namespace)?["state"].clone();
    let given: Vec<u8> = serde_json::from_value(given)?;
    assert!(!given.is_empty(), "{before:?}");

    // On trial it keeps what it has learnt, and takes it along to where it decides.
    let learns =
        |promote: bool| json!({"builtin": "predictive", "config": {"season": "day"}, "promote": promote});
    let plain = json!({"configMap": {"name": "plain", "key": "policy.wasm"}});
    world.patch_pool("game", json!({"policy": {"builtin": null, "config": null, "configMap": plain["configMap"], "shadow": learns(false)}})).await?;
    let trial =
        |pool: &HotStandbyDeployment| shadow(pool).state.is_some() && shadow(pool).would_keep.is_some();
    world.status("game", "with a trial that has a state", trial).await?;
    world.patch_pool("game", json!({"policy": {"shadow": learns(true)}})).await?;
    let promoted = |pool: &HotStandbyDeployment| {
        let policy = pool.status.as_ref().and_then(|status| status.policy.clone()).unwrap_or_default();
        policy.source == "builtin/predictive" && policy.state.is_some()
    };
    world.status("game", "with its state where it decides", promoted).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_warm_up_policy_on_trial_is_compared_and_not_followed() -> Result<()> {
    let world = World::start("shadow-cron").await?;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox", "command": ["true"]}]});
    let cron_job =
        json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": pod}}}}});
    let on_trial = json!({"builtin": "learned-lead", "config": {"marginSeconds": 90}});
    let policy = json!({"builtin": "fixed-lead", "shadow": on_trial});
    let spec = json!({"warmUp": "60s", "cronJob": cron_job, "policy": policy});
    world.apply::<PreScaledCronJob>("nightly", spec).await?;
    let compared = |object: &PreScaledCronJob| {
        let policy = object.status.as_ref().and_then(|status| status.policy.clone()).unwrap_or_default();
        policy.shadow.is_some_and(|shadow| shadow.compared > 0)
    };
    let object =
        world.object::<PreScaledCronJob>("nightly", "with a trial that was compared", compared).await?;
    let status = object.status.unwrap();
    let shadow = status.policy.unwrap().shadow.unwrap();
    assert_eq!(shadow.source, "builtin/learned-lead");
    assert!(shadow.would_lead_seconds.is_some() && shadow.error.is_none(), "{shadow:?}");
    let lead = status.next_instant.unwrap().duration_since(status.next_warm_up.unwrap());
    assert_eq!(lead.as_secs(), 60);
    world.finish().await
}
