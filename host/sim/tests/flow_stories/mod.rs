//! Stories of a JobFlow: what users do with it, and how it must have ended.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use crate::kept_stories::{Stories, comes, job_template, retry, seconds, ttl, ttl_of, until};
use proptest::prelude::*;
use stoker_api::{
    FlowState, Handler, JobFlowSpec, JobFlowStatus, Retry, Step, StepCondition, StepState, StepStatus,
    WaitFor, keys,
};
use stoker_core::flow::{ON_EXIT, ON_FAILURE, Templates};
use stoker_sim::flows::{entry, waits};
use stoker_sim::keeper::Kind as _;
use stoker_sim::{FlowSpec, Flows, KeptCluster};

/// The JobTemplate that some steps refer to.
const SHARED: &str = "shared";

/// What users do. Steps are chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
pub enum User {
    Suspended(bool),
    MaxParallel(Option<u32>),
    Timeout(Option<u32>),
    Retry(usize, Option<Retry>),
    Template(usize, u8),
    Removed(usize),
    Rewired(FlowSpec),
    /// The JobTemplate is there, in some version, or is not.
    Shared(Option<u8>),
    Rerun(u8),
    RerunFailed(u8),
}

fn condition() -> impl Strategy<Value = Option<StepCondition>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(StepCondition::Succeeded)),
        2 => Just(Some(StepCondition::Failed)),
        2 => Just(Some(StepCondition::Finished)),
        2 => Just(Some(StepCondition::Ready)),
    ]
}

fn step() -> impl Strategy<Value = (Step, Vec<(usize, Option<StepCondition>)>)> {
    let shared = prop::bool::weighted(0.1);
    let waits = prop::collection::vec((0..8usize, condition()), 0..3);
    (retry(), ttl(), shared, waits).prop_map(|(retry, ttl, shared, waits)| {
        let step = Step {
            job_template: (!shared).then(|| job_template(0, ttl)),
            job_template_ref: shared.then(|| SHARED.to_owned()),
            retry,
            ..Step::default()
        };
        (step, waits)
    })
}

/// Steps of which each waits for some before it.
fn graph() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..8).prop_map(|drawn| {
        let mut steps: Vec<Step> = Vec::new();
        for (at, (mut step, waits)) in drawn.into_iter().enumerate() {
            step.name = format!("s{at}");
            let mut named = Vec::new();
            for (on, condition) in waits.into_iter().filter(|_| at > 0) {
                let name = format!("s{}", on % at);
                if named.contains(&name) {
                    continue;
                }
                named.push(name.clone());
                match condition {
                    None => step.dependencies.push(name),
                    condition => step.wait_for.push(WaitFor { name, condition, ..WaitFor::default() }),
                }
            }
            steps.push(step);
        }
        steps
    })
}

fn flow() -> impl Strategy<Value = FlowSpec> {
    let limits = (
        prop::option::weighted(0.4, 1..4u32),
        prop::option::weighted(0.15, 20..400u32),
        prop::option::weighted(0.1, 0..300u32),
    );
    (graph(), limits, any::<[bool; 2]>(), any::<bool>()).prop_map(
        |(flows, (max_parallel, timeout_seconds, ttl_seconds_after_finished), handlers, shared)| {
            let handler = |there: bool| {
                there.then(|| Handler { job_template: Some(job_template(0, None)), ..Handler::default() })
            };
            let flow = JobFlowSpec {
                global_params: None,
                flows,
                share_volumes: Vec::new(),
                max_parallel,
                suspend: false,
                on_failure: handler(handlers[0]),
                on_exit: handler(handlers[1]),
                timeout_seconds,
                ttl_seconds_after_finished,
            };
            let mut spec = FlowSpec { flow: Arc::new(flow), templates: Templates::new() };
            put_shared(&mut spec, shared.then_some(0));
            spec
        },
    )
}

fn put_shared(spec: &mut FlowSpec, version: Option<u8>) {
    match version {
        Some(version) => drop(spec.templates.insert(SHARED.to_owned(), job_template(version, None).into())),
        None => drop(spec.templates.remove(SHARED)),
    }
}

impl Stories for Flows {
    type User = User;

    const OUTAGE: i64 = 240_000;

    fn spec() -> BoxedStrategy<FlowSpec> {
        flow().boxed()
    }

    fn user() -> BoxedStrategy<User> {
        use User::*;
        prop_oneof![
            2 => any::<bool>().prop_map(Suspended),
            1 => prop::option::of(1..4u32).prop_map(MaxParallel),
            1 => prop::option::of(20..400u32).prop_map(Timeout),
            1 => (0..8usize, retry()).prop_map(|(step, retry)| Retry(step, retry)),
            3 => (0..8usize, 0..3u8).prop_map(|(step, version)| Template(step, version)),
            1 => (0..8usize).prop_map(Removed),
            1 => flow().prop_map(Rewired),
            1 => prop::option::of(0..2u8).prop_map(Shared),
            3 => (0..4u8).prop_map(Rerun),
            3 => (0..4u8).prop_map(RerunFailed),
        ]
        .boxed()
    }

    fn happen(cluster: &mut KeptCluster<Self>, what: User) {
        match what {
            User::Rerun(token) => cluster.annotate(keys::RERUN, &token.to_string()),
            User::RerunFailed(token) => cluster.annotate(keys::RERUN_FAILED, &token.to_string()),
            what => cluster.edit(|spec| edit(spec, what)),
        }
    }

