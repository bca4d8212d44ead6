//! What becomes of DaemonJobs: a table of objects, nodes and Jobs, look by look. Tests that begin with `never` name what
//! the system that Stoker replaces did.
#![allow(clippy::unwrap_used)]

mod daemon_jobs;

use daemon_jobs::{node, world};
use serde_json::{Value, json};
use stoker_api::DaemonJobState::{Failed, Paused, Pending, Running, Succeed};
use stoker_api::{CompletionPolicy, FailurePolicy, keys};
use stoker_core::daemon_job::{NewJob, body, inline_template, refusal};
use stoker_core::fan_out::{NodeView, Taint};

/// Each end of a run is well after this.
const LATER: i64 = 31;

#[test]
fn every_chosen_node_gets_a_job_and_the_run_ends_when_all_have_ended() {
    let mut w = world(json!({"excludeNodeList": " b ,d"}), &["a", "b", "c", "d"]);
    w.settle();
    assert_eq!(w.running(), ["a", "c"]);
    assert_eq!(w.jobs[0].name, "warm-a");
    assert_eq!((w.state(), w.status().progress.as_str()), (Running, "0/2"));
    w.succeed("a").settle();
    assert_eq!((w.state(), w.status().progress.as_str()), (Running, "1/2"));
    assert!(w.status().completion_time.is_none());
    w.pass(5).succeed("c").settle();
    assert_eq!((w.state(), w.status().progress.as_str()), (Succeed, "2/2"));
    assert_eq!(w.status().completion_time, Some(w.now));
    assert_eq!(w.condition("Ready").0, "True");
    assert_eq!(w.condition("Reconciling").0, "False");
    assert!(w.condition("Ready").1.contains("2 excluded"), "{}", w.condition("Ready").1);
}

#[test]
fn never_stops_after_one_node() {
    let mut w = world(json!({"parallelism": 1}), &["c", "a", "b"]);
    for name in ["a", "b", "c"] {
        w.settle();
        assert_eq!(w.running(), [name]);
        w.succeed(name);
    }
    assert_eq!(w.settle().state(), Succeed);
}

#[test]
fn never_ignores_nodes_that_join() {
    let mut w = world(json!({}), &["a"]);
    w.settle().join("b").settle();
    assert_eq!(w.running(), ["a", "b"]);
    w.succeed("a").succeed("b").settle();
    assert_eq!(w.state(), Succeed);
    // The run is over: a node that joins now waits for the next one.
    w.join("c").settle();
    assert_eq!((w.state(), w.starts("c")), (Succeed, 0));
}

#[test]
fn never_ignores_nodes_that_leave() {
    let mut w = world(json!({}), &["a", "b"]);
    w.settle().succeed("a").leave("b").pass(LATER).settle();
    assert_eq!(w.state(), Succeed, "what waits for a node that left waits for ever");
    let nodes = &w.status().nodes;
    assert_eq!((nodes.succeeded, nodes.failed, nodes.gone), (1, 0, 1));
    assert!(w.running().is_empty());
}

#[test]
fn a_job_of_a_node_that_left_counts_as_gone_though_kubernetes_calls_it_failed() {
    let mut w = world(json!({"failurePolicy": "FailFast"}), &["a", "b"]);
    w.settle().leave("b").pass(LATER).fail("b").settle();
    assert_eq!((w.state(), w.status().nodes.failed, w.status().nodes.gone), (Running, 0, 1));
    assert_eq!(w.running(), ["a"]);
}

#[test]
fn a_node_that_the_watch_does_not_show_yet_is_not_taken_for_gone() {
    let mut w = world(json!({}), &["a"]);
    w.settle();
    let plan = w.plan_with(&[], &w.jobs, w.object.status.clone());
    assert_eq!((plan.upkeep.len(), plan.status.nodes.gone), (0, 0));
    assert!(plan.wake_at.is_some());
}

