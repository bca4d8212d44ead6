//! From bytes to a policy, once for a digest, on threads of its own: compiling takes long, and
//! nothing that decides may wait for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::artefact::Artefact;
use crate::call::Failure;
use crate::contract::settings::Info;
use crate::digest::Digest;
use crate::error::{HostError, Refusal};
use crate::host::{Inner, gone};
use crate::limits::Limits;
use crate::policy::{Linked, Policy};
use crate::state::{Seed, State};
use crate::{answer, check};

/// How long a refusal stands. The same bytes stay refused, so this only bounds the memory for it.
const REFUSAL_STANDS: Duration = Duration::from_secs(60);
/// Compilers recurse over the code that they compile.
const COMPILER_STACK: usize = 8 << 20;

type Outcome = Result<Arc<Policy>, Refusal>;
type Job = Box<dyn FnOnce() + Send>;

/// What is known of each digest.
#[derive(Default)]
pub(crate) struct Cache {
    entries: Mutex<HashMap<Digest, Entry>>,
    compiled: AtomicU64,
}

enum Entry {
    Loading(watch::Receiver<Option<Outcome>>),
    Loaded(Weak<Policy>),
    Refused(Refusal, Instant),
}

impl Cache {
    fn entries(&self) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn compiled(&self) -> u64 {
        self.compiled.load(Relaxed)
    }

    /// Puts the outcome in the place of the loading entry, and forgets what nobody needs.
    fn settle(&self, digest: Digest, outcome: &Outcome) {
        let mut entries = self.entries();
        match outcome {
            Ok(policy) => entries.insert(digest, Entry::Loaded(Arc::downgrade(policy))),
            // The next try may end differently.
            Err(Refusal::Describe(_)) => entries.remove(&digest),
            Err(refusal) => entries.insert(digest, Entry::Refused(refusal.clone(), Instant::now())),
        };
        entries.retain(|_, entry| match entry {
            Entry::Loading(_) => true,
            Entry::Loaded(policy) => policy.strong_count() > 0,
            Entry::Refused(_, since) => since.elapsed() < REFUSAL_STANDS,
        });
    }
}

/// The threads that compile. They end when this is dropped.
pub(crate) struct Compilers(mpsc::Sender<Job>);

impl Compilers {
    pub(crate) fn start(threads: usize) -> Result<Self, HostError> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads {
            let receiver = Arc::clone(&receiver);
            let next = move || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            thread::Builder::new()
                .name(format!("compile-{number}"))
                .stack_size(COMPILER_STACK)
                .spawn(move || {
                    while let Ok(job) = next() {
                        job();
                    }
                })
                .map_err(|error| HostError::Thread(error.to_string()))?;
        }
        Ok(Self(sender))
    }
}

pub(crate) async fn load(host: &Arc<Inner>, bytes: Arc<[u8]>) -> Outcome {
    let digest = Digest::of(&bytes);
    let mut receiver = match begin(host, digest, bytes) {
        Begun::Known(outcome) => return outcome,
        Begun::Loading(receiver) => receiver,
    };
    match receiver.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
        Ok(Some(outcome)) => outcome,
        _ => Err(Refusal::Describe(gone("load"))),
    }
}

enum Begun {
    Known(Outcome),
    Loading(watch::Receiver<Option<Outcome>>),
}

/// Finds what is known of the digest, or has the work begun.
fn begin(host: &Arc<Inner>, digest: Digest, bytes: Arc<[u8]>) -> Begun {
    let mut entries = host.cache.entries();
    let entry = entries.entry(digest.clone());
    if let MapEntry::Occupied(entry) = &entry {
        match entry.get() {
            Entry::Loading(receiver) => return Begun::Loading(receiver.clone()),
            Entry::Loaded(policy) => {
                if let Some(policy) = policy.upgrade() {
                    return Begun::Known(Ok(policy));
                }
            }
            Entry::Refused(refusal, since) if since.elapsed() < REFUSAL_STANDS => {
                return Begun::Known(Err(refusal.clone()));
            }
            Entry::Refused(..) => {}
        }
    }
    let (sender, receiver) = watch::channel(None);
    entry.insert_entry(Entry::Loading(receiver.clone()));
    drop(entries);

    let this = Arc::clone(host);
    let job = Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| prepare(&this, &digest, &bytes)))
            .unwrap_or_else(|_| Err(Refusal::Compile("the compiler panicked; report this component".into())));
        this.cache.settle(digest, &outcome);
        // Not before the last use of the host: who waits may drop theirs.
        drop(this);
        sender.send_replace(Some(outcome));
    });
    // The threads live as long as the host; should they be gone, the receiver says so.
    let _ = host.compilers.0.send(job);
    Begun::Loading(receiver)
}

/// All that stands between bytes and a policy. Runs on a compiler thread.
fn prepare(host: &Inner, digest: &Digest, bytes: &[u8]) -> Outcome {
    check::check(bytes, host.max_component_bytes)?;
    let started = Instant::now();
    host.cache.compiled.fetch_add(1, Relaxed);
    let artefact = Artefact::compile(&host.engine, bytes).map_err(Refusal::Compile)?;
    let component = artefact.load(&host.engine).map_err(Refusal::Compile)?;
    let linked = Arc::new(Linked::new(digest.clone(), &host.linker, &component)?);
    let info = describe(host, &linked)?;
    tracing::info!(
        digest = digest.short(),
        name = info.name,
        version = info.version,
        took = ?started.elapsed(),
        "policy loaded"
    );
    Ok(Arc::new(Policy { linked, info }))
}

/// The first call. It also compares the types of everything that is exported, which takes an
/// instance.
fn describe(host: &Inner, linked: &Arc<Linked>) -> Result<Info, Refusal> {
    let run = |linked: &Linked, store: &mut Store<State>, instance: &Instance| {
        if let Err(error) = types_fit(linked, store, instance) {
            return Ok(Err(Refusal::Contract(format!("{error:#}"))));
        }
        let guest = linked.settings.load(&mut *store, instance)?;
        let mut info = guest.call_describe(&mut *store)?;
        answer::info(&mut info).map_err(Failure::Answer)?;
        Ok(Ok(info))
    };
    let answer = host
        .submit(linked, Limits::DESCRIBE, Seed::default(), "describe", run)
        .and_then(|receiver| receiver.blocking_recv().map_err(|_| gone("describe"))?);
    match answer {
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
