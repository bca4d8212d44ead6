//! DaemonJobs in random clusters: nodes join, leave, are cordoned and replaced, Jobs end, are deleted and expire, looks
//! break off half-way. What holds always is looked for after each step; in the end every run ends.
#![allow(clippy::unwrap_used)]

mod daemon_jobs;

use std::collections::{BTreeMap, BTreeSet};

use daemon_jobs::{World, node, world};
use proptest::prelude::*;
use serde_json::json;
use stoker_api::{DaemonJobState, keys};

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
    /// A look that creates and keeps up, and writes nothing.
    Broken,
    /// A look that writes, and does nothing else.
    OnlyWritten,
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<u8>().prop_map(Step::Join),
        any::<u8>().prop_map(Step::Leave),
        any::<u8>().prop_map(Step::Cordon),
        4 => any::<u8>().prop_map(Step::Succeed),
        2 => any::<u8>().prop_map(Step::Fail),
        any::<u8>().prop_map(Step::DeleteJob),
        2 => Just(Step::Expire),
        3 => (0u8..60).prop_map(Step::Pass),
        Just(Step::Broken),
        Just(Step::OnlyWritten),
        6 => Just(Step::Look),
    ];
    prop::collection::vec(step, 0..120)
}

fn running(w: &World) -> Vec<usize> {
    let runs = |job: &stoker_core::pool::JobView| job.finished.is_none() && job.active > 0;
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
    }
}

fn check(w: &World, at_a_time: usize, succeeded: &BTreeSet<String>, starts: &mut BTreeMap<String, usize>) {
    // At most one Job of a node and attempt, and at most one of a node at work.
    let unique: BTreeSet<_> = w.made.iter().map(|(_, uid, run, attempt)| (uid, run, attempt)).collect();
    assert_eq!(unique.len(), w.made.len(), "an attempt was made twice: {:?}", w.made);
    let at_work: Vec<&str> =
        running(w).into_iter().map(|index| w.jobs[index].annotations[keys::NODE].as_str()).collect();
    assert!(at_work.len() <= at_a_time, "{at_work:?}");
    assert_eq!(at_work.iter().collect::<BTreeSet<_>>().len(), at_work.len(), "{at_work:?}");
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn i6_each_node_succeeds_once_within_its_limits_and_every_run_ends(
        steps in steps(),
        at_a_time in 1usize..5,
        limit in 0u32..3,
        policy in prop::sample::select(vec!["Continue", "FailFast", "Pause"]),
        always in any::<bool>(),
    ) {
        let completion = if always { "Always" } else { "Once" };
        let spec = json!({
            "parallelism": at_a_time,
            "retry": {"limit": limit, "backoffSeconds": 5},
            "failurePolicy": policy,
            "completionPolicy": completion,
        });
        let mut w = world(spec, &["n0", "n1", "n2", "n3", "n4"]);
        let (mut joined, mut succeeded, mut starts) = (0, BTreeSet::new(), BTreeMap::new());
        for step in steps {
            happen(&mut w, step, &mut joined, &mut succeeded);
            check(&w, at_a_time, &succeeded, &mut starts);
        }
        // All is well from here on, and there is a node.
        happen(&mut w, Step::Join(13), &mut joined, &mut succeeded);
        w.nodes.iter_mut().for_each(|node| node.unschedulable = false);
        for round in 0..200 {
            w.settle();
            check(&w, at_a_time, &succeeded, &mut starts);
            let ended = w.status().completion_time.is_some()
                || always && matches!(w.state(), DaemonJobState::Succeed | DaemonJobState::Failed)
                || w.state() == DaemonJobState::Paused && running(&w).is_empty();
            if ended && w.jobs.is_empty() {
                break;
            }
            prop_assert!(round < 199, "it never ends: {:#?}", w.status());
            while !running(&w).is_empty() {
                happen(&mut w, Step::Succeed(0), &mut joined, &mut succeeded);
            }
            w.settle();
            happen(&mut w, Step::Pass(59), &mut joined, &mut succeeded);
            w.settle().expire();
        }
        if policy == "Continue" && w.status().nodes.failed == 0 {
            prop_assert_eq!(w.state(), DaemonJobState::Succeed);
        }
    }
}
