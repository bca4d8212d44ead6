//! From bytes to a policy, once for a digest, off to the side: compiling takes long, and nothing
//! that decides may wait for it.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::call::Failure;
use crate::compile::{Artefact, CompileCost, Ended, Pace, compile};
use crate::contract::settings::Info;
use crate::digest::Digest;
use crate::error::{CallError, Refusal};
use crate::host::Inner;
use crate::limits::Limits;
use crate::policy::{Linked, Policy, misfit};
use crate::state::{Seed, State};
use crate::{answer, check};

/// How long a refusal is remembered. The same bytes stay refused, so this only bounds the memory
/// for it.
const REFUSAL_STANDS: Duration = Duration::from_secs(3600);
/// How long it is remembered that `describe` took too long, for which a busy machine may have been
/// the cause. Finding out again takes compiling again.
const TIMEOUT_STANDS: Duration = Duration::from_secs(600);
/// Refusals remembered at most.
const REFUSALS: usize = 1024;
/// Policies that are kept although nobody holds them, most recently loaded ones: who swaps between
/// two policies, or deletes and makes an object anew, does not wait for the compiler again.
const KEPT: usize = 16;
/// Machine code of those that are kept.
const KEPT_BYTES: usize = 64 << 20;

type Outcome = Result<Arc<Policy>, Refusal>;
type Announcer = watch::Sender<Option<Outcome>>;

/// What is known of each digest.
#[derive(Default)]
pub(crate) struct Cache {
    known: Mutex<Known>,
    compiled: AtomicU64,
}

#[derive(Default)]
struct Known {
    entries: HashMap<Digest, Entry>,
    /// The last ones that were loaded or asked for, newest first.
    kept: VecDeque<Arc<Policy>>,
}

enum Entry {
    Loading(Announcer),
    Loaded(Weak<Policy>),
    /// Why, and until when that stands.
    Refused(Refusal, Instant),
}

impl Cache {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn compiled(&self) -> u64 {
        self.compiled.load(Relaxed)
    }

    /// Puts the outcome in the place of the loading entry, and forgets what nobody needs.
    fn settle(&self, digest: Digest, outcome: &Outcome) {
        let mut known = self.known();
        let dropped = match outcome {
            Ok(policy) => {
                known.entries.insert(digest, Entry::Loaded(Arc::downgrade(policy)));
                known.keep(policy)
            }
            Err(refusal) => {
                if let Some(stands) = stands(refusal) {
                    known.entries.insert(digest, Entry::Refused(refusal.clone(), Instant::now() + stands));
                } else {
                    known.entries.remove(&digest);
                }
                Vec::new()
            }
        };
        known.clean();
        drop(known);
        // Outside of the lock: a policy takes its machine code with it.
        drop(dropped);
    }

    /// Gives the loading up if nobody waits for it. Who begins to wait does so under the same lock.
    fn abandon(&self, digest: &Digest, announcer: &Announcer) -> bool {
        let mut known = self.known();
        let nobody = announcer.receiver_count() == 0;
        if nobody {
            known.entries.remove(digest);
        }
        nobody
    }
}

impl Known {
    /// Notes that a policy was wanted; returns those that are kept no longer.
    fn keep(&mut self, policy: &Arc<Policy>) -> Vec<Arc<Policy>> {
        self.kept.retain(|kept| !Arc::ptr_eq(kept, policy));
        self.kept.push_front(Arc::clone(policy));
        let mut bytes = 0;
        let fitting = |policy: &&Arc<Policy>| {
            bytes += policy.code_bytes;
            bytes <= KEPT_BYTES
        };
        // The newest one is kept whatever its size.
        let fit = self.kept.iter().take(KEPT).take_while(fitting).count().max(1);
        self.kept.drain(fit..).collect()
    }

    fn clean(&mut self) {
        self.entries.retain(|_, entry| match entry {
            Entry::Loading(_) => true,
            Entry::Loaded(policy) => policy.strong_count() > 0,
            Entry::Refused(_, until) => Instant::now() < *until,
        });
        let refused = |(digest, entry): (&Digest, &Entry)| match entry {
            Entry::Refused(_, until) => Some((*until, digest.clone())),
            _ => None,
        };
        if self.entries.len() > REFUSALS {
            let mut refusals: Vec<_> = self.entries.iter().filter_map(refused).collect();
            refusals.sort_unstable();
            let surplus = refusals.len().saturating_sub(REFUSALS);
            for (_, digest) in &refusals[..surplus] {
                self.entries.remove(digest);
            }
        }
    }
}

/// How long a refusal is remembered; not at all if the fault is the host's.
fn stands(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::Host(_) | Refusal::Describe(CallError::Busy { .. } | CallError::Host(_)) => None,
        Refusal::Describe(CallError::Timeout { .. }) => Some(TIMEOUT_STANDS),
        _ => Some(REFUSAL_STANDS),
    }
}

pub(crate) async fn load(host: &Arc<Inner>, tenant: &str, bytes: Arc<[u8]>) -> Outcome {
    let digest = Digest::of(&bytes);
    let mut receiver = match begin(host, tenant, digest, bytes) {
        Begun::Known(outcome) => return outcome,
        Begun::Loading(receiver) => receiver,
    };
    match receiver.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
        Ok(Some(outcome)) => outcome,
        _ => Err(Refusal::Host("the work was dropped".into())),
    }
}

enum Begun {
    Known(Outcome),
    Loading(watch::Receiver<Option<Outcome>>),
}

