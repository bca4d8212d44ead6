//! Which of several replicas leads: a Lease that its holder renews. The others watch it, with warm caches and compiled policies,
//! and take it when it was given back, or was not renewed for its duration by their own monotonic clock. Every write names
//! the version that it replaces, so that of two who take it one is too late.
//!
//! A lease does not fence: a leader that is cut off may still have a request under way when the next one begins. What must never
//! happen twice is bound to names, versions and UIDs instead.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stoker_api::keys;
use tokio::sync::watch;

use crate::again::WatchBackOff;

/// A request about the lease takes no longer.
const REQUEST: Duration = Duration::from_secs(2);

/// After a request that failed.
const AGAIN: Duration = Duration::from_millis(500);

/// How a leader is chosen.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Name of the Lease.
    pub name: String,
    /// Its namespace; None = the client's own.
    pub namespace: Option<String>,
    /// For how long it counts unless it is renewed.
    pub duration: Duration,
    /// Who this is, different for each replica.
    pub identity: String,
}

/// The lease could not be renewed in time, or somebody else has it.
#[derive(Debug, thiserror::Error)]
#[error("the lease was lost: {0}; this process ends, so that what it remembers does not outlive its turn")]
pub struct Lost(String);

/// Contends for the lease.
pub struct Contender {
    api: Api<Lease>,
    options: LeaseOptions,
    /// The lease as it was seen last, and since when it has looked so.
    seen: Option<(Lease, Instant)>,
}

impl Contender {
    pub fn new(client: Client, options: LeaseOptions) -> Self {
        let namespace = options.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        Self { api: Api::namespaced(client, &namespace), options, seen: None }
    }

    /// Waits until this replica has the lease. False = told to stop before.
    pub async fn acquire(&mut self, mut stop: watch::Receiver<bool>) -> bool {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.options.name));
        let mut events = watcher(self.api.clone(), config).backoff(WatchBackOff::default()).boxed();
        tracing::info!(lease = self.options.name, identity = self.options.identity, "waiting for the lease");
        let mut listed = false;
        loop {
            // Before the first list there is nothing to wait out.
            let due = if listed { self.free_in() } else { REQUEST };
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease))) => self.saw(lease),
                    Some(Ok(watcher::Event::Delete(_))) => self.seen = None,
                    Some(Ok(watcher::Event::InitDone)) => listed = true,
                    Some(Ok(watcher::Event::Init)) => {}
                    Some(Err(error)) => tracing::debug!(%error, "the watch of the lease broke, trying again"),
                    None => {}
                },
                () = tokio::time::sleep(due) => {}
                _ = stop.wait_for(|s| *s) => return false,
            }
            if listed && self.free_in().is_zero() && self.take().await {
                return true;
            }
        }
    }

    /// Renews the lease until it is lost.
    pub async fn renew(&mut self) -> Lost {
        let period = self.options.duration / 5;
        // Its own clock must not end later than the others': a request may take its time, too.
        let deadline = self.options.duration.mul_f64(2.0 / 3.0);
        let mut renewed = Instant::now();
        let mut wait = period;
        loop {
            tokio::time::sleep(wait).await;
            let asked = Instant::now();
            let wrong = match within(self.write(Some(&self.options.identity))).await {
                Ok(lease) => {
                    self.saw(lease);
                    (renewed, wait) = (asked, period);
                    continue;
                }
                Err(error) => error,
            };
            if let Ok(lease) = within(self.api.get(&self.options.name)).await {
                // An earlier write may have been carried out though its answer was lost.
                let holder = holder(&lease).map(str::to_owned);
                self.saw(lease);
                if holder.as_ref() != Some(&self.options.identity) {
                    return Lost(format!("{} has it", holder.as_deref().unwrap_or("nobody")));
                }
            }
            if renewed.elapsed() >= deadline {
                return Lost(format!(
                    "it could not be renewed for {:.1} s: {wrong}",
                    renewed.elapsed().as_secs_f64()
                ));
            }
            tracing::warn!(error = wrong, "the lease is not renewed, trying again");
            wait = AGAIN.min(deadline.saturating_sub(renewed.elapsed()));
        }
    }

    /// Gives the lease back, so that the next one needs not wait it out.
    pub async fn release(&mut self) {
        match within(self.write(None)).await {
            Ok(_) => tracing::info!("the lease is given back"),
            Err(error) => tracing::warn!(error, "the lease cannot be given back; it runs out"),
        }
    }

    fn saw(&mut self, lease: Lease) {
        let same = |(seen, _): &(Lease, Instant)| seen.resource_version() == lease.resource_version();
        if !self.seen.as_ref().is_some_and(same) {
            self.seen = Some((lease, Instant::now()));
        }
    }

    /// How long until it may be taken.
    fn free_in(&self) -> Duration {
        let Some((lease, since)) = &self.seen else { return Duration::ZERO };
        if holder(lease).is_none_or(|holder| holder == self.options.identity) {
            return Duration::ZERO;
        }
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(Duration::from_secs(1));
        duration.saturating_sub(since.elapsed())
    }

    /// Takes it. False = somebody was quicker, or it cannot be written now.
    async fn take(&mut self) -> bool {
        let error = match within(self.write(Some(&self.options.identity))).await {
            Ok(lease) => {
                let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
                tracing::info!(
                    lease = self.options.name,
                    identity = self.options.identity,
                    transitions,
                    "leading"
                );
                self.saw(lease);
                return true;
            }
            Err(error) => error,
        };
        tracing::info!(error, "the lease was not taken");
        // Whatever it was, the newest version says how long to wait.
        if let Ok(Some(lease)) = within(self.api.get_opt(&self.options.name)).await {
            self.saw(lease);
        }
        tokio::time::sleep(AGAIN).await;
        false
    }

    /// Writes it for a holder, in the place of the version that was seen last.
    async fn write(&self, who: Option<&str>) -> kube::Result<Lease> {
        let now = MicroTime(Timestamp::now());
        let before = self.seen.as_ref().map(|(lease, _)| lease);
        let old = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let changes = old.holder_identity.as_deref().filter(|old| !old.is_empty()) != who && who.is_some();
        let seconds = i32::try_from(self.options.duration.as_secs()).unwrap_or(i32::MAX);
        let spec = LeaseSpec {
            holder_identity: Some(who.unwrap_or_default().to_owned()),
            lease_duration_seconds: Some(if who.is_some() { seconds } else { 1 }),
            acquire_time: if changes { Some(now.clone()) } else { old.acquire_time },
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0).saturating_add(i32::from(changes))),
            ..old
        };
        let params = PostParams::default();
        match before {
            Some(before) => {
                let lease = Lease { metadata: before.metadata.clone(), spec: Some(spec) };
                self.api.replace(&self.options.name, &params, &lease).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() };
                self.api.create(&params, &Lease { metadata, spec: Some(spec) }).await
            }
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", REQUEST.as_secs())),
    }
}

/// Says on the pod that this runs in whether it leads, for Services that only a leader serves.
pub async fn mark(client: &Client, leads: bool) {
    let (Ok(pod), Ok(namespace)) = (std::env::var("POD_NAME"), std::env::var("POD_NAMESPACE")) else {
        return;
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let patch = json!({"metadata": {"labels": {keys::LEADER: leads.then_some("true")}}});
    if let Err(error) = within(api.patch(&pod, &PatchParams::default(), &Patch::Merge(patch))).await {
        tracing::warn!(error, "the pod's label {} cannot be written", keys::LEADER);
    }
}
