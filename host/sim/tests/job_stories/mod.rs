//! What can happen in a story of a pool of Jobs, how it happens in the simulated cluster, and what must hold of it.
#![allow(dead_code)]

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::seeds::tell;
use crate::stories::{fate, says, seconds, spec};
use jiff::SignedDuration;
use proptest::prelude::*;
use stoker_api::keys;
use stoker_core::PodView;
use stoker_core::pool::RemovalReason;
use stoker_core::pool::jobs::History;
use stoker_sim::jobs::{Done, Write};
use stoker_sim::pods::{BUSY, end, set, start};
use stoker_sim::{Clocks, Fate, JobCluster, Look, Says, Spec, Work, promises};

/// How late a watch is at most, and an operator in carrying out its plan, where only names keep two operators from
/// making the same Job twice, and where an operator's belief in its own doings must not end before.
pub const LATE: SignedDuration = SignedDuration::from_secs(10);

/// One thing that happens. Jobs, pods, nodes and operators are chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
pub enum Happens {
    Time(i64),
    Controlled(usize),
    Reported(usize),
    Collected,
    Expires(usize),
    JobDeleted(usize),
    Scheduled(usize, usize),
    Ready(usize),
    Unready(usize),
    Flips(usize, &'static str),
    Ends(usize, bool),
    PodDeleted(usize),
    Gone(usize),
    Forced(usize),
    Cordoned(usize, bool),
    NodeLost(usize, bool),
    NodeRemoved(usize),
    NodeJoins(usize),
    Respecified(Spec),
    Policy(Says),
    Outage(bool),
    Restarts(usize),
    ClockSet(usize, i64),
    SeesJobs(usize, usize),
    SeesPods(usize, usize),
    SeesAll(usize),
    RelistsJobs(usize),
    RelistsPods(usize),
    Looks(usize),
    Acts(usize, Fate),
    ActsOn(usize, usize),
    /// A pod of the Job that the operator is about to remove takes up work.
    TurnsBusy(usize),
}

impl Happens {
    /// The spec stays, the operator hears of no node, forgets nothing and keeps its clock, and Jobs only do what they do by
    /// themselves.
    pub fn leaves_the_pool_alone(&self) -> bool {
        use Happens::{
            Acts, ActsOn, Collected, Controlled, Ends, Expires, Flips, Gone, Looks, NodeLost, Ready,
            Reported, Scheduled, SeesJobs, SeesPods, Time, TurnsBusy,
        };
        match self {
            Acts(_, fate) => !matches!(fate, Fate::Lost | Fate::Refused),
            Flips(..) | Gone(_) | Looks(_) | NodeLost(..) | Ready(_) | Scheduled(..) | Time(_) | Ends(..) => {
                true
            }
            SeesJobs(..) | SeesPods(..) | TurnsBusy(_) | ActsOn(..) => true,
            Controlled(_) | Reported(_) | Collected | Expires(_) => true,
            _ => false,
        }
    }
}

/// How it begins, and what happens then.
#[derive(Clone)]
pub struct Story {
    pub spec: Spec,
    pub work: Work,
    pub nodes: usize,
    /// How many seconds clocks are wrong: the API server's, the kubelets', the operators'.
    pub clocks: [i64; 4],
    pub history: Vec<Happens>,
}

/// A line for each thing that happens.
impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}\n{:?}\n{} nodes, clocks {:?}", self.spec, self.work, self.nodes, self.clocks)?;
        self.history.iter().try_for_each(|what| writeln!(f, "  {what:?}"))
    }
}

impl Story {
    /// The cluster in which it happens.
    pub fn begin(&self, operators: usize) -> JobCluster {
        let [api, kubelet, ahead @ ..] = self.clocks.map(SignedDuration::from_secs);
        let clocks = Clocks { api, kubelet };
        let mut cluster = JobCluster::new(self.spec, self.work, self.nodes, operators, clocks);
        for (o, clock) in cluster.operators.iter_mut().zip(ahead) {
            o.op.clock = clock;
        }
        cluster
    }
}

