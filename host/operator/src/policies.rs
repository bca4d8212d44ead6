//! Where policies come from: built-ins, and keys of ConfigMaps. A metadata-only watch tells that a ConfigMap
//! changed; only those that some object references are read. What a source holds is loaded once for all
//! objects; while it loads, and if it is refused, the objects go on with what they had.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use stoker_api::PolicyRef;
use stoker_policy::{Policy, builtin};
use tokio::sync::watch;

use crate::context::{Context, Scope};

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Builtin(String),
    ConfigMap { namespace: String, name: String, key: String },
}

impl Source {
    /// The source that a reference in a namespace names. Admission sees to it that there is exactly one.
    pub fn of(namespace: &str, policy: &PolicyRef) -> Option<Self> {
        match (&policy.config_map, &policy.builtin) {
            (Some(map), _) => Some(Self::ConfigMap {
                namespace: namespace.to_owned(),
                name: map.name.clone(),
                key: map.key.clone(),
            }),
            (None, Some(name)) => Some(Self::Builtin(name.clone())),
            (None, None) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin/{name}"),
            Self::ConfigMap { name, key, .. } => write!(f, "configMap/{name}/{key}"),
        }
    }
}

/// What a source holds.
#[derive(Clone)]
pub enum Content {
    /// Not known yet.
    Loading,
    /// A component that fits the contract.
    Loaded(Arc<Policy>),
    /// Nothing that can be used: a reason for conditions, and words.
    Refused { reason: &'static str, words: String, digest: Option<String> },
}

struct Entry {
    content: Content,
    users: HashSet<(String, String)>,
    /// Counts loads, so that an older one that ends late does not win.
    load: u64,
    failures: u32,
}

/// The sources in use.
#[derive(Default)]
pub struct Policies {
    entries: Mutex<HashMap<Source, Entry>>,
}

impl Policies {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Source, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a source holds; the first question makes it load, and the user is told when it has.
    pub fn content(&self, context: &Arc<Context>, source: &Source, user: (String, String)) -> Content {
        let mut entries = self.lock();
        let known = entries.contains_key(source);
        let entry = entries.entry(source.clone()).or_insert_with(|| Entry {
            content: Content::Loading,
            users: HashSet::new(),
            load: 0,
            failures: 0,
        });
        entry.users.insert(user);
        let content = entry.content.clone();
        drop(entries);
        if !known {
            self.reload(context, source);
        }
        content
    }

    /// Notes that a user no longer uses any source but this one; sources without users are forgotten.
    pub fn release(&self, user: &(String, String), except: Option<&Source>) {
        self.lock().retain(|source, entry| {
            if Some(source) != except {
                entry.users.remove(user);
            }
            !entry.users.is_empty()
        });
    }

    fn reload(&self, context: &Arc<Context>, source: &Source) {
        let load = {
            let mut entries = self.lock();
            let Some(entry) = entries.get_mut(source) else { return };
            entry.load += 1;
            entry.load
        };
        let (context, source) = (context.clone(), source.clone());
        tokio::spawn(async move {
            let outcome = fetch_and_load(&context, &source).await;
            context.policies.finish(&context, &source, load, outcome);
        });
    }

    fn finish(
        &self,
        context: &Arc<Context>,
        source: &Source,
        load: u64,
        outcome: Result<Arc<Policy>, Failure>,
    ) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(source).filter(|e| e.load == load) else { return };
        match outcome {
            Ok(policy) => {
                tracing::info!(%source, digest = policy.digest().as_str(), name = policy.info().name, "policy loaded");
                entry.failures = 0;
                entry.content = Content::Loaded(policy);
            }
            Err(failure) => {
                tracing::warn!(%source, error = failure.words, "policy refused");
                entry.failures += 1;
                if failure.retry {
                    let wait = Duration::from_secs(1 << entry.failures.min(6));
                    let (context, source) = (context.clone(), source.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(wait).await;
                        context.policies.reload_if_refused(&context, &source, load);
                    });
                }
                entry.content =
                    Content::Refused { reason: failure.reason, words: failure.words, digest: failure.digest };
            }
        }
        for (namespace, name) in &entry.users {
            context.trigger(namespace, name);
        }
    }

    fn reload_if_refused(&self, context: &Arc<Context>, source: &Source, load: u64) {
        let unchanged = self.lock().get(source).is_some_and(|e| e.load == load);
        if unchanged {
            self.reload(context, source);
        }
    }

    fn changed(&self, context: &Arc<Context>, namespace: &str, name: &str) {
        let affected: Vec<Source> = self
            .lock()
            .keys()
            .filter(|s| matches!(s, Source::ConfigMap { namespace: n, name: m, .. } if n == namespace && m == name))
            .cloned()
            .collect();
        for source in affected {
            self.reload(context, &source);
        }
    }
}

