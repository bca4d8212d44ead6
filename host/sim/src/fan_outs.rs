//! DaemonJob in a simulated cluster: what its operator asks core, and what holds whatever happens.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use stoker_api::{DaemonJob, DaemonJobSpec, DaemonJobStatus, Parallelism};
use stoker_core::daemon_job::{self, Look, NewJob};
use stoker_core::fan_out::{Fate, NodeKey, Record};
use stoker_core::kept::{Kept, Upkeep};

use crate::keeper::{Kind, Sabotage, Seen, Wanted, Wants};
use crate::kept::{KeptCluster, Promises};
use crate::kept_object::{OWN, OWN_UID, Own};
use crate::world::JobTruth;

/// Watches tell that a node has left by then, and requests that came before have arrived.
const LEFT: SignedDuration = SignedDuration::from_secs(60);

/// DaemonJob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanOuts;

/// What became of a Job of a node.
pub type NodeTruth = JobTruth<Wanted<FanOuts>>;

fn object(own: &Own<FanOuts>, sabotage: Option<Sabotage>) -> DaemonJob {
    let mut spec = own.spec.clone();
    if sabotage == Some(Sabotage::CountsNothing) {
        spec.parallelism = None;
    }
    let mut object = DaemonJob::new(OWN, spec);
    object.metadata.namespace = Some("default".to_owned());
    object.metadata.uid = Some(OWN_UID.to_owned());
    object.metadata.generation = Some(own.generation);
    object.metadata.annotations = Some(own.annotations.clone());
    object.status = Some(own.status.clone());
    object
}

impl Kind for FanOuts {
    type Spec = DaemonJobSpec;
    type Status = DaemonJobStatus;
    type Part = NewJob;

    fn plan(seen: &Seen<'_, Self>, now: Timestamp) -> Wants<Self> {
        let (own, object) = (seen.own, object(seen.own, seen.sabotage));
        let template: Result<&Map<String, Value>, &str> =
            daemon_job::inline_template(&object.spec).ok_or("there is no JobTemplate");
        // Of a Job that is not being deleted its own status tells everything.
        let pods = |kept: &Kept<'_>| !kept.job.terminating;
        let jobs: Vec<Kept<'_>> = seen
            .jobs
            .iter()
            .map(|kept| if pods(kept) { Kept { job: kept.job, pods: &[] } } else { *kept })
            .collect();
        let look = Look {
            object: &object,
            template,
            nodes: seen.nodes,
            jobs: &jobs,
            refused: None,
            taken: seen.taken,
        };
        let plan = daemon_job::plan(&look, now);
        let body = |new: NewJob| {
            let body = daemon_job::body(&object, template.ok()?, &new);
            Some((new, body))
        };
        let before = &own.status;
        Wants {
            create: plan.create.into_iter().filter_map(body).collect(),
            upkeep: plan.upkeep,
            delete: false,
            urgent: before.run != plan.status.run || before.resume_time != plan.status.resume_time,
            status: plan.status,
            wake_at: plan.wake_at,
        }
    }

    fn still_wanted(status: &DaemonJobStatus, part: &NewJob) -> bool {
        !daemon_job::still_wanted(status, std::slice::from_ref(part)).is_empty()
    }

    fn farewell(jobs: &[Kept<'_>]) -> Vec<Upkeep> {
        daemon_job::farewell(jobs)
    }

    fn words(status: &DaemonJobStatus) -> String {
        let DaemonJobStatus { run, state, completion_time, nodes, .. } = status;
        format!("run {run} {state:?} ended {completion_time:?}: {nodes:?}")
    }
}

/// A node's Jobs of a run.
pub fn jobs_of<'a>(
    cluster: &'a KeptCluster<FanOuts>,
    run: u32,
    uid: &'a str,
) -> impl Iterator<Item = &'a NodeTruth> {
    let of = move |job: &&NodeTruth| job.what.part.run == run && job.what.part.node_uid == uid;
    cluster.world.truth.values().filter(of)
}

impl Promises for FanOuts {
    fn attempt(part: &NewJob) -> String {
        format!("attempt {} of node {} {} in run {}", part.attempt, part.node, part.node_uid, part.run)
    }

    fn node(part: &NewJob) -> Option<String> {
        Some(part.node.clone())
    }

    fn created(cluster: &KeptCluster<Self>, wanted: &Wanted<Self>) -> Vec<String> {
        let (spec, NewJob { node, node_uid, run, attempt, .. }) = (&wanted.by.spec, &wanted.part);
        let mut broken = Vec::new();
        if jobs_of(cluster, *run, node_uid).any(|job| job.completed) {
            broken.push(format!("I6: node {node} has succeeded in run {run}, and attempt {attempt} is made"));
        }
        if cluster.left.get(node_uid).is_some_and(|left| cluster.now().duration_since(*left) > LEFT) {
            broken.push(format!("node {node} {node_uid} left long ago, and attempt {attempt} is made"));
        }
        if spec.paused {
            broken.push(format!("node {node} starts in run {run}, and the object is paused"));
        }
        let at_work = |job: &&NodeTruth| job.ended.is_none() && job.deleted.is_none();
        let count = 1 + cluster.world.truth.values().filter(at_work).count();
        let most = match spec.parallelism {
            Some(Parallelism::Nodes(most)) => cluster.at_work_at_most(most as usize),
            _ => None,
        };
        if most.is_some_and(|most| count > most) {
            broken.push(format!("parallelism: with node {node} {count} are at work"));
        }
        broken
    }

    fn written(_: &KeptCluster<Self>, old: &Own<Self>, new: &DaemonJobStatus) -> Vec<String> {
        let (old, mut broken) = (&old.status, Vec::new());
        if new.run < old.run {
            broken.push(format!("run {} comes after run {}", new.run, old.run));
        }
        if new.run > old.run {
            return broken;
        }
        let (was, is) = (Record::read(&old.record), Record::read(&new.record));
        for (node, fate) in was.iter() {
            let kept = match fate {
                Fate::Succeeded => is.of(node) == Some(Fate::Succeeded),
                Fate::Failed(tries) | Fate::Tried(tries) => is.settles(node, tries.last),
                Fate::Gone => is.settles(node, 1),
            };
            if !kept {
                broken.push(format!("I6: a node was {fate:?}, and is {:?}", is.of(node)));
            }
        }
        if new.nodes.gone < old.nodes.gone {
            broken.push(format!("{} nodes are gone, and {} were", new.nodes.gone, old.nodes.gone));
        }
        broken
    }

    fn recorded(status: &DaemonJobStatus, job: &NodeTruth) -> Result<(), String> {
        let NewJob { node_uid, run, attempt, .. } = &job.what.part;
        if status.run > *run {
            return Ok(());
        }
        let (record, key) = (Record::read(&status.record), NodeKey::of(node_uid));
        if status.run < *run || !record.settles(key, *attempt) {
            return Err("the status does not tell of its end".to_owned());
        }
        match record.of(key) {
            Some(Fate::Succeeded) => Ok(()),
            other if job.completed => Err(format!("it succeeded, and the status says {other:?}")),
            _ => Ok(()),
        }
    }
}