fn work() -> impl Strategy<Value = Work> {
    let limit = || prop::option::of(0..3u32);
    let sizes = prop_oneof![4 => Just((1, 1)), 1 => (1..4u32, 1..5u32)];
    let ttl = prop_oneof![2 => Just(None), 2 => Just(Some(0)), 2 => (0..60i64).prop_map(Some)];
    (sizes, 0..3u32, ttl, limit(), limit()).prop_map(|(sizes, backoff_limit, ttl, completed, failed)| Work {
        parallelism: sizes.0,
        completions: sizes.1,
        backoff_limit,
        ttl,
        history: History { completed, failed },
    })
}

/// Anything that may happen.
pub fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let value = prop_oneof![3 => Just("true"), 1 => Just("TRUE"), 3 => Just("false"), 1 => Just("")];
    let n = || 0..64usize;
    let to_jobs = prop_oneof![
        16 => n().prop_map(Controlled),
        12 => n().prop_map(Reported),
        4 => Just(Collected),
        4 => n().prop_map(Expires),
        1 => n().prop_map(JobDeleted),
    ];
    let to_pods = prop_oneof![
        4 => (n(), n()).prop_map(|(p, n)| Scheduled(p, n)),
        12 => n().prop_map(Ready),
        2 => n().prop_map(Unready),
        10 => (n(), value).prop_map(|(p, v)| Flips(p, v)),
        6 => (n(), prop::bool::weighted(0.7)).prop_map(|(p, well)| Ends(p, well)),
        1 => n().prop_map(PodDeleted),
        6 => n().prop_map(Gone),
        1 => n().prop_map(Forced),
    ];
    let to_nodes = prop_oneof![
        3 => (n(), any::<bool>()).prop_map(|(p, on)| Cordoned(p, on)),
        2 => (n(), any::<bool>()).prop_map(|(p, on)| NodeLost(p, on)),
        1 => n().prop_map(NodeRemoved),
        2 => n().prop_map(NodeJoins),
    ];
    let to_the_pool = prop_oneof![
        2 => spec().prop_map(Respecified),
        2 => says().prop_map(Policy),
        1 => any::<bool>().prop_map(Outage),
    ];
    let to_operators = prop_oneof![
        1 => n().prop_map(Restarts),
        1 => (n(), seconds()).prop_map(|(o, s)| ClockSet(o, s)),
        8 => (n(), 1..8usize).prop_map(|(o, n)| SeesJobs(o, n)),
        8 => (n(), 1..8usize).prop_map(|(o, n)| SeesPods(o, n)),
        4 => n().prop_map(SeesAll),
        1 => n().prop_map(RelistsJobs),
        1 => n().prop_map(RelistsPods),
        20 => n().prop_map(Looks),
        14 => (n(), fate()).prop_map(|(o, fate)| Acts(o, fate)),
        14 => (n(), 1..9usize).prop_map(|(o, n)| ActsOn(o, n)),
        3 => n().prop_map(TurnsBusy),
    ];
    prop_oneof![
        6 => (1..15_000i64).prop_map(Time),
        37 => to_jobs,
        41 => to_pods,
        4 => to_nodes,
        5 => to_the_pool,
        75 => to_operators,
    ]
}

/// Any story.
pub fn stories() -> impl Strategy<Value = Story> {
    let clocks = [seconds(), seconds(), seconds(), seconds()];
    let history = prop::collection::vec(happens(), 0..400);
    (spec(), work(), 1..5usize, clocks, history).prop_map(|(spec, work, nodes, clocks, history)| Story {
        spec,
        work,
        nodes,
        clocks,
        history,
    })
}

