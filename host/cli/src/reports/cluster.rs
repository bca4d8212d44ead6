//! The cluster as the report service asks it: what watches have told, and Events on pods.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use stoker_reports::{Cluster, EventRefused, JobKey, JobView, NotReady, PodEvent, PodSlot};
use tokio::sync::watch;

use super::known::Known;

/// Who reports, in Events.
const CONTROLLER: &str = "stoker-reports";
/// Longest name of this process in an Event, in bytes (Kubernetes: Event v1).
const MAX_INSTANCE: usize = 128;
/// How long the API server may take for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the report service is told of the cluster.
pub struct Watched {
    client: Client,
    known: Arc<Known>,
    instance: String,
}

impl Watched {
    /// `instance` tells this process from others.
    pub fn new(client: Client, known: Arc<Known>, instance: &str) -> Self {
        let instance = &instance[..instance.floor_char_boundary(MAX_INSTANCE)];
        Self { client, known, instance: instance.to_owned() }
    }

    /// The pod's UID: the watch's, or the API server's if the watch is late.
    async fn pod(&self, slot: &PodSlot) -> Result<String, EventRefused> {
        if let Some(uid) = self.known.pod(slot) {
            return Ok(uid);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &slot.job.namespace);
        let found = timed(api.get_metadata_opt(&slot.pod)).await?;
        let ours = found.filter(|pod| pod.owner_references().iter().any(|owner| owner.uid == slot.uid));
        ours.and_then(|pod| pod.uid()).ok_or(EventRefused::PodGone)
    }
}

impl Cluster for Watched {
    fn job(&self, key: &JobKey) -> Result<Option<Arc<JobView>>, NotReady> {
        self.known.job(key)
    }

    fn jobs(&self) -> Result<Vec<Arc<JobView>>, NotReady> {
        self.known.jobs()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.known.changes()
    }

    fn is_current(&self) -> bool {
        self.known.is_current()
    }

    fn send_event<'a>(
        &'a self,
        slot: &'a PodSlot,
        event: &'a PodEvent,
    ) -> BoxFuture<'a, Result<(), EventRefused>> {
        Box::pin(async move {
            let uid = self.pod(slot).await?;
            let api: Api<Event> = Api::namespaced(self.client.clone(), &slot.job.namespace);
            let body = body(slot, uid, event, &self.instance, Timestamp::now());
            timed(api.create(&PostParams::default(), &body)).await.map(|_| ())
        })
    }
}

/// Waits for an answer, though not for ever.
async fn timed<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, EventRefused> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        // The namespace is gone, or about to go, and the pod with it.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 || is_terminating(&status.message) => {
            Err(EventRefused::PodGone)
        }
        Ok(Err(error)) => Err(EventRefused::Unavailable(error.to_string())),
        Err(_) => Err(EventRefused::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// The API server's words where something is to be made in a namespace that is being deleted.
fn is_terminating(message: &str) -> bool {
    message.contains("because it is being terminated")
}

/// The Event as the API server takes it.
fn body(slot: &PodSlot, uid: String, event: &PodEvent, instance: &str, now: Timestamp) -> Event {
    let namespace = Some(slot.job.namespace.clone());
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", slot.pod)),
            namespace: namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(event.reason.clone()),
        action: Some(event.action.clone()),
        note: Some(event.message.clone()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(slot.pod.clone()),
            namespace,
            uid: Some(uid),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_regards_the_pod_and_says_who_reported_it() {
        let slot = PodSlot {
            job: JobKey { namespace: "ops".into(), name: "disks".into() },
            uid: "u".into(),
            execution: "202608030910".parse().unwrap_or_else(|error| panic!("{error}")),
            node: "n1".into(),
            pod: "disks-job-n1-202608030910".into(),
        };
        let event = PodEvent {
            warning: true,
            action: "n/a".into(),
            reason: "TestReason".into(),
            message: "test message with a1".into(),
        };
        let body = body(&slot, "pod-uid".into(), &event, "stoker-reports-0", Timestamp::UNIX_EPOCH);
        let json = serde_json::to_value(body).unwrap_or_default();
        assert_eq!(json["regarding"]["uid"], "pod-uid");
        assert_eq!(json["metadata"]["generateName"], "disks-job-n1-202608030910-");
        assert_eq!((&json["type"], &json["reason"]), (&"Warning".into(), &"TestReason".into()));
        assert_eq!(json["note"], "test message with a1");
        assert_eq!(json["reportingController"], "stoker-reports");
        assert_eq!(json["reportingInstance"], "stoker-reports-0");
    }
}
