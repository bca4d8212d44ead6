//! DaemonJobs in random clusters: nodes join, leave, are cordoned and replaced, Jobs end, are deleted and expire, looks
//! break off half-way. What holds always is looked for after each step; in the end every run ends.
#![allow(clippy::unwrap_used)]

mod daemon_jobs;

use std::collections::{BTreeMap, BTreeSet};

use daemon_jobs::{World, node, world};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use stoker_api::{DaemonJobState, DaemonJobStatus, keys};
use stoker_core::fan_out::NodeView;
use stoker_core::pool::JobView;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join(u8),
    Leave(u8),
    Cordon(u8),
    Succeed(u8),
    Fail(u8),
    DeleteJob(u8),
    Expire,
    Pass(u8),
    /// Nodes that have failed are to have another chance.
    Resume(u8),
    /// A look that creates and keeps up, and writes nothing.
    Broken,
    /// A look that writes, and does nothing else.
    OnlyWritten,
    Look,
    /// A look of another leader, whose view is up to 20 s old.
    Late(u8),
}

fn steps(late: bool) -> impl Strategy<Value = Vec<Step>> {
    let other = if late { any::<u8>().prop_map(Step::Late).boxed() } else { Just(Step::Look).boxed() };
    let step = prop_oneof![
        4 => other,
        1 => any::<u8>().prop_map(Step::Join),
        1 => any::<u8>().prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::Cordon),
        4 => any::<u8>().prop_map(Step::Succeed),
        2 => any::<u8>().prop_map(Step::Fail),
        1 => any::<u8>().prop_map(Step::DeleteJob),
        2 => Just(Step::Expire),
        3 => (0u8..60).prop_map(Step::Pass),
        1 => any::<u8>().prop_map(Step::Resume),
        1 => Just(Step::Broken),
        1 => Just(Step::OnlyWritten),
        6 => Just(Step::Look),
    ];
    prop::collection::vec(step, 0..120)
}

fn running(w: &World) -> Vec<usize> {
    let runs = |job: &JobView| job.finished.is_none() && job.active > 0;
    (0..w.jobs.len()).filter(|index| runs(&w.jobs[*index])).collect()
}

fn happen(w: &mut World, step: Step, joined: &mut u32, succeeded: &mut BTreeSet<String>) {
    let pick = |n: u8, of: usize| (of > 0).then(|| usize::from(n) % of);
    let now = w.now;
    match step {
        Step::Join(n) => {
            // A name that there was may come again, as another node.
            let mut new = node(&format!("n{}", n % 12));
            if w.nodes.iter().all(|known| known.name != new.name) {
                *joined += 1;
                new.uid = format!("{}-{joined}", new.uid);
                w.nodes.push(new);
            }
        }
        Step::Leave(n) => {
            if let Some(index) = pick(n, w.nodes.len()) {
                w.nodes.remove(index);
            }
        }
        Step::Cordon(n) => {
            if let Some(index) = pick(n, w.nodes.len()) {
                w.nodes[index].unschedulable ^= true;
            }
        }
        Step::Succeed(n) | Step::Fail(n) => {
            let all = running(w);
            let Some(index) = pick(n, all.len()).map(|index| all[index]) else { return };
            let well = matches!(step, Step::Succeed(_));
            let job = &mut w.jobs[index];
            if well {
                succeeded.insert(job.annotations[keys::NODE_UID].clone());
            }
            job.active = 0;
            job.finished = Some(stoker_core::pool::jobs::Finished {
                well,
                at: Some(now),
                why: (!well).then(|| "broken".to_owned()),
            });
        }
        Step::DeleteJob(n) => {
            if let Some(index) = pick(n, w.jobs.len()) {
                let uid = w.jobs[index].uid.clone();
                w.delete(&uid);
            }
        }
        Step::Expire => {
            w.expire();
        }
        Step::Pass(seconds) => {
            w.pass(seconds.into());
        }
        Step::Resume(n) => {
            w.annotate(keys::RESUME, &n.to_string());
        }
        Step::Broken => {
            let plan = w.plan();
            w.create(&plan);
            w.keep_up(&plan);
        }
        Step::OnlyWritten => {
            let plan = w.plan();
            w.write(&plan);
        }
        Step::Look => {
            w.look();
        }
        Step::Late(_) => {}
    }
}

/// What somebody saw once.
struct Seen {
    at: Timestamp,
    nodes: Vec<NodeView>,
    jobs: Vec<JobView>,
    status: Option<DaemonJobStatus>,
}

/// Somebody looks whose view is late. What it creates it asks of the status as it is now, and it writes only in the
/// version that it saw.
fn look_late(w: &mut World, history: &[Seen], n: u8) {
    let fresh: Vec<&Seen> =
        history.iter().filter(|seen| w.now.duration_since(seen.at).as_secs() <= 20).collect();
    if fresh.is_empty() {
        return;
    }
    let seen = fresh[usize::from(n) % fresh.len()];
    let plan = w.plan_with(&seen.nodes, &seen.jobs, seen.status.clone());
    w.create(&plan);
    w.keep_up(&plan);
    if w.object.status == seen.status {
        w.write(&plan);
    }
}

