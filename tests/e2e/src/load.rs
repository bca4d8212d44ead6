//! Work that comes and goes, and a ledger of it that does not depend on what the operator believes: a pod that
//! the API server said is at work must be there until its work is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use stoker_api::keys;
use tokio::time::timeout;

use crate::World;
use crate::jobs::{JobPool, finished};
use crate::random::Random;

/// The API server is not waited for any longer: it may be down on purpose.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pool under load and faults has found back to its size within this time, also on a busy machine: waits of the
/// operator, the scheduler and the simulated nodes add up.
const SETTLED: Duration = Duration::from_secs(300);

/// What a pool is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    Pods,
    Jobs,
}

/// A pool whose pods are put to work and to rest.
pub struct Load {
    pool: &'static str,
    members: Members,
    idle: u32,
    maximum: u32,
    /// Names of the pods that are surely at work, by UID.
    busy: BTreeMap<String, String>,
    random: Random,
}

impl Load {
    /// Applies the pool and waits until it is filled.
    pub async fn start(
        world: &World,
        members: Members,
        idle: u32,
        maximum: u32,
        random: Random,
    ) -> Result<Self> {
        let load = Self { pool: "game", members, idle, maximum, busy: BTreeMap::new(), random };
        let spec = json!({"idleTarget": idle, "maxReplicas": maximum, "stateLabels": true});
        match members {
            Members::Pods => drop(world.apply_pool(load.pool, spec).await?),
            Members::Jobs => drop(load.jobs(world).apply(spec).await?),
        }
        load.settled(world).await?;
        Ok(load)
    }

    fn jobs<'a>(&self, world: &'a World) -> JobPool<'a> {
        JobPool { world, name: self.pool }
    }

    /// The pool's pods that are alive.
    async fn alive(&self, world: &World) -> Result<Vec<Pod>> {
        match self.members {
            Members::Pods => world.alive(self.pool).await,
            Members::Jobs => self.jobs(world).pods().await,
        }
    }

    /// What the pool's status tells: busy, idle, all, terminating.
    async fn told(&self, world: &World) -> Result<(u32, u32, u32, u32)> {
        Ok(match self.members {
            Members::Pods => {
                let s = world.pool(self.pool).await?.status.unwrap_or_default();
                (s.busy_count, s.idle_count, s.total_count, s.terminating_count)
            }
            Members::Jobs => {
                let s = self.jobs(world).get().await?.status.unwrap_or_default();
                (s.busy_count, s.idle_count, s.active_jobs, s.terminating_count)
            }
        })
    }

    /// Some pods begin or end their work, by chance. What does not come about is left for the next time.
    pub async fn shift(&mut self, world: &World) -> Result<()> {
        let Ok(Ok(pods)) = timeout(PATIENCE, self.alive(world)).await else { return Ok(()) };
        self.check(world, &pods).await?;
        let aim = self.random.below(101);
        for pod in pods {
            if self.random.percent(50) {
                let busy = self.random.percent(aim);
                self.set(world, &pod, busy).await;
            }
        }
        Ok(())
    }

    /// True if the API server said so.
    async fn set(&mut self, world: &World, pod: &Pod, busy: bool) -> bool {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let value = if busy { "true" } else { "false" };
        // The UID spares a namesake that was made meanwhile.
        let patch = json!({"metadata": {"uid": uid, "annotations": {keys::DEFAULT_BUSY_ANNOTATION: value}}});
        // Between the request and its answer nothing is sure.
        self.busy.remove(&uid);
        let (pods, params, patch) = (world.pods(), PatchParams::default(), Patch::Merge(&patch));
        match timeout(PATIENCE, pods.patch(&name, &params, &patch)).await {
            Ok(Ok(pod)) => {
                if busy && pod.metadata.deletion_timestamp.is_none() {
                    self.busy.insert(uid, name);
                }
                true
            }
            _ => false,
        }
    }

    /// No pod went from its work (I1), and there are no more than may be (I2).
    async fn check(&self, world: &World, alive: &[Pod]) -> Result<()> {
        let there = |uid: &str| alive.iter().any(|pod| pod.uid().as_deref() == Some(uid));
        let gone: Vec<&String> =
            self.busy.iter().filter(|(uid, _)| !there(uid)).map(|(_, name)| name).collect();
        if !gone.is_empty() {
            bail!("I1: gone from their work: {gone:?}\n{}", world.tell(self.pool).await);
        }
        if alive.len() > self.maximum as usize {
            bail!("I2: {} pods, at most {}\n{}", alive.len(), self.maximum, world.tell(self.pool).await);
        }
        if self.members == Members::Jobs
            && let Ok(Ok(jobs)) = timeout(PATIENCE, self.jobs(world).jobs()).await
        {
            let unfinished = jobs.iter().filter(|j| finished(j).is_none());
            let mut slots: Vec<_> = unfinished.filter_map(|j| j.labels().get(keys::SLOT)).collect();
            slots.sort();
            if slots.windows(2).any(|pair| pair[0] == pair[1]) || slots.len() > self.maximum as usize {
                bail!("I2: unfinished Jobs in slots {slots:?}\n{}", world.tell(self.pool).await);
            }
        }
        Ok(())
    }

    /// Waits until the pool has the size that its busy pods ask for, and it and its pods' labels say so.
    pub async fn settled(&self, world: &World) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(Ok(true)) = timeout(PATIENCE, self.is_settled(world)).await {
                return self.check(world, &self.alive(world).await?).await;
            }
            if began.elapsed() > SETTLED {
                bail!("not settled after {SETTLED:?}\n{}", world.tell(self.pool).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_settled(&self, world: &World) -> Result<bool> {
        let pods = self.alive(world).await?;
        let is_busy =
            |p: &Pod| p.annotations().get(keys::DEFAULT_BUSY_ANNOTATION).is_some_and(|v| v == "true");
        let labelled = |p: &Pod| {
            let state = if is_busy(p) { "busy" } else { "idle" };
            p.labels().get(keys::STATE).map(String::as_str) == Some(state)
        };
        if !pods.iter().all(labelled) {
            return Ok(false);
        }
        let busy = pods.iter().filter(|p| is_busy(p)).count() as u32;
        let idle = self.idle.min(self.maximum - busy.min(self.maximum));
        let told = self.told(world).await?;
        Ok(pods.len() as u32 == busy + idle && told == (busy, idle, busy + idle, 0))
    }

    /// All pods end their work; waits until the pool has shrunk to its idle target.
    pub async fn rest(&mut self, world: &World) -> Result<()> {
        for pod in self.alive(world).await? {
            // Who went just now was idle.
            self.set(world, &pod, false).await;
        }
        ensure!(self.busy.is_empty(), "I1: gone from their work: {:?}", self.busy);
        self.settled(world).await
    }
}
