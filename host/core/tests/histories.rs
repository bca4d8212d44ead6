//! Random histories: whatever happens in a cluster, and however late an operator sees it, the invariants hold,
//! and when nothing happens any more the pool comes to rest at its target.

mod fixtures;
mod seeds;

use fixtures::{BUSY, Cluster, Look, Says, Spec, check, make_ready, schedule, set};
use proptest::prelude::*;
use stoker_api::keys;
use stoker_core::pool::{Action, Placement, RemovalReason};
use stoker_core::verdict::Verdict;
use stoker_core::{Phase, PodView};

/// One thing that happens. Pods and operators are chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
enum Happens {
    Time(i64),
    Scheduled(u8),
    Ready(u8),
    Unready(u8),
    Flips(u8, &'static str),
    Ends(u8, bool),
    NodeLost(u8),
    Displaced(u8, bool),
    Deleted(u8),
    Gone(u8),
    Forced(u8),
    Respecified(Spec),
    Policy(Says),
    Outage(bool),
    Restarts(usize),
    Sees(usize, usize),
    Looks(usize),
    Acts(usize),
}

fn spec() -> impl Strategy<Value = Spec> {
    let size =
        (0..6u32, 0..8u32, 1..12u32, prop_oneof![Just(0), Just(5), Just(30)], prop::bool::weighted(0.1));
    let placement = prop_oneof![Just(Placement::Youngest), Just(Placement::Spread), Just(Placement::Packed)];
    let max_idle = prop::option::weighted(0.2, 1..60i64);
    let per_second = prop::option::weighted(0.2, 1..4u32);
    let replace = (0..3u8, 0..3u32, any::<bool>(), max_idle, per_second, placement, any::<bool>());
    (size, replace).prop_map(|(size, replace)| {
        let (idle, minimum, maximum, delay, paused) = size;
        let (template, surge, after_use, max_idle, per_second, placement, labels) = replace;
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
        }
    })
}

fn says() -> impl Strategy<Value = Says> {
    let desired = prop_oneof![0..12u32, Just(0), Just(u32::MAX)];
    prop_oneof![
        2 => Just(Says::Nothing),
        3 => (desired, prop::collection::vec(0..14u8, 0..4))
            .prop_map(|(desired, victims)| Says::Wants { desired, victims }),
        2 => Just(Says::Fails),
    ]
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::{
        Acts, Deleted, Displaced, Ends, Flips, Forced, Gone, Looks, NodeLost, Outage, Policy, Ready,
        Respecified, Restarts, Scheduled, Sees, Time, Unready,
    };
    let value = prop_oneof![3 => Just("true"), 1 => Just("TRUE"), 3 => Just("false"), 1 => Just("")];
    prop_oneof![
        6 => (1..15_000i64).prop_map(Time),
        6 => any::<u8>().prop_map(Scheduled),
        12 => any::<u8>().prop_map(Ready),
        2 => any::<u8>().prop_map(Unready),
        12 => (any::<u8>(), value).prop_map(|(p, v)| Flips(p, v)),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(p, well)| Ends(p, well)),
        1 => any::<u8>().prop_map(NodeLost),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(p, on)| Displaced(p, on)),
        2 => any::<u8>().prop_map(Deleted),
        8 => any::<u8>().prop_map(Gone),
        1 => any::<u8>().prop_map(Forced),
        2 => spec().prop_map(Respecified),
        2 => says().prop_map(Policy),
        1 => any::<bool>().prop_map(Outage),
        1 => any::<usize>().prop_map(Restarts),
        12 => (any::<usize>(), 1..8usize).prop_map(|(o, n)| Sees(o, n)),
        20 => any::<usize>().prop_map(Looks),
        20 => any::<usize>().prop_map(Acts),
    ]
}

fn histories() -> impl Strategy<Value = Vec<Happens>> {
    prop::collection::vec(happens(), 200..400)
}

fn to_pod(cluster: &mut Cluster, choice: u8, change: impl FnOnce(&mut PodView, jiff::Timestamp)) {
    if let Some(name) = cluster.some(choice) {
        cluster.change(&name, change);
    }
}

