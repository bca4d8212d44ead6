//! What a JobFlow and a DaemonJob tell in the conditions that kinds have which run to an end: the same in the same case.
#![allow(clippy::unwrap_used)]

mod daemon_jobs;
mod flow_world;

use std::sync::Arc;

use daemon_jobs::world;
use flow_world::{World, flow, flow_with, pod_template, step};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;
use stoker_api::keys;
use stoker_core::flow::{Troubles, conditions};

/// Statuses of Ready, Reconciling, Stalled and Complete, by their first letters, and the reason of Ready.
fn told(conditions: &[Condition]) -> (String, String) {
    let of = |type_: &str| conditions.iter().find(|c| c.type_ == type_).unwrap();
    let letter = |type_: &str| of(type_).status.chars().next().unwrap();
    let letters = ["Ready", "Reconciling", "Stalled", "Complete"].map(letter);
    (letters.iter().collect(), of("Ready").reason.clone())
}

#[track_caller]
fn is(conditions: &[Condition], letters: &str, reason: &str) {
    assert_eq!(told(conditions), (letters.to_owned(), reason.to_owned()), "{conditions:#?}");
}

/// What a flow tells when its operator has met with trouble.
fn with(world: &World, troubles: &Troubles) -> Vec<Condition> {
    let mut plan = world.plan();
    // What could be created was refused.
    plan.create.clear();
    conditions(&world.flow(), &plan, troubles, &[], world.now)
}

#[test]
fn what_runs_is_ready_and_reconciling_also_when_a_part_of_it_has_failed() {
    let mut f = flow(vec![step("a", &[]), step("b", &[])]);
    f.settle();
    is(&f.status.conditions, "TTFF", "Running");
    f.end("a", false).settle();
    is(&f.status.conditions, "TTFF", "StepFailed");

    let mut d = world(json!({}), &["a", "b"]);
    is(&d.settle().status().conditions, "TTFF", "Running");
    is(&d.fail("a").settle().status().conditions, "TTFF", "Running");
}

#[test]
fn what_has_succeeded_is_ready_and_complete() {
    let mut f = flow(vec![step("a", &[])]);
    f.settle();
    f.end("a", true).settle();
    is(&f.status.conditions, "TFFT", "Succeeded");

    for policy in ["Once", "Always"] {
        let mut d = world(json!({"completionPolicy": policy}), &["a"]);
        is(&d.settle().succeed("a").settle().status().conditions, "TFFT", "Succeeded");
    }
}

#[test]
fn what_has_failed_is_stalled_and_goes_on_when_it_is_tried_again() {
    let mut f = flow(vec![step("a", &[])]);
    f.settle();
    f.end("a", false).settle();
    is(&f.status.conditions, "FFTF", "StepFailed");
    f.rerun_failed = Some("1".to_owned());
    f.settle();
    is(&f.status.conditions, "TTFF", "Running");

    let mut d = world(json!({}), &["a"]);
    is(&d.settle().fail("a").settle().status().conditions, "FFTF", "NodesFailed");
    is(&d.annotate(keys::RESUME, "1").settle().status().conditions, "TTFF", "Running");
}

#[test]
fn what_took_too_long_is_stalled_once_what_runs_of_it_has_ended() {
    let mut f = flow_with(vec![step("a", &[])], json!({"timeoutSeconds": 60}));
    f.settle();
    f.pass(60).look();
    is(&f.status.conditions, "TTFF", "TimedOut");
    f.settle();
    is(&f.status.conditions, "FFTF", "StepFailed");

    let mut d = world(json!({"timeoutSeconds": 60}), &["a"]);
    d.settle().pass(60).look();
    is(&d.status().conditions, "TTFF", "DeadlineExceeded");
    is(&d.settle().status().conditions, "FFTF", "DeadlineExceeded");
}

#[test]
fn a_policy_that_stops_the_others_stalls_once_what_runs_has_ended() {
    let mut d = world(json!({"failurePolicy": "Pause"}), &["a", "b"]);
    d.settle().fail("a").settle();
    is(&d.status().conditions, "TTFF", "NodesFailed");
    is(&d.succeed("b").settle().status().conditions, "FFTF", "NodesFailed");
}

