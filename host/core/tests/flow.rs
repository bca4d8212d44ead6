//! What is done about the steps of a JobFlow, look by look.
#![allow(clippy::unwrap_used)]

mod flow_world;

use flow_world::{World, flow, flow_with, pod_template, step, step_with};
use serde_json::{Value, json};
use std::sync::Arc;
use stoker_api::{FlowState, StepState};
use stoker_core::Phase;
use stoker_core::flow::{NewJob, Told, farewell, still_wanted};
use stoker_core::kept::{Kept, Upkeep};

fn diamond() -> World {
    flow(vec![step("a", &[]), step("b", &["a"]), step("c", &["a"]), step("d", &["b", "c"])])
}

/// The Jobs that are let go.
fn let_go(upkeep: &[Upkeep]) -> Vec<&str> {
    upkeep
        .iter()
        .filter_map(|one| if let Upkeep::LetGo { name, .. } = one { Some(name.as_str()) } else { None })
        .collect()
}

#[test]
fn steps_start_in_order_and_independent_ones_at_once() {
    let mut world = diamond();
    world.settle();
    assert_eq!(world.names(), ["flow-a"]);
    assert_eq!(world.is(), FlowState::Running);
    world.end("a", true).settle();
    assert_eq!(world.names(), ["flow-a", "flow-b", "flow-c"]);
    world.end("b", true).settle();
    assert_eq!(world.created.len(), 3, "d waits for c");
    world.end("c", true).settle();
    assert_eq!(world.steps(), ["a", "b", "c", "d"]);
    assert_eq!(world.status.progress.as_deref(), Some("3/4"));
    let told = world.end("d", true).settle().told;
    assert_eq!(told, [Told::Ended { state: FlowState::Succeed }]);
    assert_eq!((world.is(), world.status.progress.as_deref()), (FlowState::Succeed, Some("4/4")));
    assert_eq!(world.status.completion_time, Some(world.now));
}

#[test]
fn dependants_start_as_soon_as_an_end_is_seen_before_it_is_written() {
    let mut world = diamond();
    world.settle();
    world.writes = false;
    world.end("a", true).look();
    assert_eq!(world.steps(), ["a", "b", "c"]);
    world.look();
    assert_eq!(world.created.len(), 3);
}

#[test]
fn what_waits_only_for_jobs_whose_pods_have_ended_is_foreseen() {
    let mut world = diamond();
    world.settle();
    assert!(!world.plan().follows_soon, "a has no pod yet");
    assert!(!world.run("a", true).plan().follows_soon);
    let over = |world: &mut World, step: &str| world.job(step).1[0].phase = Phase::Succeeded;
    over(&mut world, "a");
    assert!(world.plan().follows_soon);
    world.end("a", true).settle();
    world.run("b", true);
    over(&mut world, "b");
    assert!(!world.plan().follows_soon, "d waits for c, too");
    world.run("c", true);
    over(&mut world, "c");
    assert!(world.plan().follows_soon);
    world.spec.suspend = true;
    assert!(!world.plan().follows_soon, "nothing starts");
}

#[test]
fn a_job_is_let_go_when_its_outcome_is_written() {
    let mut world = diamond();
    world.settle();
    world.writes = false;
    world.end("a", true).pass(60);
    assert!(let_go(&world.look().upkeep).is_empty(), "not written");
    world.writes = true;
    world.look();
    assert_eq!(let_go(&world.look().upkeep), ["flow-a"]);
}

#[test]
fn never_accepts_a_cycle_and_names_its_path() {
    let mut world =
        flow(vec![step("start", &[]), step("build", &["test"]), step("test", &["build", "start"])]);
    world.settle();
    assert!(world.created.is_empty());
    assert_eq!(world.is(), FlowState::Failed);
    let (status, words) = world.condition("GraphValid");
    assert_eq!(status, "False");
    assert!(words.contains("build -> test -> build"), "{words}");
    assert_eq!(world.condition("Stalled").0, "True");
}

#[test]
fn never_accepts_unknown_duplicate_or_self_dependencies() {
    for (steps, words) in [
        (vec![step("a", &["nobody"])], "step a waits for nobody, and no step is called so"),
        (vec![step("a", &["a"])], "a -> a"),
        (vec![step("a", &[]), step("a", &[])], "two steps are called a"),
        (
            vec![step("a", &[]), {
                let mut b = step("b", &["a"]);
                b["waitFor"] = json!([{"name": "a", "condition": "Failed"}]);
                b
            }],
            "step b names a twice",
        ),
    ] {
        let mut world = flow(steps);
        world.settle();
        let (status, said) = world.condition("GraphValid");
        assert_eq!(status, "False", "{words}");
        assert!(said.contains(words), "{said}");
        assert!(world.created.is_empty() && world.is() == FlowState::Failed);
    }
}

