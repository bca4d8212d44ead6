//! What every reconcile shares: the client, the indexes, the policies and the triggers.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::Api;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Resource, ResourceExt as _};
use stoker_api::{
    DaemonJob, HotStandbyDeployment, HotStandbyJob, JobFlow, JobTemplate, NodeBatchJob, PreScaledCronJob,
    StandbyClaim,
};
use stoker_policy::{CompileLimits, HostOptions, PolicyHost};

use crate::again::Unfinished;
use crate::callback_urls::Callbacks;
use crate::claims::Claims;
use crate::decision_file::{DecisionFile, Witness};
use crate::decisions::Decisions;
use crate::desk::Desk;
use crate::job_templates::JobTemplates;
use crate::kept::{Creations, Permits, Remembered};
use crate::lease::LeaseOptions;
use crate::looked::Looked;
use crate::metrics::Metrics;
use crate::nodes::NodeIndex;
use crate::object::{Key, Kind, Pool};
use crate::observe::{JobIndex, Owners, PodIndex};
use crate::open_files;
use crate::orphans::Orphans;
use crate::pod_logs::{self, PodLogs};
use crate::policies::Policies;
use crate::policy_cache::PolicyCache;
use crate::pool::PoolState;
use crate::prober::Prober;
use crate::report::Reports;
use crate::signals::Signals;
use crate::standby_claims::StandbyClaims;
use crate::startup::StartError;
use crate::step_checks::StepAsker;

/// How the operator runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Namespaces to watch; empty = all.
    pub namespaces: Vec<String>,
    /// Address of /healthz, /readyz and /metrics, such as `0.0.0.0:8080`; None = not served.
    pub listen: Option<String>,
    /// Folder that keeps the last good policies over a restart; None = they are not kept.
    pub policy_cache: Option<PathBuf>,
    /// File to which each policy's inputs and answers are written; None = they are not.
    pub record: Option<PathBuf>,
    /// What compiling one component may cost.
    pub compile_limits: CompileLimits,
    /// Where claims are served; None = nowhere.
    pub claims: Option<ClaimOptions>,
    /// The image of `stoker-gate`, which holds runs until their instant.
    pub gate_image: String,
    /// Where pods of NodeBatchJobs report to; None = nowhere.
    pub reports: Option<ReportOptions>,
    /// Where what was decided of late is told, such as `127.0.0.1:8082`; None = nowhere, and nothing is kept.
    pub decisions: Option<String>,
    /// Where signals may be fetched from.
    pub signals: SignalOptions,
    /// How one of several replicas is chosen; None = there is but this one.
    pub lease: Option<LeaseOptions>,
}

/// Where signals may be fetched from.
#[derive(Clone, Debug, Default)]
pub struct SignalOptions {
    /// Hosts, `HOST`, `HOST:PORT` or `*.SUFFIX`; empty = all but this machine and its link.
    pub hosts: Vec<String>,
    /// The certificates by which servers are trusted where a signal names none, as PEM.
    pub ca_file: Option<PathBuf>,
}

/// Where the report service is.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// Its address as pods reach it, such as `http://stoker-reports.stoker-system:8090`.
    pub url: String,
    /// The file of the key that it has, too.
    pub key_file: PathBuf,
    /// The certificates by which its own is trusted, as PEM; for https.
    pub ca_file: Option<PathBuf>,
}

/// How claims are served.
#[derive(Clone, Debug)]
pub struct ClaimOptions {
    /// Address, such as `0.0.0.0:8443`.
    pub listen: String,
    /// Files of the certificate and its key, as PEM; None = plain HTTP, on loopback addresses only unless `insecure`.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Plain HTTP anywhere.
    pub insecure: bool,
    /// Requests that an account may send in a second, and ten times as many at once.
    pub per_second: NonZeroU32,
}

/// A namespace that is watched, or all of them.
#[derive(Default)]
pub struct Scope {
    namespace: Option<String>,
    pub deployments: Looked<HotStandbyDeployment>,
    pub jobs: Looked<HotStandbyJob>,
    pub claims: Looked<StandbyClaim>,
    pub cron_jobs: Looked<PreScaledCronJob>,
    pub flows: Looked<JobFlow>,
    pub templates: Looked<JobTemplate>,
    pub daemon_jobs: Looked<DaemonJob>,
    pub node_batch_jobs: Looked<NodeBatchJob>,
}

impl Scope {
    fn new(namespace: Option<String>) -> Arc<Self> {
        Arc::new(Self { namespace, ..Self::default() })
    }

    /// The namespace, or `*`.
    pub fn label(&self) -> &str {
        self.namespace.as_deref().unwrap_or("*")
    }

    /// Whether a namespace is in it.
    pub fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == namespace)
    }

    /// The API for a kind within the scope.
    pub fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }
}

/// What is remembered of a pool, and which it is.
struct Known {
    key: Key,
    state: Arc<tokio::sync::Mutex<PoolState>>,
}

