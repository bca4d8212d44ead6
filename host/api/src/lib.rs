//! Stoker's custom resources as types: a file per kind, and the pieces that kinds share.
//!
//! This crate describes what users write and what Stoker answers in `status`. It makes no
//! decision and does no I/O. What CEL can check at admission is declared here, beside the field.
#![deny(missing_docs)]

pub mod busy_probe;
pub mod claim_request;
pub mod daemon_job;
pub mod global_params;
pub mod hot_standby_deployment;
pub mod hot_standby_job;
pub mod job_flow;
pub mod job_template;
pub mod keys;
pub mod node_batch_job;
pub mod policy_ref;
pub mod pool;
pub mod pre_scaled_cron_job;
pub mod retry;
mod schema;
pub mod signal;
pub mod standby_claim;
pub mod status;
pub mod template;

pub use busy_probe::{
    BusyProbe, BusyProbeMode, CaSource, ConditionProbe, ConditionStatus, CredentialsSecret, ExecProbe,
    HttpHeader, HttpPort, HttpProbe, HttpScheme, ProbeFailure, RedisProbe, RedisWords, SecretKey, TreatAs,
};
pub use claim_request::{ClaimList, ClaimRequest, ClaimedPod, GrantedClaim, Problem, RenewRequest};
pub use daemon_job::{
    CompletionPolicy, DaemonJob, DaemonJobSpec, DaemonJobState, DaemonJobStatus, FailedNode, FailurePolicy,
    NodeCounts, NodeRecord, Parallelism,
};
pub use global_params::GlobalParams;
pub use hot_standby_deployment::{
    HotStandbyDeployment, HotStandbyDeploymentSpec, HotStandbyDeploymentStatus,
};
pub use hot_standby_job::{HotStandbyJob, HotStandbyJobSpec, HotStandbyJobStatus};
pub use job_flow::{
    FlowState, Handler, HttpCheck, JobFlow, JobFlowSpec, JobFlowStatus, Script, Step, StepCondition,
    StepList, StepState, StepStatus, TcpCheck, WaitFor,
};
pub use job_template::{JobTemplate, JobTemplateJob, JobTemplateStatus};
pub use node_batch_job::{
    Execution, ExecutionCause, ExecutionState, FailedPod, NodeBatchJob, NodeBatchJobSpec, NodeBatchJobState,
    NodeBatchJobStatus, NodeChoice, NodeGauge, NodeMetrics, Overlap, ReportSpec,
};
pub use policy_ref::{ConfigMapKey, PolicyLimits, PolicyRef, ShadowPolicy, WantedPolicy};
pub use pool::{
    AfterClaimTimeout, AfterUse, ClaimEnds, DeletionPolicy, Disruption, Placement, PoolSpec, Replenish,
    Selector,
};
pub use pre_scaled_cron_job::{
    ActiveRun, ConcurrencyPolicy, CronJobMeta, CronJobSpec, CronJobTemplate, EndedRun, Gate, JobTemplateSpec,
    PreScaledCronJob, PreScaledCronJobSpec, PreScaledCronJobStatus, RunOutcome,
};
pub use retry::Retry;
pub use signal::{HttpSource, PrometheusSource, Signal, TokenSecret};
pub use standby_claim::{
    ClaimPhase, PoolKindName, PoolReference, StandbyClaim, StandbyClaimSpec, StandbyClaimStatus,
};
pub use status::{DecisionSummary, PolicyState, PolicyStatus, ShadowStatus};
pub use template::{PodTemplate, TemplateMeta};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::json;

/// The API group of every kind.
pub const GROUP: &str = "stoker.dev";

/// Counts up whenever a CRD changes in a way that this binary relies on. Each CRD carries it in the
/// annotation [`keys::CRD_REVISION`], so that an operator can tell that the cluster's CRDs are older than
/// itself.
pub const CRD_REVISION: u32 = 8;

/// The `observedGeneration` of an object that no operator has looked at yet.
pub const NOT_LOOKED_AT: i64 = -1;

/// Every custom resource definition of this version, ready to be applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        HotStandbyDeployment::crd(),
        HotStandbyJob::crd(),
        StandbyClaim::crd(),
        PreScaledCronJob::crd(),
        JobFlow::crd(),
        JobTemplate::crd(),
        DaemonJob::crd(),
        NodeBatchJob::crd(),
    ];
    for crd in &mut all {
        crd.metadata
            .annotations
            .get_or_insert_default()
            .insert(keys::CRD_REVISION.to_owned(), CRD_REVISION.to_string());
        not_looked_at_yet(crd);
    }
    all
}

/// Has objects that no operator has looked at say so: without a status, kstatus takes them for Current.
fn not_looked_at_yet(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let properties = schema.and_then(|schema| schema.properties.as_mut());
        if let Some(status) = properties.and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(json!({"observedGeneration": NOT_LOOKED_AT})));
        }
    }
}
