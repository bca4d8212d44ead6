//! Stories of a DaemonJob: what users and nodes do, and how it must have ended.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use crate::kept_stories::{Stories, comes, job_template, retry, seconds, ttl, ttl_of, until};
use proptest::prelude::*;
use stoker_api::{
    CompletionPolicy, DaemonJobSpec, DaemonJobState, FailurePolicy, NodeCounts, Parallelism, Retry, keys,
};
use stoker_core::fan_out::{Fate, NodeKey, Record, Taint};
use stoker_sim::fan_outs::jobs_of;
use stoker_sim::keeper::Kind as _;
use stoker_sim::{FanOuts, KeptCluster};

/// What users and nodes do. A node is chosen by its number.
#[derive(Clone, Debug)]
pub enum User {
    /// A node joins, or leaves and another of its name joins.
    Joins(u8),
    Leaves(u8),
    Cordoned(u8, bool),
    Tainted(u8, bool),
    Ready(u8, bool),
    Parallelism(Option<Parallelism>),
    Failure(FailurePolicy),
    Completion(CompletionPolicy),
    Retry(Option<Retry>),
    Timeout(Option<u32>),
    Paused(bool),
    Template(u8),
    RerunOnChange(bool),
    Excluded(Vec<u8>),
    Rerun(u8),
    Resume(u8),
}

fn parallelism() -> impl Strategy<Value = Option<Parallelism>> {
    prop_oneof![
        2 => Just(None),
        3 => (1..4u32).prop_map(|nodes| Some(Parallelism::Nodes(nodes))),
        2 => (1..=100u32).prop_map(|percent| Some(Parallelism::Percent(format!("{percent}%")))),
    ]
}

fn failure() -> impl Strategy<Value = FailurePolicy> {
    prop_oneof![
        2 => Just(FailurePolicy::Continue),
        1 => Just(FailurePolicy::Pause),
        1 => Just(FailurePolicy::FailFast),
    ]
}

fn completion() -> impl Strategy<Value = CompletionPolicy> {
    prop_oneof![2 => Just(CompletionPolicy::Once), 1 => Just(CompletionPolicy::Always)]
}

fn name(node: u8) -> String {
    format!("node-{node}")
}

impl Stories for FanOuts {
    type User = User;

    const OUTAGE: i64 = 240_000;

    fn spec() -> BoxedStrategy<DaemonJobSpec> {
        let timeout = prop::option::weighted(0.15, 20..400u32);
        (parallelism(), failure(), completion(), retry(), timeout, ttl())
            .prop_map(|(parallelism, failure_policy, completion_policy, retry, timeout, ttl)| DaemonJobSpec {
                parallelism,
                failure_policy,
                completion_policy,
                retry,
                timeout_seconds: timeout,
                job: job_template(0, ttl),
                ..DaemonJobSpec::default()
            })
            .boxed()
    }

    fn user() -> BoxedStrategy<User> {
        use User::*;
        let n = || 0..8u8;
        let nodes = prop_oneof![
            5 => n().prop_map(Joins),
            4 => n().prop_map(Leaves),
            2 => (n(), any::<bool>()).prop_map(|(node, on)| Cordoned(node, on)),
            1 => (n(), any::<bool>()).prop_map(|(node, on)| Tainted(node, on)),
            1 => (n(), any::<bool>()).prop_map(|(node, on)| Ready(node, on)),
        ];
        let users = prop_oneof![
            1 => parallelism().prop_map(Parallelism),
            1 => failure().prop_map(Failure),
            1 => completion().prop_map(Completion),
            1 => retry().prop_map(Retry),
            1 => prop::option::of(20..400u32).prop_map(Timeout),
            2 => any::<bool>().prop_map(Paused),
            2 => (0..3u8).prop_map(Template),
            1 => any::<bool>().prop_map(RerunOnChange),
            1 => prop::collection::vec(n(), 0..3).prop_map(Excluded),
            2 => (0..4u8).prop_map(Rerun),
            2 => (0..4u8).prop_map(Resume),
        ];
        prop_oneof![nodes, users].boxed()
    }

