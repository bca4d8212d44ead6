//! When pods are asked: each at its own moment within the period, so many at a time, and never late without end.
//! What is due while the budget is spent is tried again for half a period; then it is left out and counted.
//!
//! An answer is told to the pool only when it changes what all answers come to, so that a pool at rest is not
//! looked at.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use jiff::Timestamp;
use stoker_core::asked::{Answers, Rules, Standing};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::exec_probe;
use crate::http_probe::{HttpAsker, Kept};
use crate::probe_metrics::ProbeMetrics;
use crate::question::{Evidence, Finding, Question, Target};
use crate::redis_probe::RedisAsker;

/// Requests and readings of Redis at a time: few enough for a common limit of 1,024 open files.
const REQUESTS: usize = 512;

/// Commands at a time: each costs the API server and a kubelet a connection.
const COMMANDS: usize = 32;

/// Last questions before removals at a time.
const LAST_QUESTIONS: usize = 16;

/// When a question is tried again for which there was no room.
const NO_ROOM: Duration = Duration::from_millis(20);

/// Pods that become Ready together share one reading of Redis, which waits for so long.
const TOGETHER: Duration = Duration::from_millis(20);

/// First questions to many pods at once, as after a restart, are spread over so much, if the period is as long.
const SPREAD: Duration = Duration::from_secs(1);

/// So many pods are asked for the first time at once.
const AT_ONCE: usize = 64;

/// Asks pods.
pub struct Prober {
    state: Mutex<State>,
    news: Notify,
    changed: mpsc::UnboundedSender<Arc<str>>,
    changes: Mutex<Option<mpsc::UnboundedReceiver<Arc<str>>>>,
    client: kube::Client,
    http: HttpAsker,
    redis: RedisAsker,
    requests: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    last: Semaphore,
    /// How many connections to pods may be kept.
    kept: usize,
    metrics: Arc<ProbeMetrics>,
}

#[derive(Default)]
struct State {
    pools: HashMap<Arc<str>, Asked>,
    due: BinaryHeap<Reverse<Due>>,
    serial: u64,
    kept: usize,
}

/// A question that will be due. A pod's or pool's entry is void when its serial number is not the last one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    /// Since when it is due, if there was no room then.
    since: Instant,
    serial: u64,
    owner: Arc<str>,
    /// None = the whole pool.
    pod: Option<Arc<str>>,
}

/// A pool that is asked about.
struct Asked {
    question: Question,
    rules: Rules,
    /// A policy wants to see what was found.
    evidence: bool,
    pods: HashMap<Arc<str>, AskedPod>,
    /// Of the pool's own entry, where one question is about all.
    serial: u64,
    under_way: bool,
    /// It is about to be asked, out of turn.
    soon: bool,
}

struct AskedPod {
    target: Target,
    /// It was Ready at some time.
    able: bool,
    answers: Answers,
    evidence: Option<Evidence>,
    kept: Option<Kept>,
    serial: u64,
    under_way: bool,
    /// What the pool was told that the answers come to, and a digest of why there is none.
    told: Option<(Standing, u64)>,
}

/// A pod as the pool sees it.
pub struct Candidate {
    pub uid: String,
    pub target: Target,
    /// It was Ready at some time.
    pub able: bool,
}

/// What is known of a pool's pods, by UID.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub answers: HashMap<String, Answers>,
    pub evidence: HashMap<String, Evidence>,
}

/// One question that is asked now.
struct Job {
    owner: Arc<str>,
    question: Question,
    pods: Vec<(Arc<str>, Target)>,
    kept: Option<Kept>,
    _room: OwnedSemaphorePermit,
}

