//! Random stories of a JobFlow: whatever goes wrong, no attempt of a step is made twice, nothing starts early, what is done
//! is done, and when nothing goes wrong any more the flow ends.

mod flow_stories;
mod kept_stories;
mod seeds;

use kept_stories::{comes_to_rest, stories};
use seeds::{breaks, run_few};
use stoker_sim::{Flows, Sabotage};

#[test]
fn i6_i10_one_operator_keeps_every_promise_and_the_flow_ends() {
    run_few(500, stories::<Flows>(), |story| comes_to_rest(story, 1, None));
}

#[test]
fn i6_i10_two_leaders_keep_every_promise_and_the_flow_ends() {
    run_few(500, stories::<Flows>(), |story| comes_to_rest(story, 2, None));
}

#[test]
fn an_operator_that_breaks_a_rule_is_found_out() {
    use Sabotage::{CountsNothing, KeepsNothing, LetsGoEarly, NamesItsOwn, WaitsForNothing, WritesNothing};
    for what in [LetsGoEarly, NamesItsOwn, KeepsNothing, WritesNothing, WaitsForNothing, CountsNothing] {
        let found = breaks(100, stories::<Flows>(), |story| comes_to_rest(story, 2, Some(what)));
        assert!(found, "{what:?} breaks no promise");
    }
}