    fn prepare(cluster: &mut KeptCluster<Self>) {
        for node in 0..4 {
            Self::happen(cluster, User::Joins(node));
        }
    }

    fn happen(cluster: &mut KeptCluster<Self>, what: User) {
        match what {
            User::Joins(node) => {
                cluster.node_leaves(&name(node));
                let uid = format!("{}-{}", name(node), cluster.left.len());
                cluster.node_joins(&name(node), &uid);
            }
            User::Leaves(node) => cluster.node_leaves(&name(node)),
            User::Cordoned(node, on) => {
                cluster.node_changes(&name(node), |node| node.view.unschedulable = on)
            }
            User::Tainted(node, on) => cluster.node_changes(&name(node), |node| {
                let taint =
                    Taint { key: "a".to_owned(), value: String::new(), effect: "NoSchedule".to_owned() };
                node.view.taints = if on { vec![taint] } else { Vec::new() };
            }),
            User::Ready(node, on) => cluster.node_changes(&name(node), |node| node.view.ready = on),
            User::Rerun(token) => cluster.annotate(keys::RERUN, &token.to_string()),
            User::Resume(token) => cluster.annotate(keys::RESUME, &token.to_string()),
            what => cluster.edit(|spec| edit(spec, what)),
        }
    }

    fn ends(cluster: &mut KeptCluster<Self>) -> Result<(), TestCaseError> {
        stays_paused(cluster)?;
        cluster.edit(|spec| spec.paused = false);
        comes(cluster, seconds(30_000), ended)?;
        has_ended_well(cluster)
    }
}

fn edit(spec: &mut DaemonJobSpec, what: User) {
    match what {
        User::Parallelism(parallelism) => spec.parallelism = parallelism,
        User::Failure(policy) => spec.failure_policy = policy,
        User::Completion(policy) => spec.completion_policy = policy,
        User::Retry(retry) => spec.retry = retry,
        User::Timeout(timeout) => spec.timeout_seconds = timeout,
        User::Paused(on) => spec.paused = on,
        User::Template(version) => {
            spec.job = job_template(version, ttl_of(&spec.job));
        }
        User::RerunOnChange(on) => spec.rerun_on_template_change = on,
        User::Excluded(nodes) => {
            let names: Vec<String> = nodes.into_iter().map(name).collect();
            spec.exclude_node_list = Some(names.join(", "));
        }
        _ => {}
    }
}

/// While it is paused nothing starts.
fn stays_paused(cluster: &mut KeptCluster<FanOuts>) -> Result<(), TestCaseError> {
    // What was on its way may arrive.
    let soon = cluster.now() + seconds(30);
    until(cluster, soon)?;
    if cluster.own().is_some_and(|own| own.spec.paused) {
        let made = cluster.world.truth.len();
        until(cluster, soon + seconds(300))?;
        prop_assert!(cluster.world.truth.len() == made, "paused, and nodes start");
    }
    Ok(())
}

/// UIDs of nodes that are chosen, read without the code under test.
fn chosen(cluster: &KeptCluster<FanOuts>) -> Vec<String> {
    let excluded = cluster.own().and_then(|own| own.spec.exclude_node_list.clone()).unwrap_or_default();
    let excluded: Vec<&str> = excluded.split(", ").collect();
    let nodes = cluster.nodes.iter().map(|node| &node.view);
    let fit = nodes.filter(|node| {
        node.ready && !node.unschedulable && node.taints.is_empty() && !excluded.contains(&node.name.as_str())
    });
    fit.map(|node| node.uid.clone()).collect()
}

