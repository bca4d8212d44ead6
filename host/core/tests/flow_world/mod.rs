//! A flow with its Jobs, as a small cluster would show them: what tests of flows look at and change.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use stoker_api::{FlowState, JobFlowSpec, JobFlowStatus, StepState, StepStatus, keys};
use stoker_core::flow::{Answers, Flow, Look, NewJob, Plan, Templates, Troubles, body, conditions, plan};
use stoker_core::kept::{Kept, NAME_HELD, Upkeep};
use stoker_core::pool::JobView;
use stoker_core::pool::jobs::Finished;
use stoker_core::{Phase, PodView};
use stoker_sim::pods;

/// A pod template with one container.
pub fn pod_template() -> Value {
    json!({"spec": {"containers": [{"name": "work", "image": "busybox"}]}})
}

/// A step without anything special.
pub fn step(name: &str, dependencies: &[&str]) -> Value {
    json!({"name": name, "jobTemplate": {"template": pod_template()}, "dependencies": dependencies})
}

/// A step with something special.
pub fn step_with(name: &str, more: Value) -> Value {
    let mut step = step(name, &[]);
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

/// A flow, its Jobs, and what is written of it.
#[derive(Clone)]
pub struct World {
    pub spec: JobFlowSpec,
    pub generation: i64,
    pub templates: Templates,
    pub status: JobFlowStatus,
    pub jobs: Vec<(JobView, Vec<PodView>)>,
    pub rerun: Option<String>,
    pub rerun_failed: Option<String>,
    pub answers: Answers,
    pub now: Timestamp,
    /// All that was ever created.
    pub created: Vec<NewJob>,
    /// Whether the status is written.
    pub writes: bool,
    /// Until when names are held, by UID.
    held: BTreeMap<String, Timestamp>,
}

/// A flow of steps.
pub fn flow(steps: Vec<Value>) -> World {
    flow_with(steps, json!({}))
}

/// A flow of steps, with something special.
pub fn flow_with(steps: Vec<Value>, more: Value) -> World {
    let mut spec = json!({"flows": steps});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    World {
        spec: serde_json::from_value(spec).unwrap(),
        generation: 1,
        templates: Templates::new(),
        status: JobFlowStatus::default(),
        jobs: Vec::new(),
        rerun: None,
        rerun_failed: None,
        answers: HashSet::new(),
        now: "2026-06-01T10:00:00Z".parse().unwrap(),
        created: Vec::new(),
        writes: true,
        held: BTreeMap::new(),
    }
}

/// The Job that a body asks for.
fn made(body: &Value, uid: &str, now: Timestamp) -> JobView {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let annotations = body["metadata"]["annotations"].as_object().unwrap();
    JobView {
        name: text(&body["metadata"]["name"]),
        uid: uid.to_owned(),
        resource_version: "1".to_owned(),
        slot: None,
        created: now,
        terminating: false,
        deleted_at: None,
        finalizers: body["metadata"]["finalizers"].as_array().unwrap().iter().map(text).collect(),
        edited: false,
        finished: None,
        parallelism: body["spec"]["parallelism"].as_u64().unwrap_or(1) as u32,
        completions: body["spec"]["completions"].as_u64().map(|all| all as u32),
        active: 1,
        succeeded: 0,
        failed: 0,
        template_hash: Some(text(&body["metadata"]["labels"][keys::TEMPLATE_HASH])),
        annotations: annotations.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
    }
}

impl World {
    /// Whether the name of what is to be let go is still held.
    fn held(&mut self, uid: &str) -> bool {
        let until = self.held.entry(uid.to_owned()).or_insert(self.now + NAME_HELD);
        *until > self.now
    }

    pub fn flow(&self) -> Flow {
        Flow::new("flow", "ns", "uid-flow", Arc::new(self.spec.clone()), &self.templates)
    }

    /// What would be done now.
    pub fn plan(&self) -> Plan {
        let kept: Vec<Kept<'_>> = self.jobs.iter().map(|(job, pods)| Kept { job, pods }).collect();
        let flow = self.flow();
        let look = Look {
            flow: &flow,
            generation: Some(self.generation),
            rerun: self.rerun.as_deref(),
            rerun_failed: self.rerun_failed.as_deref(),
            status: &self.status,
            jobs: &kept,
            answers: &self.answers,
        };
        let mut plan = plan(&look, self.now);
        plan.status.conditions =
            conditions(&flow, &plan, &Troubles::default(), &self.status.conditions, self.now);
        plan
    }

    /// Does what is to be done, and writes the status.
    pub fn look(&mut self) -> Plan {
        let plan = self.plan();
        let flow = self.flow();
        for new in &plan.create {
            let body = body(&flow, new, &json!({"kind": "JobFlow", "name": "flow"})).unwrap();
            let taken = self.jobs.iter().any(|(job, _)| job.name == new.name);
            assert!(!taken, "{} is created though it is there", new.name);
            let uid = format!("uid-{}-{}", new.name, self.created.len());
            self.jobs.push((made(&body, &uid, self.now), Vec::new()));
            self.created.push(new.clone());
        }
        for upkeep in &plan.upkeep {
            match upkeep {
                Upkeep::Delete { uid, .. } => self.delete_uid(uid),
                Upkeep::LetGo { uid, .. } if self.held(uid) => {}
                Upkeep::LetGo { uid, .. } => {
                    for (job, _) in self.jobs.iter_mut().filter(|(job, _)| job.uid == *uid) {
                        job.finalizers.clear();
                    }
                    self.jobs.retain(|(job, _)| !job.terminating || !job.finalizers.is_empty());
                }
                Upkeep::EndPod { uid, .. } => {
                    for (_, pods) in &mut self.jobs {
                        pods.retain(|pod| pod.uid != *uid);
                    }
                }
            }
        }
        if self.writes {
            self.status = plan.status.clone();
        }
        plan
    }

    /// Looks until nothing new is started.
    pub fn settle(&mut self) -> Plan {
        loop {
            let plan = self.look();
            if plan.create.is_empty() {
                return plan;
            }
        }
    }

    pub fn pass(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    /// The last Job of a step.
    pub fn job(&mut self, step: &str) -> &mut (JobView, Vec<PodView>) {
        let of_step = |(job, _): &&mut (JobView, Vec<PodView>)| job.annotations[keys::STEP] == step;
        let all = self.jobs.iter_mut().filter(of_step);
        let number = |job: &JobView, key: &str| job.annotations[key].parse::<u32>().unwrap();
        all.max_by_key(|(job, _)| (number(job, keys::RUN), number(job, keys::ATTEMPT))).unwrap()
    }

    pub fn end(&mut self, step: &str, well: bool) -> &mut Self {
        self.end_saying(step, well, None)
    }

    /// The Job of a step ends, and its pod has said something.
    pub fn end_saying(&mut self, step: &str, well: bool, message: Option<&str>) -> &mut Self {
        let now = self.now;
        let (job, of_job) = self.job(step);
        job.finished =
            Some(Finished { well, at: Some(now), why: (!well).then(|| "BackoffLimitExceeded".to_owned()) });
        (job.active, job.succeeded, job.failed) = (0, u32::from(well), u32::from(!well));
        let mut pod = pods::pod(0, now);
        pod.uid = format!("pod-of-{}", job.uid);
        pod.phase = if well { Phase::Succeeded } else { Phase::Failed };
        pod.message = message.map(str::to_owned);
        *of_job = vec![pod];
        self
    }

    /// The pod of a step runs.
    pub fn run(&mut self, step: &str, ready: bool) -> &mut Self {
        let now = self.now;
        let (job, of_job) = self.job(step);
        let mut pod = pods::pod(0, now);
        pod.uid = format!("pod-of-{}", job.uid);
        pods::make_ready(&mut pod, now);
        pod.ip = Some("10.0.0.7".parse().unwrap());
        if !ready {
            pods::set(&mut pod, "Ready", "False", now);
        }
        *of_job = vec![pod];
        self
    }

    fn delete_uid(&mut self, uid: &str) {
        let now = self.now;
        for (job, pods) in self.jobs.iter_mut().filter(|(job, _)| job.uid == uid) {
            (job.terminating, job.active) = (true, 0);
            job.deleted_at.get_or_insert(now);
            pods.retain(|pod| pod.phase.is_terminal());
        }
        self.jobs.retain(|(job, _)| !job.terminating || !job.finalizers.is_empty());
    }

    /// Somebody, or the TTL controller, deletes the Job of a step; its pods end at once.
    pub fn delete(&mut self, step: &str) -> &mut Self {
        let uid = self.job(step).0.uid.clone();
        self.delete_uid(&uid);
        self
    }

    pub fn entry(&self, step: &str) -> Option<&StepStatus> {
        self.status.job_status_list.values().find(|entry| entry.step == step)
    }

    pub fn state(&self, step: &str) -> Option<StepState> {
        self.entry(step).map(|entry| entry.state)
    }

    pub fn is(&self) -> FlowState {
        self.status.state.unwrap()
    }

    /// Names of what was created, in order.
    pub fn names(&self) -> Vec<&str> {
        self.created.iter().map(|new| new.name.as_str()).collect()
    }

    /// Steps that were created, in order.
    pub fn steps(&self) -> Vec<&str> {
        self.created.iter().map(|new| new.step.as_str()).collect()
    }

    pub fn condition(&self, type_: &str) -> (String, String) {
        let found = self.status.conditions.iter().find(|c| c.type_ == type_).unwrap();
        (found.status.clone(), found.message.clone())
    }

    /// Environment variables of a created Job.
    pub fn env(new: &NewJob) -> BTreeMap<&str, &str> {
        new.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}