/// Lets one thing happen, and checks the promises. Returns the look, if it was one.
pub fn happen(cluster: &mut JobCluster, what: Happens) -> Result<Option<Arc<Look>>, TestCaseError> {
    tell(|| format!("  {what:?}"));
    let operators = cluster.operators.len();
    let pod = |cluster: &JobCluster, choice| cluster.base.pods.some(choice).unwrap_or_default();
    let job = |cluster: &JobCluster, choice| cluster.jobs.some(choice).unwrap_or_default();
    let node = |cluster: &JobCluster, choice| cluster.base.nodes.some(choice).unwrap_or_default();
    let mut look = None;
    match what {
        Happens::Time(milliseconds) => cluster.pass(SignedDuration::from_millis(milliseconds)),
        Happens::Controlled(j) => cluster.control(&job(cluster, j)),
        Happens::Reported(j) => cluster.report(&job(cluster, j)),
        Happens::Collected => cluster.collect(),
        Happens::Expires(j) => cluster.expire(&job(cluster, j)),
        Happens::JobDeleted(j) => drop(cluster.jobs.delete(&job(cluster, j), None, None)),
        Happens::Scheduled(p, n) => cluster.base.schedule(&pod(cluster, p), n),
        Happens::Ready(p) => {
            let name = pod(cluster, p);
            cluster.base.schedule(&name, p);
            cluster.base.change(&name, start);
        }
        Happens::Unready(p) => cluster.base.change(&pod(cluster, p), |pod, now| {
            if pod.node.is_some() {
                set(pod, "Ready", "False", now);
            }
        }),
        Happens::Flips(p, value) => flip(cluster, &pod(cluster, p), value),
        Happens::Ends(p, well) => cluster.base.change(&pod(cluster, p), |pod, now| end(pod, well, now)),
        Happens::PodDeleted(p) => drop(cluster.base.pods.delete(&pod(cluster, p), None, None)),
        Happens::Gone(p) => cluster.base.pods.finish(&pod(cluster, p)),
        Happens::Forced(p) => cluster.base.change(&pod(cluster, p), |pod, _| {
            pod.annotations.insert(keys::FORCE_REMOVE.to_owned(), "true".to_owned());
        }),
        Happens::Cordoned(n, on) => cluster.base.cordon(&node(cluster, n), on),
        Happens::NodeLost(n, on) => cluster.base.lose(&node(cluster, n), on),
        Happens::NodeRemoved(n) => cluster.base.remove_node(&node(cluster, n)),
        Happens::NodeJoins(n) => cluster.base.add_node(&format!("node-{}", n % 6)),
        Happens::Respecified(spec) => cluster.base.respecify(spec),
        Happens::Policy(says) => cluster.base.swap_policy(says),
        Happens::Outage(on) => cluster.base.outage = on,
        Happens::Restarts(o) => cluster.restart(o % operators),
        Happens::ClockSet(o, seconds) => {
            let now = cluster.base.now;
            cluster.operators[o % operators].op.set_clock(SignedDuration::from_secs(seconds), now);
        }
        Happens::SeesJobs(o, events) => {
            cluster.operators[o % operators].jobs.deliver(&cluster.jobs, events);
        }
        Happens::SeesPods(o, events) => {
            cluster.operators[o % operators].op.pods.deliver(&cluster.base.pods, events);
        }
        Happens::SeesAll(o) => cluster.tell_all(o % operators),
        Happens::RelistsJobs(o) => cluster.operators[o % operators].jobs.relist(&cluster.jobs),
        Happens::RelistsPods(o) => cluster.operators[o % operators].op.pods.relist(&cluster.base.pods),
        Happens::Looks(o) => look = looks(cluster, o % operators)?,
        Happens::Acts(o, fate) => drop(act(cluster, o % operators, fate)?),
        Happens::ActsOn(o, writes) => {
            for _ in 0..writes {
                act(cluster, o % operators, Fate::Passes)?;
            }
        }
        Happens::TurnsBusy(o) => {
            let next = cluster.next_removed(o % operators).unwrap_or_default();
            let pods = cluster.pods_of(next);
            if let Some(pod) = pods.iter().find(|p| p.alive()) {
                flip(cluster, &pod.name, "true");
            }
        }
    }
    Ok(look)
}

fn flip(cluster: &mut JobCluster, pod: &str, value: &str) {
    cluster.base.change(pod, |pod, _| {
        pod.annotations.insert(BUSY.to_owned(), value.to_owned());
    });
}

/// An operator looks.
pub fn looks(cluster: &mut JobCluster, operator: usize) -> Result<Option<Arc<Look>>, TestCaseError> {
    if cluster.operators.len() > 1
        && cluster.late_since(operator).is_some_and(|at| at + LATE < cluster.base.now)
    {
        cluster.tell_all(operator);
    }
    let Some(look) = cluster.look(operator) else { return Ok(None) };
    tell(|| {
        let words = |p: &PodView| {
            let terminating = if p.terminating { " terminating" } else { "" };
            format!("{}={:?}{terminating}", p.uid, look.verdicts[&p.uid])
        };
        let pods: Vec<_> = look.pods.iter().map(words).collect();
        let (target, actions) = (look.decision.applied, &look.plan.actions);
        format!("    operator {operator}: target {target}, sees {}\n    plans {actions:?}", pods.join(", "))
    });
    promises::of_plan(&look)?;
    Ok(Some(look))
}