#[test]
fn never_runs_a_step_again_because_its_job_was_ttl_deleted_nor_stalls_its_dependants() {
    let mut world = diamond();
    world.settle();
    world.end("a", true).settle();
    world.delete("a").pass(60).look();
    world.look();
    assert!(world.jobs.iter().all(|(job, _)| job.name != "flow-a"), "its Job is gone");
    world.end("b", true).end("c", true).settle();
    assert_eq!(world.steps(), ["a", "b", "c", "d"]);
    world.end("d", true).settle();
    assert_eq!(world.is(), FlowState::Succeed);
    world.jobs.clear();
    world.pass(600).settle();
    assert_eq!(world.created.len(), 4);
}

#[test]
fn never_mixes_same_named_flows_of_two_namespaces() {
    let mut world = diamond();
    world.settle();
    assert!(
        world.status.job_status_list.contains_key("flow-a/ns"),
        "{:?}",
        world.status.job_status_list.keys()
    );
    let other = stoker_core::flow::Flow::new(
        "flow",
        "other",
        "uid-other",
        Arc::new(world.spec.clone()),
        &world.templates,
    );
    let owner = json!({"uid": "uid-other"});
    let body = stoker_core::flow::body(&other, &world.created[0], &owner).unwrap();
    assert_eq!(body["metadata"]["labels"]["stoker.dev/owner-uid"], "uid-other");
    assert_eq!(body["metadata"]["namespace"], "other");
    assert_eq!(body["metadata"]["ownerReferences"], json!([owner]));
}

#[test]
fn never_stays_failed_after_the_spec_was_repaired() {
    let mut world = flow(vec![step("a", &["b"]), step("b", &["a"])]);
    world.settle();
    assert_eq!(world.is(), FlowState::Failed);
    world.spec = flow(vec![step("a", &[]), step("b", &["a"])]).spec;
    world.settle();
    assert_eq!((world.is(), world.steps()), (FlowState::Running, vec!["a"]));

    // So does one whose step failed for its template.
    world.end("a", false).settle();
    assert_eq!((world.is(), world.state("b")), (FlowState::Failed, Some(StepState::Skipped)));
    world.spec.flows[0] = serde_json::from_value(step_with("a", json!({"timeoutSeconds": 60}))).unwrap();
    world.settle();
    assert_eq!(world.steps(), ["a", "a"]);
    assert_eq!((world.is(), world.state("b")), (FlowState::Running, None));
    world.end("a", true).settle();
    world.end("b", true).settle();
    assert_eq!(world.is(), FlowState::Succeed);
}

#[test]
fn never_ignores_a_job_template_that_arrives_late_and_nothing_else_suffers() {
    let by_reference = json!({"name": "b", "jobTemplateRef": "late"});
    let mut world = flow(vec![step("a", &[]), by_reference, step("c", &["b"])]);
    world.settle();
    assert_eq!(world.steps(), ["a"]);
    let (status, words) = world.condition("TemplateValid");
    assert!(status == "False" && words.contains("late"), "{words}");
    assert_eq!(world.is(), FlowState::Running);
    let template = json!({"template": pod_template()});
    world.templates.insert("late".to_owned(), Arc::new(template.as_object().unwrap().clone()));
    world.settle();
    assert_eq!(world.steps(), ["a", "b"]);
    assert_eq!(world.condition("TemplateValid").0, "True");
    assert_eq!(world.job("b").0.annotations["createByJobTemplate"], "ns.late");
}

#[test]
fn a_changed_job_template_counts_as_a_changed_step() {
    let mut world = flow(vec![json!({"name": "a", "jobTemplateRef": "t"}), step("b", &["a"])]);
    let mut template = json!({"template": pod_template()});
    world.templates.insert("t".to_owned(), Arc::new(template.as_object().unwrap().clone()));
    world.settle();
    world.end("a", true).settle();
    assert_eq!(world.condition("Outdated").0, "False");
    template["activeDeadlineSeconds"] = json!(5);
    world.templates.insert("t".to_owned(), Arc::new(template.as_object().unwrap().clone()));
    world.settle();
    let (status, words) = world.condition("Outdated");
    assert!(status == "True" && words.contains("since a started"), "{words}");
    assert_eq!(world.steps(), ["a", "b"], "what succeeded is not run again");
}

