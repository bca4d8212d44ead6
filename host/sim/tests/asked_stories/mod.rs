//! What can happen in a story of a pool whose pods are asked: all that can happen to any pool, and what can happen to
//! questions and answers.
#![allow(dead_code)]

use std::fmt;
use std::sync::Arc;

use crate::seeds::tell;
use crate::stories::{self, Story, next_removal, stories};
use jiff::SignedDuration;
use proptest::prelude::*;
use stoker_core::asked::Rules;
use stoker_sim::{Asking, Cluster, Look, Manner, Mode};

/// One thing that happens. Pods and operators are chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
pub enum Happens {
    /// As to any pool.
    Any(stories::Happens),
    Works(usize, bool),
    /// A pod that the operator is about to remove takes up work.
    TurnsBusy(usize),
    Behaves(usize, Manner),
    /// Every other pod behaves so.
    HalfBehave(Manner),
    Written(usize),
    Flushed,
    Out(bool),
    Asks(usize, usize),
    AsksAll(usize),
    Hears(usize, usize),
    HearsAll(usize),
    /// It asks for the last word all those that it is about to remove.
    AsksLast(usize),
}

impl Happens {
    /// Some seconds pass.
    pub fn time(seconds: i64) -> Self {
        Self::Any(stories::Happens::Time(seconds * 1000))
    }

    /// An operator looks.
    pub fn looks(operator: usize) -> Self {
        Self::Any(stories::Happens::Looks(operator))
    }

    /// An operator carries out its plan.
    pub fn acts(operator: usize) -> Self {
        Self::Any(stories::Happens::ActsOn(operator, 100))
    }

    /// See [`stories::Happens::leaves_the_pool_alone`]; nor does anybody begin to answer.
    pub fn leaves_the_pool_alone(&self) -> bool {
        match self {
            Self::Any(what) => what.leaves_the_pool_alone(),
            Self::Out(_) => false,
            _ => true,
        }
    }

    /// A pod writes into Redis.
    pub fn writes(&self) -> bool {
        use Happens::{Behaves, HalfBehave, TurnsBusy, Works, Written};
        matches!(self, Works(..) | TurnsBusy(_) | Behaves(..) | HalfBehave(_) | Written(_))
    }

    /// A node is lost or comes back.
    pub fn is_of_nodes(&self) -> bool {
        matches!(self, Self::Any(stories::Happens::NodeLost(..)))
    }

    /// An operator starts anew.
    pub fn is_restart(&self) -> bool {
        matches!(self, Self::Any(stories::Happens::Restarts(_)))
    }
}

/// How it begins, and what happens then.
#[derive(Clone)]
pub struct Told {
    pub story: Story,
    pub asking: Asking,
    pub history: Vec<Happens>,
}

/// A line for each thing that happens.
impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}\n{:?}", self.asking, self.story)?;
        self.history.iter().try_for_each(|what| writeln!(f, "  {what:?}"))
    }
}

impl Told {
    /// The cluster in which it happens.
    pub fn begin(&self, operators: usize) -> Cluster {
        let mut cluster = self.story.begin(operators);
        cluster.asks(self.asking);
        cluster
    }
}

/// Any way of asking that admission lets through.
pub fn asking() -> impl Strategy<Value = Asking> {
    let mode = prop_oneof![Just(Mode::Http), Just(Mode::Exec), Just(Mode::Redis), Just(Mode::Redis)];
    let times = prop_oneof![Just((1, 1)), Just((10, 1)), Just((10, 8)), Just((60, 60))];
    (mode, times, 1..4u32, prop::bool::weighted(0.2), any::<bool>()).prop_map(
        |(mode, (period, timeout), threshold, lost_is_busy, stamped)| Asking {
            mode,
            rules: Rules { period: SignedDuration::from_secs(period), threshold, lost_is_busy },
            timeout: SignedDuration::from_secs(timeout),
            stamped,
        },
    )
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let n = || 0..64usize;
    let manner = || {
        prop_oneof![
            4 => Just(Manner::True), 1 => Just(Manner::Hangs), 1 => Just(Manner::Dead), 1 => Just(Manner::Junk)
        ]
    };
    // What says busy in other modes says nothing here.
    let to_any = stories::happens().prop_map(|what| match what {
        stories::Happens::Flips(p, value) => Works(p, value.eq_ignore_ascii_case("true")),
        stories::Happens::TurnsBusy(o) => TurnsBusy(o),
        stories::Happens::Outage(on) => Out(on),
        what => Any(what),
    });
    let to_pods = prop_oneof![
        6 => (n(), manner()).prop_map(|(p, manner)| Behaves(p, manner)),
        1 => manner().prop_map(HalfBehave),
        6 => n().prop_map(Written),
        1 => Just(Flushed),
        1 => any::<bool>().prop_map(Out),
    ];
    let to_operators = prop_oneof![
        8 => (n(), n()).prop_map(|(o, p)| Asks(o, p)),
        8 => n().prop_map(AsksAll),
        10 => (n(), n()).prop_map(|(o, q)| Hears(o, q)),
        8 => n().prop_map(HearsAll),
        4 => n().prop_map(AsksLast),
    ];
    prop_oneof![60 => to_any, 8 => to_pods, 24 => to_operators]
}

