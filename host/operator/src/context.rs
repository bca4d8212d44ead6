//! What every reconcile shares: the client, the indexes, the policies and the triggers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::channel::mpsc;
use kube::api::Api;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource};
use stoker_api::HotStandbyDeployment;
use stoker_policy::{CompileLimits, HostOptions, PolicyHost};

use crate::metrics::Metrics;
use crate::nodes::NodeIndex;
use crate::observe::PodIndex;
use crate::policies::Policies;
use crate::policy_cache::PolicyCache;
use crate::pool::PoolState;
use crate::startup::StartError;

/// How the operator runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Namespaces to watch; empty = all.
    pub namespaces: Vec<String>,
    /// Address of /healthz, /readyz and /metrics, such as `0.0.0.0:8080`; None = not served.
    pub listen: Option<String>,
    /// Folder that keeps the last good policies over a restart; None = they are not kept.
    pub policy_cache: Option<PathBuf>,
    /// What compiling one component may cost.
    pub compile_limits: CompileLimits,
}

/// A namespace that is watched, or all of them.
pub struct Scope {
    namespace: Option<String>,
    trigger: mpsc::UnboundedSender<ObjectRef<HotStandbyDeployment>>,
    triggers: Mutex<Option<mpsc::UnboundedReceiver<ObjectRef<HotStandbyDeployment>>>>,
    pools: OnceLock<Store<HotStandbyDeployment>>,
}

impl Scope {
    fn new(namespace: Option<String>) -> Arc<Self> {
        let (trigger, triggers) = mpsc::unbounded();
        Arc::new(Self { namespace, trigger, triggers: Mutex::new(Some(triggers)), pools: OnceLock::new() })
    }

    /// The namespace, or `*`.
    pub fn label(&self) -> &str {
        self.namespace.as_deref().unwrap_or("*")
    }

    /// Whether a namespace is in it.
    pub fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == namespace)
    }

    /// Where the watch keeps the pool objects; set once, by the one controller of the scope.
    pub fn keep_pools(&self, store: Store<HotStandbyDeployment>) {
        // A second controller would be a mistake of this crate's own; the first one's store stays right.
        self.pools.set(store).ok();
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

    /// The stream of objects to look at; there is one, for the one controller of the scope.
    pub fn take_triggers(&self) -> mpsc::UnboundedReceiver<ObjectRef<HotStandbyDeployment>> {
        let taken = self.triggers.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| mpsc::unbounded().1)
    }
}

/// What is remembered of a pool, and its (namespace, name).
struct Known {
    name: (String, String),
    state: Arc<tokio::sync::Mutex<PoolState>>,
}

/// What every reconcile shares.
pub struct Context {
    pub client: Client,
    pub pods: PodIndex,
    pub nodes: NodeIndex,
    pub policies: Policies,
    pub host: PolicyHost,
    pub cache: PolicyCache,
    pub metrics: Metrics,
    pub recorder: Recorder,
    scopes: Vec<Arc<Scope>>,
    pools: Mutex<HashMap<String, Known>>,
}

impl Context {
    pub fn new(client: Client, options: Options) -> Result<Arc<Self>, StartError> {
        let metrics = Metrics::new();
        let host = HostOptions { compile_limits: options.compile_limits, ..HostOptions::default() };
        let host = PolicyHost::observed(host, metrics.policies.clone())
            .map_err(|e| StartError::PolicyHost(e.to_string()))?;
        let folder = options.policy_cache.clone().unwrap_or_default();
        let cache = PolicyCache::open(options.policy_cache)
            .map_err(|error| StartError::PolicyCache { folder: folder.display().to_string(), error })?;
        let scopes: Vec<_> = if options.namespaces.is_empty() {
            vec![Scope::new(None)]
        } else {
            options.namespaces.into_iter().map(|n| Scope::new(Some(n))).collect()
        };
        let reporter = Reporter { controller: "stoker".into(), instance: std::env::var("POD_NAME").ok() };
        Ok(Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            pods: PodIndex::new(scopes.len()),
            nodes: NodeIndex::default(),
            policies: Policies::default(),
            host,
            cache,
            metrics,
            client,
            scopes,
            pools: Mutex::default(),
        }))
    }

    pub fn scopes(&self) -> &[Arc<Scope>] {
        &self.scopes
    }

    /// Asks for a look at a pool.
    pub fn trigger(&self, namespace: &str, name: &str) {
        for scope in &self.scopes {
            if scope.covers(namespace) {
                let object = ObjectRef::new(name).within(namespace);
                // It fails only when the controller has stopped.
                scope.trigger.unbounded_send(object).ok();
                return;
            }
        }
    }

    /// The pool object as the watch has it now.
    pub fn latest(&self, namespace: &str, name: &str) -> Option<Arc<HotStandbyDeployment>> {
        let scope = self.scopes.iter().find(|scope| scope.covers(namespace))?;
        scope.pools.get()?.get(&ObjectRef::new(name).within(namespace))
    }

    /// What is remembered of a pool, made by `start` at the first look.
    pub fn pool(
        &self,
        uid: &str,
        name: &(String, String),
        start: impl FnOnce() -> PoolState,
    ) -> Arc<tokio::sync::Mutex<PoolState>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Known { name: name.clone(), state: Arc::new(tokio::sync::Mutex::new(start())) };
        pools.entry(uid.to_owned()).or_insert_with(fresh).state.clone()
    }

    /// Forgets a pool that is gone, and the policy that it used.
    pub fn forget(self: &Arc<Self>, name: &(String, String)) {
        let mut gone = Vec::new();
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, known| {
            let stays = &known.name != name;
            if !stays {
                gone.push(uid.clone());
            }
            stays
        });
        self.policies.release(name, None);
        gone.iter().for_each(|uid| self.pods.forget(uid));
        if self.cache.exists() && !gone.is_empty() {
            let context = self.clone();
            tokio::spawn(async move {
                for uid in gone {
                    context.cache.forget(&uid).await;
                }
            });
        }
    }

    /// How many pools are remembered.
    pub fn remembered(&self) -> usize {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
