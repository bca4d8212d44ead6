//! JobFlow in a simulated cluster: what its operator asks core, and what holds whatever happens.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use stoker_api::{JobFlowSpec, JobFlowStatus, StepCondition, StepState, StepStatus, keys};
use stoker_core::flow::{self, Flow, Look, NewJob, ON_EXIT, ON_FAILURE, Templates, Troubles};
use stoker_core::kept::{Kept, Upkeep};

use crate::keeper::{Kind, Sabotage, Seen, Wanted, Wants};
use crate::kept::{KeptCluster, Promises};
use crate::kept_object::{OWN, OWN_UID, Own};
use crate::world::{JobTruth, said};

/// JobFlow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows;

/// The spec of a flow, and the JobTemplates that there are.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSpec {
    /// The spec.
    pub flow: Arc<JobFlowSpec>,
    /// The JobTemplates.
    pub templates: Templates,
}

/// What became of a Job of a flow.
pub type StepTruth = JobTruth<Wanted<Flows>>;

impl FlowSpec {
    /// The flow, read.
    pub fn read(&self) -> Flow {
        Flow::new(OWN, "default", OWN_UID, self.flow.clone(), &self.templates)
    }

    fn sabotaged(&self, how: Option<Sabotage>) -> Flow {
        let mut spec = JobFlowSpec::clone(&self.flow);
        match how {
            Some(Sabotage::WaitsForNothing) => spec.flows.iter_mut().for_each(|step| {
                step.dependencies.clear();
                step.wait_for.clear();
            }),
            Some(Sabotage::CountsNothing) => spec.max_parallel = None,
            _ => return self.read(),
        }
        Self { flow: Arc::new(spec), templates: self.templates.clone() }.read()
    }
}

impl Kind for Flows {
    type Spec = FlowSpec;
    type Status = JobFlowStatus;
    type Part = NewJob;

    fn plan(seen: &Seen<'_, Self>, now: Timestamp) -> Wants<Self> {
        let own = seen.own;
        let flow = own.spec.sabotaged(seen.sabotage);
        let annotation = |key: &str| own.annotations.get(key).map(String::as_str);
        let answers = flow::Answers::default();
        let look = Look {
            flow: &flow,
            generation: Some(own.generation),
            rerun: annotation(keys::RERUN),
            rerun_failed: annotation(keys::RERUN_FAILED),
            status: &own.status,
            jobs: seen.jobs,
            answers: &answers,
        };
        let mut plan = flow::plan(&look, now);
        let troubles = Troubles { refused: None, conflict: seen.taken.keys().next().cloned() };
        plan.status.conditions = flow::conditions(&flow, &plan, &troubles, &own.status.conditions, now);
        let create = plan.create.into_iter().filter_map(|new| {
            let body: Value = flow::body(&flow, &new, &json!({})).ok()?;
            Some((new, body))
        });
        Wants {
            create: create.collect(),
            upkeep: plan.upkeep,
            delete: plan.delete,
            urgent: own.status.run != plan.status.run,
            status: plan.status,
            wake_at: plan.wake_at,
        }
    }

    fn still_wanted(status: &JobFlowStatus, part: &NewJob) -> bool {
        flow::still_wanted(status)(part)
    }

    fn farewell(jobs: &[Kept<'_>]) -> Vec<Upkeep> {
        flow::farewell(jobs)
    }

    fn words(status: &JobFlowStatus) -> String {
        let step = |entry: &StepStatus| format!("{} {:?} {}", entry.step, entry.state, entry.attempts());
        let steps: Vec<_> = status.job_status_list.values().map(step).collect();
        let JobFlowStatus { run, state, completion_time, timed_out, .. } = status;
        format!("run {run} {state:?} ended {completion_time:?} timed out {timed_out}: {}", steps.join(", "))
    }
}

/// What the status says of a step.
pub fn entry<'a>(status: &'a JobFlowStatus, step: &str) -> Option<&'a StepStatus> {
    status.job_status_list.values().find(|entry| entry.step == step)
}

/// A step's Jobs of a run.
fn jobs_of<'a>(
    cluster: &'a KeptCluster<Flows>,
    run: u32,
    step: &'a str,
) -> impl Iterator<Item = &'a StepTruth> {
    let of = move |job: &&StepTruth| job.what.part.run == run && job.what.part.step == step;
    cluster.world.truth.values().filter(of)
}

/// Whether what a step waits for has truly come at some time.
fn came(cluster: &KeptCluster<Flows>, spec: &JobFlowSpec, run: u32, on: &str, until: StepCondition) -> bool {
    let any = |so: fn(&StepTruth) -> bool| jobs_of(cluster, run, on).any(so);
    match until {
        StepCondition::Succeeded => any(|job| job.ended == Some(true)),
        StepCondition::Failed => any(failed),
        StepCondition::Ready => any(|job| job.begun),
        StepCondition::Finished => {
            any(|job| job.ended == Some(true) || failed(job)) || left_out(cluster, spec, run, on)
        }
    }
}

fn failed(job: &StepTruth) -> bool {
    job.ended == Some(false) || job.deleted.is_some()
}

