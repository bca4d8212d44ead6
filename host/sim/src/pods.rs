//! Pods as tests write them down, and what Kubernetes does to them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use stoker_api::keys;
use stoker_core::names;
use stoker_core::pod::{PodCondition, PodEnd};
use stoker_core::{Phase, PodView};

use crate::store::Object;

/// The annotation that says busy.
pub const BUSY: &str = keys::DEFAULT_BUSY_ANNOTATION;

/// Name of the pool.
pub const POOL: &str = "pool";
/// UID of the pool.
pub const POOL_UID: &str = "5f0c";

impl Object for PodView {
    fn name(&self) -> &str {
        &self.name
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn set_version(&mut self, version: String) {
        self.resource_version = version;
    }

    fn terminating(&self) -> bool {
        self.terminating
    }

    fn terminate(&mut self) {
        self.terminating = true;
    }

    fn lingers(&self) -> bool {
        self.node.is_some() && !self.phase.is_terminal()
    }
}

/// Some moment, and seconds from it.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Creation and transition times have whole seconds in Kubernetes (meta/v1 Time).
pub(crate) fn whole(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A pod of a slot that was just created: no node, not Ready.
pub fn pod(slot: u32, created: Timestamp) -> PodView {
    PodView {
        name: names::pool_member(POOL, POOL_UID, slot),
        uid: format!("uid-{slot}"),
        resource_version: "1".to_owned(),
        slot: Some(slot),
        created: whole(created),
        phase: Phase::Pending,
        terminating: false,
        deleted_at: None,
        grace: 0,
        finalizers: Vec::new(),
        ended: None,
        node: None,
        ip: None,
        ports: Vec::new(),
        displaced: false,
        waiting: None,
        restarts: 0,
        message: None,
        containers_started: None,
        gate_started: None,
        conditions: Vec::new(),
        template_hash: Some("0".to_owned()),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

/// Sets a condition; its time moves only with its status, as the kubelet has it.
pub fn set(pod: &mut PodView, type_: &str, status: &str, now: Timestamp) {
    match pod.conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(c) if c.status == status => {}
        Some(c) => (c.status, c.since) = (status.to_owned(), Some(whole(now))),
        None => pod.conditions.push(PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: None,
            since: Some(whole(now)),
        }),
    }
}

/// Binds a pod to a node, as the scheduler does; the kubelet says at once that it is not Ready.
pub fn bind(pod: &mut PodView, node: &str, now: Timestamp) {
    if pod.node.is_none() {
        pod.node = Some(node.to_owned());
        set(pod, "Ready", "False", now);
    }
}

/// Binds a pod to the one node that hand-written pools have.
pub fn schedule(pod: &mut PodView, now: Timestamp) {
    bind(pod, "node", now);
}

/// Starts the containers of a pod that has a node, and makes it Ready.
pub fn start(pod: &mut PodView, now: Timestamp) {
    if pod.node.is_some() {
        pod.phase = Phase::Running;
        pod.containers_started.get_or_insert(whole(now));
        set(pod, "Ready", "True", now);
    }
}

/// Binds a pod to the one node, starts its containers and makes it Ready.
pub fn make_ready(pod: &mut PodView, now: Timestamp) {
    schedule(pod, now);
    start(pod, now);
}

/// The containers of a pod that has a node end, well or not.
pub fn end(pod: &mut PodView, well: bool, now: Timestamp) {
    if pod.node.is_some() {
        pod.phase = if well { Phase::Succeeded } else { Phase::Failed };
        pod.ended = Some(PodEnd {
            started: pod.containers_started,
            at: Some(whole(now)),
            why: (!well).then(|| "container main: exit code 1 (Error)".to_owned()),
        });
        set(pod, "Ready", "False", now);
    }
}

/// A Ready pod, Ready since its creation.
pub fn ready(slot: u32, created: Timestamp) -> PodView {
    let mut pod = pod(slot, created);
    make_ready(&mut pod, created);
    pod
}

/// A Ready pod whose annotation says that it is busy.
pub fn busy(slot: u32, created: Timestamp) -> PodView {
    annotated(ready(slot, created), BUSY, "true")
}

/// The pod with an annotation.
pub fn annotated(mut pod: PodView, key: &str, value: &str) -> PodView {
    pod.annotations.insert(key.to_owned(), value.to_owned());
    pod
}

/// The pod in a phase.
pub fn in_phase(mut pod: PodView, phase: Phase) -> PodView {
    pod.phase = phase;
    pod
}

/// What the annotation says, read without the code under test.
pub fn says_busy(pod: &PodView) -> bool {
    pod.annotations.get(BUSY).is_some_and(|v| v.to_lowercase() == "true")
}