#[test]
fn never_freezes_the_status_while_siblings_still_run() {
    let mut world = flow(vec![step("a", &[]), step("b", &[]), step("c", &["b"])]);
    world.settle();
    world.end("a", false).settle();
    assert_eq!(world.is(), FlowState::Failed);
    assert!(world.status.completion_time.is_none());
    world.end("b", true).settle();
    assert_eq!(world.state("b"), Some(StepState::Succeeded));
    assert_eq!(world.steps(), ["a", "b", "c"], "independent steps go on");
    world.end("c", true).settle();
    assert_eq!((world.is(), world.status.progress.as_deref()), (FlowState::Failed, Some("2/3")));
    assert!(world.status.completion_time.is_some());
}

#[test]
fn never_waits_for_ever_for_a_job_with_several_completions() {
    let several = json!({"jobTemplate": {"completions": 3, "parallelism": 3, "template": pod_template()}});
    let mut world = flow(vec![step_with("a", several), step("b", &["a"])]);
    world.settle();
    world.end("a", true);
    world.job("a").0.succeeded = 3;
    world.settle();
    assert_eq!(world.steps(), ["a", "b"]);
    assert_eq!(world.entry("a").unwrap().succeeded, 3);
}

#[test]
fn dependants_of_a_failed_step_never_start_and_say_why() {
    let mut world = diamond();
    world.settle();
    world.end("a", true).settle();
    world.end("b", false).settle();
    assert_eq!(world.state("d"), Some(StepState::Skipped));
    assert_eq!(world.entry("d").unwrap().reason.as_deref(), Some("step b failed"));
    let told = world.end("c", true).settle().told;
    assert_eq!(told, [Told::Ended { state: FlowState::Failed }]);
    assert_eq!(world.steps(), ["a", "b", "c"]);
}

#[test]
fn conditions_failed_and_finished_hold_when_they_should() {
    let wait = |name: &str, condition: &str| {
        step_with(name, json!({"waitFor": [{"name": "a", "condition": condition}]}))
    };
    for (well, started) in [(true, ["finished", "succeeded"]), (false, ["failed", "finished"])] {
        let mut world = flow(vec![
            step("a", &[]),
            wait("failed", "Failed"),
            wait("finished", "Finished"),
            wait("succeeded", "Succeeded"),
        ]);
        world.settle();
        world.end("a", well).settle();
        assert_eq!(world.steps()[1..], started);
        for step in started {
            world.end(step, true);
        }
        world.settle();
        let state = if well { FlowState::Succeed } else { FlowState::Failed };
        assert_eq!((world.is(), world.status.completion_time.is_some()), (state, true));
    }
}

#[test]
fn finished_is_met_by_a_step_that_was_left_out() {
    let last = step_with("last", json!({"waitFor": [{"name": "b", "condition": "Finished"}]}));
    let mut world = flow(vec![step("a", &[]), step("b", &["a"]), last]);
    world.settle();
    world.end("a", false).settle();
    assert_eq!(world.steps(), ["a", "last"]);
}

#[test]
fn ready_holds_when_all_pods_of_the_job_are_ready() {
    let mut world = flow(vec![
        step("db", &[]),
        step_with("use", json!({"waitFor": [{"name": "db", "condition": "Ready"}]})),
    ]);
    world.settle();
    world.run("db", false).settle();
    assert_eq!(world.steps(), ["db"]);
    world.run("db", true).settle();
    assert_eq!(world.steps(), ["db", "use"]);
}

#[test]
fn a_probe_is_asked_until_it_is_answered_and_never_of_another_job() {
    let tcp = json!({"waitFor": [{"name": "db", "tcp": {"port": 5432}}]});
    let mut world = flow(vec![step("db", &[]), step_with("use", tcp)]);
    assert!(world.settle().ask.is_empty() || world.settle().ask[0].addresses.is_empty());
    let ask = world.run("db", false).settle().ask;
    assert_eq!(ask.len(), 1);
    assert_eq!((ask[0].step.as_str(), ask[0].addresses.len()), ("db", 1));
    world.answers.insert(("uid-of-another".to_owned(), ask[0].probe.clone()));
    world.settle();
    assert_eq!(world.steps(), ["db"]);
    world.answers.insert((ask[0].uid.clone(), ask[0].probe.clone()));
    assert!(world.settle().ask.is_empty());
    assert_eq!(world.steps(), ["db", "use"]);
}

