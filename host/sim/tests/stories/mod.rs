//! What can happen in a story, and how it happens in the simulated cluster.
#![allow(dead_code)]

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::seeds::tell;
use jiff::SignedDuration;
use proptest::prelude::*;
use stoker_api::keys;
use stoker_core::PodView;
use stoker_core::claims::Rules;
use stoker_core::pool::{Action, Placement, RemovalReason};
use stoker_core::verdict::Verdict;
use stoker_sim::pods::{BUSY, end, set, start};
use stoker_sim::{Clocks, Cluster, Fate, Look, Says, Spec, promises};

/// How late a watch is at most where it must not be later than an operator believes in its own doings.
const LATE: SignedDuration = SignedDuration::from_secs(10);

/// One thing that happens. Pods, nodes and operators are chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
pub enum Happens {
    Time(i64),
    Scheduled(usize, usize),
    Ready(usize),
    Unready(usize),
    Flips(usize, &'static str),
    Ends(usize, bool),
    Deleted(usize),
    Gone(usize),
    Forced(usize),
    Cordoned(usize, bool),
    NodeLost(usize, bool),
    NodeRemoved(usize),
    NodeJoins(usize),
    Respecified(Spec),
    Policy(Says),
    Outage(bool),
    PoolDeleted,
    Restarts(usize),
    ClockSet(usize, i64),
    Sees(usize, usize),
    SeesOne(usize, usize),
    SeesAll(usize),
    Relists(usize),
    Looks(usize),
    Acts(usize, Fate),
    ActsOn(usize, usize),
    /// It acts up to its next removal, whose answer is lost.
    RemovesUnanswered(usize),
    /// The pod that the operator is about to remove takes up work.
    TurnsBusy(usize),
    /// Somebody claims from an operator one of the pods that stand by, for some seconds or until it is released.
    Claims(usize, usize, Option<i64>, Fate),
    /// Somebody releases a claim.
    Releases(usize),
}

impl Happens {
    /// The spec stays, the operator hears of no node, forgets nothing and keeps its clock, and pods only do what they do by
    /// themselves.
    pub fn leaves_the_pool_alone(&self) -> bool {
        use Happens::{
            Acts, ActsOn, Ends, Flips, Gone, Looks, NodeLost, Ready, Scheduled, Sees, SeesOne, Time,
            TurnsBusy,
        };
        match self {
            Acts(_, fate) => !matches!(fate, Fate::Lost | Fate::Refused),
            Flips(..) | Gone(_) | Looks(_) | NodeLost(..) | Ready(_) | Scheduled(..) | Sees(..) => true,
            SeesOne(..) | Time(_) | Ends(..) | TurnsBusy(_) | ActsOn(..) => true,
            _ => false,
        }
    }
}

/// How it begins, and what happens then.
#[derive(Clone)]
pub struct Story {
    pub spec: Spec,
    pub nodes: usize,
    /// How many seconds clocks are wrong: the API server's, the kubelets', the operators'.
    pub clocks: [i64; 4],
    pub history: Vec<Happens>,
}

/// A line for each thing that happens.
impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}\n{} nodes, clocks {:?}", self.spec, self.nodes, self.clocks)?;
        self.history.iter().try_for_each(|what| writeln!(f, "  {what:?}"))
    }
}

impl Story {
    /// The cluster in which it happens.
    pub fn begin(&self, operators: usize) -> Cluster {
        let [api, kubelet, ahead @ ..] = self.clocks.map(SignedDuration::from_secs);
        let mut cluster = Cluster::new(self.spec, self.nodes, operators, Clocks { api, kubelet });
        for (op, clock) in cluster.operators.iter_mut().zip(ahead) {
            op.clock = clock;
        }
        cluster
    }
}

/// Any spec.
pub fn spec() -> impl Strategy<Value = Spec> {
    let size =
        (0..6u32, 0..8u32, 1..12u32, prop_oneof![Just(0), Just(5), Just(30)], prop::bool::weighted(0.1));
    let placement = prop_oneof![Just(Placement::Youngest), Just(Placement::Spread), Just(Placement::Packed)];
    let max_idle = prop::option::weighted(0.2, 1..60i64);
    let per_second = prop::option::weighted(0.2, 1..4u32);
    let claims = (prop::option::weighted(0.4, 1..60i64), any::<bool>(), any::<bool>()).prop_map(
        |(timeout, return_after_timeout, until_released)| Rules {
            timeout: timeout.map(SignedDuration::from_secs),
            return_after_timeout,
            until_released,
            after_use: false,
        },
    );
    let replace = (0..3u8, 0..3u32, any::<bool>(), max_idle, per_second, placement, any::<bool>(), claims);
    (size, replace).prop_map(|(size, replace)| {
        let (idle, minimum, maximum, delay, paused) = size;
        let (template, surge, after_use, max_idle, per_second, placement, labels, claims) = replace;
        Spec {
            idle,
            minimum,
            maximum,
            delay,
            paused,
            template,
            surge,
            after_use,
            max_idle,
            per_second,
            placement,
            labels,
            claims: Rules { after_use, ..claims },
        }
    })
}