impl Prober {
    pub fn new(client: kube::Client, metrics: Arc<ProbeMetrics>, kept: usize) -> Arc<Self> {
        let (changed, changes) = mpsc::unbounded();
        Arc::new(Self {
            state: Mutex::default(),
            news: Notify::new(),
            changed,
            changes: Mutex::new(Some(changes)),
            redis: RedisAsker::new(client.clone()),
            client,
            http: HttpAsker::new(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            commands: Arc::new(Semaphore::new(COMMANDS)),
            last: Semaphore::new(LAST_QUESTIONS),
            kept,
            metrics,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// UIDs of the owners whose pods' answers come to something else than before; there is one receiver.
    pub fn take_changes(&self) -> mpsc::UnboundedReceiver<Arc<str>> {
        let taken = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| mpsc::unbounded().1)
    }

    /// Has these pods of an owner asked from now on, and tells what is known of them. Another question than
    /// before makes all earlier answers void.
    pub fn keep(
        &self,
        owner: &str,
        question: Question,
        rules: Rules,
        evidence: bool,
        pods: Vec<Candidate>,
    ) -> Known {
        let now = Instant::now();
        let mut state = self.state();
        let state = &mut *state;
        let owner: Arc<str> = match state.pools.get_key_value(owner) {
            Some((owner, _)) => owner.clone(),
            None => owner.into(),
        };
        if state.pools.get(&owner).is_some_and(|pool| pool.question != question) {
            forget(state, &owner);
        }
        let pool = state.pools.entry(owner.clone()).or_insert_with(|| Asked {
            question,
            rules,
            evidence,
            pods: HashMap::new(),
            serial: 0,
            under_way: false,
            soon: false,
        });
        pool.rules = rules;
        pool.evidence = evidence;
        let for_all = pool.question.is_for_all();
        let period = period(rules);

        let present: std::collections::HashSet<&str> = pods.iter().map(|p| p.uid.as_str()).collect();
        pool.pods.retain(|uid, pod| {
            let stays = present.contains(&**uid);
            state.kept -= usize::from(!stays && pod.kept.is_some());
            stays
        });
        let mut fresh: Vec<Arc<str>> = Vec::new();
        for candidate in pods {
            if let Some(pod) = pool.pods.get_mut(candidate.uid.as_str()) {
                if candidate.able && !pod.able && for_all {
                    fresh.push(candidate.uid.as_str().into());
                }
                pod.able |= candidate.able;
                pod.target = candidate.target;
                continue;
            }
            // Redis may know of a pod that is not Ready; the pod itself cannot be asked before.
            if !for_all && !candidate.able {
                continue;
            }
            let uid: Arc<str> = candidate.uid.into();
            fresh.push(uid.clone());
            let pod = AskedPod {
                target: candidate.target,
                able: candidate.able,
                answers: Answers::default(),
                evidence: None,
                kept: None,
                serial: 0,
                under_way: false,
                told: None,
            };
            pool.pods.insert(uid, pod);
        }

        let known = Known {
            answers: pool.pods.iter().map(|(uid, p)| (uid.to_string(), p.answers.clone())).collect(),
            evidence: pool
                .pods
                .iter()
                .filter_map(|(uid, p)| Some((uid.to_string(), p.evidence.clone()?)))
                .collect(),
        };
        if !fresh.is_empty() {
            if for_all && !pool.soon {
                state.serial += 1;
                pool.serial = state.serial;
                pool.soon = true;
                let at = now + TOGETHER;
                state.due.push(Reverse(Due { at, since: at, serial: pool.serial, owner, pod: None }));
            } else if !for_all {
                let many = fresh.len() > AT_ONCE;
                for uid in fresh {
                    let spread = if many { share(&uid, SPREAD.min(period)) } else { Duration::ZERO };
                    state.serial += 1;
                    let serial = state.serial;
                    if let Some(pod) = pool.pods.get_mut(&uid) {
                        pod.serial = serial;
                    }
                    let at = now + spread;
                    let owner = owner.clone();
                    state.due.push(Reverse(Due { at, since: at, serial, owner, pod: Some(uid) }));
                }
            }
            self.news.notify_one();
        }
        known
    }

    /// Asks no longer about an owner's pods.
    pub fn forget(&self, owner: &str) {
        forget(&mut self.state(), owner);
    }

    /// Asks a pod once more, at once: before it is removed.
    pub async fn ask_now(&self, owner: &str, uid: &str, question: &Question, target: &Target) -> Finding {
        // It is never closed.
        let _room = self.last.acquire().await;
        let kept = {
            let mut state = self.state();
            let state = &mut *state;
            let pod = state.pools.get_mut(owner).and_then(|pool| pool.pods.get_mut(uid));
            let kept = pod.and_then(|pod| pod.kept.take());
            state.kept -= usize::from(kept.is_some());
            kept
        };
        let asked = Timestamp::now();
        let (mut findings, kept) = self.ask(question, std::slice::from_ref(target), kept).await;
        let finding = findings.pop().unwrap_or_else(|| Finding::none("no answer"));
        self.note(owner, question, asked, vec![(uid.into(), finding.clone())], kept, false);
        finding
    }

    /// The answers of a pod.
    pub fn answers(&self, owner: &str, uid: &str) -> Option<Answers> {
        Some(self.state().pools.get(owner)?.pods.get(uid)?.answers.clone())
    }

    /// Asks until told to stop.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let (jobs, next) = self.take_due(Instant::now());
            for job in jobs {
                tokio::spawn(self.clone().carry_out(job));
            }
            let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.news.notified() => {}
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }

    /// What is due and has room, and when the next question is due.
    fn take_due(&self, now: Instant) -> (Vec<Job>, Option<Instant>) {
        let mut state = self.state();
        let state = &mut *state;
        let mut jobs = Vec::new();
        while state.due.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = state.due.pop() else { break };
            let Some(pool) = state.pools.get_mut(&due.owner) else { continue };
            let period = period(pool.rules);
            let (serial, under_way) = match &due.pod {
                None => (pool.serial, pool.under_way),
                Some(uid) => match pool.pods.get(uid) {
                    Some(pod) => (pod.serial, pod.under_way),
                    None => continue,
                },
            };
            if serial != due.serial {
                continue;
            }
            let room = match pool.question {
                Question::Exec(_) => &self.commands,
                Question::Http(_) | Question::Redis(_) => &self.requests,
            };
            let room = if under_way { None } else { room.clone().try_acquire_owned().ok() };
            let Some(room) = room else {
                let mode = pool.question.mode();
                let again = now + NO_ROOM;
                let due = if again < due.since + period / 2 && !under_way {
                    Due { at: again, ..due }
                } else {
                    self.metrics.left_out(mode, if under_way { "under-way" } else { "no-room" });
                    next(due, period, now)
                };
                // What was known of these pods may have grown too old.
                let rules = pool.rules;
                let changes = match &due.pod {
                    None => {
                        pool.pods.values_mut().filter_map(|pod| changed(pod, rules).then_some(())).count()
                    }
                    Some(uid) => usize::from(pool.pods.get_mut(uid).is_some_and(|pod| changed(pod, rules))),
                };
                if changes > 0 {
                    self.changed.unbounded_send(due.owner.clone()).ok();
                }
                state.due.push(Reverse(due));
                continue;
            };
            let late = now.duration_since(due.since);
            self.metrics.asked_after(late);
            for _ in 0..late.as_nanos() / period.as_nanos() {
                self.metrics.left_out(pool.question.mode(), "late");
            }
            let (pods, kept) = match &due.pod {
                None => {
                    pool.under_way = true;
                    pool.soon = false;
                    (pool.pods.iter().map(|(uid, p)| (uid.clone(), p.target.clone())).collect(), None)
                }
                Some(uid) => match pool.pods.get_mut(uid) {
                    None => continue,
                    Some(pod) => {
                        pod.under_way = true;
                        let kept = pod.kept.take();
                        state.kept -= usize::from(kept.is_some());
                        (vec![(uid.clone(), pod.target.clone())], kept)
                    }
                },
            };
            let (owner, question) = (due.owner.clone(), pool.question.clone());
            jobs.push(Job { owner, question, pods, kept, _room: room });
            state.due.push(Reverse(next(due, period, now)));
        }
        (jobs, state.due.peek().map(|Reverse(due)| due.at))
    }

    async fn carry_out(self: Arc<Self>, job: Job) {
        let asked = Timestamp::now();
        let (uids, targets): (Vec<_>, Vec<_>) = job.pods.into_iter().unzip();
        let (findings, kept) = self.ask(&job.question, &targets, job.kept).await;
        let findings = uids.into_iter().zip(findings).collect();
        self.note(&job.owner, &job.question, asked, findings, kept, true);
    }

    /// Takes in what was found, and tells the pool if that changes anything. `due`: it was this pool's or pod's
    /// turn, which is over now.
    fn note(
        &self,
        owner: &str,
        question: &Question,
        asked: Timestamp,
        findings: Vec<(Arc<str>, Finding)>,
        kept: Option<Kept>,
        due: bool,
    ) {
        let mut state = self.state();
        let state = &mut *state;
        let Some((owner, _)) = state.pools.get_key_value(owner) else { return };
        let owner = owner.clone();
        let Some(pool) = state.pools.get_mut(&owner).filter(|pool| &pool.question == question) else {
            return;
        };
        if due {
            pool.under_way = false;
        }
        let mut news = false;
        let mut kept = kept;
        for (uid, finding) in findings {
            self.metrics.answered(question.mode(), finding.answer.outcome);
            let Some(pod) = pool.pods.get_mut(&uid) else { continue };
            if due {
                pod.under_way = false;
            }
            if state.kept < self.kept
                && pod.kept.is_none()
                && let Some(kept) = kept.take()
            {
                pod.kept = Some(kept);
                state.kept += 1;
            }
            pod.answers.note(finding.answer, asked);
            if pool.evidence {
                news |= pod.evidence.as_ref() != Some(&finding.evidence);
                pod.evidence = Some(finding.evidence);
            } else {
                pod.evidence = None;
            }
            news |= changed(pod, pool.rules);
        }
        if news {
            // It fails only when nobody decides any more.
            self.changed.unbounded_send(owner).ok();
        }
    }

    /// Asks, and gives one finding for each pod.
    async fn ask(
        &self,
        question: &Question,
        targets: &[Target],
        kept: Option<Kept>,
    ) -> (Vec<Finding>, Option<Kept>) {
        let began = Instant::now();
        let Some(first) = targets.first() else { return (Vec::new(), None) };
        let (findings, kept) = match question {
            Question::Http(http) => {
                let (finding, kept) = self.http.ask(http, first, kept).await;
                (vec![finding], kept)
            }
            Question::Exec(exec) => (vec![exec_probe::ask(&self.client, exec, first).await], None),
            Question::Redis(redis) => (self.redis.ask(redis, &first.namespace, targets).await, None),
        };
        self.metrics.took(question.mode(), began.elapsed());
        (findings, kept)
    }
}

/// What a pod's answers come to is not what the pool was told, or there is another reason for having none.
fn changed(pod: &mut AskedPod, rules: Rules) -> bool {
    let standing = pod.answers.standing(rules, Timestamp::now());
    let mut why = DefaultHasher::new();
    if standing == Standing::Lost {
        pod.answers.words(standing).hash(&mut why);
    }
    let now = (standing, why.finish());
    let changed = pod.told.map_or(standing != Standing::NotYet, |told| told != now);
    pod.told = Some(now);
    changed
}

fn forget(state: &mut State, owner: &str) {
    if let Some(pool) = state.pools.remove(owner) {
        state.kept -= pool.pods.values().filter(|pod| pod.kept.is_some()).count();
    }
}

fn period(rules: Rules) -> Duration {
    // Periods are whole seconds, and at least one.
    Duration::try_from(rules.period).unwrap_or(Duration::from_secs(10))
}

/// The next turn: always the same moments within the period for the same pod.
fn next(due: Due, period: Duration, now: Instant) -> Due {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let phase = share(due.pod.as_deref().unwrap_or(&due.owner), period).as_nanos();
    let (passed, period) = (now.saturating_duration_since(*BEGAN).as_nanos(), period.as_nanos());
    let turns = if passed < phase { 0 } else { (passed - phase) / period + 1 };
    // 64 bits of nanoseconds are 584 years.
    let at = *BEGAN + Duration::from_nanos(u64::try_from(phase + turns * period).unwrap_or(u64::MAX));
    Due { at, since: at, ..due }
}

/// A part of a span that is another one for each name.
fn share(name: &str, span: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    Duration::from_nanos(hasher.finish() % u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).max(1))
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
