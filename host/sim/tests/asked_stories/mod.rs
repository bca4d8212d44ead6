//! What can happen in a story of a pool whose pods are asked: all that can happen to any pool, and what can happen to
//! questions and answers.
#![allow(dead_code)]

use std::fmt;
use std::sync::Arc;

use crate::job_stories;
use crate::seeds::tell;
use crate::stories::{self, Story, next_removal, stories};
use jiff::SignedDuration;
use proptest::prelude::*;
use stoker_core::PodView;
use stoker_core::asked::Rules;
use stoker_sim::{Asking, Cluster, JobCluster, Look, Manner, Mode};

/// A pool of some kind, in whose cluster pods are asked.
pub trait Asked {
    /// What can happen to any such pool.
    type Any;
    /// Lets it happen.
    fn any(&mut self, what: Self::Any) -> Result<Option<Arc<Look>>, TestCaseError>;
    /// The cluster.
    fn base(&mut self) -> &mut Cluster;
    /// How many operators there are.
    fn operators(&self) -> usize;
    /// A pod that an operator is about to remove.
    fn next_removed(&self, operator: usize) -> Option<Arc<PodView>>;
    fn ask(&mut self, operator: usize, choice: Option<usize>);
    fn hear(&mut self, operator: usize, choice: Option<usize>);
    fn ask_last(&mut self, operator: usize);
}

impl Asked for Cluster {
    type Any = stories::Happens;

    fn any(&mut self, what: Self::Any) -> Result<Option<Arc<Look>>, TestCaseError> {
        use stories::Happens::{NodeLost, Unready};
        if matches!(what, NodeLost(..) | Unready(_)) {
            self.pass(A_SECOND);
        }
        stories::happen(self, what)
    }

    fn base(&mut self) -> &mut Cluster {
        self
    }

    fn operators(&self) -> usize {
        self.operators.len()
    }

    fn next_removed(&self, operator: usize) -> Option<Arc<PodView>> {
        self.pods.get(&next_removal(self, operator)?.1).cloned()
    }

    fn ask(&mut self, operator: usize, choice: Option<usize>) {
        Cluster::ask(self, operator, choice);
    }

    fn hear(&mut self, operator: usize, choice: Option<usize>) {
        Cluster::hear(self, operator, choice);
    }

    fn ask_last(&mut self, operator: usize) {
        Cluster::ask_last(self, operator);
    }
}

impl Asked for JobCluster {
    type Any = job_stories::Happens;

    fn any(&mut self, what: Self::Any) -> Result<Option<Arc<Look>>, TestCaseError> {
        use job_stories::Happens::{NodeLost, Unready};
        if matches!(what, NodeLost(..) | Unready(_)) {
            self.pass(A_SECOND);
        }
        job_stories::happen(self, what)
    }

    fn base(&mut self) -> &mut Cluster {
        &mut self.base
    }

    fn operators(&self) -> usize {
        self.operators.len()
    }

    fn next_removed(&self, operator: usize) -> Option<Arc<PodView>> {
        self.pods_of(JobCluster::next_removed(self, operator)?).into_iter().find(|p| p.alive())
    }

    fn ask(&mut self, operator: usize, choice: Option<usize>) {
        JobCluster::ask(self, operator, choice);
    }

    fn hear(&mut self, operator: usize, choice: Option<usize>) {
        JobCluster::hear(self, operator, choice);
    }

    fn ask_last(&mut self, operator: usize) {
        JobCluster::ask_last(self, operator);
    }
}

/// No pod is found not to be Ready within the second in which it became Ready.
const A_SECOND: SignedDuration = SignedDuration::from_secs(1);

/// One thing that happens. Pods and operators are chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
pub enum Happens<W = stories::Happens> {
    /// As to any pool.
    Any(W),
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

/// How a story of a pool of Jobs begins, and what happens then.
#[derive(Clone)]
pub struct ToldOfJobs {
    pub story: job_stories::Story,
    pub asking: Asking,
    pub history: Vec<Happens<job_stories::Happens>>,
}

/// A line for each thing that happens.
impl fmt::Debug for ToldOfJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}\n{:?}", self.asking, self.story)?;
        self.history.iter().try_for_each(|what| writeln!(f, "  {what:?}"))
    }
}