/// What a policy may say.
pub fn says() -> impl Strategy<Value = Says> {
    let desired = prop_oneof![0..12u32, Just(0), Just(u32::MAX)];
    prop_oneof![
        2 => Just(Says::Nothing),
        3 => (desired, prop::collection::vec(0..14u8, 0..4))
            .prop_map(|(desired, victims)| Says::Wants { desired, victims }),
        2 => Just(Says::Fails),
    ]
}

/// What may become of a write.
pub fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Passes),
        1 => Just(Fate::Lost),
        2 => Just(Fate::Unanswered),
        1 => Just(Fate::Doubled),
        1 => Just(Fate::Refused),
    ]
}

/// Seconds by which a clock is wrong or set.
pub fn seconds() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 1 => -3..3i64, 1 => -90..90i64, 1 => -100_000..100_000i64]
}

/// Anything that may happen.
pub fn happens() -> impl Strategy<Value = Happens> {
    use Happens::{
        Acts, ActsOn, Claims, ClockSet, Cordoned, Deleted, Ends, Flips, Forced, Gone, Looks, NodeJoins,
        NodeLost, NodeRemoved, Outage, Policy, Ready, Releases, Relists, RemovesUnanswered, Respecified,
        Restarts, Scheduled, Sees, SeesAll, SeesOne, Time, TurnsBusy, Unready,
    };
    let value = prop_oneof![3 => Just("true"), 1 => Just("TRUE"), 3 => Just("false"), 1 => Just("")];
    let n = || 0..64usize;
    let to_pods = prop_oneof![
        6 => (n(), n()).prop_map(|(p, n)| Scheduled(p, n)),
        12 => n().prop_map(Ready),
        2 => n().prop_map(Unready),
        12 => (n(), value).prop_map(|(p, v)| Flips(p, v)),
        3 => (n(), any::<bool>()).prop_map(|(p, well)| Ends(p, well)),
        2 => n().prop_map(Deleted),
        8 => n().prop_map(Gone),
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
        8 => (n(), 1..8usize).prop_map(|(o, n)| Sees(o, n)),
        3 => (n(), n()).prop_map(|(o, n)| SeesOne(o, n)),
        4 => n().prop_map(SeesAll),
        1 => n().prop_map(Relists),
        20 => n().prop_map(Looks),
        14 => (n(), fate()).prop_map(|(o, fate)| Acts(o, fate)),
        14 => (n(), 1..9usize).prop_map(|(o, n)| ActsOn(o, n)),
        3 => n().prop_map(TurnsBusy),
        3 => n().prop_map(RemovesUnanswered),
        10 => (n(), 0..4usize, prop::option::weighted(0.3, 1..60i64), fate())
            .prop_map(|(o, choice, ttl, fate)| Claims(o, choice, ttl, fate)),
        4 => n().prop_map(Releases),
    ];
    prop_oneof![
        6 => (1..15_000i64).prop_map(Time),
        46 => to_pods,
        4 => to_nodes,
        5 => to_the_pool,
        64 => to_operators,
    ]
}

/// Any story.
pub fn stories() -> impl Strategy<Value = Story> {
    let clocks = [seconds(), seconds(), seconds(), seconds()];
    let history = prop::collection::vec(happens(), 0..400);
    (spec(), 1..5usize, clocks, history).prop_map(|(spec, nodes, clocks, history)| Story {
        spec,
        nodes,
        clocks,
        history,
    })
}

