//! Random stories of a DaemonJob: whatever goes wrong, no attempt of a node is made twice, no more nodes are at work than may
//! be, what is done is done, and when nothing goes wrong any more each chosen node has had its Job.

mod fan_out_stories;
mod kept_stories;
mod seeds;

use kept_stories::{comes_to_rest, stories};
use seeds::{breaks, run_few};
use stoker_sim::{FanOuts, Sabotage};

#[test]
fn i6_i10_one_operator_keeps_every_promise_and_each_node_has_its_job() {
    run_few(500, stories::<FanOuts>(), |story| comes_to_rest(story, 1, None));
}

#[test]
fn i6_i10_two_leaders_keep_every_promise_and_each_node_has_its_job() {
    run_few(500, stories::<FanOuts>(), |story| comes_to_rest(story, 2, None));
}

#[test]
fn an_operator_that_breaks_a_rule_is_found_out() {
    use Sabotage::{CountsNothing, HoldsNoNames, KeepsNothing, LetsGoEarly, NamesItsOwn, WritesNothing};
    for what in [LetsGoEarly, HoldsNoNames, NamesItsOwn, KeepsNothing, WritesNothing, CountsNothing] {
        let found = breaks(100, stories::<FanOuts>(), |story| comes_to_rest(story, 2, Some(what)));
        assert!(found, "{what:?} breaks no promise");
    }
}