#[test]
fn what_waits_for_readiness_of_a_step_that_failed_is_left_out() {
    let mut world = flow(vec![
        step("db", &[]),
        step_with("use", json!({"waitFor": [{"name": "db", "condition": "Ready"}]})),
    ]);
    world.settle();
    world.end("db", false).settle();
    assert_eq!(world.state("use"), Some(StepState::Skipped));
    assert!(world.status.completion_time.is_some());
}

#[test]
fn a_failed_step_is_tried_again_after_its_back_off_which_doubles_up_to_its_limit() {
    let retry = json!({"retry": {"limit": 3, "backoffSeconds": 10, "maxBackoffSeconds": 15}});
    let mut world = flow(vec![step_with("a", retry), step("b", &["a"])]);
    world.settle();
    for (attempts, wait) in [(1, 10), (2, 15), (3, 15)] {
        let plan = world.end("a", false).settle();
        assert_eq!(world.created.len(), attempts);
        assert_eq!(world.state("a"), Some(StepState::Retrying));
        assert_eq!(world.is(), FlowState::Running);
        assert!(plan.wake_at.unwrap() <= world.now + jiff::SignedDuration::from_secs(wait));
        world.pass(wait - 1).settle();
        assert_eq!(world.created.len(), attempts);
        world.pass(1).settle();
        assert_eq!(world.created.len(), attempts + 1);
    }
    world.end("a", false).settle();
    assert_eq!((world.state("a"), world.is()), (Some(StepState::Failed), FlowState::Failed));
    assert_eq!(world.entry("a").unwrap().attempts(), 4);
    let names: std::collections::BTreeSet<&str> = world.names().into_iter().collect();
    assert_eq!(names.len(), 4);
    assert!(names.contains("flow-a"));
}

#[test]
fn a_job_deleted_by_hand_is_a_failed_attempt() {
    let retry = json!({"retry": {"limit": 1, "backoffSeconds": 0}});
    let mut world = flow(vec![step_with("a", retry)]);
    world.settle();
    world.delete("a").settle();
    assert_eq!(world.created.len(), 2);
    world.delete("a").settle();
    assert_eq!((world.state("a"), world.is()), (Some(StepState::Deleted), FlowState::Failed));
}

#[test]
fn a_job_that_is_gone_without_a_trace_is_a_failed_attempt_once_the_watch_would_show_it() {
    let mut world = flow(vec![step("a", &[])]);
    world.settle();
    world.settle();
    world.jobs.clear();
    world.settle();
    assert_eq!(world.state("a"), Some(StepState::Running));
    world.pass(31).settle();
    assert_eq!((world.state("a"), world.created.len()), (Some(StepState::Deleted), 1));
}

#[test]
fn i6_a_step_that_has_succeeded_is_not_made_again_by_a_plan_from_an_older_status() {
    let retry = json!({"retry": {"limit": 1, "backoffSeconds": 0}});
    let mut world = flow(vec![step_with("a", retry)]);
    world.settle();
    let mut late = world.clone();
    world.end("a", true).settle();
    // Its Job is gone by now, and who plans does not know yet why.
    late.jobs.clear();
    let again = late.pass(60).plan().create;
    assert_eq!((again[0].step.as_str(), again[0].attempt), ("a", 2));
    assert!(still_wanted(&late.status)(&again[0]), "as far as it knew");
    assert!(!still_wanted(&world.status)(&again[0]));
    assert!(!still_wanted(&late.status)(&late.created[0]), "that attempt was made");
    let another_run = NewJob { run: 2, attempt: 1, ..again[0].clone() };
    assert!(still_wanted(&world.status)(&another_run));
}

#[test]
fn no_more_steps_are_at_work_than_max_parallel() {
    let mut world =
        flow_with((0..5).map(|n| step(&format!("s{n}"), &[])).collect(), json!({"maxParallel": 2}));
    world.settle();
    assert_eq!(world.steps(), ["s0", "s1"]);
    world.end("s1", false).settle();
    assert_eq!(world.steps(), ["s0", "s1", "s2"]);
}

#[test]
fn a_suspended_flow_starts_nothing_and_what_runs_goes_on() {
    let mut world = diamond();
    world.settle();
    world.spec.suspend = true;
    world.end("a", true).settle();
    assert_eq!((world.created.len(), world.state("a")), (1, Some(StepState::Succeeded)));
    world.spec.suspend = false;
    world.settle();
    assert_eq!(world.created.len(), 3);
}