#[test]
fn never_breaks_on_long_and_dotted_node_names() {
    let long = format!("ip-10-0-0-1.{}.compute.internal", "x".repeat(200));
    let names = [long.as_str(), "ip-10-0-0-1.eu-central-1.compute.internal", "ip-10-0-0-1-eu-central-1"];
    let mut w = world(json!({}), &names);
    w.settle();
    assert_eq!(w.running().len(), 3);
    for job in &w.jobs {
        assert!(job.name.len() <= 52 && !job.name.contains('.'), "{}", job.name);
    }
}

#[test]
fn never_fails_to_finish_with_more_than_one_completion() {
    let mut w = world(json!({"completions": 3}), &["a"]);
    w.settle();
    let template = inline_template(&w.object.spec).unwrap();
    let new = NewJob {
        name: "warm-a".to_owned(),
        node: "a".to_owned(),
        node_uid: "uid-of-a".to_owned(),
        run: 1,
        attempt: 1,
    };
    let body = body(&w.object, template, &new);
    assert_eq!(body["spec"]["completions"], 3);
    assert_eq!(body["spec"]["parallelism"], Value::Null);
    w.jobs[0].succeeded = 2;
    w.settle();
    assert_eq!(w.state(), Running);
    w.jobs[0].succeeded = 3;
    w.succeed("a").settle();
    assert_eq!(w.state(), Succeed);
}

#[test]
fn never_runs_a_node_again_because_its_job_was_deleted_by_its_ttl() {
    let mut w = world(json!({"parallelism": 1, "ttlSecondsAfterFinished": 0}), &["a", "b"]);
    w.settle().succeed("a").settle().expire();
    assert!(w.jobs.iter().any(|job| job.name == "warm-a"), "its name is held");
    w.pass(LATER).settle().expire().settle();
    assert!(w.jobs.iter().all(|job| job.name != "warm-a"));
    assert_eq!((w.starts("a"), w.running()), (1, vec!["b".to_owned()]));
    w.pass(LATER).succeed("b").settle().pass(LATER).settle().expire().settle();
    assert_eq!((w.made.len(), w.jobs.len(), w.state()), (2, 0, Succeed));
}

#[test]
fn a_job_is_kept_until_its_outcome_is_in_the_written_status() {
    let mut w = world(json!({}), &["a", "b"]);
    w.settle().succeed("a").pass(LATER);
    let unwritten = w.plan();
    assert!(unwritten.upkeep.is_empty());
    w.write(&unwritten);
    assert_eq!(w.plan().upkeep.len(), 1);
}

#[test]
fn never_takes_jobs_of_the_same_name_of_another_for_its_own() {
    let mut w = world(json!({"parallelism": 1}), &["a", "b"]);
    w.taken.insert("warm-a".to_owned(), false);
    w.settle();
    assert_eq!(w.running(), ["b"], "the other nodes go on");
    let (status, words) = w.condition("Conflict");
    assert!(status == "True" && words.contains("warm-a"), "{words}");
    w.taken.insert("warm-a".to_owned(), true);
    assert!(w.plan().create.is_empty(), "it could be tried again, and there is no room");
    assert_eq!(w.settle().condition("Conflict").0, "True");
    w.succeed("b");
    w.taken.insert("warm-a".to_owned(), false);
    w.settle();
    assert_eq!(w.state(), Running);
    w.taken.clear();
    w.settle();
    assert_eq!((w.running(), w.condition("Conflict").0), (vec!["a".to_owned()], "False".to_owned()));
}

#[test]
fn a_name_that_is_taken_is_remembered_for_as_long_as_a_node_may_need_it() {
    let mut w = world(json!({"parallelism": 1}), &["a", "b"]);
    w.taken.insert("warm-a".to_owned(), false);
    assert_eq!(w.settle().plan().contested, ["warm-a"]);
    w.edit(|spec| spec.paused = true).settle();
    assert_eq!(w.plan().contested, ["warm-a"], "it is needed later");
    w.leave("a").settle();
    assert!(w.plan().contested.is_empty(), "its node has left");
    w.join("a");
    assert_eq!(w.plan().contested, ["warm-a"]);
    w.annotate(keys::RERUN, "1").settle();
    assert!(w.plan().contested.is_empty(), "the next run's Jobs have other names");
}

