//! Claims on standby pods: bound, renewed, released. What a claim is stands in core; here it is written. Each write
//! carries the version of the pod that it is about, so that two that want the same pod cannot both get it.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::Api;
use stoker_api::keys;
use stoker_core::PodView;
use stoker_core::claims::{Claim, marks_of, release};
use stoker_core::pool::Marks;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::apply::{self, Wrote, timed};
use crate::context::Context;
use crate::desk::Labels;
use crate::members::Seen;
use crate::object::Pool;
use crate::pool::{claim_rules, mark_rules};
use crate::slim_pod::SlimPod;

/// Claims of one pool that may wait at a time.
const MAX_WAITING: usize = 10_000;

/// A claim that does not wait is refused no sooner than the pool was looked at for it, should this take so long.
const LOOKED: Duration = Duration::from_secs(2);

/// How long it is tried to learn whether a write that was not answered was done.
const UNSURE: Duration = Duration::from_secs(20);

/// So many claims on their way keep nobody else from writing.
const FEW: usize = 4;

/// Claims that are written at a time: enough to keep the API server busy. More would each need a connection of its own,
/// whose handshake costs more than the claim.
const AT_A_TIME: usize = 16;

/// How long others give way to claims.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// How often a claim that changes under our hands is read again.
const TRIES: usize = 8;

/// How long what a token got is remembered, until the watch shows it.
const TOKENS: Duration = Duration::from_secs(60);

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub pool: Pool,
    pub by: String,
    pub token: Option<String>,
    pub selector: Labels,
    pub ttl: Option<Duration>,
    pub wait: Duration,
    pub metadata: BTreeMap<String, String>,
}

/// A claim with its pod.
#[derive(Clone, Debug)]
pub struct Bound {
    pub claim: Claim,
    pub pod: Arc<PodView>,
}

/// Why there is no pod.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// None is ready.
    #[error("no pod of {0} stands by: try again, wait with waitSeconds, or raise its idleTarget")]
    NoStandby(String),
    /// Too many wait.
    #[error("{MAX_WAITING} claims wait for {0} already: try again later, or raise its maxReplicas")]
    Full(String),
    /// The pool is gone, or is being deleted.
    #[error("{0} is being deleted")]
    Deleted(String),
    /// The API server does not say.
    #[error("the API server did not answer: {0}; try again, with a token to get the same pod")]
    Unanswered(String),
    /// It refuses.
    #[error("the API server refuses to write the claim: {0}")]
    Forbidden(String),
}

/// Why a claim was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unchanged {
    /// There is none.
    #[error("there is no such claim: it was released, has expired, or its pod's work is done")]
    NotFound,
    /// It changes too often.
    #[error("the pod keeps changing: try again")]
    Conflict,
    /// The API server does not say.
    #[error("the API server did not answer: {0}; try again")]
    Unanswered(String),
}

pub type Outcome = Result<Bound, Refused>;

/// By the pool's UID and the token: since when, and what came of it.
type Tokens = HashMap<(String, String), (Instant, watch::Receiver<Option<Outcome>>)>;

/// Claims that are being bound, and those bound a short while ago, by pool and token.
pub struct Claims {
    tokens: Mutex<Tokens>,
    /// Claims that are being written, or wait for their turn.
    writing: watch::Sender<usize>,
    /// The turns of those that are written, given in the order of their pods' offers.
    turns: Semaphore,
}

impl Default for Claims {
    fn default() -> Self {
        let (tokens, writing) = (Mutex::default(), watch::Sender::default());
        Self { tokens, writing, turns: Semaphore::new(AT_A_TIME) }
    }
}

impl Claims {
    /// Lets claims go first that are on their way: somebody waits for them, and for a replacement of standby nobody does.
    pub async fn go_first(&self) {
        if *self.writing.borrow() > FEW {
            let mut writing = self.writing.subscribe();
            tokio::time::timeout(GIVE_WAY, writing.wait_for(|count| *count <= FEW)).await.ok();
        }
    }

    fn writing(&self) -> Writing<'_> {
        self.writing.send_modify(|count| *count += 1);
        Writing(self)
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim that is being written, until it is dropped.
struct Writing<'a>(&'a Claims);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writing.send_modify(|count| *count -= 1);
    }
}

