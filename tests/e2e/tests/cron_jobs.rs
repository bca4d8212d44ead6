//! A PreScaledCronJob creates each run ahead of its instant, once, and cancels what nobody wants any more.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::{RunOutcome, keys};
use stoker_e2e::World;
use stoker_e2e::audit::operators_requests;
use stoker_e2e::crons::{Cron, FLAGS, instant, later};
use stoker_e2e::operator::Operator;

async fn world(name: &str) -> Result<World> {
    World::start_in_cluster(name, &FLAGS).await
}

fn spec(fields: Value) -> Value {
    json!({"cronJob": {"spec": fields}})
}

/// A cron whose one run is held for hours.
async fn held_for_hours(cron: Cron<'_>) -> Result<Job> {
    cron.apply(json!({"warmUp": "24h", "cronJob": {"spec": {"schedule": later()}}})).await?;
    cron.held().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_run_is_created_ahead_of_its_instant_with_a_gate_in_it() -> Result<()> {
    let world = world("cron-ahead").await?;
    let cron = Cron { world: &world, name: "nightly" };
    let template = json!({
        "metadata": {"annotations": {"example.com/team": "blue"}},
        "spec": {
            "schedule": later(),
            "timeZone": "Asia/Kolkata",
            "jobTemplate": {
                "metadata": {"labels": {"team": "blue"}},
                "spec": {
                    "activeDeadlineSeconds": 600,
                    "template": {
                        "metadata": {"labels": {"app": "report"}},
                        "spec": {"initContainers": [{"name": "prepare", "image": "docker.io/local/pause:1", "command": ["true"]}]},
                    },
                },
            },
        },
    });
    cron.apply(json!({"warmUp": "24h", "cronJob": template})).await?;
    let job = cron.held().await?;
    let at = instant(&job).unwrap();
    let ahead = at.duration_since(job.metadata.creation_timestamp.as_ref().unwrap().0);
    let job_spec = job.spec.as_ref().unwrap();
    let deadline = job_spec.active_deadline_seconds.unwrap() - 600 - ahead.as_secs();
    assert!((0..=2).contains(&deadline), "the time until the instant does not count: {deadline}");
    assert_eq!(job.labels()["team"], "blue");
    assert_eq!(job.annotations()["example.com/team"], "blue");
    assert!(job.annotations()[keys::SCHEDULED].ends_with("+05:30"), "{:?}", job.annotations());
    assert!(job.finalizers().iter().any(|f| f == keys::OUTCOME));
    let pod = &job_spec.template;
    let labels = pod.metadata.as_ref().unwrap().labels.as_ref().unwrap();
    assert_eq!((labels["app"].as_str(), labels["primedcron"].as_str()), ("report", "nightly"));
    let inits: Vec<(&str, &str)> = pod
        .spec
        .as_ref()
        .unwrap()
        .init_containers
        .iter()
        .flatten()
        .map(|c| (c.name.as_str(), c.image.as_deref().unwrap_or_default()))
        .collect();
    let expected = [
        ("stoker-gate-install", "docker.io/stoker/gate:dev"),
        ("stoker-pull-0", "docker.io/local/busybox:1"),
        (keys::GATE_CONTAINER, "docker.io/local/pause:1"),
        ("prepare", "docker.io/local/pause:1"),
    ];
    assert_eq!(inits, expected);
    let status = cron.status("it tells of the run", |s| s.active_count == 1).await?;
    assert!(status.active[0].held && status.active[0].instant == at && status.next_instant == Some(at));
    assert!(cron.event("RunCreated").await?.contains(&job.name_any()));
    world.finish_crons().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_is_held_is_cancelled_by_suspend_and_pause_and_comes_back() -> Result<()> {
    let world = world("cron-stop").await?;
    let cron = Cron { world: &world, name: "nightly" };
    let first = held_for_hours(cron).await?;
    for (stop, go) in [
        (spec(json!({"suspend": true})), spec(json!({"suspend": false}))),
        (json!({"paused": true}), json!({"paused": false})),
    ] {
        cron.patch(stop).await?;
        cron.until_jobs("cancelled", |jobs| jobs.is_empty()).await?;
        assert!(cron.event("RunCancelled").await?.contains("held"));
        cron.patch(go).await?;
        let again = cron.held().await?;
        assert_eq!(again.name_any(), first.name_any(), "an instant has one name");
        assert_ne!(again.uid(), first.uid());
    }
    cron.delete().await?;
    let left = cron.jobs_api().list(&Default::default()).await?;
    assert!(left.items.iter().all(|job| job.metadata.deletion_timestamp.is_some()), "deletion takes them");
    world.finish_crons().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_is_held_is_replaced_when_it_is_edited_by_whomever() -> Result<()> {
    let world = world("cron-edit").await?;
    let cron = Cron { world: &world, name: "nightly" };
    let mut last = held_for_hours(cron).await?;
    let replaced = async |last: &Job, why: &str| {
        let uid = last.uid();
        let other = |jobs: &[Job]| {
            jobs.len() == 1 && jobs[0].uid() != uid && jobs[0].metadata.deletion_timestamp.is_none()
        };
        cron.until_jobs(why, other).await.map(|mut jobs| jobs.remove(0))
    };
    cron.patch(spec(json!({"jobTemplate": {"spec": {"backoffLimit": 3}}}))).await?;
    last = replaced(&last, "replaced after an edit of the template").await?;
    assert_eq!(last.spec.as_ref().unwrap().backoff_limit, Some(3));

    let by_hand = Patch::Merge(json!({"spec": {"suspend": true}}));
    cron.jobs_api().patch(&last.name_any(), &PatchParams::default(), &by_hand).await?;
    last = replaced(&last, "replaced after an edit by hand").await?;
    assert_ne!(last.spec.as_ref().unwrap().suspend, Some(true));

    cron.jobs_api().delete(&last.name_any(), &DeleteParams::foreground()).await?;
    last = replaced(&last, "replaced after a deletion by hand").await?;

    let before = instant(&last).unwrap();
    let zoned = (before + SignedDuration::from_hours(1)).to_zoned(jiff::tz::TimeZone::UTC);
    cron.patch(spec(json!({"schedule": format!("{} {} * * *", zoned.minute(), zoned.hour())}))).await?;
    last = replaced(&last, "replaced after an edit of the schedule").await?;
    assert_eq!(instant(&last).unwrap(), before + SignedDuration::from_hours(1));
    world.finish_crons().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i7_a_name_that_is_anothers_is_left_alone() -> Result<()> {
    let world = world("cron-conflict").await?;
    let cron = Cron { world: &world, name: "nightly" };
    let held = held_for_hours(cron).await?;
    cron.patch(json!({"paused": true})).await?;
    cron.until_jobs("cancelled", |jobs| jobs.is_empty()).await?;
    let theirs: Job = serde_json::from_value(json!({
        "metadata": {"name": held.name_any()},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "a", "image": "docker.io/local/busybox:1"}],
        }}},
    }))?;
    let theirs = cron.jobs_api().create(&Default::default(), &theirs).await?;
    cron.patch(json!({"paused": false})).await?;
    let is_true = |s: &stoker_api::PreScaledCronJobStatus| {
        s.conditions.iter().any(|c| c.type_ == "Conflict" && c.status == "True")
    };
    let status = cron.status("it tells of the conflict", is_true).await?;
    assert_eq!(status.active_count, 0);
    assert!(cron.event("ConflictNameTaken").await?.contains(&held.name_any()));
    let now = cron.jobs_api().get(&held.name_any()).await?;
    assert_eq!(
        (now.uid(), now.labels(), now.finalizers()),
        (theirs.uid(), theirs.labels(), theirs.finalizers())
    );
    assert_eq!(
        (now.metadata.generation, now.metadata.deletion_timestamp),
        (theirs.metadata.generation, None)
    );
    world.finish_crons().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_what_cannot_be_meant_is_refused_in_words() -> Result<()> {
    let world = world("cron-words").await?;
    let refused = [
        (json!({"warmUpTimeMins": 5}), "exactly one of warmUpTimeMins"),
        (json!({"warmUp": null}), "exactly one of warmUpTimeMins"),
        (json!({"warmUp": "5 minutes"}), "spec.warmUp"),
        (json!({"warmUp": null, "warmUpTimeMins": -1}), "spec.warmUpTimeMins"),
        (spec(json!({"schedule": ""})), "spec.cronJob.spec.schedule"),
        (
            spec(json!({"jobTemplate": {"spec": {"suspend": true}}})),
            "jobTemplate.spec.suspend must not be true",
        ),
        (spec(json!({"jobTemplate": {"spec": {"template": null}}})), "jobTemplate.spec.template is missing"),
        (spec(json!({"concurrencyPolicy": "Maybe"})), "concurrencyPolicy"),
    ];
    for (fields, words) in refused {
        let cron = Cron { world: &world, name: "refused" };
        let error = cron.apply(fields.clone()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{fields}: {error}");
    }
    let container = |extra: Value| {
        spec(
            json!({"schedule": later(), "jobTemplate": {"spec": {"template": {"spec": {"containers": [extra]}}}}}),
        )
    };
    let mut exec = container(json!({"name": "work", "image": "a", "command": null}));
    exec["gate"] = json!("Exec");
    let mut probed = container(
        json!({"name": "work", "image": "a", "command": ["b"], "readinessProbe": {"exec": {"command": ["c"]}}}),
    );
    probed["gate"] = json!("Exec");
    let kept = [
        ("four", spec(json!({"schedule": "* * * *"})), "ScheduleValid", "`* * * *`"),
        ("zone", spec(json!({"timeZone": "Mars/Base"})), "ScheduleValid", "Mars/Base"),
        ("prefix", spec(json!({"schedule": "TZ=UTC * * * * *"})), "ScheduleValid", "TZ="),
        ("every", spec(json!({"schedule": "@every 5m"})), "ScheduleValid", "@every"),
        ("primer", json!({"warmUp": null, "primerSchedule": "x"}), "ScheduleValid", "spec.primerSchedule"),
        ("exec", exec, "TemplateValid", "container work"),
        ("probe", probed, "TemplateValid", "readinessProbe"),
    ];
    for (name, fields, condition, words) in kept {
        let cron = Cron { world: &world, name };
        cron.apply(fields).await?;
        let told = |s: &stoker_api::PreScaledCronJobStatus| {
            s.conditions
                .iter()
                .find(|c| c.type_ == condition && c.status == "False")
                .map(|c| c.message.clone())
        };
        let status = cron.status("it tells what is wrong", |s| told(s).is_some()).await?;
        assert!(told(&status).unwrap().contains(words), "{name}: {}", told(&status).unwrap());
        let reason = &status.conditions.iter().find(|c| c.type_ == condition).unwrap().reason;
        assert!(cron.event(&format!("{condition}{reason}")).await?.contains(words));
        assert!(cron.jobs().await?.is_empty());
    }
    world.finish_crons().await
}

/// Runs by their instants.
fn by_instant(jobs: &[Job]) -> BTreeMap<Timestamp, &Job> {
    jobs.iter().filter_map(|job| Some((instant(job)?, job))).collect()
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn an_earlier_run_that_is_at_work_is_joined_avoided_or_replaced() -> Result<()> {
    let world = world("cron-policies").await?;
    let crons = ["Allow", "Forbid", "Replace"].map(|policy| (policy, policy.to_lowercase()));
    for (policy, name) in &crons {
        Cron { world: &world, name }.apply(spec(json!({"concurrencyPolicy": policy}))).await?;
    }
    let [allow, forbid, replace] = [0, 1, 2].map(|i| Cron { world: &world, name: &crons[i].1 });
    let started = |job: &Job| instant(job).is_some_and(|at| at <= Timestamp::now());
    let both = |jobs: &[Job]| jobs.iter().filter(|job| started(job)).count() >= 2;
    let jobs = allow.until_jobs("two are at work", both).await?;
    assert!(jobs.iter().all(|job| job.metadata.deletion_timestamp.is_none()));

    let status = forbid.status("an instant is skipped", |s| s.skipped_count >= 1).await?;
    assert!(forbid.event("InstantSkipped").await?.contains("Forbid"));
    let jobs = forbid.jobs().await?;
    assert_eq!(jobs.len(), 1, "no other run is even held");
    assert!(status.decided_until > instant(&jobs[0]));

    let deleted = |s: &stoker_api::PreScaledCronJobStatus| {
        s.last_runs.iter().any(|run| run.outcome == RunOutcome::Deleted)
    };
    let status = replace.status("the earlier run is recorded as deleted", deleted).await?;
    let gone = status.last_runs.iter().find(|run| run.outcome == RunOutcome::Deleted).unwrap().instant;
    let later = replace.jobs().await?;
    let next = *by_instant(&later).range(gone + SignedDuration::from_secs(1)..).next().unwrap().0;
    assert_eq!(next.duration_since(gone), SignedDuration::from_mins(1));
    assert!(replace.event("RunReplaced").await?.contains("Replace"));
    world.finish_crons().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn an_ended_run_is_recorded_let_go_and_beyond_the_limits_removed() -> Result<()> {
    let world = world("cron-ends").await?;
    let cron = Cron { world: &world, name: "short" };
    cron.apply(spec(json!({"successfulJobsHistoryLimit": 0}))).await?;
    let started = |jobs: &[Job]| jobs.first().and_then(instant).is_some_and(|at| at <= Timestamp::now());
    let first = cron.until_jobs("at work", started).await?.remove(0);
    let name = first.name_any();
    let pods = || async { Ok(!cron.pods().await?.is_empty()) };
    world.until("short", "with a pod", pods).await?;
    let pods: Vec<_> =
        cron.pods().await?.into_iter().filter(|pod| pod.name_any().starts_with(&name)).collect();
    world.annotate(&pods, "sim.stoker.dev/phase", Some("Succeeded")).await?;
    let status = cron.status("recorded", |s| s.last_runs.iter().any(|run| run.job == name)).await?;
    let run = status.last_runs.iter().find(|run| run.job == name).unwrap();
    assert_eq!((run.outcome, Some(run.instant)), (RunOutcome::Succeeded, instant(&first)));
    assert!(run.schedule_milliseconds.is_some() && status.last_successful_time.is_some(), "{run:?}");
    cron.until_jobs("removed", |jobs| jobs.iter().all(|job| job.name_any() != name)).await?;
    world.finish_crons().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i5_an_instant_has_one_run_whoever_is_killed_and_however_many_are_at_it() -> Result<()> {
    let mut world = World::start_with("cron-kills", &FLAGS).await?;
    let other = Operator::start(&world.namespace, &FLAGS).await?;
    let names = ["a", "b", "c"];
    for name in names {
        Cron { world: &world, name }.apply(json!({"warmUp": "20s"})).await?;
    }
    let seen = Timestamp::now();
    // Killed all along, over two instants at least.
    let end = seen + SignedDuration::from_secs(125);
    while Timestamp::now() < end {
        tokio::time::sleep(Duration::from_millis(3_700)).await;
        world.operator.as_mut().unwrap().restart()?;
    }
    for name in names {
        let cron = Cron { world: &world, name };
        let two =
            |jobs: &[Job]| jobs.iter().filter(|job| instant(job).is_some_and(|at| at <= end)).count() >= 2;
        let jobs = cron.until_jobs("two instants have their runs", two).await?;
        assert_eq!(by_instant(&jobs).len(), jobs.len(), "no instant has two: {jobs:?}");
        let status = cron.status("settled", |s| s.decided_until.is_some_and(|at| at > seen)).await?;
        assert_eq!((status.missed_count, status.skipped_count), (0, 0), "none is lost");
    }
    let created = operators_requests(&world.namespace)?.into_iter();
    let mut made = BTreeMap::<String, usize>::new();
    for request in created.filter(|r| r.verb == "delete" && r.resource == "jobs") {
        *made.entry(request.name).or_default() += 1;
    }
    assert!(made.is_empty(), "nothing was cancelled: {made:?}");
    drop(other);
    world.finish_crons().await
}