#[test]
fn never_stays_failed_after_the_spec_was_repaired() {
    let mut w = world(json!({}), &["a", "b"]);
    w.settle().fail("a").succeed("b").settle();
    assert_eq!((w.state(), w.status().failed_nodes.len()), (Failed, 1));
    assert_eq!(w.condition("Stalled").0, "True");
    w.pass(LATER).edit(|spec| spec.job["template"]["spec"]["priority"] = json!(1)).settle();
    assert_eq!((w.state(), w.running(), w.starts("b")), (Running, vec!["a".to_owned()], 1));
    w.succeed("a").settle();
    assert_eq!((w.state(), w.status().nodes.failed, w.starts("a")), (Succeed, 0, 2));
    assert!(w.status().failed_nodes.is_empty());
}

#[test]
fn a_failed_node_that_is_excluded_afterwards_does_not_count_any_more() {
    let mut w = world(json!({}), &["a", "b"]);
    w.settle().fail("a").succeed("b").settle();
    w.edit(|spec| spec.exclude_node_list = Some("a".to_owned())).settle();
    assert_eq!((w.state(), w.status().progress.as_str()), (Succeed, "1/1"));
}

#[test]
fn no_more_nodes_than_allowed_are_at_work_and_a_slot_is_free_once_a_job_is_seen_to_have_ended() {
    let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (parallelism, at_a_time) in [(json!(3), 3), (json!("25%"), 3), (json!("1%"), 1), (json!("100%"), 10)]
    {
        let mut w = world(json!({"parallelism": parallelism}), &names);
        w.settle();
        assert_eq!(w.running().len(), at_a_time, "{parallelism}");
        w.succeed("n0");
        let plan = w.plan();
        assert_eq!(plan.create.len(), usize::from(at_a_time < 10), "no write is waited for");
    }
}

#[test]
fn a_node_is_tried_again_after_its_back_off_and_fails_for_good_when_its_retries_are_used_up() {
    let mut w = world(json!({"retry": {"limit": 2, "backoffSeconds": 40}}), &["a"]);
    w.settle().fail("a").settle();
    assert_eq!((w.state(), w.running().len(), w.status().nodes.pending), (Running, 0, 1));
    w.pass(39).settle().expire().settle();
    assert_eq!(w.starts("a"), 1);
    w.pass(1).settle();
    assert_eq!((w.starts("a"), w.running().len()), (2, 1));
    w.fail("a").settle().pass(79).settle();
    assert_eq!(w.starts("a"), 2);
    w.pass(1).settle().fail("a").settle();
    assert_eq!((w.state(), w.starts("a")), (Failed, 3));
    let failed = &w.status().failed_nodes[0];
    assert_eq!((failed.node.as_str(), failed.attempts), ("a", 3));
    assert_eq!(failed.reason, "BackoffLimitExceeded: it has failed");
}

#[test]
fn a_job_that_is_deleted_by_hand_is_a_failed_attempt() {
    let mut w = world(json!({"retry": {"limit": 1, "backoffSeconds": 0}}), &["a"]);
    w.settle();
    let uid = w.jobs[0].uid.clone();
    w.delete(&uid);
    w.settle();
    assert_eq!((w.starts("a"), w.running().len()), (2, 1));
    let uid = w.jobs.iter().find(|job| !job.terminating).unwrap().uid.clone();
    w.delete(&uid);
    w.settle();
    assert_eq!(w.state(), Failed);
    assert!(w.status().failed_nodes[0].reason.starts_with("Deleted"));
    w.pass(LATER).settle();
    assert!(w.jobs.is_empty());
}