/// An operator makes a request, and what must hold of it is checked.
pub fn act(cluster: &mut JobCluster, operator: usize, fate: Fate) -> Result<Option<Done>, TestCaseError> {
    if cluster.operators.len() > 1 {
        cluster.drop_plan(operator, LATE);
    }
    let Some(done) = cluster.act(operator, fate) else { return Ok(None) };
    tell(|| format!("    operator {operator}: {:?} -> {:?}", done.write, done.answer));
    if let Write::Create { slot, .. } = &done.write
        && done.effect
        && cluster.operators.len() > 1
    {
        // Two look and act late; creation times have whole seconds.
        cluster.misled |= cluster.names_may_mislead(*slot, LATE * 2 + SignedDuration::from_secs(1));
    }
    of_write(cluster, &done)?;
    Ok(Some(done))
}

fn of_write(cluster: &JobCluster, done: &Done) -> Result<(), TestCaseError> {
    let busy = || done.pods.iter().find(|p| p.alive() && cluster.base.is_busy(p));
    match &done.write {
        // Without a version somebody allowed it, which is checked of the look.
        Write::Pod { version: Some(_), .. } if done.effect && cluster.base.servers.is_some() => {
            for pod in done.pods.iter().filter(|p| p.alive()) {
                promises::of_last_word(&cluster.base, pod, &done.last_words)?;
            }
        }
        Write::Pod { version: Some(_), .. } if done.effect => {
            prop_assert!(busy().is_none(), "I1: a busy pod is deleted: {done:?}");
        }
        Write::Job { reason, .. } if done.effect && *reason != RemovalReason::Forced => {
            let unfinished = done.job.as_ref().is_some_and(|j| j.finished.is_none() && !j.terminating);
            prop_assert!(!unfinished || busy().is_none(), "I1: a Job is deleted, and {:?} is busy", busy());
        }
        Write::Create { slot, .. } if done.effect && !cluster.misled => {
            let unfinished = cluster.unfinished();
            let twins = unfinished.iter().filter(|j| j.slot == Some(*slot)).count();
            prop_assert!(twins == 1, "I2: {twins} unfinished Jobs in slot {slot}");
            let alone = cluster.operators.len() == 1;
            let most = if alone { done.look.spec.maximum } else { cluster.base.greatest_maximum };
            prop_assert!(unfinished.len() <= most as usize, "I2: {} Jobs, {most} may be", unfinished.len());
        }
        _ => {}
    }
    Ok(())
}

/// Jobs at work by the truth: a pod of theirs is, or has been to its end.
pub fn busy(cluster: &JobCluster) -> usize {
    let works = |uid: &str| {
        cluster
            .pods_of(uid)
            .iter()
            .any(|p| cluster.base.is_busy(p) && p.alive() || p.phase == stoker_core::Phase::Succeeded)
    };
    cluster.unfinished().iter().filter(|j| j.succeeded > 0 || works(&j.uid)).count()
}

/// Kubernetes does for once all that it has to do.
pub fn kubernetes(cluster: &mut JobCluster) {
    for name in cluster.base.pods.names() {
        cluster.base.pods.finish(&name);
        cluster.base.schedule(&name, 0);
        cluster.base.change(&name, start);
    }
    cluster.base.notice();
    for name in cluster.jobs.names() {
        cluster.control(&name);
        cluster.report(&name);
        cluster.expire(&name);
    }
    cluster.collect();
}