/// Lets one thing happen. Returns the look, if it was one.
fn happen(cluster: &mut Cluster, what: Happens) -> Option<Look> {
    let operators = cluster.operators.len();
    match what {
        Happens::Time(milliseconds) => cluster.pass(milliseconds),
        Happens::Scheduled(p) => to_pod(cluster, p, schedule),
        Happens::Ready(p) => to_pod(cluster, p, make_ready),
        Happens::Unready(p) => to_pod(cluster, p, |pod, now| {
            if pod.node.is_some() {
                set(pod, "Ready", "False", now);
            }
        }),
        Happens::Flips(p, value) => to_pod(cluster, p, |pod, _| {
            pod.annotations.insert(BUSY.to_owned(), value.to_owned());
        }),
        Happens::Ends(p, well) => to_pod(cluster, p, |pod, now| {
            if pod.node.is_some() {
                pod.phase = if well { Phase::Succeeded } else { Phase::Failed };
                set(pod, "Ready", "False", now);
            }
        }),
        Happens::NodeLost(p) => to_pod(cluster, p, |pod, now| {
            if pod.node.is_some() {
                set(pod, "Ready", "Unknown", now);
            }
        }),
        Happens::Displaced(p, on) => to_pod(cluster, p, |pod, _| pod.displaced = on && pod.node.is_some()),
        Happens::Deleted(p) => {
            if let Some(name) = cluster.some(p) {
                cluster.delete(&name, None, None);
            }
        }
        Happens::Gone(p) => {
            if let Some(name) = cluster.some(p) {
                cluster.finish(&name);
            }
        }
        Happens::Forced(p) => to_pod(cluster, p, |pod, _| {
            pod.annotations.insert(keys::FORCE_REMOVE.to_owned(), "true".to_owned());
        }),
        Happens::Respecified(spec) => cluster.respecify(spec),
        Happens::Policy(says) => cluster.says = says,
        Happens::Outage(on) => cluster.outage = on,
        Happens::Restarts(o) => cluster.restart(o % operators),
        Happens::Sees(o, events) => cluster.sync(o % operators, events),
        Happens::Looks(o) => {
            let o = o % operators;
            if cluster.operators[o].pending.is_none() {
                let look = cluster.look(o);
                check(&look);
                check_target(cluster, o, &look);
                return Some(look);
            }
        }
        // I1 and I2 are checked against the truth where the API server carries an action out.
        Happens::Acts(o) => drop(cluster.apply(o % operators)),
    }
    None
}

/// I3: a failing policy neither shrinks nor inflates the pool.
fn check_target(cluster: &mut Cluster, operator: usize, look: &Look) {
    let op = &mut cluster.operators[operator];
    let alive = || look.pods.iter().filter(|p| !p.terminating && !p.phase.is_terminal());
    let sized_busy = alive()
        .filter(|p| match look.verdicts[&p.uid] {
            Verdict::Busy => true,
            Verdict::Unknown => op.memory.pods[&p.uid].last_clear == Some(true),
            _ => false,
        })
        .count() as u32;
    let spec = look.spec;
    let formula = (sized_busy + spec.idle).max(spec.minimum).min(spec.maximum);
    let applied = look.decision.applied;
    match &cluster.says {
        Says::Nothing => assert_eq!(applied, formula),
        Says::Wants { desired, .. } => {
            assert_eq!(applied, (*desired).max(spec.minimum).min(spec.maximum));
        }
        Says::Fails => {
            let held = op.last_good.unwrap_or(0).min(spec.maximum);
            assert_eq!(applied, held.max(formula), "I3: held {held}, formula {formula}");
        }
    }
    if !matches!(cluster.says, Says::Fails) {
        op.last_good = Some(applied);
    }
}