    fn ends(cluster: &mut KeptCluster<Self>) -> Result<(), TestCaseError> {
        stays_suspended(cluster)?;
        cluster.edit(|spec| {
            put_shared(spec, Some(0));
            Arc::make_mut(&mut spec.flow).suspend = false;
        });
        comes(cluster, seconds(30_000), |cluster| {
            let Some(own) = cluster.own().filter(|own| !own.deleted) else { return Ok(()) };
            let ended = own.status.completion_time.is_some()
                && own.status.observed_generation == Some(own.generation)
                && own.status.rerun.as_ref() == own.annotations.get(keys::RERUN)
                && own.status.rerun_failed.as_ref() == own.annotations.get(keys::RERUN_FAILED);
            if ended { Ok(()) } else { Err(format!("the flow has not ended: {}", Flows::words(&own.status))) }
        })?;
        has_ended_well(cluster)
    }
}

fn edit(spec: &mut FlowSpec, what: User) {
    let flow = Arc::make_mut(&mut spec.flow);
    let steps = flow.flows.len();
    match what {
        User::Suspended(on) => flow.suspend = on,
        User::MaxParallel(most) => flow.max_parallel = most,
        User::Timeout(timeout) => flow.timeout_seconds = timeout,
        User::Retry(step, retry) => flow.flows[step % steps].retry = retry,
        User::Template(step, version) => {
            if let Some(old) = &mut flow.flows[step % steps].job_template {
                *old = job_template(version, ttl_of(old));
            }
        }
        User::Removed(step) if steps > 1 => {
            let gone = flow.flows.remove(step % steps).name;
            for step in &mut flow.flows {
                step.dependencies.retain(|name| *name != gone);
                step.wait_for.retain(|wait| wait.name != gone);
            }
        }
        User::Rewired(other) => {
            let (on_failure, on_exit) = (flow.on_failure.take(), flow.on_exit.take());
            *flow = JobFlowSpec { on_failure, on_exit, ..JobFlowSpec::clone(&other.flow) };
        }
        User::Shared(version) => put_shared(spec, version),
        User::Removed(_) | User::Rerun(_) | User::RerunFailed(_) => {}
    }
}

/// A suspended flow starts nothing.
fn stays_suspended(cluster: &mut KeptCluster<Flows>) -> Result<(), TestCaseError> {
    let suspended = |cluster: &KeptCluster<Flows>| cluster.own().is_some_and(|own| own.spec.flow.suspend);
    // What was on its way may arrive.
    let soon = cluster.now() + seconds(30);
    until(cluster, soon)?;
    if suspended(cluster) {
        let made = cluster.world.truth.len();
        until(cluster, soon + seconds(300))?;
        prop_assert!(cluster.world.truth.len() == made, "suspended, and steps start");
    }
    Ok(())
}

/// What a step waits for can no longer come.
fn never(on: &StepStatus, until: StepCondition) -> bool {
    match on.state {
        StepState::Succeeded => until == StepCondition::Failed,
        StepState::Failed | StepState::Deleted => {
            matches!(until, StepCondition::Succeeded | StepCondition::Ready)
        }
        StepState::Skipped => until != StepCondition::Finished,
        StepState::Running | StepState::Retrying => false,
    }
}

/// The status tells of each step what became of it, and each step that could run has.
fn has_ended_well(cluster: &KeptCluster<Flows>) -> Result<(), TestCaseError> {
    let Some(own) = cluster.own() else { return Ok(()) };
    let (status, flow) = (&own.status, &own.spec.flow);
    for step in &flow.flows {
        let Some(is) = entry(status, &step.name) else {
            return Err(TestCaseError::fail(format!("nothing is known of step {}: {status:?}", step.name)));
        };
        prop_assert!(is.ended(), "the flow has ended, and step {is:?} has not");
        if is.state == StepState::Skipped {
            let no_more = |(on, until)| entry(status, on).is_some_and(|on| never(on, until));
            let reason = status.timed_out || waits(flow, &step.name).any(no_more);
            prop_assert!(reason, "step {is:?} could run: {status:?}");
        } else {
            true_to_its_job(cluster, status, is)?;
        }
    }
    let failed = |name: &str| entry(status, name).is_some_and(StepStatus::failed_for_good);
    let step_failed = flow.flows.iter().any(|step| failed(&step.name)) || status.timed_out;
    let bad = step_failed || failed(ON_FAILURE) || failed(ON_EXIT);
    let state = if bad { FlowState::Failed } else { FlowState::Succeed };
    prop_assert!(status.state == Some(state), "{:?}, and {state:?} it is", status.state);
    for (name, there) in
        [(ON_FAILURE, flow.on_failure.is_some() && step_failed), (ON_EXIT, flow.on_exit.is_some())]
    {
        if there {
            let is = entry(status, name).cloned().unwrap_or_default();
            prop_assert!(is.ended() && is.state != StepState::Skipped, "{name} has not run: {status:?}");
            true_to_its_job(cluster, status, &is)?;
        }
    }
    Ok(())
}

/// What the status says of a step that has run is what became of its last Job.
fn true_to_its_job(
    cluster: &KeptCluster<Flows>,
    status: &JobFlowStatus,
    is: &StepStatus,
) -> Result<(), TestCaseError> {
    let jobs = cluster.world.truth.values().filter(|job| {
        let part = &job.what.part;
        part.run == status.run && part.step == is.step && part.attempt == is.attempts()
    });
    let jobs: Vec<_> = jobs.collect();
    prop_assert!(jobs.len() == 1, "{} Jobs for {is:?}", jobs.len());
    let job = jobs[0];
    let is_so = match is.state {
        StepState::Succeeded => job.ended == Some(true),
        StepState::Failed => !job.completed,
        StepState::Deleted => job.deleted.is_some() && !job.completed,
        _ => false,
    };
    prop_assert!(is_so, "{is:?} is not what became of it: {job:?}");
    Ok(())
}