#[test]
fn a_failure_stops_the_others_as_the_policy_says() {
    for (policy, running, state) in [
        (FailurePolicy::Continue, vec!["b", "c"], Running),
        (FailurePolicy::Pause, vec!["b"], Paused),
        (FailurePolicy::FailFast, vec![], Failed),
    ] {
        let mut w = world(json!({"parallelism": 2}), &["a", "b", "c"]);
        w.object.spec.failure_policy = policy;
        w.settle().fail("a").settle();
        assert_eq!(
            (w.running(), w.state()),
            (running.iter().map(|n| (*n).to_owned()).collect(), state),
            "{policy:?}"
        );
        let counts = &w.status().nodes;
        assert_eq!(counts.desired, counts.running + counts.pending + counts.failed + counts.succeeded);
    }
}

#[test]
fn fail_fast_counts_no_failure_of_what_it_deletes_and_goes_on_with_it_when_repaired() {
    let mut w = world(json!({"failurePolicy": "FailFast"}), &["a", "b"]);
    w.settle().fail("a").settle();
    assert_eq!((w.status().nodes.failed, w.status().nodes.pending), (1, 1));
    assert!(w.status().completion_time.is_some());
    w.pass(LATER).settle();
    w.annotate(keys::RESUME, "again").settle();
    assert_eq!(w.running(), ["a", "b"]);
    w.succeed("a").succeed("b").settle();
    assert_eq!((w.state(), w.made.len()), (Succeed, 4));
}

#[test]
fn what_fail_fast_deleted_before_it_was_written_has_not_failed_either() {
    let mut w = world(json!({"failurePolicy": "FailFast"}), &["a", "b"]);
    w.settle().fail("a");
    let broken = w.plan();
    w.keep_up(&broken);
    w.settle();
    let names: Vec<&str> = w.status().failed_nodes.iter().map(|failed| failed.node.as_str()).collect();
    assert_eq!((names, w.status().nodes.failed), (vec!["a"], 1));
}

#[test]
fn pause_goes_on_with_a_new_text_in_its_annotation_or_an_edit() {
    for by_edit in [false, true] {
        let mut w = world(json!({"failurePolicy": "Pause", "parallelism": 1}), &["a", "b"]);
        w.settle().fail("a").settle();
        assert_eq!((w.state(), w.running().len()), (Paused, 0));
        assert!(w.condition("Ready").1.contains("stoker.dev/resume"));
        if by_edit {
            w.edit(|spec| spec.paused = false)
        } else {
            w.annotate(keys::RESUME, "1")
        };
        w.settle();
        assert_eq!((w.state(), w.running()), (Running, vec!["a".to_owned()]));
        w.fail("a").settle();
        assert_eq!(w.state(), Paused, "the same text is answered once");
    }
}