fn rest(cluster: &mut Cluster) {
    cluster.outage = false;
    cluster.spec.paused = false;
    // Standby that grows stale is replaced for ever.
    cluster.spec.max_idle = None;
    let last = cluster.settle();
    let busy = cluster.pods.values().filter(|p| fixtures::says_busy(p)).count();
    let target = last.decision.applied as usize;
    assert_eq!(cluster.pods.len(), target.max(busy), "target {target}, busy {busy}: {last:?}");
    assert!(cluster.pods.values().all(|p| p.alive() && p.ready()));
    assert_eq!(last.unfit, 0, "every idle pod is of the present template, unused, on a good node: {last:?}");
    // Nothing turns up later by itself.
    cluster.pass(3_600_000);
    let later = cluster.look(0);
    assert_eq!((later.plan.actions, later.plan.wake_at), (vec![], None));
}

#[test]
fn i1_i2_i3_one_operator_keeps_every_promise_whatever_happens() {
    seeds::run((spec(), histories()), |(spec, history)| {
        let mut cluster = Cluster::new(spec, 1);
        for what in history {
            happen(&mut cluster, what);
        }
        Ok(())
    });
}

#[test]
fn i1_i2_i3_two_operators_on_different_views_keep_every_promise() {
    seeds::run((spec(), histories()), |(spec, history)| {
        let mut cluster = Cluster::new(spec, 2);
        for what in history {
            happen(&mut cluster, what);
        }
        Ok(())
    });
}

#[test]
fn i2_a_maximum_that_is_not_lowered_holds_for_two_operators_however_late_they_see() {
    seeds::run((spec(), histories()), |(spec, history)| {
        let mut cluster = Cluster::new(spec, 2);
        for what in history {
            let what = match what {
                Happens::Respecified(new) => {
                    let maximum = new.maximum.max(cluster.spec.maximum);
                    Happens::Respecified(Spec { maximum, ..new })
                }
                other => other,
            };
            happen(&mut cluster, what);
            prop_assert!(cluster.pods.len() <= cluster.spec.maximum as usize);
        }
        Ok(())
    });
}

#[test]
fn i10_a_pool_comes_to_rest_at_its_target_after_any_history() {
    seeds::run((spec(), histories(), says()), |(spec, history, says)| {
        let mut cluster = Cluster::new(spec, 2);
        for what in history {
            happen(&mut cluster, what);
        }
        cluster.says = says;
        rest(&mut cluster);
        Ok(())
    });
}

#[test]
fn i3_a_total_probe_outage_changes_no_size() {
    seeds::run((spec(), histories(), histories()), |(spec, before, during)| {
        // Given a pool at rest,
        let mut cluster = Cluster::new(spec, 1);
        for what in before {
            happen(&mut cluster, what);
        }
        cluster.says = Says::Nothing;
        rest(&mut cluster);
        let size = cluster.pods.len();
        // when nothing can be told of its pods, whatever they do,
        cluster.outage = true;
        let mut ended = 0;
        let mut created = 0;
        for what in during {
            use Happens::{Acts, Ends, Flips, Gone, Looks, NodeLost, Ready, Scheduled, Sees, Time};
            if !matches!(
                what,
                Acts(_)
                    | Flips(..)
                    | Gone(_)
                    | Looks(_)
                    | NodeLost(_)
                    | Ready(_)
                    | Scheduled(_)
                    | Sees(..)
                    | Time(_)
                    | Ends(..)
            ) {
                continue;
            }
            let alive = |c: &Cluster| c.pods.values().filter(|p| p.alive()).count();
            let (had, ends) = (alive(&cluster), matches!(what, Ends(..)));
            let look = happen(&mut cluster, what);
            if ends {
                ended += had - alive(&cluster);
            }
            // then only pods that ended go, and only they are replaced.
            for action in look.iter().flat_map(|l| &l.plan.actions) {
                match action {
                    Action::Create { .. } => created += 1,
                    Action::Mark { .. } => {}
                    Action::Remove { reason, .. } => prop_assert_eq!(*reason, RemovalReason::Finished),
                }
            }
            prop_assert!(created <= ended, "{created} made, {ended} ended");
            prop_assert!(alive(&cluster) <= size);
        }
        Ok(())
    });
}
