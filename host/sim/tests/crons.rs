//! Random stories of a PreScaledCronJob: whatever goes wrong, no instant's work begins twice or early, what is decided is
//! accounted for, and when nothing goes wrong any more each instant has its run in time.

mod cron_stories;
mod seeds;

use cron_stories::{End, Story, ends, ends_well, happen, runs_on_time, settles, stories};
use proptest::prelude::*;
use seeds::run;
use stoker_sim::CronCluster;

/// Lets a story happen to some operators, and checks every promise meanwhile.
fn tell(story: Story, operators: usize) -> Result<CronCluster, TestCaseError> {
    let mut cluster = story.begin(operators);
    for what in story.history {
        happen(&mut cluster, what)?;
    }
    Ok(cluster)
}

fn comes_to_rest(story: Story, end: End, operators: usize) -> Result<(), TestCaseError> {
    let mut cluster = tell(story, operators)?;
    settles(&mut cluster)?;
    runs_on_time(&mut cluster)?;
    ends_well(&mut cluster, end)
}

#[test]
fn i5_i10_one_operator_keeps_every_promise_and_each_instant_has_its_run_in_the_end() {
    run((stories(), ends()), |(story, end)| comes_to_rest(story, end, 1));
}

#[test]
fn i5_i10_two_leaders_keep_every_promise_and_each_instant_has_its_run_in_the_end() {
    run((stories(), ends()), |(story, end)| comes_to_rest(story, end, 2));
}