/// Any story of a pool that is asked so.
pub fn told(asking: impl Strategy<Value = Asking>) -> impl Strategy<Value = Told> {
    let history = prop::collection::vec(happens(), 0..400);
    (stories(), asking, history).prop_map(|(mut story, asking, history)| {
        story.history.clear();
        if asking.stamped {
            // What pods wrote would look older than they are.
            story.clocks[1] = story.clocks[0];
        }
        Told { story, asking, history }
    })
}

/// Lets one thing happen, and checks the promises. Returns the look, if it was one.
pub fn happen(cluster: &mut Cluster, what: Happens) -> Result<Option<Arc<Look>>, TestCaseError> {
    if let Happens::Any(what) = what {
        use stories::Happens::{NodeLost, Unready};
        if matches!(what, NodeLost(..) | Unready(_)) {
            // No pod is found not to be Ready within the second in which it became Ready.
            cluster.pass(SignedDuration::from_secs(1));
        }
        let look = stories::happen(cluster, what);
        cluster.notice();
        return look;
    }
    tell(|| format!("  {what:?}"));
    let operators = cluster.operators.len();
    let (now, kubelet) = (cluster.now, cluster.kubelet());
    let pod = |cluster: &Cluster, choice| {
        let name = cluster.pods.some(choice).unwrap_or_default();
        cluster.pods.get(&name).cloned()
    };
    match what {
        Happens::Any(_) => {}
        Happens::Works(p, busy) => {
            if let (Some(pod), Some(servers)) = (pod(cluster, p), &mut cluster.servers) {
                servers.works(&pod, busy, now, kubelet);
            }
        }
        Happens::TurnsBusy(o) => {
            let next = next_removal(cluster, o % operators).and_then(|(_, name)| cluster.pods.get(&name));
            if let (Some(pod), Some(servers)) = (next.cloned(), &mut cluster.servers) {
                servers.works(&pod, true, now, kubelet);
            }
        }
        Happens::Behaves(p, manner) => {
            if let (Some(pod), Some(servers)) = (pod(cluster, p), &mut cluster.servers) {
                servers.behaves(&pod, manner, kubelet);
            }
        }
        Happens::HalfBehave(manner) => {
            if let Some(servers) = &mut cluster.servers {
                cluster.pods.iter().step_by(2).for_each(|pod| servers.behaves(pod, manner, kubelet));
            }
        }
        Happens::Written(p) => {
            if let (Some(pod), Some(servers)) = (pod(cluster, p), &mut cluster.servers)
                && servers.was_ready(&pod.uid)
            {
                servers.write(&pod, kubelet);
            }
        }
        Happens::Flushed => cluster.servers.iter_mut().for_each(|servers| servers.flush()),
        Happens::Out(out) => cluster.servers.iter_mut().for_each(|servers| servers.out = out),
        Happens::Asks(o, p) => cluster.ask(o % operators, Some(p)),
        Happens::AsksAll(o) => cluster.ask(o % operators, None),
        Happens::Hears(o, q) => cluster.hear(o % operators, Some(q)),
        Happens::HearsAll(o) => cluster.hear(o % operators, None),
        Happens::AsksLast(o) => cluster.ask_last(o % operators),
    }
    Ok(None)
}