/// Binds a pod. With a token that has a claim already, that is the answer.
///
/// When the caller gives up, so does the claim, unless it has a token: one that is granted to nobody is released.
pub async fn claim(context: &Arc<Context>, wanted: Wanted) -> Outcome {
    let began = Instant::now();
    let outcome = match wanted.token.clone() {
        None => alone(context, wanted).await,
        Some(token) => by_token(context, wanted, token).await,
    };
    let word = match &outcome {
        Ok(_) => "bound",
        Err(Refused::NoStandby(_)) => "no-standby",
        Err(Refused::Full(_)) => "full",
        Err(Refused::Deleted(_)) => "deleted",
        Err(Refused::Unanswered(_)) => "unanswered",
        Err(Refused::Forbidden(_)) => "forbidden",
    };
    context.metrics.claims.answered(word, began.elapsed());
    outcome
}

async fn alone(context: &Arc<Context>, wanted: Wanted) -> Outcome {
    let (mut answer, answered) = oneshot::channel();
    let (context, name) = (context.clone(), wanted.pool.key().to_string());
    // A task of its own: a caller that goes away must not leave a claim behind that nobody knows of.
    tokio::spawn(async move {
        let outcome = bind(&context, &wanted, pin!(answer.closed())).await;
        if let Err(Ok(bound)) = answer.send(outcome) {
            tracing::info!(claim = bound.claim.id, "released: nobody waits for it any more");
            context.metrics.claims.ended("unwanted");
            if let Err(error) = release_claim(&context, &wanted.pool, &bound.claim.id).await {
                tracing::warn!(claim = bound.claim.id, %error, "it is not released");
            }
        }
    });
    answered.await.unwrap_or(Err(Refused::Deleted(name)))
}

async fn by_token(context: &Arc<Context>, wanted: Wanted, token: String) -> Outcome {
    let key = (wanted.pool.uid().to_owned(), token.clone());
    // The watch may be late to show its release.
    if let Some(bound) = held(context, &wanted.pool, &token)
        && let Ok(bound) = find(context, &wanted.pool, &bound.claim.id).await
    {
        return Ok(bound);
    }
    let mut outcome = {
        let mut tokens = context.claims.tokens();
        tokens.retain(|_, (since, outcome)| {
            since.elapsed() < TOKENS || outcome.borrow().is_none() && outcome.has_changed().is_ok()
        });
        if let Some((_, outcome)) = tokens.get(&key) {
            outcome.clone()
        } else {
            let (tell, outcome) = watch::channel(None);
            tokens.insert(key.clone(), (Instant::now(), outcome.clone()));
            let context = context.clone();
            tokio::spawn(async move {
                let outcome = bind(&context, &wanted, pin!(pending())).await;
                if outcome.is_err() {
                    // The next one may have more luck.
                    context.claims.tokens().remove(&key);
                }
                tell.send_replace(Some(outcome));
            });
            outcome
        }
    };
    let told = outcome.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
    told.unwrap_or_else(|| Err(Refused::Unanswered("the claim was dropped".to_owned())))
}

/// The claim that a token has, as the watch shows it.
fn held(context: &Context, pool: &Pool, token: &str) -> Option<Bound> {
    let with_token = |bound: &Bound| bound.claim.token.as_deref() == Some(token);
    list(context, pool).into_iter().find(with_token)
}

/// The claims of a pool that last, as the watch shows them, by their pods' names.
pub fn list(context: &Context, pool: &Pool) -> Vec<Bound> {
    let now = Timestamp::now();
    let bound = |pod: PodView| {
        let claim = Claim::of(&pod)?.ok()?;
        (pod.alive() && claim.expires_at.is_none_or(|at| at > now))
            .then(|| Bound { claim, pod: Arc::new(pod) })
    };
    let mut all: Vec<Bound> = Seen::of(context, pool).pods.into_iter().filter_map(bound).collect();
    all.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
    all
}

/// Binds a pod for one who is `gone` at some time, and then is told that there is none.
pub async fn claim_until(
    context: &Arc<Context>,
    wanted: &Wanted,
    gone: impl Future<Output = ()> + Send,
) -> Outcome {
    if let Some(token) = &wanted.token
        && let Some(bound) = held(context, &wanted.pool, token)
        && let Ok(bound) = find(context, &wanted.pool, &bound.claim.id).await
    {
        return Ok(bound);
    }
    bind(context, wanted, pin!(gone)).await
}

