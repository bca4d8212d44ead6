//! What the Jobs of a flow look like.
#![allow(clippy::unwrap_used)]

mod flow_world;

use flow_world::{World, flow, flow_with, step, step_with};
use serde_json::{Value, json};
use stoker_core::flow::{NewJob, body, merge_pod_template};
use stoker_core::job_body::pin;

/// The body of the first step's Job.
fn first(world: &World) -> Value {
    let plan = world.plan();
    body(&world.flow(), &plan.create[0], &json!({"kind": "JobFlow", "uid": "uid-flow"})).unwrap()
}

fn pod(body: &Value) -> &Value {
    &body["spec"]["template"]["spec"]
}

fn template(spec: Value) -> Value {
    json!({"jobTemplate": {"template": {"spec": spec}}})
}

#[test]
fn a_job_is_never_restarted_in_place_and_kept_until_its_outcome_is_recorded() {
    let body = first(&flow(vec![step("a", &[])]));
    assert_eq!(body["metadata"]["name"], "flow-a");
    assert_eq!(body["metadata"]["finalizers"], json!(["stoker.dev/outcome"]));
    assert_eq!(body["metadata"]["annotations"]["stoker.dev/run"], "1");
    assert_eq!(body["metadata"]["annotations"]["stoker.dev/attempt"], "1");
    assert_eq!((&body["spec"]["backoffLimit"], &pod(&body)["restartPolicy"]), (&json!(0), &json!("Never")));
    assert_eq!(body["spec"]["template"]["metadata"]["annotations"]["stoker.dev/step"], "a");
}

#[test]
fn a_template_with_rules_of_its_own_for_failed_pods_keeps_its_limit() {
    let spec = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    let keeps = json!({"jobTemplate": {"backoffLimit": 4, "backoffLimitPerIndex": 1, "template": spec}});
    assert_eq!(first(&flow(vec![step_with("a", keeps)]))["spec"]["backoffLimit"], 4);
    let forced = json!({"jobTemplate": {"backoffLimit": 4, "template": spec}});
    assert_eq!(first(&flow(vec![step_with("a", forced)]))["spec"]["backoffLimit"], 0);
}

#[test]
fn global_params_are_merged_and_the_steps_own_values_win() {
    let spec = json!({
        "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "own"}]}],
        "initContainers": [{"name": "i", "image": "i"}],
    });
    let global = json!({"globalParams": {
        "env": [{"name": "A", "value": "global"}, {"name": "B", "value": "global"}],
        "labels": {"team": "x", "stoker.dev/owner-uid": "stolen"},
        "annotations": {"note": "y"},
        "nodeName": "node-7",
    }});
    let body = first(&flow_with(vec![step_with("a", template(spec))], global));
    let b = json!({"name": "B", "value": "global"});
    assert_eq!(pod(&body)["containers"][0]["env"], json!([b, {"name": "A", "value": "own"}]));
    assert_eq!(pod(&body)["initContainers"][0]["env"].as_array().unwrap().len(), 2);
    let labels = &body["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["team"], &labels["stoker.dev/owner-uid"]), (&json!("x"), &json!("uid-flow")));
    assert_eq!(body["metadata"]["labels"]["team"], "x");
    assert_eq!(body["metadata"]["annotations"]["note"], "y");
    let field = json!({"key": "metadata.name", "operator": "In", "values": ["node-7"]});
    let required = &pod(&body)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(required["nodeSelectorTerms"], json!([{"matchFields": [field]}]));
    assert!(pod(&body).get("nodeName").is_none());
}

#[test]
fn a_pin_holds_with_each_term_of_a_pods_own_affinity() {
    let zone = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]});
    let mut pod = json!({"nodeName": "other", "affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [zone, {}]},
    }}});
    pin(pod.as_object_mut().unwrap(), "n");
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchFields"][0]["values"], json!(["n"]));
    assert_eq!(terms[0]["matchExpressions"], zone["matchExpressions"]);
    assert_eq!(terms[1], json!({}), "a term that demands nothing matches no node");
    assert!(pod.get("nodeName").is_none());
}

