//! The watches: NodeBatchJobs and the pods of their executions in each scope, and all nodes.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use stoker_api::{NodeBatchJob, keys};
use stoker_operator::{SlimNode, SlimPod, WatchBackOff, watches};
use stoker_reports::JobKey;
use tokio::sync::watch;

use super::known::{Known, Watch};
use super::pod::NodePod;
use super::view;

/// Keeps what is known true until told to stop. `None` among the scopes is all namespaces.
pub async fn follow(
    client: Client,
    known: Arc<Known>,
    scopes: Vec<Option<String>>,
    stop: watch::Receiver<bool>,
) {
    let mut tasks = vec![tokio::spawn(nodes(client.clone(), known.clone(), stop.clone()))];
    for (index, scope) in scopes.into_iter().enumerate() {
        let (client, known) = (client.clone(), known.clone());
        tasks.push(tokio::spawn(jobs(client.clone(), known.clone(), (index, scope.clone()), stop.clone())));
        tasks.push(tokio::spawn(pods(client, known, (index, scope), stop.clone())));
    }
    join_all(tasks).await;
}

type Scope = (usize, Option<String>);

fn api<K>(client: Client, scope: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// Hands over what a watch tells, until told to stop.
async fn events<K>(
    api: Api<K>,
    config: watcher::Config,
    known: &Known,
    which: Watch,
    mut stop: watch::Receiver<bool>,
    mut take: impl FnMut(watcher::Event<K>),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = watcher(api, config).backoff(WatchBackOff::default()).boxed();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match event {
            None => return,
            Some(Ok(event)) => {
                known.works(which);
                let listed = matches!(event, watcher::Event::InitDone);
                take(event);
                if listed {
                    known.listed(which);
                }
            }
            Some(Err(error)) => {
                known.broke(which);
                tracing::warn!(%error, "the watch of {} broke, trying again", K::plural(&()));
            }
        }
    }
}

async fn jobs(client: Client, known: Arc<Known>, (index, scope): Scope, stop: watch::Receiver<bool>) {
    let api: Api<NodeBatchJob> = api(client, scope.as_deref());
    let mut listed: HashSet<JobKey> = HashSet::new();
    let put = |mut object: NodeBatchJob| {
        // Kept for each object for as long as it exists, and read by nobody here.
        object.metadata.managed_fields = None;
        known.put_job(object);
    };
    events(api, watches(), &known, Watch::Jobs(index), stop, |event| match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(object) => {
            listed.insert(view::key(&object));
            put(object);
        }
        watcher::Event::Apply(object) => put(object),
        watcher::Event::Delete(object) => {
            let gone = view::key(&object);
            known.retain_jobs(|key| *key != gone);
        }
        watcher::Event::InitDone => {
            let elsewhere = |key: &JobKey| scope.as_ref().is_some_and(|scope| *scope != key.namespace);
            known.retain_jobs(|key| elsewhere(key) || listed.contains(key));
        }
    })
    .await;
}

async fn pods(client: Client, known: Arc<Known>, (index, scope): Scope, stop: watch::Receiver<bool>) {
    let api: Api<SlimPod> = api(client, scope.as_deref());
    let config = watches().labels(keys::EXECUTION);
    let mut listed: HashSet<String> = HashSet::new();
    events(api, config, &known, Watch::Pods(index), stop, |event| match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(pod) => {
            listed.extend(pod.uid());
            NodePod::of(pod).into_iter().for_each(|pod| known.put_pod(pod));
        }
        watcher::Event::Apply(pod) => NodePod::of(pod).into_iter().for_each(|pod| known.put_pod(pod)),
        watcher::Event::Delete(pod) => NodePod::of(pod).into_iter().for_each(|pod| known.pod_gone(pod)),
        watcher::Event::InitDone => {
            known.pods_listed(|namespace| scope.as_ref().is_none_or(|scope| scope == namespace), &listed);
        }
    })
    .await;
}

async fn nodes(client: Client, known: Arc<Known>, stop: watch::Receiver<bool>) {
    let mut listed: HashSet<String> = HashSet::new();
    events(Api::<SlimNode>::all(client), watches(), &known, Watch::Nodes, stop, |event| match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(node) => {
            listed.insert(node.name_any());
            known.put_node(node.into_view());
        }
        watcher::Event::Apply(node) => known.put_node(node.into_view()),
        watcher::Event::Delete(node) => {
            let gone = node.name_any();
            known.change_nodes(|nodes| nodes.retain(|name| name != gone));
        }
        watcher::Event::InitDone => known.change_nodes(|nodes| nodes.retain(|name| listed.contains(name))),
    })
    .await;
}