#[test]
fn resume_gives_nodes_that_have_failed_another_chance_while_others_run() {
    let mut w = world(json!({}), &["a", "b", "c"]);
    w.settle().fail("a").succeed("c").settle();
    assert_eq!((w.state(), w.status().nodes.failed), (Running, 1));
    w.annotate(keys::RESUME, "1").settle();
    assert_eq!((w.state(), w.running()), (Running, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((w.status().nodes.failed, w.status().failed_nodes.len()), (0, 0));
    assert_eq!((w.starts("a"), w.starts("b"), w.starts("c")), (2, 1, 1), "what runs or has succeeded stays");
    w.fail("a").settle();
    assert_eq!((w.running(), w.status().nodes.failed), (vec!["b".to_owned()], 1), "a text is answered once");
    w.annotate(keys::RESUME, "2").settle().succeed("a").succeed("b").settle();
    assert_eq!((w.state(), w.status().progress.as_str()), (Succeed, "3/3"));
}

#[test]
fn resume_does_not_let_a_node_wait_for_its_next_attempt() {
    let mut w = world(json!({"retry": {"limit": 1, "backoffSeconds": 600}}), &["a", "b"]);
    w.settle().fail("a").settle();
    assert_eq!((w.running(), w.status().nodes.failed), (vec!["b".to_owned()], 0));
    w.annotate(keys::RESUME, "1").settle();
    assert_eq!(w.running(), ["a", "b"]);
    w.fail("a").settle();
    assert_eq!(w.status().nodes.failed, 0, "its retries begin anew");
}

#[test]
fn resume_means_a_node_that_failed_as_it_was_asked_for_too() {
    let mut w = world(json!({}), &["a", "b"]);
    w.settle().fail("a").annotate(keys::RESUME, "1").settle();
    assert_eq!((w.running(), w.status().nodes.failed), (vec!["a".to_owned(), "b".to_owned()], 0));
}

#[test]
fn resume_while_fail_fast_ends_what_runs_spares_nothing_and_tries_all_of_it_again() {
    for at_once in [false, true] {
        let mut w = world(json!({"failurePolicy": "FailFast"}), &["a", "b", "c"]);
        w.settle().fail("a");
        if at_once {
            w.annotate(keys::RESUME, "1");
        }
        w.look();
        // Pods take their time to end.
        w.jobs.iter_mut().filter(|job| job.terminating).for_each(|job| job.active = 1);
        w.annotate(keys::RESUME, "1").settle();
        assert_eq!((w.state(), w.starts("a"), w.starts("b")), (Running, 2, 1));
        let ending = w.jobs.iter().filter(|job| job.terminating && job.active == 1).count();
        assert_eq!(ending, 2, "what is being deleted is left to it");
        // One of them succeeds at the last moment, which counts (I6).
        let now = w.now;
        for job in w.jobs.iter_mut().filter(|job| job.terminating) {
            let well = job.annotations[keys::NODE] == "c";
            job.finished =
                well.then_some(stoker_core::pool::jobs::Finished { well, at: Some(now), why: None });
            job.active = 0;
        }
        w.settle();
        assert_eq!((w.running(), w.starts("c")), (vec!["a".to_owned(), "b".to_owned()], 1));
        w.succeed("a").succeed("b").settle();
        assert_eq!((w.state(), w.status().progress.as_str(), w.made.len()), (Succeed, "3/3", 5));
    }
}

#[test]
fn paused_starts_nothing_and_lets_run_what_runs() {
    let mut w = world(json!({"parallelism": 1}), &["a", "b"]);
    w.settle().edit(|spec| spec.paused = true).settle();
    assert_eq!((w.state(), w.running()), (Paused, vec!["a".to_owned()]));
    w.succeed("a").settle();
    assert_eq!((w.state(), w.running().len()), (Paused, 0));
    w.edit(|spec| spec.paused = false).settle();
    assert_eq!((w.state(), w.running()), (Running, vec!["b".to_owned()]));
}

#[test]
fn always_gives_nodes_that_join_later_their_job_and_never_ends() {
    let mut w = world(json!({"completionPolicy": "Always"}), &["a"]);
    w.settle().succeed("a").settle();
    assert_eq!((w.state(), w.status().completion_time), (Succeed, None));
    w.pass(LATER).settle().expire().join("b").settle();
    assert_eq!((w.state(), w.running()), (Running, vec!["b".to_owned()]));
    w.succeed("b").settle();
    assert_eq!((w.state(), w.status().progress.as_str()), (Succeed, "2/2"));
    w.leave("a").settle();
    assert_eq!((w.state(), w.status().progress.as_str()), (Succeed, "1/1"));
}

#[test]
fn nodes_that_left_long_ago_are_forgotten_by_an_object_that_never_ends() {
    let names: Vec<String> = (0..1_100).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut w = world(json!({"completionPolicy": "Always"}), &names);
    w.settle();
    names.iter().for_each(|name| {
        w.succeed(name);
    });
    w.settle().pass(LATER).settle().expire();
    w.nodes.truncate(1);
    w.settle();
    assert_eq!((w.status().record.succeeded.len(), w.status().progress.as_str()), (8, "1/1"));
    w.settle();
    assert_eq!(w.made.len(), 1_100);
}

#[test]
fn a_run_that_is_over_goes_on_when_it_is_made_to_last() {
    let mut w = world(json!({}), &["a"]);
    w.settle().succeed("a").settle().join("b").settle();
    w.edit(|spec| spec.completion_policy = CompletionPolicy::Always).settle();
    assert_eq!((w.running(), w.starts("a")), (vec!["b".to_owned()], 1));
}

#[test]
fn a_node_of_the_same_name_with_another_uid_is_another_node() {
    let mut w = world(json!({"completionPolicy": "Always"}), &["a"]);
    w.settle().succeed("a").settle().pass(LATER);
    w.nodes[0].uid = "uid-of-another".to_owned();
    w.settle();
    assert_eq!((w.starts("a"), w.running()), (2, vec!["a".to_owned()]));
    assert_eq!(w.jobs.len(), 1, "the Job of the one before made room");
}

#[test]
fn a_node_that_is_replaced_while_its_job_runs_is_gone_and_the_new_one_has_its_turn() {
    let mut w = world(json!({}), &["a"]);
    w.settle().pass(LATER);
    w.nodes[0].uid = "uid-of-another".to_owned();
    w.settle().pass(LATER).settle();
    assert_eq!((w.status().nodes.gone, w.starts("a"), w.running().len()), (1, 2, 1));
}

#[test]
fn without_a_node_that_is_chosen_it_waits_and_says_why() {
    let mut w = world(json!({"nodeSelector": {"disk": "ssd"}}), &["a"]);
    w.nodes.push(NodeView { ready: false, ..node("b") });
    w.nodes[1].labels.insert("disk".to_owned(), "ssd".to_owned());
    w.settle();
    assert_eq!(w.state(), Pending);
    let (_, words) = w.condition("Ready");
    assert!(words.contains("1 not selected") && words.contains("1 not Ready"), "{words}");
    w.nodes[1].ready = true;
    w.settle();
    assert_eq!((w.state(), w.running()), (Running, vec!["b".to_owned()]));
}

#[test]
fn a_node_that_is_cordoned_keeps_its_job_and_gets_no_other() {
    let mut w = world(json!({"retry": {"limit": 5, "backoffSeconds": 0}}), &["a", "b"]);
    w.settle();
    w.nodes[0].unschedulable = true;
    w.settle();
    assert_eq!(w.running(), ["a", "b"]);
    w.fail("a").succeed("b").settle();
    assert_eq!((w.starts("a"), w.state(), w.status().progress.as_str()), (1, Succeed, "1/1"));
}

#[test]
fn a_run_that_takes_too_long_has_failed_and_goes_on_when_it_is_given_more_time() {
    let mut w = world(json!({"timeoutSeconds": 60, "parallelism": 1}), &["a", "b"]);
    w.settle().succeed("a").settle();
    assert!(w.plan().wake_at.is_some());
    w.pass(60).settle();
    assert_eq!((w.state(), w.running().len()), (Failed, 0));
    assert_eq!(w.status().nodes.failed, 0);
    assert!(w.condition("Stalled").1.contains("timeoutSeconds"));
    w.pass(LATER).edit(|spec| spec.timeout_seconds = Some(600)).settle();
    assert_eq!((w.state(), w.running(), w.starts("a")), (Running, vec!["b".to_owned()], 1));
    w.succeed("b").settle();
    w.pass(1000).settle();
    assert_eq!(w.state(), Succeed);
}

#[test]
fn what_is_recorded_after_the_end_of_a_run_is_counted_and_what_joins_is_not() {
    let mut w = world(json!({"timeoutSeconds": 60}), &["a", "b", "c"]);
    w.settle().succeed("a").pass(60).settle();
    assert!(w.status().completion_time.is_some());
    assert_eq!((w.status().nodes.succeeded, w.status().nodes.pending), (1, 2));
    // One that was cancelled had ended, and the node of the other leaves.
    w.succeed("b").leave("c").join("d").pass(LATER).settle();
    let nodes = &w.status().nodes;
    assert_eq!((nodes.desired, nodes.succeeded, nodes.pending, nodes.gone), (3, 2, 1, 1));
    assert_eq!(w.status().progress, "2/3");
}

#[test]
fn another_text_in_its_annotation_begins_a_whole_new_run_and_ends_what_runs() {
    let mut w = world(json!({}), &["a", "b"]);
    w.settle().succeed("a").settle().annotate(keys::RERUN, "tonight").settle();
    assert_eq!((w.status().run, w.starts("a"), w.starts("b")), (2, 2, 2));
    assert_eq!(w.status().nodes.succeeded, 0);
    w.pass(LATER).settle();
    assert_eq!(w.running(), ["a", "b"]);
    w.succeed("a").succeed("b").settle();
    assert_eq!((w.state(), w.status().progress.as_str()), (Succeed, "2/2"));
    let names: std::collections::BTreeSet<&str> = w.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names.len(), w.jobs.len());
}

#[test]
fn a_changed_template_is_for_nodes_to_come_unless_it_begins_a_new_run_by_choice() {
    for (by_choice, runs) in [(false, 1), (true, 2)] {
        let mut w = world(json!({"rerunOnTemplateChange": by_choice}), &["a"]);
        w.settle().succeed("a").settle();
        w.edit(|spec| spec.job["template"]["spec"]["priority"] = json!(1)).settle();
        assert_eq!((w.status().run, w.starts("a")), (runs, runs as usize));
    }
}

#[test]
fn a_template_that_is_missing_or_refused_starts_nothing_and_is_told() {
    let mut w = world(json!({}), &["a"]);
    w.missing = Some("JobTemplate x does not exist: create it".to_owned());
    w.settle();
    assert_eq!((w.made.len(), w.status().run, w.state()), (0, 0, Pending));
    assert_eq!(w.condition("TemplateValid"), ("False".to_owned(), w.missing.clone().unwrap()));
    w.missing = None;
    w.refused = Some("admission webhook denied it".to_owned());
    w.settle();
    assert_eq!((w.made.len(), w.condition("Stalled").0.as_str()), (0, "True"));
    w.refused = None;
    w.settle();
    assert_eq!((w.made.len(), w.condition("Ready").0.as_str()), (1, "True"));
}

#[test]
fn what_a_spec_cannot_mean_is_refused_in_words() {
    let pod = json!({"spec": {"containers": [{"name": "c"}]}});
    let table = [
        (json!({}), json!({"template": pod}), None),
        (json!({"parallelism": 0}), json!({"template": pod}), Some("spec.parallelism")),
        (json!({"parallelism": "0%"}), json!({"template": pod}), Some("spec.parallelism")),
        (json!({"template": null, "jobTemplateRef": "t"}), json!({"template": pod}), None),
        (json!({"jobTemplateRef": "t"}), json!({"template": pod}), Some("spec.template has no effect")),
        (json!({}), json!({"completions": 1}), Some("no template.spec")),
        (json!({}), json!({"template": pod, "suspend": true}), Some("suspend")),
        (json!({}), json!({"template": pod, "manualSelector": true}), Some("manualSelector")),
    ];
    for (spec, template, expected) in table {
        let w = world(spec.clone(), &[]);
        let words = refusal(&w.object.spec, template.as_object().unwrap());
        match expected {
            None => assert_eq!(words, None, "{spec} {template}"),
            Some(part) => assert!(words.clone().is_some_and(|words| words.contains(part)), "{words:?}"),
        }
    }
    let beside = json!({"template": null, "jobTemplateRef": "t", "completions": 2});
    let words =
        refusal(&world(beside, &[]).object.spec, json!({"template": pod}).as_object().unwrap()).unwrap();
    assert!(words.ends_with("write it into the JobTemplate"), "override changes pod templates only: {words}");
}

#[test]
fn nothing_is_created_before_its_run_is_written_nor_when_it_was_recorded_meanwhile() {
    let mut w = world(json!({}), &["a"]);
    let first = w.plan();
    assert!(first.create.is_empty() && first.status.run == 1);
    w.write(&first);
    let late = w.plan();
    assert_eq!(late.create.len(), 1);
    w.settle().succeed("a").settle().pass(LATER).settle().expire();
    w.create(&late);
    assert_eq!(w.made.len(), 1, "it is asked once more, and the status says no");
}

#[test]
fn an_object_that_goes_lets_every_job_go() {
    let mut w = world(json!({}), &["a", "b"]);
    w.settle().succeed("a").settle();
    assert_eq!(w.farewell().len(), 2);
    w.jobs.iter_mut().for_each(|job| job.finalizers.clear());
    assert!(w.farewell().is_empty());
}

#[test]
fn a_nodes_job_is_pinned_as_a_daemon_set_pins_and_says_what_it_is_for() {
    let mut w = world(
        json!({
            "includeUnschedulable": true,
            "globalParams": {"nodeName": "a", "labels": {"team": "x"}},
            "completions": 2,
        }),
        &["a", "b"],
    );
    w.nodes[0].taints.push(Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
    });
    w.nodes[0].unschedulable = true;
    w.settle();
    assert_eq!(w.running(), ["a"]);
    let new = NewJob {
        name: "warm-a".to_owned(),
        node: "a".to_owned(),
        node_uid: "uid-of-a".to_owned(),
        run: 1,
        attempt: 1,
    };
    let body = body(&w.object, inline_template(&w.object.spec).unwrap(), &new);
    let meta = &body["metadata"];
    assert_eq!(meta["annotations"][keys::NODE_UID], "uid-of-a");
    assert_eq!(meta["labels"]["team"], "x");
    assert_eq!(meta["ownerReferences"][0]["uid"], "u-1");
    assert_eq!(meta["finalizers"][0], keys::OUTCOME);
    let pod = &body["spec"]["template"]["spec"];
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let fields = json!([{"key": "metadata.name", "operator": "In", "values": ["a"]}]);
    assert_eq!(terms["nodeSelectorTerms"][0]["matchFields"], fields);
    assert_eq!(pod["tolerations"][0]["key"], "node.kubernetes.io/unschedulable");
    assert_eq!(pod["restartPolicy"], "Never");
    assert_eq!((&body["spec"]["backoffLimit"], &body["spec"]["completions"]), (&json!(0), &json!(2)));
}

#[test]
fn five_thousand_nodes_have_a_compact_status() {
    let names: Vec<String> = (0..5_000).map(|n| format!("node-{n:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut w = world(json!({}), &names);
    w.look();
    let plan = w.plan();
    assert_eq!(plan.create.len(), 5_000);
    w.create(&plan);
    let now = w.now;
    for (index, job) in w.jobs.iter_mut().enumerate() {
        let why = (index % 10 == 0).then(|| "x".repeat(1_000));
        job.finished = Some(stoker_core::pool::jobs::Finished { well: why.is_none(), at: Some(now), why });
        job.active = 0;
    }
    w.look();
    assert_eq!((w.state(), w.status().nodes.succeeded, w.status().nodes.failed), (Failed, 4_500, 500));
    assert_eq!(w.status().failed_nodes.len(), 32);
    assert!(w.status().failed_nodes.iter().all(|failed| failed.reason.len() <= 256));
    let size = serde_json::to_string(w.status()).unwrap().len();
    assert!(size < 64_000, "{size}");
    w.pass(LATER);
    assert_eq!(w.plan().upkeep.len(), 5_000);
}
