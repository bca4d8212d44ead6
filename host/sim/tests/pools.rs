//! Random stories of a pool: whatever happens in the cluster, to the writes and to the clocks, and however late an
//! operator sees it, the promises are kept; and when nothing happens any more the pool comes to rest at its target.

mod seeds;
mod stories;

use std::sync::Arc;

use jiff::SignedDuration;
use proptest::prelude::*;
use seeds::run;
use stoker_api::keys;
use stoker_core::pool::{Action, RemovalReason};
use stoker_core::verdict::Verdict;
use stoker_sim::pods::says_busy;
use stoker_sim::{Cluster, Look, Says, Spec, promises};
use stories::{Happens, Story, happen, says, stories};

/// How late a watch is at most where it must not be later than an operator believes in its own doings.
const LATE: SignedDuration = SignedDuration::from_secs(10);

/// Lets a story happen to some operators, and checks every promise after each step.
fn tell(story: Story, operators: usize) -> Result<Cluster, TestCaseError> {
    let mut cluster = story.begin(operators);
    for what in story.history {
        happen(&mut cluster, what)?;
    }
    Ok(cluster)
}

/// Everything comes to rest at the target.
fn rests(cluster: &mut Cluster) -> Result<Vec<Arc<Look>>, TestCaseError> {
    cluster.outage = false;
    let spec = cluster.pool().map(|pool| pool.spec).unwrap_or_default();
    // Standby that grows stale is replaced for ever.
    cluster.respecify(Spec { paused: false, max_idle: None, ..spec });
    if cluster.pool().is_some_and(|pool| pool.says == Says::Fails) {
        // Each leader would hold its own last good target, and undo what the other does.
        cluster.operators.truncate(1);
    }
    let looks = promises::of_rest(cluster)?;
    let busy = cluster.pods.iter().filter(|p| says_busy(p)).count();
    prop_assert!(cluster.pods.iter().all(|p| p.alive() && p.ready()));
    for look in &looks {
        let target = if look.draining { 0 } else { look.decision.applied as usize };
        prop_assert_eq!(cluster.pods.len(), target.max(busy), "target {}, busy {}: {:?}", target, busy, look);
        prop_assert!(look.draining || look.unfit == 0, "idle, and not as it should be: {look:?}");
    }
    let told = |name: &str, key| cluster.pods.get(name).and_then(|p| p.labels.get(key)).map(String::as_str);
    for pod in cluster.pods.iter().filter(|_| spec.labels) {
        let state = if says_busy(pod) { "busy" } else { "idle" };
        prop_assert_eq!(told(&pod.name, keys::STATE), Some(state), "{:?}", pod);
    }
    Ok(looks)
}

#[test]
fn i1_i2_i3_i4_one_operator_keeps_every_promise_whatever_happens() {
    run(stories(), |story| tell(story, 1).map(drop));
}

#[test]
fn i1_i2_i3_i4_two_leaders_on_different_views_keep_every_promise() {
    run(stories(), |story| tell(story, 2).map(drop));
}

#[test]
fn i2_a_maximum_that_is_not_lowered_holds_for_two_leaders_however_late_they_see() {
    run(stories(), |story| {
        let mut cluster = story.begin(2);
        for what in story.history {
            let maximum = cluster.pool().map_or(0, |pool| pool.spec.maximum);
            let what = match what {
                Happens::Respecified(new) => {
                    Happens::Respecified(Spec { maximum: new.maximum.max(maximum), ..new })
                }
                other => other,
            };
            happen(&mut cluster, what)?;
            let maximum = cluster.pool().map_or(0, |pool| pool.spec.maximum);
            prop_assert!(cluster.pods.len() <= maximum as usize, "I2: {} pods", cluster.pods.len());
        }
        Ok(())
    });
}

#[test]
fn i10_a_pool_comes_to_rest_at_its_target_after_any_story() {
    run((stories(), says(), 1..3usize), |(story, says, operators)| {
        let mut cluster = tell(story, operators)?;
        cluster.swap_policy(says);
        rests(&mut cluster).map(drop)
    });
}

#[test]
fn i1_a_pool_that_is_deleted_gives_up_idle_pods_at_once_and_busy_ones_when_they_are_done() {
    run((stories(), stories(), 1..3usize), |(story, after, operators)| {
        let mut cluster = tell(story, operators)?;
        cluster.delete_pool();
        for what in after.history {
            happen(&mut cluster, what)?;
        }
        rests(&mut cluster)?;
        prop_assert!(cluster.pods.iter().all(|p| says_busy(p)), "only busy ones stay");
        for name in cluster.pods.names() {
            cluster.change(&name, |pod, _| {
                pod.annotations.insert(stoker_sim::pods::BUSY.to_owned(), "false".to_owned());
            });
        }
        rests(&mut cluster)?;
        prop_assert!(cluster.pods.is_empty(), "all are done");
        Ok(())
    });
}

#[test]
fn i3_a_total_probe_outage_changes_no_size() {
    run((stories(), stories()), |(before, during)| {
        // Given a pool at rest,
        let mut cluster = tell(before, 1)?;
        cluster.swap_policy(Says::Nothing);
        rests(&mut cluster)?;
        let size = cluster.pods.len();
        // when nothing can be told of its pods, whatever they do,
        cluster.outage = true;
        let alive = |c: &Cluster| c.pods.iter().filter(|p| p.alive()).count();
        let (mut ended, made_before) = (0, cluster.made_by.len());
        for what in during.history.into_iter().filter(Happens::leaves_the_pool_alone) {
            if cluster.operators[0].pods.late_since(&cluster.pods).is_some_and(|at| at + LATE < cluster.now) {
                // What it did itself is believed as long.
                cluster.operators[0].pods.deliver(&cluster.pods, usize::MAX);
            }
            let (had, ends) = (alive(&cluster), matches!(what, Happens::Ends(..)));
            let looks = happen(&mut cluster, what)?;
            if ends {
                ended += had - alive(&cluster);
            }
            // then only pods that ended go, and only they are replaced.
            for action in looks.iter().flat_map(|look| &look.plan.actions) {
                match action {
                    Action::Create { .. } | Action::Mark { .. } => {}
                    Action::Remove { reason, .. } => prop_assert_eq!(*reason, RemovalReason::Finished),
                }
            }
            let created = cluster.made_by.len() - made_before;
            prop_assert!(created <= ended, "{created} made, {ended} ended");
            prop_assert!(alive(&cluster) <= size);
        }
        let verdicts = cluster.look(0).map(|look| look.verdicts.clone()).unwrap_or_default();
        prop_assert!(verdicts.values().all(|v| *v != Verdict::Idle && *v != Verdict::Busy));
        Ok(())
    });
}
