//! Random stories of a pool of Jobs: whatever happens in the cluster, to the writes and to the clocks, and however late
//! an operator sees Jobs and their pods, the promises are kept; and when nothing happens any more the pool comes to rest.

mod job_stories;
mod seeds;
mod stories;

use std::collections::HashSet;

use job_stories::{Happens, LATE, Story, act, happen, kubernetes, looks, of_rest, rests, stories};
use proptest::prelude::*;
use seeds::run;
use stoker_core::pool::{Action, Placement, RemovalReason};
use stoker_sim::jobs::Write;
use stoker_sim::{Fate, JobCluster, Says, Spec};

/// Lets a story happen to some operators, and checks every promise after each step.
fn tell(story: Story, operators: usize) -> Result<JobCluster, TestCaseError> {
    let mut cluster = story.begin(operators);
    for what in story.history {
        happen(&mut cluster, what)?;
    }
    Ok(cluster)
}

#[test]
fn i1_i2_i3_one_operator_keeps_every_promise_whatever_happens() {
    run(stories(), |story| tell(story, 1).map(drop));
}

#[test]
fn i1_i2_i3_two_leaders_on_different_views_keep_every_promise() {
    run(stories(), |story| tell(story, 2).map(drop));
}

#[test]
fn i10_a_pool_comes_to_rest_at_its_target_after_any_story() {
    run((stories(), stories::says(), 1..3usize), |(story, says, operators)| {
        let mut cluster = tell(story, operators)?;
        cluster.base.swap_policy(says);
        rests(&mut cluster).map(drop)
    });
}

#[test]
fn i3_a_restart_in_the_middle_of_a_removal_takes_no_other_job() {
    run((stories(), 1..4u32, 0..8usize), |(story, fewer, writes)| {
        // Given a pool at rest that is to be smaller,
        let mut cluster = tell(story, 1)?;
        cluster.base.swap_policy(Says::Nothing);
        rests(&mut cluster)?;
        let spec = cluster.base.pool().map(|pool| pool.spec).unwrap_or_default();
        let idle = spec.idle.saturating_sub(fewer);
        cluster.base.respecify(Spec { idle, minimum: 0, delay: 0, placement: Placement::Youngest, ..spec });
        cluster.tell_all(0);
        let Some(look) = looks(&mut cluster, 0)? else { return Ok(()) };
        let chosen: HashSet<String> = look
            .plan
            .actions
            .iter()
            .filter_map(|a| if let Action::Remove { uid, .. } = a { Some(uid.clone()) } else { None })
            .collect();
        // when the operator is restarted in the middle of it,
        for _ in 0..writes {
            act(&mut cluster, 0, Fate::Passes)?;
        }
        cluster.restart(0);
        // then the same Jobs go, and no other.
        let looks = of_rest(&mut cluster, |_, done| {
            let (Write::Pod { job: uid, .. } | Write::Job { uid, .. }) = &done.write else { return Ok(()) };
            let finished = done.job.as_ref().is_none_or(|j| j.finished.is_some());
            prop_assert!(finished || chosen.contains(uid), "I3: {uid} goes, too: {:?}", done.write);
            Ok(())
        })?;
        for look in looks {
            let (target, busy) = (look.decision.applied as usize, job_stories::busy(&cluster));
            prop_assert_eq!(cluster.unfinished().len(), target.max(busy));
        }
        Ok(())
    });
}

#[test]
fn i3_a_total_probe_outage_changes_no_size_and_a_job_that_vanished_is_not_made_again() {
    run((stories(), stories()), |(before, during)| {
        // Given a pool at rest,
        let mut cluster = tell(before, 1)?;
        cluster.base.swap_policy(Says::Nothing);
        rests(&mut cluster)?;
        let size = cluster.unfinished().len();
        // when nothing can be told of its pods, whatever they do,
        cluster.base.outage = true;
        let made = cluster.made;
        let before: HashSet<(bool, String)> =
            cluster.ended().into_iter().map(|(finished, uid)| (finished, uid.to_owned())).collect();
        for what in during.history.into_iter().filter(Happens::leaves_the_pool_alone) {
            if cluster.late_since(0).is_some_and(|at| at + LATE < cluster.base.now) {
                // What it did itself is believed as long.
                let o = &mut cluster.operators[0];
                o.op.pods.deliver(&cluster.base.pods, usize::MAX);
                o.jobs.deliver(&cluster.jobs, usize::MAX);
            }
            let look = happen(&mut cluster, what)?;
            // then nothing goes but Jobs that have finished, and only they are replaced, once.
            for action in look.iter().flat_map(|look| &look.plan.actions) {
                match action {
                    Action::Create { .. } | Action::Mark { .. } => {}
                    // One that no node runs yet may go, should a busy pod have ended badly.
                    Action::Remove { reason, .. } => prop_assert!(
                        matches!(reason, RemovalReason::Finished | RemovalReason::SurplusUnscheduled),
                        "removed as {reason:?}"
                    ),
                }
            }
            let made = cluster.made - made;
            let ended: HashSet<&str> = cluster
                .ended()
                .into_iter()
                .filter(|(f, uid)| !before.contains(&(*f, (*uid).to_owned())))
                .map(|(_, uid)| uid)
                .collect();
            prop_assert!(made <= ended.len(), "{made} made, {ended:?} ended");
            let rest = cluster.unfinished().iter().filter(|j| !ended.contains(j.uid.as_str())).count();
            prop_assert!(rest <= size, "{rest} Jobs, of {size}");
        }
        kubernetes(&mut cluster);
        Ok(())
    });
}
