//! What becomes of NodeBatchJobs: a table of objects, nodes and pods, look by look. Tests that begin with `never` name what
//! the system that Stoker replaces did.
#![allow(clippy::unwrap_used)]

mod node_batches;

use node_batches::{node, world};
use serde_json::{Value, json};
use stoker_api::ExecutionState::{Failed, Replaced, Running, Succeeded};
use stoker_api::{ExecutionCause, NodeBatchJobState, Parallelism, keys};
use stoker_core::node_batch::{Callbacks, NewPod, body, rules};

/// By then nothing can be on its way any more that would create a pod which has ended.
const LATER: i64 = 31;

fn by_hand() -> Value {
    json!({})
}

#[test]
fn an_execution_begins_at_its_instant_and_ends_when_all_nodes_have() {
    let mut w = world(json!({"schedule": "15 * * * *"}), &["a", "b"]);
    w.settle();
    assert!(w.pods.is_empty() && w.status().executions.is_empty());
    assert_eq!(w.status().next_instant, Some("2026-08-03T09:15:00Z".parse().unwrap()));
    w.live(299).settle();
    assert!(w.pods.is_empty());
    w.live(1);
    assert_eq!((w.newest().id.as_str(), w.newest().cause), ("202608030915", ExecutionCause::Schedule));
    assert_eq!(w.running(), ["a", "b"]);
    assert_eq!(w.pods[0].name, "disks-job-a-202608030915");
    w.succeed("a").settle();
    assert_eq!((w.newest().state, w.newest().progress.as_str()), (Running, "1/2"));
    w.succeed("b").settle();
    assert_eq!((w.newest().state, w.newest().completion_time), (Succeeded, Some(w.now)));
    assert_eq!(w.status().last_successful_time, Some(w.now));
    assert_eq!(w.told, ["ExecutionBegan", "ExecutionSucceeded"]);
    assert_eq!(w.status().state, Some(NodeBatchJobState::Waiting));
}

#[test]
fn nothing_is_created_before_the_execution_is_written() {
    let w = world(json!({"schedule": "* * * * *"}), &["a"]);
    let mut w = w;
    w.pass(60);
    let plan = w.plan();
    assert_eq!(plan.status.executions.len(), 1);
    assert!(plan.create.is_empty(), "an instant could have two");
    w.settle();
    assert_eq!(w.running(), ["a"]);
}

#[test]
fn two_who_begin_the_same_instant_write_the_same_execution() {
    let mut w = world(json!({"schedule": "* * * * *"}), &["a"]);
    w.pass(65);
    let (one, other) = (w.plan(), w.plan());
    assert_eq!(one.status.executions[0].id, other.status.executions[0].id);
}

#[test]
fn pods_run_a_few_at_a_time_and_a_slot_is_filled_at_once() {
    let nodes: Vec<String> = (0..20).map(|n| format!("n{n:02}")).collect();
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let mut w = world(json!({"parallelism": 3}), &names);
    w.annotate(keys::RUN_NOW, "1").settle();
    for _ in 0..20 {
        let running = w.running();
        assert_eq!(running.len(), 3.min(20 - w.newest().nodes.succeeded as usize));
        w.succeed(&running[0]).settle();
    }
    assert_eq!((w.newest().state, w.most), (Succeeded, 3));
    assert!(names.iter().all(|name| w.starts(name) == 1));
}

