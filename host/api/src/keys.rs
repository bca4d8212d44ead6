//! Label and annotation keys that Stoker writes or reads.

/// Label on children: the UID of the object that owns them. Watches select by its presence; ownership itself
/// is decided by the controller owner reference (I7).
pub const OWNER_UID: &str = "stoker.dev/owner-uid";

/// Label on pool members: their slot, a number from 0 below the pool's maximum.
pub const SLOT: &str = "stoker.dev/slot";

/// Label on pool members: the hash of the template that they were made from.
pub const TEMPLATE_HASH: &str = "stoker.dev/template-hash";

/// Label on a HotStandbyDeployment's pods: the object's name, cut to 63 characters. The system that Stoker
/// replaces used this key, and clients select by it.
pub const HSD_NAME: &str = "hsd.paia.tech/name";

/// Label on a HotStandbyJob's Jobs and pods: the object's name, cut to 63 characters. The system that Stoker
/// replaces used this key, and clients select by it.
pub const HSJ_NAME: &str = "hsj.paia.tech/name";

/// Annotation on a pod, set by an administrator to `true`: Stoker may remove it whatever it is doing. It is
/// the way out of I1.
pub const FORCE_REMOVE: &str = "stoker.dev/force-remove";

/// Annotation on a pod of a pool with `afterUse: Replace`: it was seen busy, so that it is not used again, also
/// when the operator is restarted in between.
pub const USED: &str = "stoker.dev/used";

/// Value of [`USED`] on a pod that was claimed, and did not turn busy in time: it is replaced in any pool.
pub const ABANDONED: &str = "abandoned";

/// Annotation on a claimed pod: who claimed it, when, and until when, as JSON. It is written with the version in
/// which the pod was seen idle, so that a pod is claimed once.
pub const CLAIM: &str = "stoker.dev/claim";

/// Finalizer of a StandbyClaim, until its pod is released.
pub const RELEASE: &str = "stoker.dev/release";

/// Annotation on a run's Job: the instant that it is for, RFC 3339 in UTC.
pub const INSTANT: &str = "stoker.dev/instant";

/// Finalizer of a run's Job, until its outcome is in the status of its owner.
pub const OUTCOME: &str = "stoker.dev/outcome";

/// Annotation on a Job of a JobFlow: the step that it is for.
pub const STEP: &str = "stoker.dev/step";

/// Annotation on a Job: the node that it is for.
pub const NODE: &str = "stoker.dev/node";

/// Annotation on a Job: the UID of the node that it is for.
pub const NODE_UID: &str = "stoker.dev/node-uid";

/// Annotation on a Job of a step or a node: which run of its owner it belongs to, a number from 1.
pub const RUN: &str = "stoker.dev/run";

/// Annotation on a Job of a step or a node: which attempt of the run it is, a number from 1.
pub const ATTEMPT: &str = "stoker.dev/attempt";

/// Annotation on a JobFlow or a DaemonJob: another text begins a whole new run; a flow's once the current one has ended.
pub const RERUN: &str = "stoker.dev/rerun";

/// Annotation on a JobFlow: any text. When it changes, steps that failed or were left out, and handlers that failed,
/// are started again.
pub const RERUN_FAILED: &str = "stoker.dev/rerun-failed";

/// Annotation on a DaemonJob: another text gives nodes that have failed another chance at once.
pub const RESUME: &str = "stoker.dev/resume";

/// Annotation on a NodeBatchJob: another text begins an execution now.
pub const RUN_NOW: &str = "stoker.dev/run-now";

/// Label on a pod of a NodeBatchJob: the id of the execution that it belongs to.
pub const EXECUTION: &str = "stoker.dev/execution";

/// Label on a pod of a NodeBatchJob: the object's name, cut to 63 characters.
pub const NODE_BATCH_JOB: &str = "stoker.dev/node-batch-job";

/// Annotation on a Job that was made from a JobTemplate: `<namespace>.<name>` of it. The system that Stoker replaces
/// used this key.
pub const BY_TEMPLATE: &str = "createByJobTemplate";

/// Finalizer of an object that has runs, until those that are held are cancelled and the others let go.
pub const RUNS: &str = "stoker.dev/runs";

/// Label on the pods of a PreScaledCronJob: the object's name, cut to 63 characters. The system that Stoker replaces
/// used this key, and clients select by it.
pub const PRIMED_CRON: &str = "primedcron";

/// Annotation that Kubernetes' CronJob gives its Jobs: their instant, RFC 3339 in the schedule's time zone.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Name of the init container that holds a run until its instant.
pub const GATE_CONTAINER: &str = "stoker-gate";

/// Label on a pod of a pool with `stateLabels`: `idle`, `busy`, `claimed`, `unknown` or `starting`.
pub const STATE: &str = "stoker.dev/state";

/// Annotation of the cluster-autoscaler: whether the node of this pod may be removed.
pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";

/// Annotation of Karpenter: `true` = it does not disrupt the pod's node.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";

/// Finalizer of an object with `deletionPolicy: Drain`.
pub const DRAIN: &str = "stoker.dev/drain";

/// Annotation key that the annotation probe reads unless the spec names another.
pub const DEFAULT_BUSY_ANNOTATION: &str = "paia.tech/busy";

/// Annotation on a CRD: the revision of its schema, see [`crate::CRD_REVISION`].
pub const CRD_REVISION: &str = "stoker.dev/crd-revision";

/// Longest value of a label (Kubernetes: labels and selectors).
pub const MAX_LABEL_VALUE: usize = 63;

/// Label on the operator's pod that leads, of several.
pub const LEADER: &str = "stoker.dev/leader";