fn check(
    w: &World,
    at_a_time: Option<usize>,
    succeeded: &BTreeSet<String>,
    starts: &mut BTreeMap<String, usize>,
) {
    // At most one Job of a node and attempt, and at most one of a node at work.
    let unique: BTreeSet<_> = w.made.iter().map(|(_, uid, run, attempt)| (uid, run, attempt)).collect();
    assert_eq!(unique.len(), w.made.len(), "an attempt was made twice: {:?}", w.made);
    let at_work: Vec<&str> =
        running(w).into_iter().map(|index| w.jobs[index].annotations[keys::NODE].as_str()).collect();
    if let Some(at_a_time) = at_a_time {
        assert!(at_work.len() <= at_a_time, "{at_work:?}");
        assert_eq!(at_work.iter().collect::<BTreeSet<_>>().len(), at_work.len(), "{at_work:?}");
    }
    // A node that succeeded is never run again (I6).
    let mut now: BTreeMap<String, usize> = BTreeMap::new();
    for (_, uid, ..) in &w.made {
        *now.entry(uid.clone()).or_default() += 1;
    }
    for uid in succeeded {
        let count = now.get(uid).copied().unwrap_or_default();
        assert_eq!(*starts.entry(uid.clone()).or_insert(count), count, "{uid} ran again");
    }
    if let Some(status) = &w.object.status {
        let n = &status.nodes;
        assert_eq!(n.desired, n.running + n.succeeded + n.failed + n.pending, "{n:?}");
        assert_eq!(status.progress, format!("{}/{}", n.succeeded, n.desired));
    }
}

/// How a DaemonJob is in a story.
#[derive(Clone, Copy, Debug)]
struct Kind {
    at_a_time: usize,
    limit: u32,
    policy: &'static str,
    always: bool,
}

fn kinds() -> impl Strategy<Value = Kind> {
    let policies = prop::sample::select(vec!["Continue", "FailFast", "Pause"]);
    (1usize..5, 0u32..3, policies, any::<bool>()).prop_map(|(at_a_time, limit, policy, always)| Kind {
        at_a_time,
        limit,
        policy,
        always,
    })
}

fn story(kind: Kind, steps: &[Step], late: bool) {
    let spec = json!({
        "parallelism": kind.at_a_time,
        "retry": {"limit": kind.limit, "backoffSeconds": 5},
        "failurePolicy": kind.policy,
        "completionPolicy": if kind.always { "Always" } else { "Once" },
    });
    let mut w = world(spec, &["n0", "n1", "n2", "n3", "n4"]);
    let (mut joined, mut succeeded, mut starts) = (0, BTreeSet::new(), BTreeMap::new());
    // Two that see different things may start more than one of them alone.
    let at_a_time = (!late).then_some(kind.at_a_time);
    let mut history: Vec<Seen> = Vec::new();
    for step in steps {
        match step {
            Step::Late(n) => look_late(&mut w, &history, *n),
            step => happen(&mut w, *step, &mut joined, &mut succeeded),
        }
        check(&w, at_a_time, &succeeded, &mut starts);
        if late {
            let (nodes, jobs) = (w.nodes.clone(), w.jobs.clone());
            history.push(Seen { at: w.now, nodes, jobs, status: w.object.status.clone() });
        }
    }
    // All is well from here on, and there is a node.
    happen(&mut w, Step::Join(13), &mut joined, &mut succeeded);
    w.nodes.iter_mut().for_each(|node| node.unschedulable = false);
    for round in 0..200 {
        w.settle();
        check(&w, at_a_time, &succeeded, &mut starts);
        let at_rest = matches!(w.state(), DaemonJobState::Succeed | DaemonJobState::Failed);
        let ended = w.status().completion_time.is_some()
            || kind.always && at_rest
            || w.state() == DaemonJobState::Paused && running(&w).is_empty();
        if ended && w.jobs.is_empty() {
            break;
        }
        assert!(round < 199, "it never ends: {:#?} {:#?}", w.status(), w.jobs);
        while !running(&w).is_empty() {
            happen(&mut w, Step::Succeed(0), &mut joined, &mut succeeded);
        }
        w.settle();
        happen(&mut w, Step::Pass(59), &mut joined, &mut succeeded);
        w.settle().expire();
    }
    if kind.policy == "Continue" && w.status().nodes.failed == 0 {
        assert_eq!(w.state(), DaemonJobState::Succeed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn i6_each_node_succeeds_once_within_the_limits_and_every_run_ends(
        kind in kinds(),
        steps in steps(false),
    ) {
        story(kind, &steps, false);
    }

    #[test]
    fn i6_each_node_succeeds_once_with_two_leaders_whose_views_are_late(
        kind in kinds(),
        steps in steps(true),
    ) {
        story(kind, &steps, true);
    }
}
