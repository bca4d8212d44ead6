//! The simulation: from one event to the next, the world moves, and the operator looks.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stoker_core::PodView;
use stoker_core::pool::decision::decide;
use stoker_core::pool::{Action, Asked, Counts, Memory, Settings, Snapshot, plan};
use stoker_core::verdict::{Judgement, judge, remember};
use stoker_operator::rehearsal::{self, Demand, Pool, ScalingContext};
use stoker_policy::contract::scaling::{Decision, Signal};
use stoker_policy::{Limits, Policy, PolicyHost};
use stoker_sim::pods;

use crate::best::best;
use crate::chance::Chance;
use crate::load::{Load, Request};
use crate::outcome::{Outcome, Point, Tally};
use crate::startup::Startup;

/// Samples of the past that a policy gets to see.
const HISTORY: usize = 64;

/// In milliseconds. What a policy wishes for later is looked at again by then.
const DAY: u64 = 86_400_000;

/// Looks in a row at one moment: each follows from what the one before did.
const LOOKS: usize = 100;

/// Who decides the size.
#[derive(Clone)]
pub enum Decider {
    /// The documented formula.
    Formula,
    /// A policy, with its config as a JSON text.
    Policy(Arc<Policy>, String),
}

/// What a simulation consists of, beside the load.
pub struct Setup {
    /// The pool's object: its bounds and settings hold.
    pub pool: Pool,
    /// Where policies are asked.
    pub host: PolicyHost,
    /// How long pods take to start.
    pub startup: Startup,
    /// Requests are claims: those that wait are known to the operator.
    pub claims: bool,
    /// The seed of what happens by chance.
    pub seed: u64,
}

/// A pod, as it really is.
struct Member {
    view: PodView,
    ready_at: Timestamp,
    /// Until when it is at work.
    until: Option<Timestamp>,
}

/// The world and its operator.
struct World<'a> {
    setup: &'a Setup,
    decider: &'a Decider,
    pool: Pool,
    settings: Settings,
    hash: String,
    now: Timestamp,
    chance: Chance,
    members: Vec<Member>,
    /// Requests that wait, in the order in which they came.
    waiting: VecDeque<Request>,
    made: usize,
    gone: HashSet<String>,
    memory: Memory,
    history: VecDeque<(Timestamp, u32, u32)>,
    state: Vec<u8>,
    /// Claims that found no standby since the policy answered last.
    missed: u32,
    target: u32,
    /// The operator looks then, even if nothing happens.
    wake: Option<Timestamp>,
    tally: Tally,
}

/// Runs a load over a pool that had an hour to fill. `told` is called now and then with the share that is done.
pub async fn run(
    setup: &Setup,
    load: &Load,
    name: &str,
    decider: &Decider,
    mut told: impl FnMut(f64),
) -> Outcome {
    let (begins, ends) = load.span();
    let mut world = World::new(setup, decider, begins - SignedDuration::from_hours(1));
    let mut coming = load.requests.iter().copied().peekable();
    world.look().await;
    let (span, mut done) = (ends.duration_since(begins).as_secs_f64().max(1.0), 0.0);
    loop {
        let arrives = coming.peek().map(|request| request.at);
        let Some(next) = [arrives, world.next()].into_iter().flatten().min().filter(|at| *at <= ends) else {
            break;
        };
        let counts = next >= begins;
        if counts && world.now < begins {
            // What the filling cost is not the load's.
            world.pass_to(begins, false);
        }
        world.pass_to(next, counts);
        world.moves();
        while let Some(request) = coming.next_if(|request| request.at <= next) {
            world.comes(request);
        }
        world.serves();
        world.look().await;
        let share = next.duration_since(begins).as_secs_f64() / span;
        if share >= done + 0.01 {
            done = share;
            told(share.min(1.0));
        }
    }
    if world.now < ends {
        world.pass_to(ends, true);
        world.moves();
    }
    let unserved = world.waiting.len();
    let best = best(load, setup.startup.p50, matches!(setup.pool, Pool::Jobs(_)));
    world.tally.finish((&load.name, name), unserved, ends.duration_since(begins), &best)
}

/// When the policy is to be asked again, even if nothing happens: as it wishes, and when its answer counts no longer.
fn asks_again(decision: &Decision, now: Timestamp) -> Option<Timestamp> {
    let left = |until: i64| until.saturating_sub(now.as_millisecond()).max(0) as u64;
    let wake = [decision.wake_after, decision.valid_until.map(left)].into_iter().flatten().min()?;
    Some(now + SignedDuration::from_millis(wake.clamp(1000, DAY) as i64))
}

