//! Objects of any kind in a test's namespace: applied, patched, waited for, told of, deleted.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_api::keys;

use crate::{DEADLINE, World, root};

/// A kind of object.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

impl World {
    /// The API for a kind.
    pub fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies an object with this spec.
    pub async fn apply<K: Object>(&self, name: &str, spec: Value) -> Result<K, kube::Error> {
        let object = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name},
            "spec": spec,
        });
        self.api::<K>().patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await
    }

    /// Merges something into an object.
    pub async fn merge<K: Object>(&self, name: &str, patch: Value) -> Result<K, kube::Error> {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await
    }

    /// Waits until an object satisfies a question.
    pub async fn object<K: Object>(&self, name: &str, what: &str, ok: impl Fn(&K) -> bool) -> Result<K> {
        let began = Instant::now();
        loop {
            let object = self.api::<K>().get(name).await?;
            if ok(&object) {
                return Ok(object);
            }
            if began.elapsed() > DEADLINE {
                bail!("{name}: not {what} after {DEADLINE:?}\n{}", self.tell_of::<K>(name).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The Jobs of an object, by name.
    pub async fn jobs_of<K: Object>(&self, name: &str) -> Result<Vec<Job>> {
        let uid = self.api::<K>().get(name).await?.uid().unwrap_or_default();
        let params = ListParams::default().labels(&format!("{}={uid}", keys::OWNER_UID));
        let mut jobs = self.api::<Job>().list(&params).await?.items;
        jobs.sort_by_key(|job| job.name_any());
        Ok(jobs)
    }

    /// Waits until a question about the Jobs of an object is answered with yes.
    pub async fn until_jobs_of<K: Object>(
        &self,
        name: &str,
        what: &str,
        ok: impl Fn(&[Job]) -> bool,
    ) -> Result<Vec<Job>> {
        let began = Instant::now();
        loop {
            let jobs = self.jobs_of::<K>(name).await?;
            if ok(&jobs) {
                return Ok(jobs);
            }
            if began.elapsed() > DEADLINE {
                bail!("{name}: not {what} after {DEADLINE:?}\n{}", self.tell_of::<K>(name).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for an Event about an object, and returns its words.
    pub async fn event(&self, name: &str, reason: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            let all = self.api::<Event>().list(&ListParams::default()).await?.items;
            let about = |e: &&Event| {
                e.involved_object.name.as_deref() == Some(name) && e.reason.as_deref() == Some(reason)
            };
            if let Some(found) = all.iter().find(about) {
                return Ok(found.message.clone().unwrap_or_default());
            }
            if began.elapsed() > DEADLINE {
                bail!("{name}: no Event {reason} after {DEADLINE:?}\n{}", self.tell(name).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes an object, and waits until it is gone.
    pub async fn delete<K: Object>(&self, name: &str) -> Result<()> {
        self.api::<K>().delete(name, &DeleteParams::background()).await?;
        self.until(name, "gone", || async { Ok(self.api::<K>().get_opt(name).await?.is_none()) }).await
    }

    /// Deletes all objects of a kind, and waits until they are gone: what they keep is let go by the operator.
    pub async fn delete_all<K: Object>(&self) -> Result<()> {
        for object in self.api::<K>().list(&ListParams::default()).await? {
            self.delete::<K>(&object.name_any()).await?;
        }
        Ok(())
    }

    /// Applies the objects of a file in examples/ as they are.
    pub async fn apply_example(&self, file: &str) -> Result<()> {
        let text = std::fs::read_to_string(root().join("examples").join(file))?;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = <Value as serde::Deserialize>::deserialize(document)?;
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let params = PatchParams::apply("e2e").force();
            let patch = Patch::Apply(&object);
            match object["kind"].as_str() {
                Some("JobFlow") => {
                    drop(self.api::<stoker_api::JobFlow>().patch(&name, &params, &patch).await?);
                }
                Some("JobTemplate") => {
                    drop(self.api::<stoker_api::JobTemplate>().patch(&name, &params, &patch).await?);
                }
                Some("DaemonJob") => {
                    drop(self.api::<stoker_api::DaemonJob>().patch(&name, &params, &patch).await?);
                }
                Some("NodeBatchJob") => {
                    drop(self.api::<stoker_api::NodeBatchJob>().patch(&name, &params, &patch).await?);
                }
                other => bail!("{file}: kind {other:?} is not applied here"),
            }
        }
        Ok(())
    }

    /// The object, and everything else that helps.
    async fn tell_of<K: Object>(&self, name: &str) -> String {
        let object = self.api::<K>().get(name).await.ok();
        let text = object.and_then(|object| serde_json::to_string_pretty(&object).ok()).unwrap_or_default();
        format!("{text}\n{}", self.tell(name).await)
    }
}

/// When a Job was created, and when it ended.
pub fn span(job: &Job) -> (Option<jiff::Timestamp>, Option<jiff::Timestamp>) {
    let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ended = conditions
        .filter(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
        .find_map(|c| c.last_transition_time.as_ref().map(|time| time.0));
    (created, ended)
}
