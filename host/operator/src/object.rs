//! The objects that are looked after, in terms that their kinds share: who they are, and what a pool's kind means for
//! its members. What differs between kinds stands here and in `members`, and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, NamespaceResourceScope};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_api::{HotStandbyDeployment, HotStandbyDeploymentStatus, HotStandbyJob, PoolSpec};
use stoker_core::names;
use stoker_core::pool::decision::Bounds;
use stoker_core::pool::status::{About, PoolStatus};

/// Where a HotStandbyJob has no maximum: as many slots as can be numbered.
const NO_MAXIMUM: u32 = 100_000;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    HotStandbyDeployment,
    HotStandbyJob,
    PreScaledCronJob,
    JobFlow,
    DaemonJob,
    NodeBatchJob,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HotStandbyDeployment => "HotStandbyDeployment",
            Self::HotStandbyJob => "HotStandbyJob",
            Self::PreScaledCronJob => "PreScaledCronJob",
            Self::JobFlow => "JobFlow",
            Self::DaemonJob => "DaemonJob",
            Self::NodeBatchJob => "NodeBatchJob",
        }
    }

    /// Whether its objects keep pods or Jobs that stand by.
    pub fn is_pool(self) -> bool {
        matches!(self, Self::HotStandbyDeployment | Self::HotStandbyJob)
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::HotStandbyDeployment,
            Self::HotStandbyJob,
            Self::PreScaledCronJob,
            Self::JobFlow,
            Self::DaemonJob,
            Self::NodeBatchJob,
        ];
        all.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Which object: objects of two kinds may have the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// A kind of object that a controller looks after.
pub trait PoolKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const KIND: Kind;

    fn pool(object: Arc<Self>) -> Pool;
}

impl PoolKind for HotStandbyDeployment {
    const KIND: Kind = Kind::HotStandbyDeployment;

    fn pool(object: Arc<Self>) -> Pool {
        Pool::Pods(object)
    }
}

impl PoolKind for HotStandbyJob {
    const KIND: Kind = Kind::HotStandbyJob;

    fn pool(object: Arc<Self>) -> Pool {
        Pool::Jobs(object)
    }
}

/// A pool, whatever its members are.
#[derive(Clone, Debug)]
pub enum Pool {
    Pods(Arc<HotStandbyDeployment>),
    Jobs(Arc<HotStandbyJob>),
}

impl Pool {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pods(_) => Kind::HotStandbyDeployment,
            Self::Jobs(_) => Kind::HotStandbyJob,
        }
    }

    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Pods(object) => &object.metadata,
            Self::Jobs(object) => &object.metadata,
        }
    }

    pub fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    pub fn key(&self) -> Key {
        Key { kind: self.kind(), namespace: self.namespace().to_owned(), name: self.name().to_owned() }
    }

    pub fn spec(&self) -> &PoolSpec {
        match self {
            Self::Pods(object) => &object.spec.pool,
            Self::Jobs(object) => &object.spec.pool,
        }
    }

    pub fn bounds(&self) -> Bounds {
        let minimum = self.spec().min_replicas;
        match self {
            Self::Pods(object) => {
                Bounds { minimum, maximum: object.spec.max_replicas, idle_target: object.spec.idle_target }
            }
            Self::Jobs(object) => Bounds {
                minimum,
                maximum: object.spec.max_replicas.unwrap_or(NO_MAXIMUM),
                idle_target: object.spec.idle_target,
            },
        }
    }

    /// Labels by which others find the pods.
    pub fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        let labels: Option<&BTreeMap<String, String>> = match self {
            Self::Pods(object) => Some(&object.spec.selector.match_labels),
            Self::Jobs(object) => object.spec.selector.as_ref().map(|s| &s.match_labels),
        };
        labels.into_iter().flatten()
    }

    /// The status as it was last written.
    pub fn status(&self) -> Option<PoolStatus> {
        match self {
            Self::Pods(object) => object.status.clone().map(PoolStatus::from),
            Self::Jobs(object) => object.status.clone().map(PoolStatus::from),
        }
    }

    /// A status in the kind's own form.
    pub fn status_json(&self, status: PoolStatus) -> Result<Value, serde_json::Error> {
        match self {
            Self::Pods(_) => serde_json::to_value(HotStandbyDeploymentStatus::from(status)),
            Self::Jobs(_) => serde_json::to_value(status.of_jobs(jiff::Timestamp::now())),
        }
    }

    /// What its status is about.
    pub fn about(&self) -> About {
        let selector: Vec<String> = self.labels().map(|(key, value)| format!("{key}={value}")).collect();
        About {
            generation: self.meta().generation,
            paused: self.spec().paused,
            deleting: self.meta().deletion_timestamp.is_some(),
            selector: (!selector.is_empty()).then(|| selector.join(",")),
            deadline_seconds: match self {
                Self::Pods(_) => None,
                Self::Jobs(object) => {
                    object.spec.job_template.get("activeDeadlineSeconds").and_then(Value::as_i64)
                }
            },
            members: match self {
                Self::Pods(_) => "pods",
                Self::Jobs(_) => "Jobs",
            },
        }
    }

    /// The hash of the template that members are made from.
    pub fn template_hash(&self) -> String {
        // Serialising what was deserialised cannot fail; an empty text would only make templates look alike.
        let text = match self {
            Self::Pods(object) => serde_json::to_vec(&(&object.spec.pod_template, &object.spec.selector)),
            Self::Jobs(object) => serde_json::to_vec(&(&object.spec.job_template, &object.spec.selector)),
        };
        names::short_hash(&[&text.unwrap_or_default()], 10)
    }

    fn resource(&self) -> ApiResource {
        match self {
            Self::Pods(_) => ApiResource::erase::<HotStandbyDeployment>(&()),
            Self::Jobs(_) => ApiResource::erase::<HotStandbyJob>(&()),
        }
    }

    /// The API for objects of its kind in its namespace.
    pub fn api(&self, client: Client) -> Api<DynamicObject> {
        Api::namespaced_with(client, self.namespace(), &self.resource())
    }

    /// Where the API server has the objects of its kind in its namespace.
    pub fn url_path(&self) -> String {
        match self {
            Self::Pods(_) => HotStandbyDeployment::url_path(&(), Some(self.namespace())),
            Self::Jobs(_) => HotStandbyJob::url_path(&(), Some(self.namespace())),
        }
    }

    /// apiVersion and kind.
    pub fn type_meta(&self) -> (String, String) {
        let resource = self.resource();
        (resource.api_version, resource.kind)
    }

    /// What Events are about.
    pub fn object_ref(&self) -> ObjectReference {
        match self {
            Self::Pods(object) => object.object_ref(&()),
            Self::Jobs(object) => object.object_ref(&()),
        }
    }

    /// What its children carry as their owner.
    pub fn owner_reference(&self) -> Value {
        let (api_version, kind) = self.type_meta();
        json!({
            "apiVersion": api_version,
            "kind": kind,
            "name": self.name(),
            "uid": self.uid(),
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}