/// Lets one thing happen, and checks the promises. Returns the look, if it was one.
pub fn happen(cluster: &mut Cluster, what: Happens) -> Result<Option<Arc<Look>>, TestCaseError> {
    tell(|| format!("  {what:?}"));
    let operators = cluster.operators.len();
    let pod = |cluster: &Cluster, choice| cluster.pods.some(choice).unwrap_or_default();
    let node = |cluster: &Cluster, choice| cluster.nodes.some(choice).unwrap_or_default();
    match what {
        Happens::Time(milliseconds) => cluster.pass(SignedDuration::from_millis(milliseconds)),
        Happens::Scheduled(p, n) => cluster.schedule(&pod(cluster, p), n),
        Happens::Ready(p) => {
            let name = pod(cluster, p);
            cluster.schedule(&name, p);
            cluster.change(&name, start);
        }
        Happens::Unready(p) => cluster.change(&pod(cluster, p), |pod, now| {
            if pod.node.is_some() {
                set(pod, "Ready", "False", now);
            }
        }),
        Happens::Flips(p, value) => flip(cluster, &pod(cluster, p), value),
        Happens::Ends(p, well) => cluster.change(&pod(cluster, p), |pod, now| end(pod, well, now)),
        Happens::Deleted(p) => drop(cluster.pods.delete(&pod(cluster, p), None, None)),
        Happens::Gone(p) => cluster.pods.finish(&pod(cluster, p)),
        Happens::Forced(p) => cluster.change(&pod(cluster, p), |pod, _| {
            pod.annotations.insert(keys::FORCE_REMOVE.to_owned(), "true".to_owned());
        }),
        Happens::Cordoned(n, on) => cluster.cordon(&node(cluster, n), on),
        Happens::NodeLost(n, on) => cluster.lose(&node(cluster, n), on),
        Happens::NodeRemoved(n) => cluster.remove_node(&node(cluster, n)),
        Happens::NodeJoins(n) => cluster.add_node(&format!("node-{}", n % 6)),
        Happens::Respecified(spec) => cluster.respecify(spec),
        Happens::Policy(says) => cluster.swap_policy(says),
        Happens::Outage(on) => cluster.outage = on,
        Happens::PoolDeleted => cluster.delete_pool(),
        Happens::Restarts(o) => cluster.restart(o % operators),
        Happens::ClockSet(o, seconds) => {
            let now = cluster.now;
            cluster.operators[o % operators].set_clock(SignedDuration::from_secs(seconds), now);
        }
        Happens::Sees(o, events) => {
            cluster.operators[o % operators].pods.deliver(&cluster.pods, events);
        }
        Happens::SeesOne(o, n) => {
            cluster.operators[o % operators].pods.deliver_one(&cluster.pods, n);
        }
        Happens::SeesAll(o) => cluster.tell_all(o % operators),
        Happens::Relists(o) => cluster.operators[o % operators].pods.relist(&cluster.pods),
        Happens::Looks(o) => return looks(cluster, o % operators),
        Happens::Acts(o, fate) => act(cluster, o % operators, fate)?,
        Happens::ActsOn(o, writes) => {
            for _ in 0..writes {
                act(cluster, o % operators, Fate::Passes)?;
            }
        }
        Happens::RemovesUnanswered(o) => {
            let o = o % operators;
            let Some((before, _)) = next_removal(cluster, o) else { return Ok(None) };
            for _ in 0..before {
                act(cluster, o, Fate::Passes)?;
            }
            act(cluster, o, Fate::Unanswered)?;
        }
        Happens::Claims(o, choice, ttl, fate) => {
            if let Some(before) = cluster.claim(o % operators, choice, ttl, fate) {
                tell(|| format!("    {} is handed out", before.uid));
                promises::of_claim(cluster, &before)?;
            }
        }
        Happens::Releases(n) => cluster.release(n),
        Happens::TurnsBusy(o) => {
            if let Some((_, name)) = next_removal(cluster, o % operators) {
                flip(cluster, &name, "true");
            }
        }
    }
    Ok(None)
}

/// How many writes come before an operator's next removal, and the pod that it removes.
pub fn next_removal(cluster: &Cluster, operator: usize) -> Option<(usize, String)> {
    let steps = &cluster.operators[operator].carrying.as_ref()?.steps;
    steps.iter().enumerate().find_map(|(before, step)| match step {
        Action::Remove { name, .. } => Some((before, name.clone())),
        _ => None,
    })
}

fn flip(cluster: &mut Cluster, pod: &str, value: &str) {
    cluster.change(pod, |pod, _| {
        pod.annotations.insert(BUSY.to_owned(), value.to_owned());
    });
}

