//! What a run's Job looks like and is called, and when its warm-up begins.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use stoker_api::Gate;
use stoker_core::names;
use stoker_core::pre_scaled::{Lead, job, template_refusal};
use stoker_cron::Schedule;

const IMAGE: &str = "registry.example/stoker:1";

fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn instant() -> Timestamp {
    t("2026-06-01T10:05:00Z")
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A JobSpec of a pod's spec.
fn of_pod(spec: Value) -> Map<String, Value> {
    object(json!({"template": {"spec": spec}}))
}

/// The Job's pod template, made a minute before the instant.
fn pod_of(template: &Map<String, Value>, gate: Gate) -> Value {
    let made = job(template, gate, IMAGE, instant(), &Map::new(), instant() - SignedDuration::from_mins(1));
    made["template"].clone()
}

fn names_of(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|thing| thing["name"].as_str().unwrap()).collect()
}

#[test]
fn the_gate_waits_after_all_images_are_there_and_before_the_users_own_init_containers() {
    let pod = pod_of(
        &of_pod(json!({
            "initContainers": [{"name": "fetch", "image": "git:1"}, {"name": "side", "image": "app:1", "restartPolicy": "Always"}],
            "containers": [
                {"name": "main", "image": "app:1", "imagePullPolicy": "Always", "command": ["run"]},
                {"name": "log", "image": "log:1"},
            ],
        })),
        Gate::InitContainer,
    );
    let inits = &pod["spec"]["initContainers"];
    assert_eq!(
        names_of(inits),
        ["stoker-gate-install", "stoker-pull-0", "stoker-pull-1", "stoker-gate", "fetch", "side"]
    );
    let images: Vec<_> = (0..4).map(|i| inits[i]["image"].as_str().unwrap()).collect();
    assert_eq!(images, [IMAGE, "app:1", "log:1", "git:1"], "each image once");
    assert_eq!(inits[1]["imagePullPolicy"], "Always", "as the container has it");
    assert_eq!(inits[2].get("imagePullPolicy"), None);
    assert_eq!(inits[0]["command"][3], "/stoker-gate-bin/door", "which is closed before anything else");
    let (program, at, door) = ("/stoker-gate-bin/gate", "2026-06-01T10:05:00Z", "/stoker-gate-bin/door");
    let gate = &inits[3];
    assert_eq!(gate["command"], json!([program, "hold", at, door]));
    assert_eq!(gate["restartPolicy"], "Always", "a sidecar");
    let probe = &gate["startupProbe"];
    assert_eq!(probe["exec"]["command"], json!([program, "wait", at, door]));
    assert_eq!(probe["timeoutSeconds"], 3_660, "one that is made a minute before lasts until the instant");
    assert_eq!(probe["failureThreshold"], i32::MAX, "and is never the reason to start the gate anew");
    // The user's own are as they were, but for the door, which none of them can be started without.
    let door =
        json!({"name": "stoker-gate", "mountPath": "/stoker-gate-door", "subPath": "door", "readOnly": true});
    assert_eq!(
        inits[5],
        json!({"name": "side", "image": "app:1", "restartPolicy": "Always", "volumeMounts": [door]})
    );
    assert_eq!(inits[4]["volumeMounts"], json!([door]));
    assert_eq!(
        pod["spec"]["containers"],
        json!([
            {"name": "main", "image": "app:1", "imagePullPolicy": "Always", "command": ["run"], "volumeMounts": [door]},
            {"name": "log", "image": "log:1", "volumeMounts": [door]},
        ])
    );
}

#[test]
fn a_gates_probe_lasts_for_any_lead() {
    for (ahead, seconds) in [
        (SignedDuration::from_secs(-90), 3_600),
        (SignedDuration::from_millis(1_500), 3_601),
        (SignedDuration::from_hours(24 * 365 * 100), i64::from(i32::MAX)),
    ] {
        let template = of_pod(json!({"containers": [{"name": "a", "image": "a"}]}));
        let made = job(&template, Gate::InitContainer, IMAGE, instant(), &Map::new(), instant() - ahead);
        let gate = &made["template"]["spec"]["initContainers"][1];
        assert_eq!(gate["startupProbe"]["timeoutSeconds"], seconds);
    }
}

