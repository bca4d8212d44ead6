//! Where policies come from: built-ins, and keys of ConfigMaps. A metadata-only watch tells that a ConfigMap
//! changed; only those that some object references are read. What a source holds is loaded once for all
//! objects; while it loads, and if it is refused, the objects go on with what they had.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use stoker_api::WantedPolicy;
use stoker_policy::{Digest, Info, Policy, builtin};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::again::{WatchBackOff, watches};
use crate::context::{Context, Scope};
use crate::object::Key;

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Builtin(String),
    ConfigMap { namespace: String, name: String, key: String },
}

impl Source {
    /// The source that is wanted in a namespace. Admission sees to it that there is exactly one.
    pub fn of(namespace: &str, policy: &WantedPolicy) -> Option<Self> {
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
    users: HashSet<Key>,
    /// Counts loads, so that an older one that ends late does not win.
    load: u64,
    failures: u32,
    /// resourceVersion of the ConfigMap that the content is from.
    version: Option<String>,
    /// The load that runs, or the wait for the next try.
    work: Option<AbortHandle>,
}

impl Entry {
    /// Ends what was under way; a component that nobody else wants is compiled no further.
    fn put_work(&mut self, work: Option<AbortHandle>) {
        if let Some(old) = std::mem::replace(&mut self.work, work) {
            old.abort();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.put_work(None);
    }
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
    pub fn content(&self, context: &Arc<Context>, source: &Source, user: Key) -> Content {
        let mut entries = self.lock();
        let known = entries.contains_key(source);
        let entry = entries.entry(source.clone()).or_insert_with(|| Entry {
            content: Content::Loading,
            users: HashSet::new(),
            load: 0,
            failures: 0,
            version: None,
            work: None,
        });
        entry.users.insert(user);
        let content = entry.content.clone();
        drop(entries);
        if !known {
            self.reload(context, source);
        }
        content
    }

    /// The digest that a source holds, as far as is known.
    pub fn desired(&self, source: &Source) -> Option<String> {
        match &self.lock().get(source)?.content {
            Content::Loaded(policy) => Some(policy.digest().to_string()),
            Content::Refused { digest, .. } => digest.clone(),
            Content::Loading => None,
        }
    }

    /// Notes that a user no longer uses any source but these; sources without users are forgotten.
    pub fn release(&self, user: &Key, except: &[&Source]) {
        self.lock().retain(|source, entry| {
            if !except.contains(&source) {
                entry.users.remove(user);
            }
            !entry.users.is_empty()
        });
    }

    fn reload(&self, context: &Arc<Context>, source: &Source) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(source) else { return };
        entry.load += 1;
        let load = entry.load;
        let (context, source) = (context.clone(), source.clone());
        let work = tokio::spawn(async move {
            let (outcome, version) = fetch_and_load(&context, &source).await;
            context.policies.finish(&context, &source, load, outcome, version);
        });
        entry.put_work(Some(work.abort_handle()));
    }

    fn finish(
        &self,
        context: &Arc<Context>,
        source: &Source,
        load: u64,
        outcome: Result<Arc<Policy>, Failure>,
        version: Option<String>,
    ) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(source).filter(|e| e.load == load) else { return };
        entry.version = version;
        entry.work = None;
        match outcome {
            Ok(policy) => {
                let Info { name, version, .. } = policy.info();
                tracing::info!(%source, digest = policy.digest().as_str(), name, version, "policy loaded");
                entry.failures = 0;
                entry.content = Content::Loaded(policy);
            }
            Err(failure) => {
                tracing::warn!(%source, error = failure.words, "policy refused");
                entry.failures += 1;
                if failure.retry {
                    let wait = Duration::from_secs(1 << entry.failures.min(6));
                    let (context, source) = (context.clone(), source.clone());
                    let work = tokio::spawn(async move {
                        tokio::time::sleep(wait).await;
                        context.policies.reload(&context, &source);
                    });
                    entry.work = Some(work.abort_handle());
                }
                entry.content =
                    Content::Refused { reason: failure.reason, words: failure.words, digest: failure.digest };
            }
        }
        for user in &entry.users {
            context.trigger(user);
        }
    }

    /// Reads the sources that a ConfigMap holds again, unless they are from this version of it.
    fn changed(&self, context: &Arc<Context>, namespace: &str, name: &str, version: Option<&str>) {
        self.reload_if(context, |(n, m), known| {
            n == namespace && m == name && (version.is_none() || known != version)
        });
    }

    /// Reads those sources again whose ConfigMaps are gone, unless that is known.
    fn absent(&self, context: &Arc<Context>, gone: impl Fn(&str, &str) -> bool) {
        self.reload_if(context, |(namespace, name), known| known.is_some() && gone(namespace, name));
    }

