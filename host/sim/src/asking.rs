//! Pods that are asked (modes http, exec and redis): what they do, which is not written on them; what they say of it,
//! late, unclearly or not at all; and an operator's part of it, which loses all answers when it starts anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stoker_api::RedisWords;
use stoker_core::asked::{Answer, Answers, Outcome, Rules, Standing};
use stoker_core::claims;
use stoker_core::last_word;
use stoker_core::pool::{Memory, RemovalReason};
use stoker_core::verdict::{Judgement, Verdict, ever_ready, judge_asked, remember};
use stoker_core::{Phase, PodView};

use crate::store::Store;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each pod, by HTTP.
    Http,
    /// Each pod, by a command.
    Exec,
    /// One hash of Redis for all of them, into which pods write.
    Redis,
}

/// How a pod answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// By what it does.
    #[default]
    True,
    /// Never.
    Hangs,
    /// Nobody listens.
    Dead,
    /// With what says nothing.
    Junk,
}

/// How a pool's pods are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Who is asked.
    pub mode: Mode,
    /// How answers are taken.
    pub rules: Rules,
    /// How long an answer is waited for.
    pub timeout: SignedDuration,
    /// Pods tell Redis when they wrote.
    pub stamped: bool,
}

/// What a pod wrote into Redis.
#[derive(Clone, Debug)]
struct Written {
    uid: String,
    /// By the kubelet's clock, if it says so.
    stamp: Option<i64>,
    value: Vec<u8>,
}

/// What the pods truly do, and what they say.
#[derive(Clone, Debug)]
pub struct Servers {
    /// How they are asked.
    pub asking: Asking,
    /// Nobody answers at all.
    pub out: bool,
    /// Since when pods are at work, by UID.
    busy: HashMap<String, Timestamp>,
    manners: HashMap<String, Manner>,
    /// Pods that were Ready at some time, by UID.
    ready: BTreeSet<String>,
    /// What Redis holds, by the pods' names.
    hash: HashMap<String, Written>,
    words: RedisWords,
}

impl Servers {
    /// Nobody is at work, and all tell the truth.
    pub fn new(asking: Asking) -> Self {
        Self {
            asking,
            out: false,
            busy: HashMap::new(),
            manners: HashMap::new(),
            ready: BTreeSet::new(),
            hash: HashMap::new(),
            words: RedisWords::default(),
        }
    }

    /// Since when a pod is at work.
    pub fn busy_since(&self, uid: &str) -> Option<Timestamp> {
        self.busy.get(uid).copied()
    }

    /// A pod was Ready at some time.
    pub fn was_ready(&self, uid: &str) -> bool {
        self.ready.contains(uid)
    }

    /// Takes notice of pods that have become Ready: only those are given work, and they write that they are free.
    pub fn notice(&mut self, pods: &Store<PodView>, kubelet: Timestamp) {
        for pod in pods.iter().filter(|p| p.ready()) {
            if self.ready.insert(pod.uid.clone()) {
                self.write(pod, kubelet);
            }
        }
    }

    /// A pod takes up work or has done it.
    pub fn works(&mut self, pod: &PodView, busy: bool, now: Timestamp, kubelet: Timestamp) {
        if !self.was_ready(&pod.uid) || pod.phase.is_terminal() {
            return;
        }
        if busy {
            self.busy.entry(pod.uid.clone()).or_insert(now);
        } else {
            self.busy.remove(&pod.uid);
        }
        self.write(pod, kubelet);
    }

    /// A pod answers otherwise from now on.
    pub fn behaves(&mut self, pod: &PodView, manner: Manner, kubelet: Timestamp) {
        self.manners.insert(pod.uid.clone(), manner);
        self.write(pod, kubelet);
    }