/// Nothing happens any more but what Kubernetes and the operators do, see [`promises::of_rest`]. Each request is shown.
pub fn of_rest(
    cluster: &mut JobCluster,
    mut shown: impl FnMut(&JobCluster, &Done) -> Result<(), TestCaseError>,
) -> Result<Vec<Arc<Look>>, TestCaseError> {
    for node in cluster.base.nodes.names() {
        cluster.base.lose(&node, false);
    }
    cluster.base.add_node("node-0");
    cluster.base.cordon("node-0", false);
    cluster.base.heal();
    let mut last = vec![None; cluster.operators.len()];
    for _ in 0..400 {
        kubernetes(cluster);
        let mut rests = true;
        for (operator, last) in last.iter_mut().enumerate() {
            while let Some(done) = act(cluster, operator, Fate::Passes)? {
                shown(cluster, &done)?;
            }
            cluster.tell_all(operator);
            cluster.ask_all(operator);
            let op = &cluster.operators[operator].op;
            let now = cluster.base.now + op.clock;
            if !(op.due || last.is_none() || op.wake.is_some_and(|at| at <= now)) {
                continue;
            }
            rests = false;
            *last = looks(cluster, operator)?;
            while let Some(done) = act(cluster, operator, Fate::Passes)? {
                shown(cluster, &done)?;
            }
        }
        if !rests {
            cluster.pass(SignedDuration::from_millis(100));
            continue;
        }
        let now = cluster.base.now;
        let waits =
            cluster.operators.iter().filter_map(|o| Some(o.op.wake?.duration_since(now + o.op.clock)));
        if let Some(wait) = waits.min() {
            prop_assert!(
                wait <= SignedDuration::from_mins(6),
                "it waits for {wait:?}, longer than any delay"
            );
            cluster.pass(wait);
            continue;
        }
        // An hour later what is to expire has.
        let before = cluster.jobs.len();
        cluster.pass(SignedDuration::from_hours(1));
        for _ in 0..3 {
            kubernetes(cluster);
        }
        if cluster.jobs.len() < before {
            continue;
        }
        let mut all = Vec::new();
        for operator in 0..cluster.operators.len() {
            cluster.tell_all(operator);
            cluster.ask_all(operator);
            let Some(look) = looks(cluster, operator)? else { continue };
            let waits = look.plan.wake_at;
            prop_assert!(
                look.plan.actions.is_empty() && waits.is_none(),
                "I10: something turns up: {look:?}"
            );
            let left = act(cluster, operator, Fate::Passes)?;
            prop_assert!(left.is_none(), "I10: something is to do: {left:?}");
            all.push(look);
        }
        return Ok(all);
    }
    Err(TestCaseError::fail(format!("I10: no rest: {:?}", last.last())))
}

/// Everything comes to rest at the target.
pub fn rests(cluster: &mut JobCluster) -> Result<Vec<Arc<Look>>, TestCaseError> {
    cluster.base.outage = false;
    let spec = cluster.base.pool().map(|pool| pool.spec).unwrap_or_default();
    // Standby that grows stale is replaced for ever.
    cluster.base.respecify(Spec { paused: false, max_idle: None, ..spec });
    if cluster.base.pool().is_some_and(|pool| pool.says == Says::Fails) {
        // Each leader would hold its own last good target, and undo what the other does.
        cluster.operators.truncate(1);
    }
    let looks = of_rest(cluster, |_, _| Ok(()))?;
    let (unfinished, busy) = (cluster.unfinished(), busy(cluster));
    let slots: HashSet<_> = unfinished.iter().map(|j| j.slot).collect();
    prop_assert!(cluster.misled || slots.len() == unfinished.len(), "I2: two in one slot");
    for job in &unfinished {
        let pods = cluster.pods_of(&job.uid);
        prop_assert!(pods.iter().any(|p| p.alive() && p.ready()), "no pod of {job:?} stands by: {pods:?}");
    }
    for look in &looks {
        let target = look.decision.applied as usize;
        prop_assert_eq!(unfinished.len(), target.max(busy), "target {}, busy {}: {:?}", target, busy, look);
        prop_assert!(look.unfit == 0, "idle, and not as it should be: {look:?}");
    }
    let ended =
        |well| cluster.jobs.iter().filter(|j| j.finished.as_ref().is_some_and(|f| f.well == well)).count();
    let history = cluster.work.history;
    for (well, limit) in [(true, history.completed), (false, history.failed)] {
        let most = limit.map_or(usize::MAX, |l| l as usize);
        prop_assert!(ended(well) <= most, "{} kept, {most} may be", ended(well));
    }
    Ok(looks)
}