fn with_handlers(steps: Vec<Value>) -> World {
    let script = |line: &str| json!({"script": {"image": "busybox", "command": [line]}});
    flow_with(steps, json!({"onFailure": script("echo bad"), "onExit": script("echo end")}))
}

#[test]
fn on_failure_and_then_on_exit_run_when_everything_else_has_ended() {
    let mut world = with_handlers(vec![step("a", &[]), step("b", &[]), step("c", &["a"])]);
    world.settle();
    world.end("a", false).settle();
    assert_eq!(world.created.len(), 2, "b still runs");
    world.end("b", true).settle();
    assert_eq!(world.steps()[2..], ["onFailure"]);
    let env = World::env(&world.created[2]);
    assert_eq!((env["STOKER_FLOW_STATE"], env["STOKER_FAILED_STEPS"]), ("Failed", "a"));
    world.end("onFailure", true).settle();
    assert_eq!(world.steps()[3..], ["onExit"]);
    assert!(world.status.completion_time.is_none());
    world.end("onExit", true).settle();
    assert!(world.status.completion_time.is_some() && world.is() == FlowState::Failed);
    assert_eq!(world.status.progress.as_deref(), Some("1/3"), "handlers are no steps");
}

#[test]
fn on_failure_does_not_run_when_nothing_failed() {
    let mut world = with_handlers(vec![step("a", &[])]);
    world.settle();
    world.end("a", true).settle();
    assert_eq!(world.steps(), ["a", "onExit"]);
    world.end("onExit", true).settle();
    assert_eq!(world.is(), FlowState::Succeed);
}

#[test]
fn handlers_run_again_when_a_flow_ends_again() {
    let mut world = with_handlers(vec![step("a", &[])]);
    world.settle();
    world.end("a", false).settle();
    world.end("onFailure", true).settle();
    world.end("onExit", true).settle();
    assert!(world.status.completion_time.is_some());
    world.rerun_failed = Some("again".to_owned());
    world.settle();
    assert!(world.status.completion_time.is_none());
    world.end("a", true).settle();
    assert_eq!(world.steps(), ["a", "onFailure", "onExit", "a", "onExit"]);
    world.end("onExit", true).settle();
    assert_eq!(world.is(), FlowState::Succeed);
    let names: std::collections::BTreeSet<&str> = world.names().into_iter().collect();
    assert_eq!(names.len(), 5);
}

#[test]
fn a_handler_that_failed_is_started_again_by_hand_and_no_step_with_it() {
    let mut world = with_handlers(vec![step("a", &[])]);
    world.settle();
    world.end("a", true).settle();
    world.end("onExit", false).settle();
    assert_eq!((world.is(), world.status.completion_time.is_some()), (FlowState::Failed, true));
    world.rerun_failed = Some("1".to_owned());
    world.settle();
    assert_eq!((world.is(), world.steps()), (FlowState::Running, vec!["a", "onExit", "onExit"]));
    assert!(world.status.completion_time.is_none());
    world.end("onExit", false).settle();
    world.settle();
    assert_eq!((world.is(), world.created.len()), (FlowState::Failed, 3), "the same text asks once");
    world.rerun_failed = Some("2".to_owned());
    world.settle();
    world.end("onExit", true).settle();
    assert_eq!((world.is(), world.steps().len()), (FlowState::Succeed, 4));
    assert!(world.status.completion_time.is_some());
    let names: std::collections::BTreeSet<&str> = world.names().into_iter().collect();
    assert_eq!(names.len(), 4);
}

#[test]
fn a_handler_that_was_started_again_is_awaited_and_asked_for_once_though_that_is_not_written_yet() {
    for written in [false, true] {
        let mut world = with_handlers(vec![step("a", &[])]);
        world.settle();
        world.end("a", true).settle();
        world.end("onExit", false).settle();
        world.rerun_failed = Some("1".to_owned());
        world.writes = false;
        world.look();
        world.writes = written;
        assert!(world.look().status.completion_time.is_none(), "it runs");
        world.end("onExit", false).pass(1).look();
        world.writes = true;
        world.settle();
        assert_eq!((world.created.len(), world.is()), (3, FlowState::Failed));
        assert!(world.status.completion_time.is_some());
    }
}