struct Failure {
    reason: &'static str,
    words: String,
    digest: Option<String>,
    /// Trying again may help although nothing changed.
    retry: bool,
}

async fn fetch_and_load(context: &Context, source: &Source) -> Result<Arc<Policy>, Failure> {
    let bytes: Arc<[u8]> = match source {
        Source::Builtin(name) => builtin::bytes(name).map(Arc::from).ok_or_else(|| Failure {
            reason: "UnknownBuiltin",
            words: format!("there is no built-in policy `{name}`; there are {}", builtin::NAMES.join(", ")),
            digest: None,
            retry: false,
        })?,
        Source::ConfigMap { namespace, name, key } => fetch(context, namespace, name, key).await?,
    };
    let digest = stoker_policy::Digest::of(&bytes).to_string();
    context.host.load(bytes).await.map_err(|refusal| Failure {
        reason: "Refused",
        words: format!("{source}: {refusal}"),
        digest: Some(digest),
        retry: false,
    })
}

async fn fetch(context: &Context, namespace: &str, name: &str, key: &str) -> Result<Arc<[u8]>, Failure> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let failure = |reason, words, retry| Failure { reason, words, digest: None, retry };
    let map = api.get_opt(name).await.map_err(|error| {
        failure("FetchFailed", format!("ConfigMap {namespace}/{name} cannot be read: {error}"), true)
    })?;
    let Some(map) = map else {
        let words = format!(
            "ConfigMap {namespace}/{name} does not exist: create it with `kubectl create configmap {name} --from-file={key}=FILE.wasm`"
        );
        return Err(failure("NotFound", words, false));
    };
    if let Some(bytes) = map.binary_data.as_ref().and_then(|d| d.get(key)) {
        return Ok(Arc::from(bytes.0.as_slice()));
    }
    if let Some(text) = map.data.as_ref().and_then(|d| d.get(key)) {
        return Ok(Arc::from(text.as_bytes()));
    }
    let binary = map.binary_data.iter().flat_map(|d| d.keys());
    let keys: Vec<_> = map.data.iter().flat_map(|d| d.keys()).chain(binary).map(String::as_str).collect();
    let has = if keys.is_empty() { "it is empty".to_owned() } else { format!("it has {}", keys.join(", ")) };
    Err(failure("KeyMissing", format!("ConfigMap {namespace}/{name} has no key `{key}`: {has}"), false))
}

/// Tells the sources that their ConfigMaps changed, until told to stop.
pub async fn watch_config_maps(context: Arc<Context>, scope: Arc<Scope>, mut stop: watch::Receiver<bool>) {
    let api = scope.api::<PartialObjectMeta<ConfigMap>>(context.client.clone());
    let mut events = watcher(api, watcher::Config::default().any_semantic()).default_backoff().boxed();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = stop.wait_for(|s| *s) => return,
        };
        match event {
            None => return,
            Some(Err(error)) => {
                tracing::warn!(scope = scope.label(), %error, "the watch of ConfigMaps broke, trying again");
            }
            Some(Ok(
                watcher::Event::Apply(map) | watcher::Event::Delete(map) | watcher::Event::InitApply(map),
            )) => context.policies.changed(&context, &map.namespace().unwrap_or_default(), &map.name_any()),
            Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => {}
        }
    }
}
