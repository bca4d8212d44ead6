//! One HotStandbyJob in a test's namespace.

use std::time::Instant;

use anyhow::{Result, bail};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::{HotStandbyJob, keys};

use crate::{DEADLINE, World, merge};

/// A HotStandbyJob of a test.
pub struct JobPool<'a> {
    pub world: &'a World,
    pub name: &'a str,
}

/// The smallest pool of Jobs: 2 idle, at most 10, no delay, on simulated nodes.
pub fn job_pool(name: &str) -> Value {
    json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "HotStandbyJob",
        "metadata": {"name": name},
        "spec": {
            "idleTarget": 2,
            "maxReplicas": 10,
            "scaleDownDelaySeconds": 0,
            "selector": {"matchLabels": {"app": name}},
            "jobTemplate": {
                "backoffLimit": 0,
                "template": {"spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "app",
                        "image": "docker.io/local/busybox:1",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "infinity"],
                    }],
                }},
            },
        },
    })
}

impl JobPool<'_> {
    pub fn api(&self) -> Api<HotStandbyJob> {
        Api::namespaced(self.world.client.clone(), &self.world.namespace)
    }

    pub fn job_api(&self) -> Api<Job> {
        Api::namespaced(self.world.client.clone(), &self.world.namespace)
    }

    /// Applies the smallest pool with these fields of the spec over it.
    pub async fn apply(&self, fields: Value) -> Result<HotStandbyJob, kube::Error> {
        let mut object = job_pool(self.name);
        merge(&mut object["spec"], fields);
        let params = PatchParams::apply("e2e").force();
        self.api().patch(self.name, &params, &Patch::Apply(&object)).await
    }

    /// Changes fields of the spec.
    pub async fn patch(&self, fields: Value) -> Result<()> {
        let patch = json!({"spec": fields});
        self.api().patch(self.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    pub async fn get(&self) -> Result<HotStandbyJob> {
        Ok(self.api().get(self.name).await?)
    }

    /// All Jobs of the pool, by name.
    pub async fn jobs(&self) -> Result<Vec<Job>> {
        let uid = self.get().await?.uid().unwrap_or_default();
        let params = ListParams::default().labels(&format!("{}={uid}", keys::OWNER_UID));
        Ok(self.job_api().list(&params).await?.items)
    }

    /// The pods of the pool's Jobs that exist and have neither ended nor are terminating, by name.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        self.world.alive_of(&self.get().await?.uid().unwrap_or_default()).await
    }

    /// Waits until the object satisfies a question.
    pub async fn status(&self, what: &str, ok: impl Fn(&HotStandbyJob) -> bool) -> Result<HotStandbyJob> {
        let began = Instant::now();
        loop {
            let pool = self.get().await?;
            if ok(&pool) {
                return Ok(pool);
            }
            if began.elapsed() > DEADLINE {
                bail!("{}: not {what} after {DEADLINE:?}\n{}", self.name, self.world.tell(self.name).await);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Waits until the pool counts so many busy, idle and unfinished Jobs, and none that is going.
    pub async fn counts(&self, busy: u32, idle: u32, active: u32) -> Result<HotStandbyJob> {
        let what = format!("busy {busy}, idle {idle}, active {active}");
        self.status(&what, |pool| {
            pool.status.as_ref().is_some_and(|s| {
                (s.busy_count, s.idle_count, s.active_jobs) == (busy, idle, active)
                    && s.terminating_count == 0
            })
        })
        .await
    }

    /// Waits until a question about the pool's Jobs is answered with yes.
    pub async fn until_jobs(&self, what: &str, ok: impl Fn(&[Job]) -> bool) -> Result<Vec<Job>> {
        let began = Instant::now();
        loop {
            let jobs = self.jobs().await?;
            if ok(&jobs) {
                return Ok(jobs);
            }
            if began.elapsed() > DEADLINE {
                bail!("{}: not {what} after {DEADLINE:?}\n{}", self.name, self.world.tell(self.name).await);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// Whether a Job has finished, and how.
pub fn finished(job: &Job) -> Option<bool> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = conditions
        .iter()
        .find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))?;
    Some(ended.type_ == "Complete")
}

/// The condition of a pool's status, as (status, reason, message).
pub fn condition(pool: &HotStandbyJob, type_: &str) -> Option<(String, String, String)> {
    crate::condition_of(&pool.status.as_ref()?.conditions, type_)
}