#[test]
fn a_handler_that_fails_while_it_is_asked_for_is_meant_too() {
    let mut world = with_handlers(vec![step("a", &[])]);
    world.settle();
    world.end("a", true).settle();
    world.rerun_failed = Some("1".to_owned());
    world.settle();
    assert_eq!(world.created.len(), 2, "the end of the flow comes first");
    world.end("onExit", false).settle();
    assert_eq!((world.is(), world.created.len()), (FlowState::Failed, 2), "which is written first");
    // Nothing that is made is written at once.
    world.writes = false;
    world.look();
    world.look();
    world.writes = true;
    world.settle();
    assert_eq!(world.steps(), ["a", "onExit", "onExit"]);
    world.end("onExit", false).settle();
    world.settle();
    assert_eq!((world.is(), world.created.len()), (FlowState::Failed, 3), "the same text asks once");
}

#[test]
fn a_failed_handler_of_a_failure_is_left_out_when_nothing_fails_the_next_time() {
    let mut world = with_handlers(vec![step("a", &[])]);
    world.settle();
    world.end("a", false).settle();
    world.end("onFailure", false).settle();
    world.end("onExit", true).settle();
    world.rerun_failed = Some("1".to_owned());
    world.settle();
    world.end("a", true).settle();
    assert_eq!(world.steps(), ["a", "onFailure", "onExit", "a", "onExit"]);
    world.end("onExit", true).settle();
    assert_eq!((world.is(), world.state("onFailure")), (FlowState::Succeed, Some(StepState::Skipped)));
}

#[test]
fn the_time_of_a_flow_ends_what_runs_and_leaves_out_the_rest() {
    let mut world = with_handlers(vec![step("a", &[]), step("b", &["a"])]);
    world.spec.timeout_seconds = Some(60);
    let plan = world.settle();
    assert_eq!(plan.wake_at, Some(world.now + jiff::SignedDuration::from_secs(60)));
    world.pass(60).look();
    assert_eq!(world.state("b"), Some(StepState::Skipped));
    world.settle();
    assert_eq!(world.state("a"), Some(StepState::Failed));
    assert_eq!(world.steps(), ["a", "onFailure"]);
    world.end("onFailure", true).settle();
    world.end("onExit", true).settle();
    assert_eq!((world.is(), world.status.timed_out), (FlowState::Failed, true));
    world.rerun_failed = Some("more time".to_owned());
    world.settle();
    assert_eq!(world.steps().last(), Some(&"a"));
    assert!(!world.status.timed_out);
}

#[test]
fn a_flow_that_ended_in_time_did_not_time_out_however_late_it_is_seen() {
    let mut world = flow_with(vec![step("a", &[])], json!({"timeoutSeconds": 60}));
    world.settle();
    world.end("a", true).pass(600).settle();
    assert_eq!((world.is(), world.status.timed_out), (FlowState::Succeed, false));
}

#[test]
fn a_step_that_is_run_again_by_hand_frees_what_was_left_out() {
    let mut world = diamond();
    world.settle();
    world.end("a", true).settle();
    world.end("b", true).end("c", false).settle();
    assert_eq!(world.state("d"), Some(StepState::Skipped));
    world.rerun_failed = Some("1".to_owned());
    world.settle();
    assert_eq!(world.steps(), ["a", "b", "c", "c"]);
    world.settle();
    assert_eq!(world.created.len(), 4, "the same text asks once");
    world.end("c", true).settle();
    world.end("d", true).settle();
    assert_eq!((world.is(), world.steps().len()), (FlowState::Succeed, 5));
}

#[test]
fn a_rerun_whose_status_was_not_written_is_followed_once() {
    let mut world = flow(vec![step("a", &[])]);
    world.settle();
    world.end("a", false).settle();
    world.rerun_failed = Some("1".to_owned());
    world.writes = false;
    world.look();
    world.end("a", false).look();
    world.writes = true;
    world.settle();
    assert_eq!((world.created.len(), world.state("a")), (2, Some(StepState::Failed)));
}

#[test]
fn annotations_that_a_flow_was_made_with_ask_for_nothing() {
    let mut world = flow(vec![step("a", &[])]);
    (world.rerun, world.rerun_failed) = (Some("x".to_owned()), Some("y".to_owned()));
    world.settle();
    world.end("a", false).settle();
    world.settle();
    assert_eq!(world.created.len(), 1);
}