impl<'a> World<'a> {
    fn new(setup: &'a Setup, decider: &'a Decider, now: Timestamp) -> Self {
        let pool = setup.pool.clone();
        Self {
            settings: rehearsal::settings(&pool),
            hash: pool.template_hash(),
            pool,
            setup,
            decider,
            now,
            chance: Chance::new(setup.seed),
            members: Vec::new(),
            waiting: VecDeque::new(),
            made: 0,
            gone: HashSet::new(),
            memory: Memory::default(),
            history: VecDeque::new(),
            state: Vec::new(),
            missed: 0,
            target: 0,
            wake: None,
            tally: Tally::default(),
        }
    }

    /// When something happens next, unless a request comes before.
    fn next(&self) -> Option<Timestamp> {
        let of_members = self.members.iter().filter_map(|member| {
            let starts = (!member.view.ready()).then_some(member.ready_at);
            starts.or(member.until)
        });
        of_members.chain(self.wake.map(|wake| wake.max(self.now))).min()
    }

    fn busy(&self) -> usize {
        self.members.iter().filter(|member| member.until.is_some()).count()
    }

    fn pass_to(&mut self, now: Timestamp, counts: bool) {
        if counts {
            let busy = self.busy();
            self.tally.pass(now.duration_since(self.now), self.members.len(), busy);
        }
        self.now = now;
        if self.wake.is_some_and(|wake| wake <= now) {
            self.wake = None;
        }
    }

    /// Pods become Ready, and requests end.
    fn moves(&mut self) {
        let mut ended = Vec::new();
        for member in &mut self.members {
            if !member.view.ready() && member.ready_at <= self.now {
                pods::make_ready(&mut member.view, self.now);
            }
            if member.until.is_some_and(|until| until <= self.now) {
                member.until = None;
                member.view.annotations.remove(pods::BUSY);
                ended.push(member.view.uid.clone());
            }
        }
        // A Job serves one request, and is complete then.
        if matches!(self.pool, Pool::Jobs(_)) {
            self.members.retain(|member| !ended.contains(&member.view.uid));
            self.gone.extend(ended);
        }
    }

    /// A request comes. It waits if there is no standby.
    fn comes(&mut self, request: Request) {
        let free = self.members.iter().filter(|member| member.view.ready() && member.until.is_none()).count();
        if free <= self.waiting.len() {
            self.tally.misses += 1;
            self.missed = self.missed.saturating_add(1);
        }
        self.waiting.push_back(request);
    }

    /// Those that wait take what is free, first come, first served.
    fn serves(&mut self) {
        for member in &mut self.members {
            if !member.view.ready() || member.until.is_some() {
                continue;
            }
            let Some(request) = self.waiting.pop_front() else { break };
            self.tally.waits.push(self.now.duration_since(request.at).as_millis() as i64);
            member.until = Some(self.now + request.lasts);
            member.view.annotations.insert(pods::BUSY.to_owned(), "true".to_owned());
        }
    }

    /// The operator looks, and again after what it did, as its watches ask it to.
    async fn look(&mut self) {
        for _ in 0..LOOKS {
            if !self.look_once().await {
                break;
            }
            self.serves();
        }
        let busy = self.busy();
        let ready = self.members.iter().filter(|member| member.view.ready()).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.tally.most_pods = self.tally.most_pods.max(count(self.members.len()));
        self.tally.note(Point {
            at: self.now,
            demand: count(busy + self.waiting.len()),
            busy: count(busy),
            standby: count(ready - busy),
            starting: count(self.members.len() - ready),
            target: self.target,
        });
    }

