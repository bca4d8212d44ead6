//! Random stories of a pool: whatever happens in the cluster, to the writes and to the clocks, and however late an
//! operator sees it, the promises are kept; and when nothing happens any more the pool comes to rest at its target.

mod seeds;
mod stories;

use proptest::prelude::*;
use seeds::run;
use stoker_core::verdict::Verdict;
use stoker_sim::pods::says_busy;
use stoker_sim::{Cluster, Says, Spec};
use stories::{Happens, Story, happen, only_ended_pods_go, rests, says, stories};

/// Lets a story happen to some operators, and checks every promise after each step.
fn tell(story: Story, operators: usize) -> Result<Cluster, TestCaseError> {
    let mut cluster = story.begin(operators);
    for what in story.history {
        happen(&mut cluster, what)?;
    }
    Ok(cluster)
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
        let during = during.history.into_iter().filter(Happens::leaves_the_pool_alone);
        // then only pods that ended go, and only they are replaced.
        only_ended_pods_go(&mut cluster, size, during, happen)?;
        let verdicts = cluster.look(0).map(|look| look.verdicts.clone()).unwrap_or_default();
        prop_assert!(verdicts.values().all(|v| *v != Verdict::Idle && *v != Verdict::Busy));
        Ok(())
    });
}