/// No more comes of it, and that is as it should be.
fn ended(cluster: &KeptCluster<FanOuts>) -> Result<(), String> {
    let Some(own) = cluster.own().filter(|own| !own.deleted) else { return Ok(()) };
    let (spec, status) = (&own.spec, &own.status);
    let seen = status.observed_generation == Some(own.generation)
        && (status.rerun.as_ref() == own.annotations.get(keys::RERUN))
        && (status.resume.as_ref() == own.annotations.get(keys::RESUME));
    let failed = status.nodes.failed > 0;
    let held = failed && spec.failure_policy != FailurePolicy::Continue;
    let quiet = status.nodes.running == 0 && (status.nodes.pending == 0 || held);
    let over = match spec.completion_policy {
        // With no node to run on it waits for one.
        CompletionPolicy::Once if held && spec.failure_policy == FailurePolicy::Pause => {
            let paused = status.state == Some(DaemonJobState::Paused) && spec.timeout_seconds.is_none();
            status.completion_time.is_some() || paused
        }
        CompletionPolicy::Once => {
            status.completion_time.is_some()
                || status.state == Some(DaemonJobState::Pending) && chosen(cluster).is_empty()
                || status.nodes.desired == 0
        }
        CompletionPolicy::Always => quiet,
    };
    let at_work = cluster.world.jobs.iter().any(|job| job.finished.is_none());
    if seen && over && !at_work {
        Ok(())
    } else {
        Err(format!("it has not ended: {}", FanOuts::words(status)))
    }
}

/// What is written of each node is what became of it, the counts are right, and each chosen node has had its Job.
fn has_ended_well(cluster: &KeptCluster<FanOuts>) -> Result<(), TestCaseError> {
    let Some(own) = cluster.own() else { return Ok(()) };
    let (spec, status) = (&own.spec, &own.status);
    let record = Record::read(&status.record);
    let there: BTreeMap<NodeKey, String> =
        cluster.nodes.iter().map(|node| (NodeKey::of(&node.view.uid), node.view.uid.clone())).collect();
    let mut all = there.clone();
    all.extend(cluster.left.keys().map(|uid| (NodeKey::of(uid), uid.clone())));
    let endless = spec.completion_policy == CompletionPolicy::Always;
    let (mut succeeded, mut failed, mut gone) = (0, 0, 0);
    for (key, fate) in record.iter() {
        let counts = !endless || there.contains_key(&key);
        let Some(uid) = all.get(&key) else {
            return Err(TestCaseError::fail(format!("{fate:?} is a node that there never was")));
        };
        let truths = || jobs_of(cluster, status.run, uid);
        let is_so = match fate {
            Fate::Succeeded => truths().any(|job| job.ended == Some(true)),
            Fate::Gone => cluster.left.contains_key(uid) && !truths().any(|job| job.completed),
            Fate::Failed(tries) => {
                truths().any(|job| job.what.part.attempt == tries.last) && !truths().any(|job| job.completed)
            }
            Fate::Tried(_) => !truths().any(|job| job.completed),
        };
        prop_assert!(is_so, "node {uid} is written as {fate:?}, and {:?}", truths().collect::<Vec<_>>());
        succeeded += u32::from(fate == Fate::Succeeded && counts);
        failed += u32::from(matches!(fate, Fate::Failed(_)) && counts);
        gone += u32::from(fate == Fate::Gone);
    }
    let nodes = &status.nodes;
    let NodeCounts { desired, running, pending, .. } = *nodes;
    prop_assert!(
        (nodes.succeeded, nodes.failed) == (succeeded, failed) && nodes.gone >= gone,
        "{nodes:?} are counted, and {succeeded} have succeeded, {failed} failed, {gone} gone"
    );
    prop_assert!(desired == running + succeeded + failed + pending, "{nodes:?}");
    // Everything is done that is to be.
    let complete = nodes.pending == 0 && (endless || status.completion_time.is_none());
    for uid in chosen(cluster).iter().filter(|_| complete) {
        let fate = record.of(NodeKey::of(uid));
        let done = matches!(fate, Some(Fate::Succeeded | Fate::Failed(_)));
        prop_assert!(done, "node {uid} is chosen, and is {fate:?}");
    }
    Ok(())
}