/// Finds what is known of the digest, or has the work begun.
fn begin(host: &Arc<Inner>, tenant: &str, digest: Digest, bytes: Arc<[u8]>) -> Begun {
    let mut known = host.cache.known();
    let found = match known.entries.get(&digest) {
        Some(Entry::Loading(announcer)) => return Begun::Loading(announcer.subscribe()),
        Some(Entry::Loaded(policy)) => policy.upgrade(),
        Some(Entry::Refused(refusal, until)) if Instant::now() < *until => {
            return Begun::Known(Err(refusal.clone()));
        }
        _ => None,
    };
    if let Some(policy) = found {
        let dropped = known.keep(&policy);
        drop(known);
        drop(dropped);
        return Begun::Known(Ok(policy));
    }
    let (announcer, receiver) = watch::channel(None);
    known.entries.insert(digest.clone(), Entry::Loading(announcer.clone()));
    drop(known);

    let loading = Loading { host: Arc::clone(host), digest, announcer, settled: false };
    tokio::spawn(loading.run(tenant.to_owned(), bytes));
    Begun::Loading(receiver)
}

/// The work on one digest. Dropped unfinished, by a panic or the end of the runtime, it leaves no
/// entry behind that would never end.
struct Loading {
    host: Arc<Inner>,
    digest: Digest,
    announcer: Announcer,
    settled: bool,
}

impl Loading {
    async fn run(mut self, tenant: String, bytes: Arc<[u8]>) {
        let outcome = {
            let mut work = pin!(prepare(&self.host, &tenant, &self.digest, &bytes));
            loop {
                tokio::select! {
                    outcome = &mut work => break Some(outcome),
                    () = self.announcer.closed() => {
                        if self.host.cache.abandon(&self.digest, &self.announcer) {
                            break None;
                        }
                    }
                }
            }
        };
        self.settled = true;
        let Some(outcome) = outcome else { return };
        self.host.cache.settle(self.digest.clone(), &outcome);
        self.announcer.send_replace(Some(outcome));
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if !self.settled {
            self.host.cache.known().entries.remove(&self.digest);
        }
    }
}

/// All that stands between bytes and a policy.
async fn prepare(host: &Arc<Inner>, tenant: &str, digest: &Digest, bytes: &Arc<[u8]>) -> Outcome {
    let started = Instant::now();
    let (checked, max) = (Arc::clone(bytes), host.max_component_bytes);
    apart(move || check::check(&checked, max)).await?;
    host.cache.compiled.fetch_add(1, Relaxed);
    let (artefact, cost) = compiled(host, tenant, bytes).await;
    let outcome = artefact.as_ref().err().map_or("ok", Refusal::kind);
    host.observer.compiled(digest, outcome, cost);
    let artefact = artefact?;
    let code_bytes = artefact.len();
    let (this, name) = (Arc::clone(host), digest.clone());
    let linked = apart(move || {
        let component = artefact.load(&this.engine).map_err(Refusal::Compile)?;
        Linked::new(name, &this.linker, &component, &this.observer)
    });
    let linked = Arc::new(linked.await?);
    let info = describe(host, &linked).await?;
    tracing::info!(
        digest = digest.short(),
        name = info.name,
        version = info.version,
        took = ?started.elapsed(),
        compiled_in = ?cost.took,
        "policy compiled"
    );
    Ok(Arc::new(Policy { linked, info, code_bytes }))
}

/// Does what keeps a thread busy on a thread of its own.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Refusal::Host(error.to_string())),
    }
}

/// Tries within a short time first, so that what is quick does not wait for what is costly.
async fn compiled(host: &Inner, tenant: &str, bytes: &[u8]) -> (Result<Artefact, Refusal>, CompileCost) {
    let whole = host.compile_limits;
    let mut limits = whole.quick();
    let mut pace = Pace::Quick;
    loop {
        let place = host.compilers.place(tenant, pace).await;
        let (ended, cost) = compile(&host.compiler, bytes, limits).await;
        drop(place);
        let refusal = match ended {
            Ended::Done(artefact) => return (Ok(artefact), cost),
            Ended::TimeUp if limits.cpu < whole.cpu => {
                (limits, pace) = (whole, Pace::Slow);
                continue;
            }
            Ended::TimeUp => Refusal::CompileTime { limit: whole.cpu },
            Ended::Refused(refusal) => refusal,
        };
        return (Err(refusal), cost);
    }
}

/// The first call. It also compares the types of everything that is exported, which takes an
/// instance.
async fn describe(host: &Inner, linked: &Arc<Linked>) -> Result<Info, Refusal> {
    let run = |linked: &Linked, store: &mut Store<State>, instance: &Instance| {
        if let Err(error) = types_fit(linked, store, instance) {
            return Ok(Err(misfit(&error)));
        }
        let guest = linked.settings.load(&mut *store, instance)?;
        let mut info = guest.call_describe(&mut *store)?;
        answer::info(&mut info).map_err(Failure::Answer)?;
        Ok(Ok(info))
    };
    match host.ask(linked, Limits::DESCRIBE, Seed::default(), "describe", run).await {
        Ok(answer) => answer.value,
        Err(error) => Err(Refusal::Describe(error)),
    }
}

fn types_fit(linked: &Linked, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<()> {
    linked.settings.load(&mut *store, instance)?;
    linked.scaling.as_ref().map(|indices| indices.load(&mut *store, instance)).transpose()?;
    linked.busyness.as_ref().map(|indices| indices.load(&mut *store, instance)).transpose()?;
    linked.warm_up.as_ref().map(|indices| indices.load(&mut *store, instance)).transpose()?;
    Ok(())
}
