//! A kubelet is started anew while it holds work until its instant. The one test of this file kills what all pods of the
//! real node need, so that it has the cluster for itself.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};
use stoker_api::{Gate, RunOutcome};
use stoker_e2e::crons::{Cron, FLAGS, work_began, work_that_tells};
use stoker_e2e::{World, cluster};

/// Seconds of a lead in which a kubelet ends, begins, and looks at its pods.
const ENOUGH: i64 = 30;

/// Of a container, for a kubelet that begins.
const OLD_ENOUGH: Duration = Duration::from_secs(15);

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i5_a_kubelet_that_is_started_anew_lets_no_work_begin_before_its_instant() -> Result<()> {
    let world = World::start_with("kubelet", &FLAGS).await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    let mut prepared = work_that_tells();
    prepared["spec"]["initContainers"] = json!([{
        "name": "prepare",
        "image": "docker.io/local/busybox:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["true"],
    }]);
    let sorts = [
        ("init", Gate::InitContainer, work_that_tells()),
        ("prepared", Gate::InitContainer, prepared),
        ("exec", Gate::Exec, work_that_tells()),
    ];
    let schedule = at(instant());
    for (name, gate, work) in &sorts {
        let spec = json!({"schedule": schedule, "jobTemplate": {"spec": {"template": work}}});
        let fields = json!({"warmUp": "5m", "gate": gate, "cronJob": {"spec": spec}});
        Cron { world: &world, name }.apply(fields).await?;
    }
    for (name, gate, _) in &sorts {
        Cron { world: &world, name }.at_the_gate(*gate).await?;
    }
    // A kubelet that begins takes a container for one that its forerunner saw through if it is older than ten seconds.
    tokio::time::sleep(OLD_ENOUGH).await;
    let killed = Timestamp::now();
    tokio::task::spawn_blocking(|| cluster::kill("kubelet")).await??;
    for (name, _, _) in &sorts {
        let cron = Cron { world: &world, name };
        let ended = cron.status("a run has ended", |s| !s.last_runs.is_empty()).await?;
        let run = ended.last_runs.last().unwrap();
        assert_eq!(run.outcome, RunOutcome::Succeeded, "{name}: {run:?}");
        let left = run.instant.duration_since(killed).as_secs();
        assert!(
            left >= ENOUGH,
            "{name}: the kubelet was killed {left} s before the instant, too late to tell"
        );
        let began = work_began(&cron.pods().await?, &run.job)?;
        assert_eq!(began.len(), 1, "{name}: {began:?}");
        let late = began[0] - run.instant.as_second() as f64;
        println!("{name}: {late:.3} s after its instant");
        assert!(late >= 0.0, "{name}: began {late} s after its instant, which is before it");
    }
    world.finish_crons().await
}

/// The first minute that leaves time enough to bring the pods, and to kill a kubelet.
fn instant() -> Timestamp {
    let second = Timestamp::now().as_second() + 70 + ENOUGH;
    Timestamp::from_second(second.div_euclid(60) * 60 + 60).unwrap()
}

/// The schedule of one instant.
fn at(instant: Timestamp) -> Value {
    let zoned = instant.to_zoned(jiff::tz::TimeZone::UTC);
    json!(format!("{} {} {} {} *", zoned.minute(), zoned.hour(), zoned.day(), zoned.month()))
}