impl ToldOfJobs {
    /// The cluster in which it happens.
    pub fn begin(&self, operators: usize) -> JobCluster {
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

/// What can happen to any pool, among what can happen to questions and answers.
fn mixed<W: Clone + fmt::Debug + 'static>(
    to_any: impl Strategy<Value = Happens<W>>,
) -> impl Strategy<Value = Happens<W>> {
    use Happens::*;
    let n = || 0..64usize;
    let manner = || {
        prop_oneof![
            4 => Just(Manner::True), 1 => Just(Manner::Hangs), 1 => Just(Manner::Dead), 1 => Just(Manner::Junk)
        ]
    };
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

fn happens() -> impl Strategy<Value = Happens> {
    // What says busy in other modes says nothing here.
    mixed(stories::happens().prop_map(|what| match what {
        stories::Happens::Flips(p, value) => Happens::Works(p, value.eq_ignore_ascii_case("true")),
        stories::Happens::TurnsBusy(o) => Happens::TurnsBusy(o),
        stories::Happens::Outage(on) => Happens::Out(on),
        what => Happens::Any(what),
    }))
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

/// Any story of a pool of Jobs that is asked so.
pub fn told_of_jobs(asking: impl Strategy<Value = Asking>) -> impl Strategy<Value = ToldOfJobs> {
    let any = job_stories::happens().prop_map(|what| match what {
        job_stories::Happens::Flips(p, value) => Happens::Works(p, value.eq_ignore_ascii_case("true")),
        job_stories::Happens::TurnsBusy(o) => Happens::TurnsBusy(o),
        job_stories::Happens::Outage(on) => Happens::Out(on),
        what => Happens::Any(what),
    });
    let history = prop::collection::vec(mixed(any), 0..400);
    (job_stories::stories(), asking, history).prop_map(|(mut story, asking, history)| {
        story.history.clear();
        if asking.stamped {
            story.clocks[1] = story.clocks[0];
        }
        ToldOfJobs { story, asking, history }
    })
}

/// Lets one thing happen, and checks the promises. Returns the look, if it was one.
pub fn happen<P: Asked>(pool: &mut P, what: Happens<P::Any>) -> Result<Option<Arc<Look>>, TestCaseError>
where
    P::Any: fmt::Debug,
{
    let what = match what {
        Happens::Any(what) => {
            let look = pool.any(what);
            pool.base().notice();
            return look;
        }
        what => what,
    };
    tell(|| format!("  {what:?}"));
    let operators = pool.operators();
    let next = match &what {
        Happens::TurnsBusy(o) => pool.next_removed(o % operators),
        _ => None,
    };
    match what {
        Happens::Asks(o, p) => pool.ask(o % operators, Some(p)),
        Happens::AsksAll(o) => pool.ask(o % operators, None),
        Happens::Hears(o, q) => pool.hear(o % operators, Some(q)),
        Happens::HearsAll(o) => pool.hear(o % operators, None),
        Happens::AsksLast(o) => pool.ask_last(o % operators),
        _ => {}
    }
    let cluster = pool.base();
    let (now, kubelet) = (cluster.now, cluster.kubelet());
    let pod = |choice| cluster.pods.get(&cluster.pods.some(choice).unwrap_or_default()).cloned();
    let pod = match &what {
        Happens::Works(p, _) | Happens::Behaves(p, _) | Happens::Written(p) => pod(*p),
        _ => next,
    };
    let Some(servers) = &mut cluster.servers else { return Ok(None) };
    match (what, pod) {
        (Happens::Works(_, busy), Some(pod)) => servers.works(&pod, busy, now, kubelet),
        (Happens::TurnsBusy(_), Some(pod)) => servers.works(&pod, true, now, kubelet),
        (Happens::Behaves(_, manner), Some(pod)) => servers.behaves(&pod, manner, kubelet),
        (Happens::HalfBehave(manner), _) => {
            cluster.pods.iter().step_by(2).for_each(|pod| servers.behaves(pod, manner, kubelet));
        }
        (Happens::Written(_), Some(pod)) if servers.was_ready(&pod.uid) => servers.write(&pod, kubelet),
        (Happens::Flushed, _) => servers.flush(),
        (Happens::Out(out), _) => servers.out = out,
        _ => {}
    }
    Ok(None)
}