fn looks(cluster: &mut Cluster, operator: usize) -> Result<Option<Arc<Look>>, TestCaseError> {
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
    promises::of_look(&look)?;
    let op = &mut cluster.operators[operator];
    let sized_busy = look
        .pods
        .iter()
        .filter(|p| !p.terminating && !p.phase.is_terminal())
        .filter(|p| match look.verdicts[&p.uid] {
            Verdict::Busy | Verdict::Claimed => true,
            Verdict::Unknown => op.memory.pods[&p.uid].last_clear == Some(true),
            _ => false,
        })
        .count() as u32;
    if let Some(carrying) = &op.carrying {
        let says = &carrying.made_for.says;
        promises::of_target(&look, says, sized_busy, op.held)?;
        if *says != Says::Fails {
            op.held = Some(look.decision.applied);
        }
    }
    Ok(Some(look))
}

fn act(cluster: &mut Cluster, operator: usize, fate: Fate) -> Result<(), TestCaseError> {
    match cluster.act(operator, fate) {
        Some(done) => {
            tell(|| format!("    operator {operator}: {:?} -> {:?}", done.action, done.answer));
            Ok(promises::of_write(cluster, &done)?)
        }
        None => Ok(()),
    }
}

/// Everything comes to rest at the target.
pub fn rests(cluster: &mut Cluster) -> Result<Vec<Arc<Look>>, TestCaseError> {
    cluster.outage = false;
    while !cluster.claims.is_empty() {
        cluster.release(0);
    }
    let spec = cluster.pool().map(|pool| pool.spec).unwrap_or_default();
    // Standby that grows stale is replaced for ever.
    cluster.respecify(Spec { paused: false, max_idle: None, ..spec });
    if cluster.pool().is_some_and(|pool| pool.says == Says::Fails) {
        // Each leader would hold its own last good target, and undo what the other does.
        cluster.operators.truncate(1);
    }
    let looks = promises::of_rest(cluster)?;
    let busy = cluster.pods.iter().filter(|p| cluster.is_busy(p)).count();
    prop_assert!(cluster.pods.iter().all(|p| p.alive() && p.ready()));
    let claimed = cluster.pods.iter().find(|p| p.annotations.contains_key(keys::CLAIM));
    prop_assert!(claimed.is_none(), "nobody knows of this claim: {claimed:?}");
    for look in &looks {
        let target = if look.draining { 0 } else { look.decision.applied as usize };
        prop_assert_eq!(cluster.pods.len(), target.max(busy), "target {}, busy {}: {:?}", target, busy, look);
        prop_assert!(look.draining || look.unfit == 0, "idle, and not as it should be: {look:?}");
    }
    let told = |name: &str, key| cluster.pods.get(name).and_then(|p| p.labels.get(key)).map(String::as_str);
    for pod in cluster.pods.iter().filter(|_| spec.labels) {
        let state = if cluster.is_busy(pod) { "busy" } else { "idle" };
        prop_assert_eq!(told(&pod.name, keys::STATE), Some(state), "{:?}", pod);
    }
    Ok(looks)
}

/// Lets things happen to a pool at rest of some size while nothing can be told of its pods: only those that ended go,
/// and only they are replaced (I3).
pub fn only_ended_pods_go<H>(
    cluster: &mut Cluster,
    size: usize,
    during: impl Iterator<Item = H>,
    mut happen: impl FnMut(&mut Cluster, H) -> Result<Option<Arc<Look>>, TestCaseError>,
) -> Result<(), TestCaseError> {
    let alive = |c: &Cluster| {
        let alive = c.pods.iter().filter(|p| p.alive());
        alive.map(|p| p.uid.clone()).collect::<HashSet<_>>()
    };
    let ends = |c: &Cluster| c.pods.iter().filter(|p| p.phase.is_terminal()).map(|p| p.uid.clone()).collect();
    let before: HashSet<String> = ends(cluster);
    let (mut ended, made_before) = (HashSet::new(), cluster.made_by.len());
    for what in during {
        if cluster.operators[0].pods.late_since(&cluster.pods).is_some_and(|at| at + LATE < cluster.now) {
            // What it did itself is believed as long.
            cluster.operators[0].pods.deliver(&cluster.pods, usize::MAX);
        }
        let look = happen(cluster, what)?;
        ended.extend(ends(cluster).difference(&before).cloned());
        for action in look.iter().flat_map(|look| &look.plan.actions) {
            match action {
                Action::Create { .. } | Action::Mark { .. } => {}
                Action::Remove { reason, .. } => prop_assert_eq!(*reason, RemovalReason::Finished),
            }
        }
        let created = cluster.made_by.len() - made_before;
        prop_assert!(created <= ended.len(), "{created} made, {ended:?} ended");
        prop_assert!(alive(cluster).len() <= size);
    }
    Ok(())
}