#[test]
fn share_volumes_are_mounted_in_all_containers_of_steps_with_mounts_only() {
    let share =
        json!({"shareVolumes": [{"name": "data", "emptyDir": {}}, {"name": "unused", "emptyDir": {}}]});
    let spec =
        json!({"initContainers": [{"name": "i", "image": "i"}], "containers": [{"name": "c", "image": "i"}]});
    let mut with = step_with("a", template(spec.clone()));
    with["shareVolumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let body = first(&flow_with(vec![with], share.clone()));
    assert_eq!(pod(&body)["volumes"], json!([{"name": "data", "emptyDir": {}}]));
    for list in ["initContainers", "containers"] {
        assert_eq!(pod(&body)[list][0]["volumeMounts"], json!([{"name": "data", "mountPath": "/data"}]));
    }
    let body = first(&flow_with(vec![step_with("a", template(spec))], share));
    assert!(pod(&body).get("volumes").is_none());
}

#[test]
fn a_mount_of_a_volume_that_is_nowhere_is_refused_in_words() {
    let world =
        flow(vec![step_with("a", json!({"shareVolumeMounts": [{"name": "data", "mountPath": "/d"}]}))]);
    let refused = body(&world.flow(), &world.plan().create[0], &json!({})).unwrap_err();
    assert!(refused.contains("step a") && refused.contains("data"), "{refused}");
}

#[test]
fn the_smaller_of_both_deadlines_counts() {
    let spec = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (own, limit, wanted) in [(Some(5), 9, 5), (Some(50), 9, 9), (None, 9, 9)] {
        let mut job = json!({"template": spec});
        if let Some(own) = own {
            job["activeDeadlineSeconds"] = json!(own);
        }
        let world = flow(vec![step_with("a", json!({"jobTemplate": job, "timeoutSeconds": limit}))]);
        assert_eq!(first(&world)["spec"]["activeDeadlineSeconds"], wanted);
    }
}

#[test]
fn what_a_step_says_is_taken_literally() {
    let world = flow(vec![step("a", &[])]);
    let new = NewJob {
        env: vec![("STOKER_OUTPUT_B".to_owned(), "$(HOME) $$".to_owned())],
        ..world.plan().create[0].clone()
    };
    let body = body(&world.flow(), &new, &json!({})).unwrap();
    assert_eq!(
        pod(&body)["containers"][0]["env"],
        json!([{"name": "STOKER_OUTPUT_B", "value": "$$(HOME) $$$$"}])
    );
}

#[test]
fn an_override_is_merged_as_kubernetes_patches_a_pod_template() {
    let before = json!({
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {
            "containers": [
                {"name": "c", "image": "old", "args": ["x", "y"],
                 "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                 "ports": [{"containerPort": 80, "name": "web"}],
                 "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}],
                 "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
                {"name": "gone", "image": "i"},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "old"}],
            "imagePullSecrets": [{"name": "one"}],
            "nodeSelector": {"disk": "ssd"},
        },
    });
    let changes = json!({
        "metadata": {"labels": {"b": null, "c": "3"}},
        "spec": {
            "containers": [
                {"name": "c", "image": "new", "args": ["z"],
                 "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "B", "$patch": "delete"}, {"name": "C", "value": "3"}],
                 "ports": [{"containerPort": 80, "protocol": "UDP"}],
                 "volumeMounts": [{"mountPath": "/v", "readOnly": true}, {"mountPath": "/w", "$patch": "delete"}],
                 "resources": {"limits": {"cpu": "2"}}},
                {"name": "gone", "$patch": "delete"},
                {"name": "more", "image": "m"},
            ],
            "volumes": [{"name": "v", "$patch": "replace", "configMap": {"name": "m"}}],
            "tolerations": [{"key": "new"}],
            "imagePullSecrets": [{"name": "two"}],
            "nodeSelector": {"$patch": "replace", "zone": "a"},
        },
    });
    let merged = merge_pod_template(&before, changes.as_object().unwrap()).unwrap();
    let wanted = json!({
        "metadata": {"labels": {"a": "1", "c": "3"}},
        "spec": {
            "containers": [
                {"name": "c", "image": "new", "args": ["z"],
                 "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "C", "value": "3"}],
                 "ports": [{"containerPort": 80, "name": "web", "protocol": "UDP"}],
                 "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}],
                 "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}},
                {"name": "more", "image": "m"},
            ],
            "volumes": [{"name": "v", "configMap": {"name": "m"}}],
            "tolerations": [{"key": "new"}],
            "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
            "nodeSelector": {"zone": "a"},
        },
    });
    assert_eq!(merged, wanted);
}

#[test]
fn an_override_that_cannot_be_merged_is_refused_in_words() {
    for (changes, words) in [
        (json!({"containers": []}), "override.containers is no part"),
        (json!({"spec": {"containers": [{"image": "x"}]}}), "has no name"),
        (json!({"spec": {"$retainKeys": ["x"]}}), "not supported"),
        (json!({"spec": {"$patch": "wipe"}}), "not known"),
    ] {
        let refused = merge_pod_template(&json!({}), changes.as_object().unwrap()).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn an_override_changes_the_body_and_the_hash() {
    let plain = flow(vec![step("a", &[])]);
    let changed = json!({"override": {"spec": {"containers": [{"name": "work", "image": "other"}]}}});
    let changed = flow(vec![step_with("a", changed)]);
    assert_eq!(pod(&first(&changed))["containers"][0]["image"], "other");
    assert_ne!(plain.plan().create[0].hash, changed.plan().create[0].hash);
}