#[test]
fn a_whole_new_run_waits_for_the_end_and_then_runs_everything_anew() {
    let mut world = flow(vec![step("a", &[]), step("b", &["a"])]);
    world.settle();
    world.rerun = Some("1".to_owned());
    assert!(world.settle().rerun_waits);
    assert_eq!(world.condition("Reconciling").0, "True");
    world.end("a", true).settle();
    world.end("b", true).settle();
    let plan = world.look();
    assert_eq!(plan.told, [Told::RunBegan { run: 2 }]);
    world.settle();
    assert_eq!((world.steps(), world.status.run), (vec!["a", "b", "a"], 2));
    world.end("a", true).settle();
    world.end("b", true).settle();
    world.settle();
    assert_eq!((world.is(), world.created.len()), (FlowState::Succeed, 4));
}

#[test]
fn a_whole_new_run_waits_for_a_step_that_started_after_the_end_and_is_not_written_yet() {
    let mut world = flow(vec![step("a", &[])]);
    world.settle();
    world.end("a", true).settle();
    world.spec = flow(vec![step("a", &[]), step("b", &[])]).spec;
    world.writes = false;
    world.settle();
    (world.writes, world.rerun) = (true, Some("again".to_owned()));
    let plan = world.settle();
    assert!(plan.rerun_waits);
    assert_eq!((world.status.run, world.steps()), (1, vec!["a", "b"]));
    world.end("b", true).settle();
    assert_eq!(world.settle().status.run, 2);
}

#[test]
fn outputs_reach_dependants_and_are_kept_as_long_as_one_may_need_them() {
    let mut world = flow(vec![step("get-it", &[]), step("b", &["get-it"]), step("c", &["get-it"])]);
    world.settle();
    world.end_saying("get-it", true, Some("42")).settle();
    for new in &world.created[1..] {
        assert_eq!(World::env(new)["STOKER_OUTPUT_GET_IT"], "42");
    }
    world.end("b", true).settle();
    assert_eq!(world.entry("get-it").unwrap().output.as_deref(), Some("42"));
    world.end("c", true).settle();
    assert_eq!(world.entry("get-it").unwrap().output, None);
    assert_eq!(world.entry("b").unwrap().output, None, "nobody waits for it");
}

#[test]
fn an_output_is_waited_for_when_the_jobs_end_is_seen_first() {
    let mut world = flow(vec![step("a", &[]), step("b", &["a"])]);
    world.settle();
    world.end_saying("a", true, Some("x"));
    let pods = std::mem::take(&mut world.job("a").1);
    assert!(world.settle().wake_at.is_some());
    assert_eq!(world.created.len(), 1);
    world.job("a").1 = pods;
    world.settle();
    assert_eq!(World::env(&world.created[1])["STOKER_OUTPUT_A"], "x");
}

#[test]
fn outputs_that_are_too_much_fail_their_step_in_words() {
    let mut steps: Vec<Value> = (0..65).map(|n| step(&format!("s{n}"), &[])).collect();
    let names: Vec<String> = (0..65).map(|n| format!("s{n}")).collect();
    steps.push(step("all", &names.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut world = flow(steps);
    world.settle();
    for name in &names {
        world.end_saying(name, true, Some(&"x".repeat(4096)));
    }
    world.settle();
    let failed: Vec<_> =
        names.iter().filter_map(|name| world.entry(name)).filter(|e| e.failed_for_good()).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].reason.as_ref().unwrap().contains("output"));
}

#[test]
fn a_removed_steps_job_goes_on_and_is_let_go() {
    let mut world = diamond();
    world.settle();
    world.end("a", true).settle();
    world.spec.flows.retain(|step| step.name != "c");
    world.spec.flows[2].dependencies = vec!["b".to_owned()];
    let plan = world.settle();
    assert_eq!(plan.removed, ["c"]);
    assert!(world.condition("Outdated").1.contains("no longer has c"));
    world.end("b", true).settle();
    world.end("d", true).settle();
    assert!(world.status.completion_time.is_none(), "its Job still runs");
    world.end("c", true).settle();
    assert_eq!(world.is(), FlowState::Succeed);
    world.look();
    world.pass(60).look();
    assert!(world.jobs.iter().all(|(job, _)| job.finalizers.is_empty()));
}

#[test]
fn a_step_that_is_removed_while_it_waits_for_its_next_attempt_does_not_hold_the_flow_up() {
    let retry = json!({"retry": {"limit": 1, "backoffSeconds": 10}});
    let mut world = flow(vec![step("a", &[]), step_with("b", retry)]);
    world.settle();
    world.end("b", false).settle();
    assert_eq!(world.state("b"), Some(StepState::Retrying));
    world.spec.flows.pop();
    world.settle();
    let plan = world.end("a", true).settle();
    assert!(plan.removed.is_empty(), "no Job of it goes on");
    assert_eq!(world.is(), FlowState::Succeed);
    assert!(world.status.completion_time.is_some());
}