#[test]
fn what_the_user_has_wait_is_ready_and_not_reconciling() {
    let mut f = flow_with(vec![step("a", &[])], json!({"suspend": true}));
    f.settle();
    is(&f.status.conditions, "TFFF", "Suspended");

    let mut d = world(json!({"paused": true}), &["a"]);
    is(&d.settle().status().conditions, "TFFF", "Paused");
}

#[test]
fn a_missing_template_stalls_once_nothing_else_goes_on() {
    let mut f = flow(vec![step("a", &[]), json!({"name": "b", "jobTemplateRef": "late"})]);
    f.settle();
    is(&f.status.conditions, "FTFF", "TemplateMissing");
    f.end("a", true).settle();
    is(&f.status.conditions, "FFTF", "TemplateMissing");
    let template = json!({"template": pod_template()});
    f.templates.insert("late".to_owned(), Arc::new(template.as_object().unwrap().clone()));
    f.settle();
    is(&f.status.conditions, "TTFF", "Running");

    let mut d = world(json!({}), &["a"]);
    d.missing = Some("there is no JobTemplate late".to_owned());
    is(&d.settle().status().conditions, "FFTF", "TemplateMissing");
    d.missing = None;
    d.settle();
    d.missing = Some("there is no JobTemplate late".to_owned());
    is(&d.settle().status().conditions, "FTFF", "TemplateMissing");
}

#[test]
fn a_template_that_only_an_unneeded_handler_lacks_does_not_spoil_the_end() {
    let handler = json!({"onFailure": {"jobTemplateRef": "late"}});
    let mut f = flow_with(vec![step("a", &[])], handler);
    f.settle();
    f.end("a", true).settle();
    is(&f.status.conditions, "TFFT", "Succeeded");
}

#[test]
fn a_refused_template_stalls_once_nothing_else_goes_on() {
    let refused = Troubles { refused: Some("step b: no such image".to_owned()), conflict: None };
    let mut f = flow(vec![step("a", &[]), step("b", &[])]);
    is(&with(&f, &refused), "FFTF", "Refused");
    f.settle();
    f.end("b", true).settle();
    is(&with(&f, &refused), "FTFF", "Refused");

    let mut d = world(json!({"parallelism": 1}), &["a", "b"]);
    d.settle().refused = Some("no such image".to_owned());
    is(&d.settle().status().conditions, "FTFF", "Refused");
    is(&d.succeed("a").settle().status().conditions, "FFTF", "Refused");
}

#[test]
fn a_taken_name_stalls_once_nothing_else_goes_on() {
    let taken = Troubles { refused: None, conflict: Some("flow-a".to_owned()) };
    let mut f = flow(vec![step("a", &[]), step("b", &[])]);
    is(&with(&f, &taken), "FFTF", "NameTaken");
    f.settle();
    is(&with(&f, &taken), "FTFF", "NameTaken");

    let mut d = world(json!({}), &["a", "b"]);
    d.taken.insert("warm-a".to_owned(), false);
    is(&d.settle().status().conditions, "FTFF", "NameTaken");
    is(&d.succeed("b").settle().status().conditions, "FFTF", "NameTaken");
    d.taken.clear();
    is(&d.settle().status().conditions, "TTFF", "Running");
}

#[test]
fn a_spec_that_cannot_be_meant_stalls() {
    let mut f = flow(vec![step("a", &["b"]), step("b", &["a"])]);
    f.settle();
    is(&f.status.conditions, "FFTF", "GraphInvalid");

    let mut d = world(json!({"parallelism": 0}), &["a"]);
    is(&d.settle().status().conditions, "FFTF", "Invalid");
}

#[test]
fn a_step_or_node_that_waits_for_its_next_attempt_goes_on() {
    let mut f = flow(vec![flow_world::step_with("a", json!({"retry": {"limit": 1, "backoffSeconds": 60}}))]);
    f.settle();
    f.end("a", false).settle();
    is(&f.status.conditions, "TTFF", "Waiting");
    is(&with(&f, &Troubles { refused: None, conflict: Some("flow-b".to_owned()) }), "FTFF", "NameTaken");

    let mut d = world(json!({"retry": {"limit": 1, "backoffSeconds": 60}}), &["a"]);
    is(&d.settle().fail("a").settle().status().conditions, "TTFF", "Running");
}

#[test]
fn without_a_node_a_daemon_job_is_not_ready_and_waits_for_one() {
    let mut d = world(json!({}), &[]);
    is(&d.settle().status().conditions, "FTFF", "NoNodes");
}