/// Whether a step may be left out: it has not been tried, and what it waits for may be out of reach.
fn left_out(cluster: &KeptCluster<Flows>, spec: &JobFlowSpec, run: u32, step: &str) -> bool {
    let lost = |(on, until)| {
        let any = |so: fn(&StepTruth) -> bool| jobs_of(cluster, run, on).any(so);
        let by_itself = match until {
            StepCondition::Finished => return false,
            StepCondition::Failed => any(|job| job.ended == Some(true)),
            StepCondition::Succeeded | StepCondition::Ready => any(failed),
        };
        by_itself || left_out(cluster, spec, run, on)
    };
    jobs_of(cluster, run, step).next().is_none() && waits(spec, step).any(lost)
}

/// What a step waits for.
pub fn waits<'a>(
    spec: &'a JobFlowSpec,
    step: &str,
) -> impl Iterator<Item = (&'a str, StepCondition)> + use<'a> {
    let step = spec.flows.iter().find(|other| other.name == step);
    step.into_iter().flat_map(|step| {
        let short = step.dependencies.iter().map(|on| (on.as_str(), StepCondition::Succeeded));
        let long = step.wait_for.iter().map(|wait| (wait.name.as_str(), wait.condition.unwrap_or_default()));
        short.chain(long)
    })
}

/// Whether it is a handler and no step.
pub fn handles(step: &str) -> bool {
    matches!(step, ON_FAILURE | ON_EXIT)
}

impl Promises for Flows {
    fn attempt(part: &NewJob) -> String {
        format!("attempt {} of step {} in run {}", part.attempt, part.step, part.run)
    }

    fn node(_: &NewJob) -> Option<String> {
        None
    }

    fn created(cluster: &KeptCluster<Self>, wanted: &Wanted<Self>) -> Vec<String> {
        let (spec, NewJob { step, run, attempt, .. }) = (&wanted.by.spec.flow, &wanted.part);
        let mut broken = Vec::new();
        if !handles(step) && jobs_of(cluster, *run, step).any(|job| job.completed) {
            broken.push(format!("I6: step {step} has succeeded in run {run}, and attempt {attempt} is made"));
        }
        for (on, until) in waits(spec, step) {
            if !came(cluster, spec, *run, on, until) {
                broken.push(format!("step {step} starts in run {run}, and {on} was never {until:?}"));
            }
        }
        for (variable, text) in &wanted.part.env {
            let says = |(uid, job): (&String, &StepTruth)| {
                let of_step = *variable == format!("STOKER_OUTPUT_{}", job.what.part.step.to_uppercase());
                of_step && job.what.part.run == *run && text.starts_with(&said(&format!("{uid}-")))
            };
            if variable.starts_with("STOKER_OUTPUT_") && !cluster.world.truth.iter().any(says) {
                broken.push(format!("step {step} is told that {variable} is {text:?}"));
            }
        }
        if spec.suspend {
            broken.push(format!("step {step} starts in run {run}, and the flow is suspended"));
        }
        let at_work =
            |job: &&StepTruth| job.ended.is_none() && job.deleted.is_none() && !handles(&job.what.part.step);
        let count = 1 + cluster.world.truth.values().filter(at_work).count();
        let most = spec.max_parallel.and_then(|most| cluster.at_work_at_most(most as usize));
        if !handles(step) && most.is_some_and(|most| count > most) {
            broken.push(format!("maxParallel: with step {step} {count} are at work"));
        }
        broken
    }

    fn written(cluster: &KeptCluster<Self>, old: &Own<Self>, new: &JobFlowStatus) -> Vec<String> {
        let mut broken = Vec::new();
        if new.run < old.status.run {
            broken.push(format!("run {} comes after run {}", new.run, old.status.run));
        }
        let spec = &old.spec.flow;
        for was in old.status.job_status_list.values().filter(|_| old.status.run == new.run) {
            let named = spec.flows.iter().any(|step| step.name == was.step);
            let is = entry(new, &was.step);
            let attempts = is.map_or(0, StepStatus::attempts);
            if attempts < was.attempts() && (named || is.is_some()) {
                broken.push(format!(
                    "I6: {} attempts of {}, and there were {}",
                    attempts,
                    was.step,
                    was.attempts()
                ));
            }
            // One that somebody deleted may end well at the last moment, when another has been seen to be needed.
            let undisturbed = || jobs_of(cluster, new.run, &was.step).any(|job| job.completed);
            let done = was.state == StepState::Succeeded && named && undisturbed();
            if done && is.is_none_or(|is| is.state != StepState::Succeeded) {
                broken.push(format!("I6: step {} had succeeded, and is {is:?}", was.step));
            }
        }
        broken
    }

    fn recorded(status: &JobFlowStatus, job: &StepTruth) -> Result<(), String> {
        let NewJob { step, run, attempt, .. } = &job.what.part;
        if status.run > *run {
            return Ok(());
        }
        let entry = entry(status, step).filter(|_| status.run == *run);
        let Some(entry) = entry.filter(|entry| entry.attempts() >= *attempt) else {
            return Err("the status does not know it".to_owned());
        };
        if entry.attempts() > *attempt {
            return Ok(());
        }
        match entry.state {
            StepState::Running => Err("the status says that it runs".to_owned()),
            StepState::Succeeded if job.ended == Some(true) => Ok(()),
            StepState::Succeeded => Err("the status says that it succeeded".to_owned()),
            // A handler runs again when steps have run again.
            state if job.completed && !handles(step) => {
                Err(format!("it succeeded, and the status says {state:?}"))
            }
            _ => Ok(()),
        }
    }
}