#[test]
fn never_leaks_a_slot_when_a_pod_is_deleted_or_cannot_be_created() {
    let mut w = world(json!({"parallelism": 1}), &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    let uid = w.pods[0].uid.clone();
    w.delete(&uid);
    w.settle();
    assert_eq!(w.running(), ["b"], "the slot is free");
    assert_eq!(w.newest().failed_nodes[0].node, "a");
    w.succeed("b").settle();
    assert_eq!(w.newest().state, Failed);

    let mut w = world(json!({"parallelism": 1}), &["a", "b"]);
    w.refused = Some("quota".to_owned());
    w.annotate(keys::RUN_NOW, "1").settle();
    assert!(w.pods.is_empty() && w.newest().state == Running);
    assert_eq!(w.condition("Ready").1, "TemplateRefused");
    w.refused = None;
    w.settle();
    assert_eq!(w.running(), ["a"]);
}

#[test]
fn never_blocks_with_no_parallelism_at_all() {
    let mut w = world(json!({"parallelism": 3}), &["a"]);
    w.object.spec.parallelism = Some(Parallelism::Nodes(0));
    w.annotate(keys::RUN_NOW, "1").settle();
    assert_eq!(w.condition("Ready").1, "SpecInvalid");
    assert!(w.condition("Ready").2.contains("spec.parallelism"));
    assert!(w.status().executions.is_empty(), "it waits until the spec is mended");
    w.edit(|spec| spec.parallelism = Some(Parallelism::Nodes(1))).settle();
    assert_eq!(w.running(), ["a"]);
}

#[test]
fn never_deletes_running_pods_when_ticks_overlap() {
    let mut w = world(json!({"schedule": "* * * * *"}), &["a"]);
    w.live(60);
    let pods = w.pods.clone();
    w.live(120);
    assert_eq!(w.pods, pods, "whatever comes meanwhile");
    assert_eq!((w.status().executions.len(), w.status().skipped_count), (1, 2));
    assert!(w.told.contains(&"ExecutionSkipped"));
    w.succeed("a").live(60);
    assert_eq!((w.newest().id.as_str(), w.newest().state), ("202608030914", Running));
}

#[test]
fn allow_runs_both_and_replace_ends_the_earlier_one() {
    let mut w = world(json!({"schedule": "* * * * *", "concurrencyPolicy": "Allow"}), &["a"]);
    w.live(120);
    assert_eq!(w.running(), ["a", "a"]);
    w.live(600);
    assert_eq!((w.running().len(), w.status().skipped_count), (8, 4), "never without bound");

    let mut w = world(json!({"schedule": "* * * * *", "concurrencyPolicy": "Replace"}), &["a", "b"]);
    w.live(60).succeed("a").live(60);
    let states: Vec<_> = w.status().executions.iter().map(|e| e.state).collect();
    assert_eq!(states, [Running, Replaced]);
    assert_eq!(w.running(), ["a", "b"]);
    assert_eq!(w.status().executions[1].nodes.succeeded, 1);
    assert!(w.status().executions[1].completion_time.is_some());
}

#[test]
fn the_latest_missed_instant_runs_within_its_deadline_and_others_are_counted() {
    let spec = json!({"schedule": "*/10 * * * *", "startingDeadlineSeconds": 100});
    let mut w = world(spec, &["a"]);
    w.settle();
    w.pass(1_830).settle();
    assert_eq!((w.newest().id.as_str(), w.status().missed_count), ("202608030940", 2));
    w.succeed("a").settle();
    w.pass(750).settle();
    assert_eq!((w.status().executions.len(), w.status().missed_count), (1, 3), "that was too late");
}

#[test]
fn suspended_schedules_begin_nothing_and_what_runs_goes_on() {
    let mut w = world(json!({"schedule": "* * * * *", "parallelism": 1}), &["a", "b"]);
    w.live(60);
    w.edit(|spec| spec.suspend = true).succeed("a").settle();
    assert_eq!(w.running(), ["b"]);
    w.succeed("b").live(300);
    assert_eq!((w.status().executions.len(), w.status().state), (1, Some(NodeBatchJobState::Suspended)));
    w.annotate(keys::RUN_NOW, "now").settle();
    assert_eq!((w.newest().cause, w.running().len()), (ExecutionCause::Manual, 1));
    w.succeed("a").settle().succeed("b").settle();
    w.edit(|spec| spec.suspend = false).settle();
    assert_eq!(w.newest().cause, ExecutionCause::Schedule, "the latest one that passed meanwhile");
    assert_eq!(w.status().missed_count, 4);
}

#[test]
fn the_execution_at_the_startup_begins_once_after_its_delay() {
    let mut w = world(json!({"runOnStartup": true, "startupDelay": "10s"}), &["a"]);
    w.live(9);
    assert!(w.status().executions.is_empty());
    w.live(1);
    assert_eq!((w.newest().cause, w.running().len()), (ExecutionCause::Startup, 1));
    w.succeed("a").live(600);
    assert_eq!(w.status().executions.len(), 1);
    // Who asks for it later was there before.
    let mut w = world(json!({}), &["a"]);
    w.live(60).edit(|spec| spec.run_on_startup = true).live(60);
    assert!(w.status().executions.is_empty());
}

#[test]
fn an_execution_by_hand_begins_once_for_each_text_and_waits_for_one_under_way() {
    let mut w = world(by_hand(), &["a"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    assert_eq!((w.newest().id.as_str(), w.status().run_now.as_deref()), ("202608030910", Some("1")));
    w.annotate(keys::RUN_NOW, "2").settle();
    assert_eq!(w.status().executions.len(), 1);
    assert!(w.condition("Ready").2.contains("begins after it"), "{}", w.condition("Ready").2);
    w.succeed("a").settle();
    assert_eq!((w.newest().id.as_str(), w.running().len()), ("202608030910-2", 1));
    w.succeed("a").live(300);
    assert_eq!(w.status().executions.len(), 2);
}

#[test]
fn a_failed_node_is_tried_again_and_fails_for_good_in_the_end() {
    let retry = json!({"retry": {"limit": 1, "backoffSeconds": 10}});
    let mut w = world(retry, &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    w.succeed("b").fail("a").settle();
    assert!(w.running().is_empty() && w.newest().state == Running);
    w.live(10);
    assert_eq!(w.running(), ["a"]);
    w.fail("a").settle();
    let execution = w.newest();
    assert_eq!((execution.state, execution.nodes.failed), (Failed, 1));
    let failed = &execution.failed_nodes[0];
    assert_eq!((failed.node.as_str(), failed.attempts), ("a", 2));
    assert_eq!(failed.reason, "container c: exit code 3");
    assert_ne!(w.pods[0].name, failed.pod);
    assert!(w.told.contains(&"NodesFailed") && w.told.contains(&"ExecutionFailed"));
}

#[test]
fn i6_a_node_that_succeeded_is_never_run_again_however_its_pod_disappears() {
    let mut w = world(json!({"parallelism": 1}), &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    w.succeed("a").settle();
    assert!(w.pods[0].finalizers.contains(&keys::OUTCOME.to_owned()), "its name may still be asked for");
    let before = w.pods.clone();
    w.live(LATER);
    assert!(w.pods.iter().find(|pod| pod.annotations[keys::NODE] == "a").unwrap().finalizers.is_empty());
    w.pods.retain(|pod| pod.annotations[keys::NODE] != "a");
    w.settle();
    assert_eq!(w.starts("a"), 1);
    // Whoever plans from an older status creates nothing that the newest one does not allow.
    let old = w.plan_with(&[], None);
    w.create(&old);
    assert_eq!((w.starts("a"), before.len()), (1, 2));
}

#[test]
fn a_pod_is_kept_until_its_outcome_is_written() {
    let mut w = world(by_hand(), &["a"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    w.succeed("a").pass(LATER);
    let plan = w.plan();
    assert!(plan.upkeep.is_empty(), "what is not written yet could be lost: {:?}", plan.upkeep);
}

#[test]
fn ended_pods_go_when_another_execution_begins_or_after_their_time() {
    let mut w = world(json!({"schedule": "*/5 * * * *"}), &["a"]);
    w.live(300).succeed("a").live(LATER);
    assert_eq!(w.pods.len(), 1, "people look at its log");
    w.live(300);
    assert_eq!((w.pods.len(), w.running().len()), (1, 1), "the older one is gone");

    let mut w = world(json!({"ttlSecondsAfterFinished": 60}), &["a"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    w.succeed("a").live(59);
    assert_eq!(w.pods.len(), 1);
    w.live(2);
    assert!(w.pods.is_empty());
}

#[test]
fn a_pod_waits_for_its_log_to_be_saved_and_not_for_ever() {
    let mut w = world(json!({"savePodLog": true, "ttlSecondsAfterFinished": 0}), &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    assert!(w.plan().save.is_empty(), "they run");
    w.succeed("a").fail("b").settle();
    assert_eq!(w.plan().save, ["pod-1", "pod-2"]);
    w.live(300);
    assert_eq!(w.pods.len(), 2);
    w.saved.insert("pod-1".to_owned());
    w.settle().live(LATER);
    assert_eq!(w.pods.len(), 1);
    w.live(400);
    assert!(w.pods.is_empty(), "its log is given up");
    // Without a report service there is nothing to wait for.
    let mut w = world(json!({"savePodLog": true, "ttlSecondsAfterFinished": 0}), &["a"]);
    w.callbacks = false;
    w.annotate(keys::RUN_NOW, "1").settle();
    w.succeed("a").live(LATER);
    assert!(w.pods.is_empty());
    assert!(w.condition("Ready").2.contains("no report service"));
}

#[test]
fn a_pod_that_takes_too_long_is_deleted_and_has_failed() {
    let mut w = world(json!({"activeDeadlineSeconds": 60}), &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").live(30);
    w.succeed("b").live(29);
    assert_eq!(w.running(), ["a"]);
    w.live(1);
    assert_eq!((w.newest().state, w.running().len()), (Failed, 0));
    assert!(w.newest().failed_nodes[0].reason.starts_with("DeadlineExceeded"), "{:?}", w.newest());
}

#[test]
fn a_pod_of_a_silent_node_gives_its_slot_back_once_it_is_deleted() {
    let mut w = world(json!({"activeDeadlineSeconds": 60, "parallelism": 1}), &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    w.nodes[0].ready = false;
    w.pass(60);
    let plan = w.plan();
    assert_eq!(plan.upkeep.len(), 1);
    // Its kubelet tells nothing.
    let now = w.now;
    (w.pods[0].terminating, w.pods[0].deleted_at) = (true, Some(now));
    w.settle();
    assert_eq!(w.running(), ["a"], "it may still work");
    w.live(LATER);
    assert_eq!(w.newest().nodes.failed, 1);
    assert_eq!(w.starts("b"), 1, "others go on");
}

#[test]
fn nodes_that_leave_count_as_gone() {
    let mut w = world(by_hand(), &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    w.succeed("a").leave("b").live(LATER);
    let execution = w.newest();
    assert_eq!((execution.state, execution.nodes.gone, execution.nodes.failed), (Succeeded, 1, 0));
}

#[test]
fn that_no_node_is_chosen_is_no_success() {
    let mut w = world(json!({"nodes": {"selector": {"pool": "gpu"}}}), &["a"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    assert_eq!((w.newest().state, w.newest().nodes.desired), (Failed, 0));
    assert!(w.told.contains(&"NoNodes"));
}

#[test]
fn nodes_are_chosen_by_labels_affinity_taints_and_whether_they_are_cordoned() {
    let affinity = json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "size", "operator": "In", "values": ["l", "xl"]},
    ]}]});
    let spec =
        json!({"nodes": {"selector": {"pool": "x"}, "affinity": affinity, "includeUnschedulable": true}});
    let mut w = world(spec, &["a", "b", "c", "d", "e"]);
    for (node, labels) in w.nodes.iter_mut().zip(["x l", "x s", "y l", "x xl", "x l"]) {
        let (pool, size) = labels.split_once(' ').unwrap();
        node.labels = [("pool".to_owned(), pool.to_owned()), ("size".to_owned(), size.to_owned())].into();
    }
    w.nodes[3].unschedulable = true;
    w.nodes[4].ready = false;
    let chosen = |w: &node_batches::World| {
        let rules = rules(&w.object.spec);
        let chosen = w.nodes.iter().filter(|node| rules.choose(node).is_ok());
        chosen.map(|node| node.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&w), ["a", "d"]);
    w.edit(|spec| spec.nodes.include_unschedulable = false);
    assert_eq!(chosen(&w), ["a"]);
    w.nodes[0].taints = vec![stoker_core::fan_out::Taint {
        key: "node.kubernetes.io/disk-pressure".to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
    }];
    assert_eq!(chosen(&w), ["a"], "as with a DaemonSet");
    w.nodes[0].taints[0].key = "dedicated".to_owned();
    assert!(chosen(&w).is_empty());
}

#[test]
fn a_node_made_anew_under_its_name_runs_once_the_former_ones_pod_has_made_room() {
    let mut w = world(json!({"parallelism": 1}), &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    w.succeed("a").settle();
    w.nodes[0].uid = "another".to_owned();
    w.live(LATER);
    w.succeed("b").live(LATER);
    assert_eq!(w.starts("a"), 2);
    assert_eq!(w.newest().nodes.succeeded + w.newest().nodes.running, 3);
}

#[test]
fn history_is_bounded_and_only_the_newest_keeps_its_record() {
    let mut w = world(json!({"schedule": "* * * * *", "reports": {"history": 3}}), &["a"]);
    for _ in 0..6 {
        w.live(60).succeed("a").settle();
    }
    let executions = &w.status().executions;
    assert_eq!(executions.len(), 3);
    assert_eq!(executions.iter().map(|e| !e.record.is_empty()).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_spec_that_cannot_be_read_begins_nothing_and_says_what_is_wrong() {
    for (spec, words) in [
        (json!({"schedule": "61 * * * *"}), "spec.schedule"),
        (json!({"schedule": "@hourly", "timeZone": "Mars/Olympus"}), "spec.timeZone"),
        (json!({"runOnStartup": true, "startupDelay": "ten"}), "spec.startupDelay"),
        (json!({"reports": {"ttl": "x"}}), "spec.reports.ttl"),
    ] {
        let mut w = world(spec, &["a"]);
        w.annotate(keys::RUN_NOW, "1").live(7_200);
        assert!(w.status().executions.is_empty() && w.condition("Ready").2.contains(words), "{words}");
        assert_eq!(w.condition("Stalled").0, "True");
    }
}

#[test]
fn a_name_that_another_has_is_told_and_others_go_on() {
    let mut w = world(json!({"parallelism": 2}), &["a", "b"]);
    w.taken.insert("disks-job-a-202608030910".to_owned(), false);
    w.annotate(keys::RUN_NOW, "1").settle();
    assert_eq!(w.running(), ["b"]);
    assert_eq!(w.condition("Conflict").0, "True");
    w.taken.insert("disks-job-a-202608030910".to_owned(), true);
    w.settle();
    assert_eq!(w.running(), ["a", "b"]);
}

#[test]
fn when_the_object_goes_every_pod_is_let_go() {
    let mut w = world(by_hand(), &["a", "b"]);
    w.annotate(keys::RUN_NOW, "1").settle();
    assert_eq!(w.farewell().len(), 2);
    w.pods[0].finalizers.clear();
    assert_eq!(w.farewell().len(), 1);
}

#[test]
fn a_pod_says_whose_it_is_and_where_it_reports_to() {
    let template = json!({
        "metadata": {"labels": {"on": "${NODE_NAME}"}},
        "spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{
                "name": "c",
                "args": ["${NAMESPACE}", "$${NODE_NAME}", "${HOME}"],
                "env": [{"name": "EXECUTION_ID", "value": "mine"}],
            }],
            "activeDeadlineSeconds": 500,
        },
    });
    let w = world(json!({"podTemplate": template, "activeDeadlineSeconds": 60}), &[]);
    let new = NewPod {
        name: "disks-job-n-1".to_owned(),
        node: "n.example.org".to_owned(),
        node_uid: "77".to_owned(),
        execution: "202608030910".to_owned(),
        attempt: 2,
    };
    let to = Callbacks {
        host: "reports".to_owned(),
        port: 8090,
        result: "http://r/$1".to_owned(),
        file: "http://f".to_owned(),
        event: "http://e".to_owned(),
    };
    let pod = body(&w.object, &new, Some(&to));
    assert_eq!(pod["metadata"]["labels"]["on"], "n.example.org");
    assert_eq!(pod["metadata"]["annotations"][keys::ATTEMPT], "2");
    assert_eq!(pod["metadata"]["finalizers"], json!([keys::OUTCOME]));
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "NodeBatchJob");
    let spec = &pod["spec"];
    assert_eq!((&spec["restartPolicy"], &spec["activeDeadlineSeconds"]), (&json!("Never"), &json!(60)));
    assert_eq!(spec["containers"][0]["args"], json!(["ops", "${NODE_NAME}", "${HOME}"]));
    let env = |list: &str, name: &str| {
        let all = spec[list][0]["env"].as_array().unwrap();
        all.iter().find(|e| e["name"] == name).map(|e| e["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(env("containers", "EXECUTION_ID").as_deref(), Some("mine"), "the user's own wins");
    assert_eq!(env("initContainers", "EXECUTION_ID").as_deref(), Some("202608030910"));
    assert_eq!(env("containers", "CALLBACK_SERVICE_RESULT_URL").as_deref(), Some("http://r/$$1"));
    assert_eq!(env("containers", "CALLBACK_SERVICE_PORT").as_deref(), Some("8090"));
    let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(terms["nodeSelectorTerms"][0]["matchFields"][0]["values"], json!(["n.example.org"]));
    let tolerations = spec["tolerations"].as_array().unwrap();
    assert!(tolerations.iter().any(|t| t["key"] == "node.kubernetes.io/unreachable"));
    assert!(tolerations.iter().all(|t| t["key"] != "node.kubernetes.io/unschedulable"));
}

#[test]
fn a_cluster_of_five_thousand_nodes_fits_a_status() {
    let mut w = world(json!({"parallelism": 5000}), &[]);
    w.nodes = (0..5_000).map(|n| node(&format!("node-{n}.cluster.example.org"))).collect();
    w.annotate(keys::RUN_NOW, "1").look();
    w.look();
    let names: Vec<String> = w.running();
    assert_eq!(names.len(), 5_000);
    for pod in &mut w.pods {
        pod.phase = stoker_core::Phase::Failed;
    }
    w.look();
    let size = serde_json::to_vec(w.status()).unwrap().len();
    assert!(size < 100_000, "{size}");
    assert_eq!(w.newest().failed_nodes.len(), 16);
}
