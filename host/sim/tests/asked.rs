//! Random stories of a pool whose pods are asked whether they are busy: however late, unclearly or rarely they answer,
//! whatever Redis loses and whenever an operator forgets all answers, the promises are kept; and when everything
//! answers again the pool comes to rest at its target.

mod asked_stories;
mod job_stories;
mod seeds;
mod stories;

use asked_stories::{Happens, Told, ToldOfJobs, asking, happen, told, told_of_jobs};
use proptest::prelude::*;
use seeds::run;
use stoker_core::asked::Rules;
use stoker_core::verdict::Verdict;
use stoker_sim::{Asking, Cluster, JobCluster, Mode, Says};
use stories::{only_ended_pods_go, rests, says};

/// Lets a story happen to some operators, and checks every promise after each step.
fn tell(told: Told, operators: usize) -> Result<Cluster, TestCaseError> {
    let mut cluster = told.begin(operators);
    for what in told.history {
        happen(&mut cluster, what)?;
    }
    Ok(cluster)
}

#[test]
fn i1_i2_i3_i4_one_operator_keeps_every_promise_whatever_is_answered() {
    run(told(asking()), |story| tell(story, 1).map(drop));
}

#[test]
fn i1_i2_i3_i4_two_leaders_that_hear_different_answers_keep_every_promise() {
    run(told(asking()), |story| tell(story, 2).map(drop));
}

#[test]
fn i1_i3_a_flushed_redis_makes_nobody_look_free() {
    let redis = asking().prop_map(|asking| Asking { mode: Mode::Redis, ..asking });
    run((told(redis), told(asking())), |(before, after)| {
        // Given a pool in whatever state,
        let mut cluster = tell(before, 1)?;
        // when Redis loses all that it holds, and nobody writes again,
        happen(&mut cluster, Happens::Flushed)?;
        cluster.hear(0, None);
        let ready: Vec<String> =
            cluster.pods.iter().filter(|p| p.alive() && p.ready()).map(|p| p.uid.clone()).collect();
        let threshold = cluster.servers.as_ref().map_or(0, |servers| servers.asking.rules.threshold);
        cluster.tell_all(0);
        while cluster.act(0, stoker_sim::Fate::Passes).is_some() {}
        cluster.look(0);
        while cluster.act(0, stoker_sim::Fate::Passes).is_some() {}
        let stays = |what: &Happens| !what.writes() && what.leaves_the_pool_alone();
        for what in after.history.into_iter().filter(stays) {
            happen(&mut cluster, what)?;
        }
        for _ in 0..threshold {
            cluster.ask_all(0);
        }
        cluster.tell_all(0);
        while cluster.act(0, stoker_sim::Fate::Passes).is_some() {}
        let Some(look) = cluster.look(0) else { return Ok(()) };
        // then it is not known what those do that were Ready.
        let lost_is_busy = look.hearing.as_ref().is_some_and(|h| h.rules.lost_is_busy);
        let expected = if lost_is_busy { Verdict::Busy } else { Verdict::Unknown };
        for pod in look.pods.iter().filter(|p| p.alive() && ready.contains(&p.uid)) {
            prop_assert_eq!(look.verdicts.get(&pod.uid), Some(&expected), "{:?}", pod);
        }
        Ok(())
    });
}

#[test]
fn i3_a_total_outage_of_the_probe_changes_no_size_however_long_it_lasts() {
    let unknown = asking().prop_map(|a| Asking { rules: Rules { lost_is_busy: false, ..a.rules }, ..a });
    run((told(unknown), told(asking()), any::<bool>()), |(before, during, restarts)| {
        // Given a pool at rest,
        let mut cluster = tell(before, 1)?;
        cluster.swap_policy(Says::Nothing);
        rests(&mut cluster)?;
        let size = cluster.pods.len();
        // when nobody answers any more, whatever the pods do, and whether the operator forgets all answers or not,
        happen(&mut cluster, Happens::Out(true))?;
        // (One that starts hears of its nodes, and replaces who is on a lost one.)
        let stays_out = |what: &Happens| match restarts {
            true => what.is_restart() || what.leaves_the_pool_alone() && !what.is_of_nodes(),
            false => what.leaves_the_pool_alone(),
        };
        let during = during.history.into_iter().filter(stays_out);
        let for_ever = (0..20).flat_map(|_| {
            [
                Happens::AsksAll(0),
                Happens::time(7200),
                Happens::HearsAll(0),
                Happens::looks(0),
                Happens::acts(0),
            ]
        });
        // then only pods that ended go, and only they are replaced.
        only_ended_pods_go(&mut cluster, size, during.chain(for_ever), happen)?;
        let verdicts = cluster.look(0).map(|look| look.verdicts.clone()).unwrap_or_default();
        prop_assert!(verdicts.values().all(|v| *v != Verdict::Idle && *v != Verdict::Busy));
        Ok(())
    });
}

#[test]
fn i1_a_pool_that_is_deleted_gives_up_only_who_says_that_it_is_idle() {
    run((told(asking()), told(asking()), 1..3usize), |(story, after, operators)| {
        let mut cluster = tell(story, operators)?;
        cluster.delete_pool();
        for what in after.history {
            happen(&mut cluster, what)?;
        }
        rests(&mut cluster)?;
        prop_assert!(cluster.pods.iter().all(|p| cluster.is_busy(p)), "only busy ones stay");
        Ok(())
    });
}

#[test]
fn i10_a_pool_comes_to_rest_at_its_target_once_everything_answers_again() {
    run((told(asking()), says(), 1..3usize), |(story, says, operators)| {
        let mut cluster = tell(story, operators)?;
        cluster.swap_policy(says);
        rests(&mut cluster).map(drop)
    });
}

/// Lets a story of a pool of Jobs happen to some operators, and checks every promise after each step.
fn tell_of_jobs(told: ToldOfJobs, operators: usize) -> Result<JobCluster, TestCaseError> {
    let mut cluster = told.begin(operators);
    for what in told.history {
        happen(&mut cluster, what)?;
    }
    Ok(cluster)
}

#[test]
fn i1_i2_i3_an_operator_of_jobs_keeps_every_promise_whatever_their_pods_answer() {
    run((told_of_jobs(asking()), 1..3usize), |(story, operators)| tell_of_jobs(story, operators).map(drop));
}

#[test]
fn i10_a_pool_of_jobs_comes_to_rest_at_its_target_once_everything_answers_again() {
    run((told_of_jobs(asking()), says(), 1..3usize), |(story, says, operators)| {
        let mut cluster = tell_of_jobs(story, operators)?;
        cluster.base.swap_policy(says);
        job_stories::rests(&mut cluster).map(drop)
    });
}