/// What every reconcile shares.
pub struct Context {
    pub client: Client,
    pub owners: Owners,
    pub pods: PodIndex,
    pub jobs: JobIndex,
    pub nodes: NodeIndex,
    pub policies: Policies,
    pub host: PolicyHost,
    pub cache: PolicyCache,
    pub prober: Arc<Prober>,
    pub metrics: Metrics,
    pub recorder: Recorder,
    pub unfinished: Unfinished,
    pub desk: Desk,
    pub claims: Claims,
    pub standby_claims: StandbyClaims,
    pub cron_jobs: Remembered<PreScaledCronJob>,
    pub flows: Remembered<JobFlow>,
    pub daemon_jobs: Remembered<DaemonJob>,
    pub node_batch_jobs: Remembered<NodeBatchJob>,
    /// Where pods report to; None = nowhere.
    pub callbacks: Option<Callbacks>,
    pub pod_logs: PodLogs,
    pub templates: JobTemplates,
    pub step_asker: StepAsker,
    /// Looks that create children.
    pub creations: Creations,
    /// For the statuses of objects whose children are kept.
    pub status_permits: Permits,
    /// For their Events.
    pub event_permits: Permits,
    pub orphans: Orphans,
    /// The gate's image.
    pub gate_image: String,
    pub reports: Reports,
    pub signals: Signals,
    /// What was decided of late.
    pub decisions: Arc<Decisions>,
    /// This replica leads. Before, it watches, and does nothing.
    leads: AtomicBool,
    scopes: Vec<Arc<Scope>>,
    pools: Mutex<HashMap<String, Known>>,
}