    /// A pod writes into Redis what it does.
    pub fn write(&mut self, pod: &PodView, kubelet: Timestamp) {
        let status = match (self.manner(&pod.uid), self.busy.contains_key(&pod.uid)) {
            // What is there stays there.
            (Manner::Hangs | Manner::Dead, false) => return,
            (Manner::Junk, _) => "error",
            (_, true) => "busy",
            (Manner::True, false) => "idle",
        };
        let stamp = self.asking.stamped.then(|| kubelet.as_second());
        let at = stamp.map(|at| format!(r#","updated_at":{at}"#)).unwrap_or_default();
        let value = format!(r#"{{"status":"{status}"{at}}}"#).into_bytes();
        self.hash.insert(pod.name.clone(), Written { uid: pod.uid.clone(), stamp, value });
    }

    /// Redis loses all that it holds.
    pub fn flush(&mut self) {
        self.hash.clear();
    }

    /// Everybody answers and tells the truth again.
    pub fn heal(&mut self, pods: &Store<PodView>, kubelet: Timestamp) {
        self.out = false;
        self.manners.clear();
        for pod in pods.iter().filter(|p| self.ready.contains(&p.uid)).cloned().collect::<Vec<_>>() {
            self.write(&pod, kubelet);
        }
    }

    fn manner(&self, uid: &str) -> Manner {
        self.manners.get(uid).copied().unwrap_or_default()
    }

    /// What Redis holds under a pod's name is another's, from before that pod was made, and says so.
    fn is_a_namesakes(&self, seen: &PodView) -> bool {
        let older = |at: i64| at < seen.created.as_second();
        let written = self.hash.get(&seen.name).filter(|_| self.asking.mode == Mode::Redis);
        written.is_some_and(|w| w.uid != seen.uid && w.stamp.is_some_and(older))
    }

    /// What comes back when a pod is asked that somebody saw; `truly` is that pod as it is now. None = nothing ever.
    fn reply(&self, seen: &PodView, truly: Option<&PodView>) -> Option<Answer> {
        if self.out {
            return None;
        }
        if self.asking.mode == Mode::Redis {
            let value = self.hash.get(&seen.name).map(|written| written.value.as_slice());
            return Some(Answer::redis(value, &self.words, seen.created));
        }
        let Some(pod) = truly.filter(|p| p.phase == Phase::Running) else {
            return Some(Answer::unclear("connection refused"));
        };
        if pod.condition("Ready").is_some_and(|c| c.status == "Unknown") {
            return None;
        }
        let busy = self.busy.contains_key(&pod.uid);
        let http = self.asking.mode == Mode::Http;
        match self.manner(&pod.uid) {
            Manner::Hangs => None,
            Manner::Dead => Some(Answer::unclear("connection refused")),
            Manner::Junk if http => Some(Answer::http(500, true)),
            Manner::Junk => Some(Answer::exec(127, true)),
            Manner::True if http => Some(Answer::http(if busy { 200 } else { 503 }, true)),
            Manner::True => Some(Answer::exec(i32::from(!busy), true)),
        }
    }
}

/// A question that was sent.
#[derive(Clone, Debug)]
struct Question {
    uid: String,
    /// By the operator's clock.
    asked: Timestamp,
    /// In true time.
    sent: Timestamp,
    /// None = nothing ever comes.
    reply: Option<Answer>,
    /// What comes is about another pod of the name.
    of_a_namesake: bool,
}

impl Question {
    /// What its answer is, should it come now.
    fn answer(&self, timeout: SignedDuration, now: Timestamp) -> Answer {
        let reply = self.reply.clone().filter(|_| now.duration_since(self.sent) <= timeout);
        reply.unwrap_or_else(|| Answer::unclear("no answer in time"))
    }
}

/// What was heard of a pod, noted without the code under test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The last clear answer, and when it was asked for, by the operator's clock.
    pub clear: Option<(Outcome, Timestamp)>,
    /// Unclear answers since.
    pub unclear: u32,
    /// What was about another pod of the name was taken for an answer.
    pub namesake: bool,
    /// The pod was seen Ready.
    pub ready: bool,
    /// The verdict of the look before.
    pub before: Option<Verdict>,
}

/// What a look knew of pods that are asked.
#[derive(Clone, Debug)]
pub struct Hearing {
    /// How answers are taken.
    pub rules: Rules,
    /// When it was, by the operator's clock.
    pub now: Timestamp,
    /// What was heard of each pod, by UID.
    pub heard: BTreeMap<String, Heard>,
}

/// The last word of a pod before its removal.
#[derive(Clone, Debug)]
pub struct LastWord {
    /// The pod.
    pub uid: String,
    /// When it was asked, in true time.
    pub sent: Timestamp,
    /// What it said.
    pub answer: Answer,
}

/// An operator's part.
#[derive(Clone, Debug)]
pub struct Prober {
    asking: Asking,
    answers: HashMap<String, Answers>,
    heard: BTreeMap<String, Heard>,
    under_way: Vec<Question>,
    /// Last questions before removals, by the member's UID.
    last: HashMap<String, Vec<Question>>,
    /// What a look was asked for on account of.
    told: HashMap<String, Standing>,
}

impl Prober {
    /// Nothing was asked yet.
    pub fn new(asking: Asking) -> Self {
        Self {
            asking,
            answers: HashMap::new(),
            heard: BTreeMap::new(),
            under_way: Vec::new(),
            last: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Asks a pod that was seen, unless it is being asked, or never was Ready and cannot be.
    pub fn ask(&mut self, seen: &PodView, world: &World<'_>, memory: &Memory, clock: SignedDuration) {
        let able = self.asking.mode == Mode::Redis || ever_ready(seen, memory.pods.get(&seen.uid));
        if able && seen.alive() && !self.under_way.iter().any(|q| q.uid == seen.uid) {
            self.under_way.push(world.question(seen, clock));
        }
    }

    /// Hears the answer to some question, chosen by a number, if one comes or it is too late for it. Tells whether that
    /// asks for a look.
    pub fn hear(&mut self, choice: usize, now: Timestamp, clock: SignedDuration) -> bool {
        let Some(index) = choice.checked_rem(self.under_way.len()) else { return false };
        let waits = |q: &Question| q.reply.is_none() && now.duration_since(q.sent) <= self.asking.timeout;
        if self.under_way.get(index).is_none_or(waits) {
            return false;
        }
        let question = self.under_way.remove(index);
        let answer = question.answer(self.asking.timeout, now);
        self.note(&question, answer, now + clock)
    }

    /// Hears the answers to all questions, waiting as long as it takes.
    pub fn hear_all(&mut self, now: Timestamp, clock: SignedDuration) -> bool {
        let mut news = false;
        for question in std::mem::take(&mut self.under_way) {
            let answer = question.answer(self.asking.timeout, now);
            news |= self.note(&question, answer, now + clock);
        }
        news
    }

    fn note(&mut self, question: &Question, answer: Answer, now: Timestamp) -> bool {
        let heard = self.heard.entry(question.uid.clone()).or_default();
        heard.namesake |= question.of_a_namesake && answer.outcome != Outcome::Unclear;
        match answer.outcome {
            Outcome::Unclear => heard.unclear += 1,
            outcome => (heard.clear, heard.unclear) = (Some((outcome, question.asked)), 0),
        }
        let answers = self.answers.entry(question.uid.clone()).or_default();
        answers.note(answer, question.asked);
        let standing = answers.standing(self.asking.rules, now);
        let before = self.told.insert(question.uid.clone(), standing);
        before.map_or(standing != Standing::NotYet, |before| before != standing)
    }

    /// Judges pods and remembers it.
    pub(crate) fn judge(
        &mut self,
        pods: &[PodView],
        rules: claims::Rules,
        memory: &mut Memory,
        now: Timestamp,
    ) -> (Hearing, claims::Seen) {
        let present: BTreeSet<&str> = pods.iter().map(|p| p.uid.as_str()).collect();
        self.answers.retain(|uid, _| present.contains(uid.as_str()));
        self.heard.retain(|uid, _| present.contains(uid.as_str()));
        self.told.retain(|uid, _| present.contains(uid.as_str()));
        let asking = self.asking.rules;
        let one =
            |p: &PodView| judge_asked(p, asking, self.answers.get(&p.uid), memory.pods.get(&p.uid), now);
        let by_probe: Vec<Judgement> = pods.iter().map(one).collect();
        let mut judged = by_probe.clone();
        let claims = claims::judge(pods, &mut judged, rules, now);
        remember(&mut memory.pods, pods, &judged, &by_probe, now);
        let mut heard = BTreeMap::new();
        for (pod, judgement) in pods.iter().zip(&judged) {
            let known = self.heard.entry(pod.uid.clone()).or_default();
            known.ready |= pod.ready();
            heard.insert(pod.uid.clone(), *known);
            known.before = Some(judgement.verdict);
        }
        (Hearing { rules: asking, now, heard }, claims)
    }

    /// Asks the pods of a member that is about to go once more, unless that is done.
    pub(crate) fn ask_last(
        &mut self,
        member: &str,
        reason: RemovalReason,
        pods: &[PodView],
        world: &World<'_>,
        memory: &Memory,
        clock: SignedDuration,
    ) {
        if !self.last.contains_key(member) {
            let asked = pods.iter().filter(|p| last_word::has_one(reason, p, memory.pods.get(&p.uid)));
            let questions = asked.map(|p| world.question(p, clock)).collect();
            self.last.insert(member.to_owned(), questions);
        }
    }

    /// What they said, and whether the member goes.
    pub(crate) fn last_words(
        &mut self,
        member: &str,
        now: Timestamp,
        clock: SignedDuration,
    ) -> (Vec<LastWord>, bool) {
        let mut words = Vec::new();
        for question in self.last.remove(member).unwrap_or_default() {
            let answer = question.answer(self.asking.timeout, now);
            self.note(&question, answer.clone(), now + clock);
            words.push(LastWord { uid: question.uid, sent: question.sent, answer });
        }
        let goes = words.iter().all(|word| last_word::lets_go(&word.answer));
        (words, goes)
    }

    /// A plan is over: nobody waits for what is left to hear.
    pub(crate) fn end_plan(&mut self) {
        self.last.clear();
    }
}

/// Those who are asked, at a moment.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What they say.
    pub servers: &'a Servers,
    /// The pods as they are.
    pub pods: &'a Store<PodView>,
    /// The true time.
    pub now: Timestamp,
}

impl World<'_> {
    fn question(&self, seen: &PodView, clock: SignedDuration) -> Question {
        let truly = self.pods.by_uid(&seen.uid).map(Arc::as_ref);
        let reply = self.servers.reply(seen, truly);
        let of_a_namesake = self.servers.is_a_namesakes(seen);
        Question { uid: seen.uid.clone(), asked: self.now + clock, sent: self.now, reply, of_a_namesake }
    }
}