#[test]
fn one_image_needs_one_container_that_waits() {
    let pod =
        pod_of(&of_pod(json!({"containers": [{"name": "main", "image": "app:1"}]})), Gate::InitContainer);
    assert_eq!(names_of(&pod["spec"]["initContainers"]), ["stoker-gate-install", "stoker-gate"]);
    assert_eq!(pod["spec"]["initContainers"][1]["image"], "app:1");
}

#[test]
fn containers_of_stokers_own_have_few_rights_and_next_to_no_needs() {
    let pod = pod_of(
        &of_pod(json!({"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]})),
        Gate::InitContainer,
    );
    for own in pod["spec"]["initContainers"].as_array().unwrap() {
        let security = &own["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(own["resources"]["requests"]["cpu"], "1m");
        let pulls = own["name"] == "stoker-pull-0";
        assert_eq!(own["volumeMounts"][0]["readOnly"], json!(pulls), "two of them write");
    }
}

#[test]
fn an_exec_gate_wraps_each_command_and_keeps_its_arguments() {
    let template = of_pod(json!({
        "initContainers": [{"name": "fetch", "image": "git:1", "command": ["clone"]}],
        "containers": [
            {"name": "main", "image": "app:1", "command": ["sh", "-c"], "args": ["echo $1", "x"],
             "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            {"name": "log", "image": "log:1", "command": ["tail"]},
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }));
    assert_eq!(template_refusal(&template, Gate::Exec), None);
    let spec = &pod_of(&template, Gate::Exec)["spec"];
    let gate = ["/stoker-gate-bin/gate", "exec", "2026-06-01T10:05:00Z", "--"];
    let main = &spec["containers"][0];
    assert_eq!(main["command"], json!([gate[0], gate[1], gate[2], gate[3], "sh", "-c"]));
    assert_eq!(main["args"], json!(["echo $1", "x"]));
    assert_eq!(names_of(&main["volumeMounts"]), ["data", "stoker-gate"]);
    assert_eq!(spec["containers"][1]["command"], json!([gate[0], gate[1], gate[2], gate[3], "tail"]));
    assert_eq!(names_of(&spec["volumes"]), ["data", "stoker-gate"]);
    assert_eq!(names_of(&spec["initContainers"]), ["stoker-gate-install", "fetch"]);
    assert_eq!(spec["initContainers"][1]["command"], json!(["clone"]));
}

#[test]
fn what_the_template_says_otherwise_stays_as_it_is() {
    let template = object(json!({
        "backoffLimit": 2,
        "ttlSecondsAfterFinished": 60,
        "completions": 3,
        "template": {
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
            "spec": {
                "restartPolicy": "OnFailure",
                "nodeSelector": {"disk": "fast"},
                "containers": [
                    {"name": "a", "image": "a", "resources": {"limits": {"nvidia.com/gpu": 1}}},
                    {"name": "b", "image": "b", "resources": {"limits": {"nvidia.com/gpu": "2"}}},
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
            },
        },
    }));
    let before = template.clone();
    for gate in [Gate::InitContainer, Gate::Exec] {
        let mut made = job(&template, gate, IMAGE, instant(), &Map::new(), instant());
        let spec = made["template"]["spec"].as_object_mut().unwrap();
        assert_eq!(spec["volumes"][0], before["template"]["spec"]["volumes"][0]);
        assert_eq!(spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], json!(1));
        assert_eq!(spec["containers"][1]["resources"]["limits"]["nvidia.com/gpu"], json!("2"));
        for added in ["initContainers", "volumes", "containers"] {
            spec.remove(added);
        }
        let mut rest = before.clone();
        for added in ["volumes", "containers"] {
            rest["template"]["spec"].as_object_mut().unwrap().remove(added);
        }
        assert_eq!(made, rest, "{gate:?}");
    }
}

#[test]
fn labels_are_added_to_the_pods_and_stokers_own_win() {
    let template = object(json!({"template": {
        "metadata": {"labels": {"team": "a", "primedcron": "mine"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }}));
    let own = object(json!({"primedcron": "nightly"}));
    let made = job(&template, Gate::InitContainer, IMAGE, instant(), &own, instant());
    assert_eq!(made["template"]["metadata"]["labels"], json!({"team": "a", "primedcron": "nightly"}));
    for metadata in [json!(null), json!({}), json!({"labels": null})] {
        let template =
            object(json!({"template": {"metadata": metadata, "spec": {"containers": [{"name": "a"}]}}}));
        let made = job(&template, Gate::InitContainer, IMAGE, instant(), &own, instant());
        assert_eq!(made["template"]["metadata"]["labels"], json!({"primedcron": "nightly"}));
    }
}

#[test]
fn an_active_deadline_counts_from_the_instant() {
    let with = |ahead: SignedDuration| {
        let template = object(json!({"activeDeadlineSeconds": 30, "template": {"spec": {"containers": []}}}));
        let made = job(&template, Gate::InitContainer, IMAGE, instant(), &Map::new(), instant() - ahead);
        made["activeDeadlineSeconds"].as_i64().unwrap()
    };
    assert_eq!(with(SignedDuration::ZERO), 30);
    assert_eq!(with(SignedDuration::from_secs(90)), 120);
    assert_eq!(with(SignedDuration::from_millis(89_001)), 120, "a part of a second is a whole one");
    assert_eq!(with(SignedDuration::from_secs(-90)), 30, "created late");
    let without =
        job(&of_pod(json!({"containers": []})), Gate::Exec, IMAGE, instant(), &Map::new(), instant());
    assert_eq!(without.get("activeDeadlineSeconds"), None);
}

#[test]
fn i11_what_cannot_be_gated_is_refused_in_words() {
    let one = |mut container: Value| {
        container["name"] = json!("main");
        of_pod(json!({"containers": [container]}))
    };
    let probe = json!({"exec": {"command": ["true"]}});
    let cases: &[(Value, &str)] = &[
        (json!({"image": "a"}), "command"),
        (json!({"image": "a", "command": []}), "command"),
        (json!({"image": "a", "args": ["x"]}), "command"),
        (json!({"command": ["x"], "livenessProbe": probe}), "livenessProbe"),
        (json!({"command": ["x"], "readinessProbe": probe}), "readinessProbe"),
        (json!({"command": ["x"], "startupProbe": probe}), "startupProbe"),
        (json!({"command": ["x"], "lifecycle": {"postStart": {"exec": {}}}}), "postStart"),
    ];
    for (container, word) in cases {
        let template = one(container.clone());
        let refusal = template_refusal(&template, Gate::Exec).unwrap();
        assert!(refusal.contains(word) && refusal.contains("container main"), "{refusal}");
        assert!(refusal.contains("gate: InitContainer"), "it says what to do: {refusal}");
        assert_eq!(template_refusal(&template, Gate::InitContainer), None, "{word}");
    }
    for container in [
        json!({"command": ["x"], "livenessProbe": null, "lifecycle": {"postStart": null}}),
        json!({"command": ["x"], "lifecycle": {"preStop": {"exec": {}}}}),
    ] {
        assert_eq!(template_refusal(&one(container), Gate::Exec), None);
    }
}

#[test]
fn i11_names_of_stokers_own_are_refused_in_both_gates() {
    for gate in [Gate::InitContainer, Gate::Exec] {
        for name in ["stoker-gate", "stoker-gate-install", "stoker-pull-7"] {
            let container = json!({"name": name, "image": "a", "command": ["x"]});
            let fine = json!({"name": "main", "image": "a", "command": ["x"]});
            for template in [
                of_pod(json!({"containers": [container]})),
                of_pod(json!({"containers": [fine], "initContainers": [container]})),
                of_pod(json!({"containers": [fine], "volumes": [{"name": name}]})),
            ] {
                assert!(template_refusal(&template, gate).unwrap().contains(name));
            }
        }
        assert_eq!(template_refusal(&object(json!({})), gate), None);
        let near = json!({"name": "stoker-gates", "image": "a", "command": ["x"]});
        assert_eq!(template_refusal(&of_pod(json!({"containers": [near]})), gate), None);
    }
}

#[test]
fn names_of_runs_are_valid_and_distinct_for_any_object() {
    let objects = [
        "a".to_owned(),
        "nightly".to_owned(),
        "a.b.c".to_owned(),
        "0.0".to_owned(),
        "x".repeat(253),
        format!("{}.y", "z-".repeat(60)),
        format!("{}a", "b.".repeat(126)),
        format!("{}-{}", "c".repeat(36), "d".repeat(200)),
    ];
    let instants =
        ["1970-01-01T00:00:00Z", "2026-06-01T10:05:00Z", "2026-06-01T10:06:00Z", "9999-12-30T22:00:00Z"];
    let mut seen = HashSet::new();
    for object in &objects {
        for uid in ["0b3c", "77aa"] {
            for instant in instants {
                let name = names::cron_job(object, uid, t(instant));
                assert!(name.len() <= 52, "{name}: its pods' names get eleven characters more");
                let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                assert!(name.chars().all(valid) && !name.starts_with('-') && !name.ends_with('-'), "{name}");
                assert_eq!(name, names::cron_job(object, uid, t(instant)), "it is derived");
                assert!(seen.insert(name.clone()), "{name} twice");
            }
        }
    }
    assert!(names::cron_job("nightly", "0b3c", t(instants[1])).starts_with("nightly-"));
}

// When warm-ups begin.

#[test]
fn a_warm_up_begins_a_lead_before_its_instant_whatever_the_schedule() {
    for (schedule, minutes, start, instant) in [
        ("0/15 * 1 * *", 10, "2026-11-30T23:50:00Z", "2026-12-01T00:00:00Z"),
        ("5,12,48,56 * * * 5", 10, "2026-12-03T23:55:00Z", "2026-12-04T00:05:00Z"),
        ("59 14 * * *", 90, "2026-11-28T13:29:00Z", "2026-11-28T14:59:00Z"),
        ("0 * * * *", 90, "2026-11-28T11:30:00Z", "2026-11-28T13:00:00Z"),
        ("0 0 1 1 *", 1_440, "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
    ] {
        // It is a Saturday.
        let found =
            Schedule::parse(schedule).unwrap().next(t("2026-11-28T12:00:00Z"), &TimeZone::UTC).unwrap();
        let lead = Lead::Before(SignedDuration::from_mins(minutes));
        assert_eq!((lead.start(found, &TimeZone::UTC), found), (t(start), t(instant)), "{schedule}");
    }
}

#[test]
fn a_lead_is_at_most_a_day_and_never_negative() {
    let start = |lead| Lead::Before(lead).start(instant(), &TimeZone::UTC);
    assert_eq!(start(SignedDuration::from_hours(24)), instant() - SignedDuration::from_hours(24));
    assert_eq!(start(SignedDuration::from_hours(25)), instant() - SignedDuration::from_hours(24));
    assert_eq!(start(SignedDuration::MAX), instant() - SignedDuration::from_hours(24));
    assert_eq!(start(SignedDuration::from_secs(-5)), instant());
}

#[test]
fn a_primer_names_the_last_of_its_instants_at_most_a_day_before() {
    let start = |primer: &str, zone: &str, instant: &str| {
        Lead::Primer(Schedule::parse(primer).unwrap()).start(t(instant), &TimeZone::get(zone).unwrap())
    };
    assert_eq!(start("55 * * * *", "UTC", "2026-06-01T10:00:00Z"), t("2026-06-01T09:55:00Z"));
    assert_eq!(start("55 * * * *", "UTC", "2026-06-01T09:50:00Z"), t("2026-06-01T08:55:00Z"));
    assert_eq!(start("0 10 * * *", "UTC", "2026-06-01T10:00:00Z"), t("2026-06-01T10:00:00Z"), "no warm-up");
    assert_eq!(start("0 10 * * *", "UTC", "2026-06-02T09:59:00Z"), t("2026-06-01T10:00:00Z"));
    // Its times are local, too.
    assert_eq!(start("50 8 * * *", "Europe/Berlin", "2026-06-01T07:00:00Z"), t("2026-06-01T06:50:00Z"));
    // None within a day: no warm-up.
    assert_eq!(start("0 0 1 * *", "UTC", "2026-06-02T00:01:00Z"), t("2026-06-02T00:01:00Z"));
    assert_eq!(start("0 0 30 2 *", "UTC", "2026-06-02T00:01:00Z"), t("2026-06-02T00:01:00Z"));
}