impl Context {
    pub fn new(client: Client, options: Options) -> Result<Arc<Self>, StartError> {
        let metrics = Metrics::new();
        let host = HostOptions { compile_limits: options.compile_limits, ..HostOptions::default() };
        let file = match options.record {
            None => None,
            Some(path) => {
                let file = path.display().to_string();
                Some(DecisionFile::open(path).map_err(|error| StartError::Record { file, error })?)
            }
        };
        let decisions = Arc::new(Decisions::new(options.decisions.is_some()));
        let witness =
            Arc::new(Witness { metrics: metrics.policies.clone(), file, decisions: decisions.clone() });
        let host = PolicyHost::observed(host, witness).map_err(|e| StartError::PolicyHost(e.to_string()))?;
        let folder = options.policy_cache.clone().unwrap_or_default();
        let cache = PolicyCache::open(options.policy_cache)
            .map_err(|error| StartError::PolicyCache { folder: folder.display().to_string(), error })?;
        let scopes: Vec<_> = if options.namespaces.is_empty() {
            vec![Scope::new(None)]
        } else {
            options.namespaces.into_iter().map(|n| Scope::new(Some(n))).collect()
        };
        let callbacks = options.reports.as_ref().map(|r| Callbacks::read(&r.url, &r.key_file)).transpose()?;
        let ca_file = options.reports.as_ref().and_then(|r| r.ca_file.as_deref());
        let roots = pod_logs::trusted(ca_file).map_err(|error| {
            let file = ca_file.unwrap_or(std::path::Path::new("")).display();
            StartError::Reports(format!("--reports-ca-file {file}: {error}"))
        })?;
        let pod_logs = PodLogs::new(roots);
        let signal_roots = options.signals.ca_file.as_deref().map(|file| {
            let refused =
                |error| StartError::Signals(format!("--signal-ca-file {}: {error}", file.display()));
            pod_logs::trusted(Some(file)).map_err(refused)?;
            std::fs::read(file).map_err(|error| refused(error.to_string()))
        });
        let signal_roots = signal_roots.transpose()?;
        let signals = Signals::new(client.clone(), options.signals, signal_roots);
        let prober = Prober::new(client.clone(), metrics.probes.clone(), open_files::for_pods());
        let reporter = Reporter { controller: "stoker".into(), instance: std::env::var("POD_NAME").ok() };
        Ok(Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            owners: Owners::default(),
            pods: PodIndex::new(scopes.len()),
            jobs: JobIndex::new(scopes.len()),
            nodes: NodeIndex::default(),
            policies: Policies::default(),
            host,
            cache,
            prober,
            metrics,
            client,
            scopes,
            unfinished: Unfinished::default(),
            desk: Desk::default(),
            claims: Claims::default(),
            standby_claims: StandbyClaims::default(),
            cron_jobs: Remembered::default(),
            flows: Remembered::default(),
            daemon_jobs: Remembered::default(),
            node_batch_jobs: Remembered::default(),
            callbacks,
            pod_logs,
            templates: JobTemplates::default(),
            step_asker: StepAsker::default(),
            creations: Creations::default(),
            status_permits: Permits::default(),
            event_permits: Permits::default(),
            orphans: Orphans::default(),
            gate_image: options.gate_image,
            reports: Reports::default(),
            signals,
            decisions,
            leads: AtomicBool::new(false),
            pools: Mutex::default(),
        }))
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Leads from now on: everything is looked at.
    pub fn lead(&self) {
        self.leads.store(true, Ordering::Release);
        self.metrics.leads();
        for scope in &self.scopes {
            scope.deployments.ask_all();
            scope.jobs.ask_all();
            scope.claims.ask_all();
            scope.cron_jobs.ask_all();
            scope.flows.ask_all();
            scope.templates.ask_all();
            scope.daemon_jobs.ask_all();
            scope.node_batch_jobs.ask_all();
        }
    }

    pub fn scopes(&self) -> &[Arc<Scope>] {
        &self.scopes
    }

    /// Asks for a look at an object.
    pub fn trigger(&self, key: &Key) {
        let Some(scope) = self.scopes.iter().find(|scope| scope.covers(&key.namespace)) else { return };
        match key.kind {
            Kind::HotStandbyDeployment => scope.deployments.trigger(key),
            Kind::HotStandbyJob => scope.jobs.trigger(key),
            Kind::PreScaledCronJob => scope.cron_jobs.trigger(key),
            Kind::JobFlow => scope.flows.trigger(key),
            Kind::DaemonJob => scope.daemon_jobs.trigger(key),
            Kind::NodeBatchJob => scope.node_batch_jobs.trigger(key),
        }
    }

    /// Has those looked at that work on every node.
    pub fn nodes_changed(&self) {
        for scope in &self.scopes {
            scope.daemon_jobs.ask_all();
            scope.node_batch_jobs.ask_all();
        }
    }

    /// The scope of a namespace.
    pub fn scope_of(&self, namespace: &str) -> Option<&Arc<Scope>> {
        self.scopes.iter().find(|scope| scope.covers(namespace))
    }

    /// Has an owner looked at whose pods answer something else than before.
    pub fn answered_otherwise(&self, owner: &str) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pools.get(owner) {
            self.owners.touch(&known.key);
            self.trigger(&known.key);
        }
    }

    /// The pool as the watch has it now.
    pub fn latest(&self, key: &Key) -> Option<Pool> {
        let scope = self.scopes.iter().find(|scope| scope.covers(&key.namespace))?;
        match key.kind {
            Kind::HotStandbyDeployment => scope.deployments.latest(key),
            Kind::HotStandbyJob => scope.jobs.latest(key),
            Kind::PreScaledCronJob | Kind::JobFlow | Kind::DaemonJob | Kind::NodeBatchJob => None,
        }
    }

    /// What is remembered of a pool, made by `start` at the first look.
    pub fn pool(
        &self,
        uid: &str,
        key: &Key,
        start: impl FnOnce() -> PoolState,
    ) -> Arc<tokio::sync::Mutex<PoolState>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Known { key: key.clone(), state: Arc::new(tokio::sync::Mutex::new(start())) };
        pools.entry(uid.to_owned()).or_insert_with(fresh).state.clone()
    }

    /// Forgets a pool that is gone, and the policy that it used.
    pub fn forget(self: &Arc<Self>, key: &Key) {
        let mut gone = Vec::new();
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, known| {
            let stays = &known.key != key;
            if !stays {
                gone.push(uid.clone());
            }
            stays
        });
        self.unfinished.done(key);
        for uid in &gone {
            self.owners.forget(uid);
            self.desk.forget(uid);
            self.standby_claims.pool_gone(self, uid);
            self.prober.forget(uid);
            self.reports.forget(uid);
            self.signals.forget(uid);
        }
        self.forget_policies(key, gone);
    }

    /// Forgets which policies an object used that is gone, and what they were asked.
    pub fn forget_policies(self: &Arc<Self>, key: &Key, uids: Vec<String>) {
        self.policies.release(key, &[]);
        for uid in &uids {
            self.decisions.forget(uid);
        }
        if self.cache.exists() && !uids.is_empty() {
            let context = self.clone();
            tokio::spawn(async move {
                for uid in uids {
                    context.cache.forget(&uid).await;
                }
            });
        }
    }

    /// Waits until every child has been listed once: before that, what is missing cannot be known.
    pub async fn children_listed(&self) {
        self.pods.ready().await;
        self.jobs.ready().await;
    }

    /// Waits until every pool and every child has been listed once.
    pub async fn listed(&self) {
        self.children_listed().await;
        for scope in &self.scopes {
            scope.deployments.listed().await;
            scope.jobs.listed().await;
        }
    }

    /// The UID of an object as the watch has it now.
    pub fn uid_of(&self, key: &Key) -> Option<String> {
        let scope = self.scope_of(&key.namespace)?;
        let (namespace, name) = (&key.namespace, &key.name);
        match key.kind {
            Kind::HotStandbyDeployment => scope.deployments.get(namespace, name)?.uid(),
            Kind::HotStandbyJob => scope.jobs.get(namespace, name)?.uid(),
            Kind::PreScaledCronJob => scope.cron_jobs.get(namespace, name)?.uid(),
            Kind::JobFlow => scope.flows.get(namespace, name)?.uid(),
            Kind::DaemonJob => scope.daemon_jobs.get(namespace, name)?.uid(),
            Kind::NodeBatchJob => scope.node_batch_jobs.get(namespace, name)?.uid(),
        }
    }

    /// What is remembered of each pool.
    pub fn pool_states(&self) -> Vec<(Key, Arc<tokio::sync::Mutex<PoolState>>)> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.values().map(|known| (known.key.clone(), known.state.clone())).collect()
    }

    /// How many pools are remembered.
    pub fn remembered(&self) -> usize {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