    /// One look in the operator's order: judge, remember, count, ask, decide, plan, act. Whether it did anything.
    async fn look_once(&mut self) -> bool {
        self.tally.looks += 1;
        let now = self.now;
        let shown = self.members.iter().map(|member| member.view.clone()).collect();
        let gone = &self.gone;
        let seen = self.memory.see(shown, |uid| gone.contains(uid), now);
        let probe = &self.pool.spec().busy_probe;
        let judged: Vec<Judgement> =
            seen.iter().map(|pod| judge(pod, probe, self.memory.pods.get(&pod.uid))).collect();
        remember(&mut self.memory.pods, &seen, &judged, &judged, now);
        self.memory.startups.note(&seen);
        let memories = self.memory.pods.clone();
        let snapshot = Snapshot { pods: &seen, memories: &memories };
        let demand = self.demand();
        let counts = Counts { waiting: demand.waiting, ..snapshot.counts() };
        let (asked, wake) = self.ask(snapshot, &counts, demand).await;
        let decision = decide(asked, &counts, self.pool.bounds(), self.memory.last_good);
        let plan = plan(snapshot, &counts, &decision, &self.settings, &mut self.memory, now);
        self.target = decision.applied;
        let sample = (counts.busy_for_sizing, counts.current);
        if self.history.back().is_none_or(|(_, busy, total)| (*busy, *total) != sample) {
            self.history.push_back((now, sample.0, sample.1));
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        // As the operator does, a moment after what it waits for.
        let later = |at: Timestamp| at.max(now) + SignedDuration::from_millis(1);
        self.wake = [plan.wake_at, wake].into_iter().flatten().map(later).min();
        let mut acted = false;
        for action in plan.actions {
            acted |= self.act(action);
        }
        acted
    }

    fn demand(&self) -> Demand {
        if !self.setup.claims {
            return Demand::default();
        }
        let oldest = self.waiting.front().map(|request| self.now.duration_since(request.at));
        Demand {
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            misses: self.missed,
            oldest_wait: oldest.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default(),
        }
    }

    async fn ask(
        &mut self,
        snapshot: Snapshot<'_>,
        counts: &Counts,
        demand: Demand,
    ) -> (Asked, Option<Timestamp>) {
        let Decider::Policy(policy, config) = self.decider else { return (Asked::Formula, None) };
        let history: Vec<_> = self.history.iter().copied().collect();
        // What waits is all that there is to measure here: each signal is that.
        let value = f64::from(u32::try_from(self.waiting.len()).unwrap_or(u32::MAX));
        let signal =
            |signal: &stoker_api::Signal| Signal { name: signal.name.clone(), value: Ok(value), age: 0 };
        let signals: Vec<Signal> = self.pool.spec().signals.iter().map(signal).collect();
        let input = rehearsal::scaling_input(
            snapshot,
            &ScalingContext {
                pool: &self.pool,
                config,
                counts,
                demand,
                template_hash: &self.hash,
                previous: self.memory.previous.as_ref(),
                history: &history,
                startup: self.memory.startups.times(),
                signals: &signals,
                state: &self.state,
                now: self.now,
            },
        );
        match self.setup.host.scale(policy, Limits::default(), input).await {
            Ok(answer) => {
                let asked = rehearsal::asked(snapshot, &answer.value);
                let wake = asks_again(&answer.value, self.now);
                self.state = answer.value.state;
                self.missed = 0;
                (asked, wake)
            }
            Err(error) => {
                self.tally.failures += 1;
                self.tally.error.get_or_insert_with(|| error.to_string());
                (Asked::Failed { error: error.to_string() }, None)
            }
        }
    }

    /// Does what was planned. Whether that changed anything.
    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Create { slot } => {
                self.made += 1;
                self.tally.created += 1;
                let mut view = pods::pod(slot, self.now);
                view.uid = format!("pod-{}", self.made);
                view.created = self.now;
                view.template_hash = Some(self.hash.clone());
                let ready_at = self.now + self.setup.startup.draw(&mut self.chance);
                self.members.push(Member { view, ready_at, until: None });
                true
            }
            Action::Remove { uid, .. } => {
                let before = self.members.len();
                let at_work = |member: &&Member| member.view.uid == uid && member.until.is_some();
                self.tally.interrupted += self.members.iter().filter(at_work).count();
                self.members.retain(|member| member.view.uid != uid);
                self.tally.removed += before - self.members.len();
                self.gone.insert(uid);
                before != self.members.len()
            }
            // Marks tell others what a pod does; nobody reads them here.
            Action::Mark { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_time_a_policy_names_it_is_asked_again_within_a_day() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |wake_after, valid_until| {
            let decision = Decision {
                desired: 1,
                reason: String::new(),
                victims: Vec::new(),
                wake_after,
                valid_until,
                state: Vec::new(),
                extensions: Vec::new(),
            };
            asks_again(&decision, now).map(|at| at.as_second())
        };
        assert_eq!(after(None, None), None);
        assert_eq!(after(Some(60_000), Some(30_000)), Some(30));
        assert_eq!(after(None, Some(i64::MAX)), Some(86_400));
        assert_eq!(after(None, Some(i64::MIN)), Some(1));
        assert_eq!(after(Some(u64::MAX), None), Some(86_400));
    }
}
