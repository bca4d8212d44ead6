//! A small cluster for one DaemonJob: its nodes, its Jobs, and what is written of it. Time passes when a test says so.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use stoker_api::{DaemonJob, DaemonJobSpec, DaemonJobState, DaemonJobStatus, keys};
use stoker_core::daemon_job::{Look, Plan, body, farewell, inline_template, plan, still_wanted};
use stoker_core::fan_out::NodeView;
use stoker_core::kept::{Kept, NAME_HELD, Upkeep};
use stoker_core::pool::JobView;
use stoker_core::pool::jobs::Finished;

pub struct World {
    pub object: DaemonJob,
    pub nodes: Vec<NodeView>,
    pub jobs: Vec<JobView>,
    pub now: Timestamp,
    pub taken: BTreeMap<String, bool>,
    pub refused: Option<String>,
    pub missing: Option<String>,
    /// All Jobs that were ever made: node, node's UID, run, attempt.
    pub made: Vec<(String, String, String, String)>,
    uids: u32,
    /// Until when names are held, by UID.
    held: BTreeMap<String, Timestamp>,
}

pub fn node(name: &str) -> NodeView {
    NodeView { name: name.to_owned(), uid: format!("uid-of-{name}"), ready: true, ..NodeView::default() }
}

/// A DaemonJob named warm; `spec` is laid over a template that just runs.
pub fn world(spec: Value, nodes: &[&str]) -> World {
    let mut all = json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let spec: DaemonJobSpec = serde_json::from_value(all).unwrap();
    let mut object = DaemonJob::new("warm", spec);
    object.metadata.uid = Some("u-1".to_owned());
    object.metadata.namespace = Some("default".to_owned());
    object.metadata.generation = Some(1);
    World {
        object,
        nodes: nodes.iter().map(|name| node(name)).collect(),
        jobs: Vec::new(),
        now: "2026-06-01T10:00:00Z".parse().unwrap(),
        taken: BTreeMap::new(),
        refused: None,
        missing: None,
        made: Vec::new(),
        uids: 0,
        held: BTreeMap::new(),
    }
}

impl World {
    /// Whether the name of what is to be let go is still held.
    fn held(&mut self, uid: &str) -> bool {
        let until = self.held.entry(uid.to_owned()).or_insert(self.now + NAME_HELD);
        *until > self.now
    }

    /// What is planned now.
    pub fn plan(&self) -> Plan {
        self.plan_with(&self.nodes, &self.jobs, self.object.status.clone())
    }

    /// What somebody plans who sees this.
    pub fn plan_with(&self, nodes: &[NodeView], jobs: &[JobView], status: Option<DaemonJobStatus>) -> Plan {
        let mut object = self.object.clone();
        object.status = status;
        let kept: Vec<Kept<'_>> = jobs.iter().map(|job| Kept { job, pods: &[] }).collect();
        let template = match &self.missing {
            Some(words) => Err(words.as_str()),
            None => Ok(inline_template(&object.spec).unwrap()),
        };
        let look = Look {
            object: &object,
            template,
            nodes,
            jobs: &kept,
            refused: self.refused.as_deref(),
            taken: &self.taken,
        };
        plan(&look, self.now)
    }

    /// Creates what a plan wants, as far as what is written allows it.
    pub fn create(&mut self, plan: &Plan) {
        let status = self.object.status.clone().unwrap_or_default();
        for new in still_wanted(&status, &plan.create) {
            if self.jobs.iter().any(|job| job.name == new.name) {
                continue;
            }
            let template = inline_template(&self.object.spec).unwrap();
            let body = body(&self.object, template, new);
            let annotations: BTreeMap<String, String> =
                serde_json::from_value(body["metadata"]["annotations"].clone()).unwrap();
            let of = |key: &str| annotations[key].clone();
            self.made.push((of(keys::NODE), of(keys::NODE_UID), of(keys::RUN), of(keys::ATTEMPT)));
            self.uids += 1;
            self.jobs.push(JobView {
                name: new.name.clone(),
                uid: format!("job-{}", self.uids),
                resource_version: "1".to_owned(),
                slot: None,
                created: self.now,
                terminating: false,
                deleted_at: None,
                finalizers: vec![keys::OUTCOME.to_owned()],
                edited: false,
                finished: None,
                parallelism: 1,
                completions: None,
                active: 1,
                succeeded: 0,
                failed: 0,
                template_hash: body["metadata"]["labels"][keys::TEMPLATE_HASH].as_str().map(str::to_owned),
                annotations,
            });
        }
    }