    /// Reads sources again by their ConfigMaps' namespaces, names and known versions.
    fn reload_if(&self, context: &Arc<Context>, wanted: impl Fn((&str, &str), Option<&str>) -> bool) {
        let affected: Vec<Source> = self
            .lock()
            .iter()
            .filter_map(|(source, entry)| match source {
                Source::ConfigMap { namespace, name, .. }
                    if wanted((namespace, name), entry.version.as_deref()) =>
                {
                    Some(source.clone())
                }
                _ => None,
            })
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

/// The policy that a source holds, and the version of the ConfigMap that it is from.
async fn fetch_and_load(
    context: &Context,
    source: &Source,
) -> (Result<Arc<Policy>, Failure>, Option<String>) {
    let (tenant, bytes, version) = match source {
        Source::Builtin(name) => match builtin::bytes(name) {
            Some(bytes) => ("", Arc::from(bytes), None),
            None => return (Err(no_builtin(name)), None),
        },
        Source::ConfigMap { namespace, name, key } => {
            let started = Instant::now();
            let fetched = fetch(context, namespace, name, key).await;
            let outcome = fetched.0.as_ref().err().map_or("ok", |failure| failure.reason);
            context.metrics.policies.fetched(outcome, started.elapsed());
            match fetched {
                (Ok(bytes), version) => (namespace.as_str(), bytes, version),
                (Err(failure), version) => return (Err(failure), version),
            }
        }
    };
    let digest = Digest::of(&bytes);
    let loaded = context.host.load_for(tenant, bytes.clone()).await.map_err(|refusal| Failure {
        reason: "Refused",
        words: format!("{source}: {refusal}"),
        digest: Some(digest.to_string()),
        retry: refusal.may_pass(),
    });
    if loaded.is_ok() && matches!(source, Source::ConfigMap { .. }) {
        context.cache.keep(&digest, bytes).await;
    }
    (loaded, version)
}

fn no_builtin(name: &str) -> Failure {
    Failure {
        reason: "UnknownBuiltin",
        words: format!("there is no built-in policy `{name}`; there are {}", builtin::NAMES.join(", ")),
        digest: None,
        retry: false,
    }
}

/// The bytes of a key, and the version of the ConfigMap.
async fn fetch(
    context: &Context,
    namespace: &str,
    name: &str,
    key: &str,
) -> (Result<Arc<[u8]>, Failure>, Option<String>) {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let failure = |reason, words, retry| Failure { reason, words, digest: None, retry };
    let map = match api.get_opt(name).await {
        Ok(Some(map)) => map,
        Ok(None) => {
            let words = format!(
                "ConfigMap {namespace}/{name} does not exist: create it with `kubectl create configmap {name} --from-file={key}=FILE.wasm`"
            );
            return (Err(failure("NotFound", words, false)), None);
        }
        Err(error) => {
            let words = format!("ConfigMap {namespace}/{name} cannot be read: {error}");
            return (Err(failure("FetchFailed", words, true)), None);
        }
    };
    let version = map.resource_version();
    if let Some(bytes) = map.binary_data.as_ref().and_then(|d| d.get(key)) {
        return (Ok(Arc::from(bytes.0.as_slice())), version);
    }
    if let Some(text) = map.data.as_ref().and_then(|d| d.get(key)) {
        return (Ok(Arc::from(text.as_bytes())), version);
    }
    let binary = map.binary_data.iter().flat_map(|d| d.keys());
    let keys: Vec<_> = map.data.iter().flat_map(|d| d.keys()).chain(binary).map(String::as_str).collect();
    let has = if keys.is_empty() { "it is empty".to_owned() } else { format!("it has {}", keys.join(", ")) };
    let words = format!("ConfigMap {namespace}/{name} has no key `{key}`: {has}");
    (Err(failure("KeyMissing", words, false)), version)
}

/// Tells the sources that their ConfigMaps changed, until told to stop.
pub async fn watch_config_maps(context: Arc<Context>, scope: Arc<Scope>, mut stop: watch::Receiver<bool>) {
    let api = scope.api::<PartialObjectMeta<ConfigMap>>(context.client.clone());
    let mut events = watcher(api, watches()).backoff(WatchBackOff::default()).boxed();
    let mut listed = HashSet::new();
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
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(map))) => {
                listed.insert((map.namespace().unwrap_or_default(), map.name_any()));
                tell(&context, &map, map.resource_version().as_deref());
            }
            // What was deleted while the watch was broken is told by its absence only.
            Some(Ok(watcher::Event::InitDone)) => {
                context.policies.absent(&context, |namespace, name| {
                    scope.covers(namespace) && !listed.contains(&(namespace.to_owned(), name.to_owned()))
                });
            }
            Some(Ok(watcher::Event::Apply(map))) => tell(&context, &map, map.resource_version().as_deref()),
            Some(Ok(watcher::Event::Delete(map))) => tell(&context, &map, None),
        }
    }
}

fn tell(context: &Arc<Context>, map: &PartialObjectMeta<ConfigMap>, version: Option<&str>) {
    let namespace = map.namespace().unwrap_or_default();
    context.policies.changed(context, &namespace, &map.name_any(), version);
}