/// Waits in the queue, and writes the claim on the pod that is offered, until one is had. When the caller is `gone`, it
/// waits no longer; a pod that was offered by then is seen through.
async fn bind(
    context: &Arc<Context>,
    wanted: &Wanted,
    mut gone: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Outcome {
    let (pool, key) = (&wanted.pool, wanted.pool.key());
    let (place, began) = (context.desk.place(), Instant::now());
    let (mut patience, mut is_gone) = (wanted.wait, false);
    loop {
        if is_gone {
            // The pod that was offered by then could not be had.
            return Err(Refused::NoStandby(key.to_string()));
        }
        let deleting = context.latest(&key).is_none_or(|latest| latest.meta().deletion_timestamp.is_some());
        if deleting {
            return Err(Refused::Deleted(key.to_string()));
        }
        let patient = !patience.is_zero();
        let waits = context.desk.wait(pool.uid(), place, &wanted.selector, patient, MAX_WAITING);
        let Some((mut offer, waits)) = waits else { return Err(Refused::Full(key.to_string())) };
        if waits {
            context.trigger(&key);
        }
        let left =
            patience.max(if patient { Duration::ZERO } else { LOOKED }).saturating_sub(began.elapsed());
        let offered = tokio::select! {
            biased;
            offered = &mut offer => Some(offered.ok()),
            () = tokio::time::sleep(left) => None,
            () = &mut gone => {
                is_gone = true;
                None
            }
        };
        let offered = match offered {
            Some(offered) => offered,
            None => {
                offer.close();
                match offer.try_recv() {
                    Ok(pod) => Some(pod),
                    Err(_) => {
                        // It is no demand any more.
                        context.trigger(&key);
                        return Err(Refused::NoStandby(key.to_string()));
                    }
                }
            }
        };
        let Some(pod) = offered else {
            if patient {
                return Err(Refused::Deleted(key.to_string()));
            }
            // The policy is to see that one was missed.
            context.trigger(&key);
            return Err(Refused::NoStandby(key.to_string()));
        };
        match write(context, wanted, &pod).await {
            Some(Ok(bound)) => return Ok(bound),
            Some(Err(refused)) => {
                context.desk.refused(pool.uid(), &pod);
                return Err(refused);
            }
            None => {
                context.desk.refused(pool.uid(), &pod);
                context.metrics.claims.conflict();
            }
        }
        // Which is the one that changed, and what it is now, a look tells.
        patience = patience.max(began.elapsed() + LOOKED);
    }
}

/// Writes the claim on a pod. None = the pod cannot be had.
async fn write(context: &Context, wanted: &Wanted, pod: &Arc<PodView>) -> Option<Outcome> {
    let pool = &wanted.pool;
    let _writing = context.claims.writing();
    let mut turn = context.claims.turns.acquire().await.ok();
    let now = Timestamp::now();
    let claim = Claim {
        id: format!("{}.{}", pod.name, secret()?),
        by: wanted.by.clone(),
        claimed_at: now,
        expires_at: wanted.ttl.and_then(|ttl| now.checked_add(ttl).ok()),
        worked_at: None,
        token: wanted.token.clone(),
        metadata: wanted.metadata.clone(),
    };
    let (labels, annotations) = marks_of(&claim, mark_rules(pool.spec()));
    let began = Instant::now();
    loop {
        let version = Some(pod.resource_version.as_str());
        let wrote =
            apply::mark(context, pool.namespace(), &pod.name, &pod.uid, version, &labels, &annotations).await;
        let unanswered = match wrote {
            Ok(Wrote::Done) => return Some(Ok(Bound { claim, pod: pod.clone() })),
            // A write before, which was not answered, may have been done: also one that was repeated on its way.
            Ok(_) => {
                let found = read(context, pool.namespace(), &pod.name).await;
                match found {
                    Ok(found) => {
                        let ours = found.filter(|found| {
                            found.uid == pod.uid && Claim::of(found).is_some_and(|c| c.as_ref() == Ok(&claim))
                        });
                        return ours.map(|_| Ok(Bound { claim, pod: pod.clone() }));
                    }
                    Err(error) => error,
                }
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
                return Some(Err(Refused::Forbidden(status.message.clone())));
            }
            Err(error) => error,
        };
        if began.elapsed() > UNSURE {
            return Some(Err(Refused::Unanswered(unanswered.to_string())));
        }
        drop(turn);
        tokio::time::sleep(crate::again::ERRORS.after(1)).await;
        turn = context.claims.turns.acquire().await.ok();
    }
}

/// 128 bits that cannot be guessed. None = the system has no randomness to give.
fn secret() -> Option<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A pod as it is now.
pub async fn read(context: &Context, namespace: &str, name: &str) -> Result<Option<PodView>, kube::Error> {
    let api: Api<SlimPod> = Api::namespaced(context.client.clone(), namespace);
    Ok(timed(api.get_opt(name)).await?.map(SlimPod::into_view))
}

/// The claim of that name.
pub async fn find(context: &Context, pool: &Pool, id: &str) -> Result<Bound, Unchanged> {
    let name = pod_of(id).ok_or(Unchanged::NotFound)?;
    let pod = read(context, pool.namespace(), name).await;
    let pod = pod.map_err(|error| Unchanged::Unanswered(error.to_string()))?;
    let pod = pod.filter(|pod| belongs(context, pool, pod)).ok_or(Unchanged::NotFound)?;
    let now = Timestamp::now();
    let claim = Claim::of(&pod).and_then(Result::ok).filter(|claim| claim.id == id);
    let claim =
        claim.filter(|claim| claim.expires_at.is_none_or(|at| at > now)).ok_or(Unchanged::NotFound)?;
    Ok(Bound { claim, pod: Arc::new(pod) })
}

/// Ends a claim: its pod is standby again, or is replaced, as its pool says.
pub async fn release_claim(context: &Context, pool: &Pool, id: &str) -> Result<Bound, Unchanged> {
    let rules = claim_rules(pool.spec());
    let bound = amend(context, pool, id, |_| release(rules)).await?;
    context
        .claims
        .tokens()
        .retain(|_, (_, outcome)| !matches!(&*outcome.borrow(), Some(Ok(known)) if known.claim.id == id));
    Ok(bound)
}

/// Lets a claim last for so long from now; None = until it is released.
pub async fn renew(
    context: &Context,
    pool: &Pool,
    id: &str,
    ttl: Option<Duration>,
) -> Result<Bound, Unchanged> {
    let until = || ttl.and_then(|ttl| Timestamp::now().checked_add(ttl).ok());
    let renewed = |claim: &Claim| Claim { expires_at: until(), ..claim.clone() };
    amend(context, pool, id, |claim| Marks::from([(keys::CLAIM.to_owned(), Some(renewed(claim).text()))]))
        .await
}

/// The pod of a claim, by the claim's name.
fn pod_of(id: &str) -> Option<&str> {
    id.rsplit_once('.').map(|(pod, _)| pod).filter(|pod| !pod.is_empty() && pod.len() <= 253)
}

/// Changes the annotations of a claim's pod, and tells what was before, with the claim as it is now.
async fn amend(
    context: &Context,
    pool: &Pool,
    id: &str,
    change: impl Fn(&Claim) -> Marks,
) -> Result<Bound, Unchanged> {
    let mut unanswered = None;
    for _ in 0..TRIES {
        let Bound { claim, pod } = match find(context, pool, id).await {
            // What was not answered may have been done.
            Err(Unchanged::NotFound) => {
                return Err(unanswered.map_or(Unchanged::NotFound, Unchanged::Unanswered));
            }
            found => found?,
        };
        let annotations = change(&claim);
        let version = Some(pod.resource_version.as_str());
        let labels = Marks::new();
        match apply::mark(context, pool.namespace(), &pod.name, &pod.uid, version, &labels, &annotations)
            .await
        {
            Ok(Wrote::Done) => {
                let text = annotations.get(keys::CLAIM).cloned().flatten();
                let claim = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(claim);
                return Ok(Bound { claim, pod });
            }
            Ok(Wrote::Gone) => return Err(Unchanged::NotFound),
            Ok(Wrote::Conflict) => {}
            Err(error) => unanswered = Some(error.to_string()),
        }
    }
    Err(unanswered.map_or(Unchanged::Conflict, Unchanged::Unanswered))
}

/// Whether a pod is one of the pool's, or of one of its Jobs.
fn belongs(context: &Context, pool: &Pool, pod: &PodView) -> bool {
    pod.labels.get(keys::OWNER_UID).is_some_and(|uid| uid == pool.uid())
        && Seen::of(context, pool).pods.iter().any(|p| p.uid == pod.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claims_name_tells_its_pod() {
        assert_eq!(pod_of("game-7-x2.0123"), Some("game-7-x2"));
        assert_eq!(pod_of("a.b.0123"), Some("a.b"));
        assert_eq!(pod_of("0123"), None);
        assert_eq!(pod_of(".0123"), None);
    }

    #[test]
    fn names_of_claims_cannot_be_guessed() {
        let (one, other) = (secret(), secret());
        assert!(one.is_some() && one != other);
        assert_eq!(one.map(|s| s.len()), Some(32));
    }
}