#[test]
fn an_ended_flow_that_gets_another_step_goes_on() {
    let mut world = flow(vec![step("a", &[])]);
    world.settle();
    world.end("a", true).settle();
    world.spec = flow(vec![step("a", &[]), step("b", &["a"])]).spec;
    world.settle();
    assert_eq!((world.steps(), world.is()), (vec!["a", "b"], FlowState::Running));
    world.end("b", true).settle();
    assert_eq!(world.is(), FlowState::Succeed);
}

#[test]
fn an_ended_flow_that_goes_on_has_its_time_anew() {
    let mut world = flow_with(vec![step("a", &[])], json!({"timeoutSeconds": 60}));
    world.settle();
    world.end("a", true).settle();
    world.spec.flows.push(serde_json::from_value(step("b", &["a"])).unwrap());
    world.pass(600).settle();
    world.pass(59).settle();
    assert_eq!((world.state("b"), world.status.timed_out), (Some(StepState::Running), false));
}

#[test]
fn an_ended_flow_is_deleted_after_its_time() {
    let mut world = flow_with(vec![step("a", &[])], json!({"ttlSecondsAfterFinished": 100}));
    world.settle();
    world.end("a", true).settle();
    assert!(!world.pass(99).look().delete);
    assert!(world.pass(1).look().delete);
}

#[test]
fn what_goes_lets_all_its_jobs_go() {
    let mut world = diamond();
    world.settle();
    world.end("a", true).settle();
    let kept: Vec<Kept<'_>> = world.jobs.iter().map(|(job, pods)| Kept { job, pods }).collect();
    assert_eq!(let_go(&farewell(&kept)), ["flow-a", "flow-b", "flow-c"]);
}

/// 100 steps wide, ten deep, each row waiting for two of the row before.
fn thousand() -> World {
    let name = |row: usize, column: usize| format!("step-{row}-{}", column % 100);
    let of = |row: usize, column: usize| {
        let before = (row > 0).then(|| [name(row - 1, column), name(row - 1, column + 1)]);
        let names: Vec<&str> = before.iter().flatten().map(String::as_str).collect();
        step(&name(row, column), &names)
    };
    flow((0..10).flat_map(|row| (0..100).map(move |column| (row, column))).map(|(r, c)| of(r, c)).collect())
}

#[test]
fn a_plan_weighs_each_edge_once_and_the_status_of_a_thousand_steps_is_compact() {
    let mut world = thousand();
    for row in 0..10 {
        let plan = world.settle();
        assert!(plan.weighed <= 1800, "{}", plan.weighed);
        for column in 0..100 {
            world.end(&format!("step-{row}-{column}"), true);
        }
        world.pass(10);
    }
    world.settle();
    assert_eq!((world.is(), world.created.len()), (FlowState::Succeed, 1000));
    let bytes = serde_json::to_vec(&world.status).unwrap().len();
    assert!(bytes < 100_000, "{bytes}");
}

/// Steps each of whose inline templates is so large, of which each waits for the one before if they are to say something.
fn large(steps: usize, template: usize, chained: bool) -> World {
    let text = "x".repeat(template);
    let of = |n: usize| {
        let before = (chained && n > 0).then(|| format!("s{}", n - 1));
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        let mut step = step(&format!("s{n}"), &before);
        step["jobTemplate"]["template"]["spec"]["containers"][0]["args"] = json!([text]);
        step
    };
    flow((0..steps).map(of).collect())
}

#[test]
fn a_flow_whose_object_may_come_near_what_kubernetes_stores_is_told_what_to_do() {
    let near = |mut world: World| {
        world.look();
        world.status.conditions.iter().find(|c| c.type_ == "SizeNearLimit").map(|c| c.message.clone())
    };
    let words = near(large(300, 4_000, false)).unwrap();
    assert!(words.contains("JobTemplate") && words.contains("1.57 MB"), "{words}");
    assert_eq!(near(large(300, 400, false)), None);
    // What the steps say is stored, too, for as long as others may need it.
    assert_eq!(near(large(500, 1_750, false)), None);
    assert!(near(large(500, 1_750, true)).is_some_and(|words| words.contains("outputs 0.26 MB")));
    // A thousand steps that share a template stay well below.
    assert_eq!(near(thousand()), None);
}
