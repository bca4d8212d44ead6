//! PreScaledCronJobs in a test's namespace.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::{Gate, PreScaledCronJob, PreScaledCronJobStatus, keys};

use crate::{DEADLINE, World, merge};

/// The image of the gate on the real node.
pub const GATE_IMAGE: &str = "docker.io/stoker/gate:dev";

/// The flags of an operator that knows it.
pub const FLAGS: [&str; 2] = ["--gate-image", GATE_IMAGE];

/// A PreScaledCronJob of a test.
#[derive(Clone, Copy)]
pub struct Cron<'a> {
    pub world: &'a World,
    pub name: &'a str,
}

/// The smallest one: every minute, warmed up 30 s before, on simulated nodes.
pub fn cron(name: &str) -> Value {
    json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "PreScaledCronJob",
        "metadata": {"name": name},
        "spec": {
            "warmUp": "30s",
            "cronJob": {"spec": {
                "schedule": "* * * * *",
                "jobTemplate": {"spec": {
                    "backoffLimit": 0,
                    "template": {"spec": {
                        "restartPolicy": "Never",
                        "terminationGracePeriodSeconds": 0,
                        "containers": [{
                            "name": "work",
                            "image": "docker.io/local/busybox:1",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["sleep", "infinity"],
                        }],
                    }},
                }},
            }},
        },
    })
}

/// A schedule whose next instant is a few hours from now: a run of it is held throughout any test.
pub fn later() -> String {
    let zoned = (Timestamp::now() + SignedDuration::from_hours(5)).to_zoned(jiff::tz::TimeZone::UTC);
    format!("{} {} * * *", zoned.minute(), zoned.hour())
}

/// Pods on the real node that write down when their work begins.
pub fn work_that_tells() -> Value {
    json!({"spec": {
        "nodeSelector": {"stoker.dev/node": "real"},
        "tolerations": [{"key": "stoker.dev/node", "operator": "Exists"}],
        "restartPolicy": "Never",
        "containers": [{
            "name": "work",
            "image": "docker.io/local/busybox:1",
            "imagePullPolicy": "IfNotPresent",
            // Without a request its share of a busy processor is the least that there is.
            "resources": {"requests": {"cpu": "50m"}},
            "command": ["sh", "-c", ": > /tmp/began; TZ=UTC stat -c %y /tmp/began > /dev/termination-log"],
        }],
    }})
}

/// When the work of a Job's pods began that have ended, in seconds since 1970.
pub fn work_began(pods: &[Pod], job: &str) -> Result<Vec<f64>> {
    let of_job = pods.iter().filter(|pod| pod.labels().get("job-name").is_some_and(|name| name == job));
    let statuses = of_job.flat_map(|p| p.status.iter().flat_map(|s| s.container_statuses.iter().flatten()));
    let ended = statuses.filter_map(|c| c.state.as_ref()?.terminated.as_ref());
    ended
        .map(|ended| {
            let said = ended.message.as_deref().unwrap_or_default().trim();
            // Such as `2026-11-22 07:51:00.004217311 +0000`.
            let text = said.strip_suffix(" +0000").map(|text| text.replacen(' ', "T", 1) + "Z");
            let at: Timestamp = text.with_context(|| format!("{job} says {said:?}"))?.parse()?;
            Ok(at.as_nanosecond() as f64 / 1e9)
        })
        .collect()
}

/// The gate runs in it.
fn in_gate(pod: &Pod, gate: Gate) -> bool {
    let Some(status) = &pod.status else { return false };
    let running = |all: &Option<Vec<ContainerStatus>>, name: &str| {
        let mut of_name = all.iter().flatten().filter(|c| c.name == name);
        of_name.any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()))
    };
    match gate {
        Gate::InitContainer => running(&status.init_container_statuses, keys::GATE_CONTAINER),
        Gate::Exec => running(&status.container_statuses, "work"),
    }
}

/// A run's instant.
pub fn instant(job: &Job) -> Option<Timestamp> {
    job.annotations().get(keys::INSTANT)?.parse().ok()
}

