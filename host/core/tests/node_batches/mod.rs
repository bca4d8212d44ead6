//! A small cluster for one NodeBatchJob: its nodes, its pods, and what is written of it. Time passes when a test says so.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use stoker_api::{Execution, NodeBatchJob, NodeBatchJobSpec, NodeBatchJobStatus, keys};
use stoker_core::fan_out::NodeView;
use stoker_core::kept::{NAME_HELD, Upkeep};
use stoker_core::node_batch::{Look, Plan, Timetable, body, farewell, plan, still_wanted};
use stoker_core::pod::PodEnd;
use stoker_core::{Phase, PodView};

pub struct World {
    pub object: NodeBatchJob,
    pub nodes: Vec<NodeView>,
    pub pods: Vec<PodView>,
    pub now: Timestamp,
    pub taken: BTreeMap<String, bool>,
    pub refused: Option<String>,
    pub callbacks: bool,
    /// Pods whose log has been saved, by UID.
    pub saved: BTreeSet<String>,
    /// All pods that were ever made: node, execution, attempt.
    pub made: Vec<(String, String, u16)>,
    /// What was told, by reason.
    pub told: Vec<&'static str>,
    /// Most pods of an execution that ran at a time.
    pub most: usize,
    uids: u32,
    /// Until when names are held, by UID.
    held: BTreeMap<String, Timestamp>,
}

pub fn node(name: &str) -> NodeView {
    NodeView { name: name.to_owned(), uid: format!("uid-of-{name}"), ready: true, ..NodeView::default() }
}