    /// Does what a plan does with Jobs that there are.
    pub fn keep_up(&mut self, plan: &Plan) {
        for upkeep in &plan.upkeep {
            match upkeep {
                Upkeep::Delete { uid, .. } => self.delete(uid),
                Upkeep::LetGo { uid, .. } if self.held(uid) => {}
                Upkeep::LetGo { uid, .. } => {
                    for job in self.jobs.iter_mut().filter(|job| &job.uid == uid) {
                        job.finalizers.clear();
                    }
                }
                Upkeep::EndPod { .. } => {}
            }
        }
        self.jobs.retain(|job| !job.terminating || !job.finalizers.is_empty());
    }

    /// A Job is deleted: its pods end at once, and it stays while it is kept.
    pub fn delete(&mut self, uid: &str) {
        let now = self.now;
        for job in self.jobs.iter_mut().filter(|job| job.uid == uid && !job.terminating) {
            (job.terminating, job.deleted_at, job.active) = (true, Some(now), 0);
        }
        self.jobs.retain(|job| !job.terminating || !job.finalizers.is_empty());
    }

    pub fn write(&mut self, plan: &Plan) {
        self.object.status = Some(plan.status.clone());
    }

    /// One look, with all that follows from it.
    pub fn look(&mut self) -> Plan {
        let plan = self.plan();
        self.create(&plan);
        self.keep_up(&plan);
        self.write(&plan);
        plan
    }

    /// Looks until nothing more is to do at this time.
    pub fn settle(&mut self) -> &mut Self {
        for _ in 0..50 {
            let (status, jobs) = (self.object.status.clone(), self.jobs.clone());
            self.look();
            if self.object.status == status && self.jobs == jobs {
                return self;
            }
        }
        panic!("it never comes to rest: {:#?}", self.object.status);
    }

    pub fn pass(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    /// The Job of a node ends.
    pub fn end(&mut self, node: &str, well: bool) -> &mut Self {
        let now = self.now;
        let job = self
            .jobs
            .iter_mut()
            .find(|job| job.annotations[keys::NODE] == node && job.finished.is_none())
            .unwrap_or_else(|| panic!("no Job runs on {node}"));
        job.finished = Some(Finished {
            well,
            at: Some(now),
            why: (!well).then(|| "BackoffLimitExceeded: it has failed".to_owned()),
        });
        job.active = 0;
        self
    }

    pub fn succeed(&mut self, node: &str) -> &mut Self {
        self.end(node, true)
    }

    pub fn fail(&mut self, node: &str) -> &mut Self {
        self.end(node, false)
    }

    /// Kubernetes' TTL controller takes what has ended and is not kept.
    pub fn expire(&mut self) -> &mut Self {
        self.jobs.retain(|job| job.finished.is_none() || !job.finalizers.is_empty());
        self
    }

    /// The spec is edited.
    pub fn edit(&mut self, change: impl FnOnce(&mut DaemonJobSpec)) -> &mut Self {
        change(&mut self.object.spec);
        self.object.metadata.generation = self.object.metadata.generation.map(|g| g + 1);
        self
    }

    pub fn annotate(&mut self, key: &str, text: &str) -> &mut Self {
        self.object.metadata.annotations.get_or_insert_default().insert(key.to_owned(), text.to_owned());
        self
    }

    pub fn join(&mut self, name: &str) -> &mut Self {
        self.nodes.push(node(name));
        self
    }

    pub fn leave(&mut self, name: &str) -> &mut Self {
        self.nodes.retain(|node| node.name != name);
        self
    }

    pub fn status(&self) -> &DaemonJobStatus {
        self.object.status.as_ref().unwrap()
    }

    pub fn state(&self) -> DaemonJobState {
        self.status().state.unwrap()
    }

    /// Nodes whose Job runs, by name.
    pub fn running(&self) -> Vec<String> {
        let running = |job: &&JobView| job.finished.is_none() && job.active > 0;
        let mut all: Vec<String> =
            self.jobs.iter().filter(running).map(|job| job.annotations[keys::NODE].clone()).collect();
        all.sort();
        all
    }

    /// How often a node was started.
    pub fn starts(&self, node: &str) -> usize {
        self.made.iter().filter(|(name, ..)| name == node).count()
    }

    pub fn condition(&self, type_: &str) -> (String, String) {
        let found = self.status().conditions.iter().find(|c| c.type_ == type_).unwrap();
        (found.status.clone(), found.message.clone())
    }

    pub fn farewell(&self) -> Vec<Upkeep> {
        let kept: Vec<Kept<'_>> = self.jobs.iter().map(|job| Kept { job, pods: &[] }).collect();
        farewell(&kept)
    }
}