impl Cron<'_> {
    pub fn api(&self) -> Api<PreScaledCronJob> {
        Api::namespaced(self.world.client.clone(), &self.world.namespace)
    }

    pub fn jobs_api(&self) -> Api<Job> {
        Api::namespaced(self.world.client.clone(), &self.world.namespace)
    }

    /// Applies the smallest one with these fields of the spec over it.
    pub async fn apply(&self, fields: Value) -> Result<PreScaledCronJob, kube::Error> {
        let mut object = cron(self.name);
        merge(&mut object["spec"], fields);
        let params = PatchParams::apply("e2e").force();
        self.api().patch(self.name, &params, &Patch::Apply(&object)).await
    }

    /// Merges fields into the spec.
    pub async fn patch(&self, fields: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": fields}));
        self.api().patch(self.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Its Jobs, by their instants.
    pub async fn jobs(&self) -> Result<Vec<Job>> {
        let params = ListParams::default().labels(&format!("{}={}", keys::PRIMED_CRON, self.name));
        let mut jobs = self.jobs_api().list(&params).await?.items;
        jobs.sort_by_key(instant);
        Ok(jobs)
    }

    /// The pods of its runs.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(&format!("{}={}", keys::PRIMED_CRON, self.name));
        Ok(self.world.pods().list(&params).await?.items)
    }

    /// Waits until its Jobs are as wanted.
    pub async fn until_jobs(&self, what: &str, ok: impl Fn(&[Job]) -> bool) -> Result<Vec<Job>> {
        let began = Instant::now();
        loop {
            let jobs = self.jobs().await?;
            if ok(&jobs) {
                return Ok(jobs);
            }
            if began.elapsed() > DEADLINE {
                bail!("{}: not {what} after {DEADLINE:?}\n{}", self.name, self.tell().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until its status is as wanted.
    pub async fn status(
        &self,
        what: &str,
        ok: impl Fn(&PreScaledCronJobStatus) -> bool,
    ) -> Result<PreScaledCronJobStatus> {
        let began = Instant::now();
        loop {
            let status = self.api().get(self.name).await?.status.unwrap_or_default();
            if ok(&status) {
                return Ok(status);
            }
            if began.elapsed() > DEADLINE {
                bail!("{}: not {what} after {DEADLINE:?}\n{}", self.name, self.tell().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The one run that is held.
    pub async fn held(&self) -> Result<Job> {
        let one = |jobs: &[Job]| jobs.len() == 1 && jobs[0].metadata.deletion_timestamp.is_none();
        self.until_jobs("one run is held", one).await?.pop().context("none")
    }

    /// Waits until its one pod waits in the gate, and returns it.
    pub async fn at_the_gate(&self, gate: Gate) -> Result<Pod> {
        let began = Instant::now();
        loop {
            let mut pods = self.pods().await?;
            if let [pod] = pods.as_slice()
                && in_gate(pod, gate)
            {
                return pods.pop().context("none");
            }
            if began.elapsed() > DEADLINE {
                bail!("{}: no pod at the gate after {DEADLINE:?}\n{}", self.name, self.tell().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for an Event about it, and returns its words.
    pub async fn event(&self, reason: &str) -> Result<String> {
        let events: Api<Event> = Api::namespaced(self.world.client.clone(), &self.world.namespace);
        let began = Instant::now();
        loop {
            let all = events.list(&ListParams::default()).await?.items;
            let about = |e: &&Event| {
                e.involved_object.name.as_deref() == Some(self.name) && e.reason.as_deref() == Some(reason)
            };
            if let Some(found) = all.iter().find(about) {
                return Ok(found.message.clone().unwrap_or_default());
            }
            if began.elapsed() > DEADLINE {
                bail!("{}: no Event {reason} after {DEADLINE:?}\n{}", self.name, self.tell().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes it, and waits until it is gone.
    pub async fn delete(&self) -> Result<()> {
        self.api().delete(self.name, &DeleteParams::background()).await?;
        self.world
            .until(self.name, "gone", || async { Ok(self.api().get_opt(self.name).await?.is_none()) })
            .await
    }

    async fn tell(&self) -> String {
        let mut text = String::new();
        if let Ok(object) = self.api().get(self.name).await {
            text += &serde_json::to_string_pretty(&json!({"spec": object.spec, "status": object.status}))
                .unwrap_or_default();
        }
        for job in self.jobs().await.into_iter().flatten() {
            let told = json!({"name": job.name_any(), "finalizers": job.finalizers(), "deleted": job.metadata.deletion_timestamp, "status": job.status});
            text += &format!("\n{told}");
        }
        text + "\n" + &self.world.tell(self.name).await
    }
}

impl World {
    /// Ends a test that went well: with an operator, as runs are let go by it.
    pub async fn finish_crons(self) -> Result<()> {
        let api: Api<PreScaledCronJob> = Api::namespaced(self.client.clone(), &self.namespace);
        for object in api.list(&ListParams::default()).await? {
            let name = object.name_any();
            Cron { world: &self, name: &name }.delete().await?;
        }
        self.finish().await
    }
}