/// A NodeBatchJob named disks, made at ten past nine; `spec` is laid over a template that just runs.
pub fn world(spec: Value, nodes: &[&str]) -> World {
    let mut all = json!({"podTemplate": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let spec: NodeBatchJobSpec = serde_json::from_value(all).unwrap();
    let now = "2026-08-03T09:10:00Z".parse().unwrap();
    let mut object = NodeBatchJob::new("disks", spec);
    object.metadata.uid = Some("u-1".to_owned());
    object.metadata.namespace = Some("ops".to_owned());
    object.metadata.generation = Some(1);
    object.metadata.creation_timestamp = Some(Time(now));
    World {
        object,
        nodes: nodes.iter().map(|name| node(name)).collect(),
        pods: Vec::new(),
        now,
        taken: BTreeMap::new(),
        refused: None,
        callbacks: true,
        saved: BTreeSet::new(),
        made: Vec::new(),
        told: Vec::new(),
        most: 0,
        uids: 0,
        held: BTreeMap::new(),
    }
}

fn works(pod: &PodView) -> bool {
    !pod.phase.is_terminal()
}

impl World {
    /// Whether the name of what is to be let go is still held.
    fn held(&mut self, uid: &str) -> bool {
        let until = self.held.entry(uid.to_owned()).or_insert(self.now + NAME_HELD);
        *until > self.now
    }

    pub fn plan(&self) -> Plan {
        self.plan_with(&self.pods, self.object.status.clone())
    }

    /// What somebody plans who sees this.
    pub fn plan_with(&self, pods: &[PodView], status: Option<NodeBatchJobStatus>) -> Plan {
        let mut object = self.object.clone();
        object.status = status;
        let times = Timetable::read(&object.spec);
        let look = Look {
            object: &object,
            times: times.as_ref().map_err(String::as_str),
            nodes: &self.nodes,
            pods,
            refused: self.refused.as_deref(),
            taken: &self.taken,
            saved: &|uid| self.saved.contains(uid),
            callbacks: self.callbacks,
        };
        plan(&look, self.now)
    }

    /// Creates what a plan wants, as far as what is written allows it.
    pub fn create(&mut self, plan: &Plan) {
        let status = self.object.status.clone().unwrap_or_default();
        for new in still_wanted(&status, &plan.create) {
            if self.pods.iter().any(|pod| pod.name == new.name) {
                continue;
            }
            let body = body(&self.object, new, None);
            self.made.push((new.node.clone(), new.execution.clone(), new.attempt));
            self.uids += 1;
            let map = |field: &str| serde_json::from_value(body["metadata"][field].clone()).unwrap();
            self.pods.push(PodView {
                name: new.name.clone(),
                uid: format!("pod-{}", self.uids),
                resource_version: "1".to_owned(),
                slot: None,
                created: self.now,
                phase: Phase::Running,
                terminating: false,
                deleted_at: None,
                grace: 0,
                finalizers: vec![keys::OUTCOME.to_owned()],
                ended: None,
                node: Some(new.node.clone()),
                ip: None,
                ports: Vec::new(),
                displaced: false,
                restarts: 0,
                waiting: None,
                message: None,
                containers_started: None,
                gate_started: None,
                conditions: Vec::new(),
                template_hash: None,
                labels: map("labels"),
                annotations: map("annotations"),
            });
        }
    }

    /// Does what a plan does with pods that there are.
    pub fn keep_up(&mut self, plan: &Plan) {
        for upkeep in &plan.upkeep {
            match upkeep {
                Upkeep::Delete { uid, .. } => self.delete(uid),
                Upkeep::LetGo { uid, .. } if self.held(uid) => {}
                Upkeep::LetGo { uid, .. } => {
                    for pod in self.pods.iter_mut().filter(|pod| &pod.uid == uid) {
                        pod.finalizers.clear();
                    }
                }
                Upkeep::EndPod { .. } => {}
            }
        }
        self.pods.retain(|pod| !pod.terminating || !pod.finalizers.is_empty());
    }

    /// A pod is deleted: it fails at once if it runs, and it stays while it is kept.
    pub fn delete(&mut self, uid: &str) {
        let now = self.now;
        for pod in self.pods.iter_mut().filter(|pod| pod.uid == uid && !pod.terminating) {
            (pod.terminating, pod.deleted_at) = (true, Some(now));
            if works(pod) {
                pod.phase = Phase::Failed;
                pod.ended = Some(PodEnd { at: Some(now), ..PodEnd::default() });
            }
        }
        self.pods.retain(|pod| !pod.terminating || !pod.finalizers.is_empty());
    }

    /// One look, with all that follows from it.
    pub fn look(&mut self) -> Plan {
        let plan = self.plan();
        self.create(&plan);
        self.keep_up(&plan);
        self.told.extend(plan.told.iter().map(|told| told.reason));
        self.object.status = Some(plan.status.clone());
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| works(pod)) {
            *running.entry(&pod.labels[keys::EXECUTION]).or_default() += 1;
        }
        self.most = self.most.max(running.into_values().max().unwrap_or(0));
        plan
    }

    /// Looks until nothing more is to do at this time.
    pub fn settle(&mut self) -> &mut Self {
        for _ in 0..50 {
            let (status, pods) = (self.object.status.clone(), self.pods.clone());
            self.look();
            if self.object.status == status && self.pods == pods {
                return self;
            }
        }
        panic!("it never comes to rest: {:#?}", self.object.status);
    }

    pub fn pass(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    /// Time passes as the operator sees it: it looks when it wanted to.
    pub fn live(&mut self, seconds: i64) -> &mut Self {
        let until = self.now + SignedDuration::from_secs(seconds);
        while self.now < until {
            self.settle();
            let wake = self.plan().wake_at.filter(|at| *at > self.now);
            self.now = wake.map_or(until, |wake| wake.min(until));
        }
        self.settle()
    }

    /// The pod that runs on a node ends.
    pub fn end(&mut self, node: &str, why: Option<&str>) -> &mut Self {
        let now = self.now;
        let pod = self
            .pods
            .iter_mut()
            .find(|pod| pod.annotations[keys::NODE] == node && works(pod))
            .unwrap_or_else(|| panic!("no pod runs on {node}"));
        pod.phase = if why.is_some() { Phase::Failed } else { Phase::Succeeded };
        pod.ended = Some(PodEnd { at: Some(now), started: Some(pod.created), why: why.map(str::to_owned) });
        self
    }

    pub fn succeed(&mut self, node: &str) -> &mut Self {
        self.end(node, None)
    }

    pub fn fail(&mut self, node: &str) -> &mut Self {
        self.end(node, Some("container c: exit code 3"))
    }

    pub fn annotate(&mut self, key: &str, text: &str) -> &mut Self {
        self.object.metadata.annotations.get_or_insert_default().insert(key.to_owned(), text.to_owned());
        self
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut NodeBatchJobSpec)) -> &mut Self {
        change(&mut self.object.spec);
        self.object.metadata.generation = self.object.metadata.generation.map(|g| g + 1);
        self
    }

    pub fn leave(&mut self, name: &str) -> &mut Self {
        self.nodes.retain(|node| node.name != name);
        self
    }

    pub fn status(&self) -> &NodeBatchJobStatus {
        self.object.status.as_ref().unwrap()
    }

    /// The newest execution.
    pub fn newest(&self) -> &Execution {
        &self.status().executions[0]
    }

    /// Nodes on which a pod runs, by name.
    pub fn running(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .pods
            .iter()
            .filter(|pod| works(pod))
            .map(|pod| pod.annotations[keys::NODE].clone())
            .collect();
        all.sort();
        all
    }

    /// How often a node was started.
    pub fn starts(&self, node: &str) -> usize {
        self.made.iter().filter(|(name, ..)| name == node).count()
    }

    pub fn condition(&self, type_: &str) -> (String, String, String) {
        let found = self.status().conditions.iter().find(|c| c.type_ == type_).unwrap();
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    pub fn farewell(&self) -> Vec<Upkeep> {
        farewell(&self.pods)
    }
}
