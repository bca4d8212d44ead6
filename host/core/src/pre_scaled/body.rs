//! What a run's Job looks like: the user's template with the gate in it.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use stoker_api::{Gate, keys};

/// Where the gate is mounted.
const FOLDER: &str = "/stoker-gate-bin";
/// The gate in there.
const PROGRAM: &str = "/stoker-gate-bin/gate";
/// The door that it opens: a link in the volume, which the held containers mount.
const DOOR: &str = "/stoker-gate-bin/door";
/// The door in the volume.
const DOOR_IN_VOLUME: &str = "door";
/// Where they mount it.
const DOOR_MOUNT: &str = "/stoker-gate-door";
/// The volume that holds both.
const VOLUME: &str = "stoker-gate";
/// Name of the init container that brings it.
const INSTALL: &str = "stoker-gate-install";

/// Why a template cannot be gated, in words.
pub type Refusal = String;

fn list<'a>(spec: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    spec[field].as_array().into_iter().flatten()
}

/// What the template has that the gate cannot hold; None = nothing.
pub fn template_refusal(job: &Map<String, Value>, gate: Gate) -> Option<Refusal> {
    let spec = &job.get("template")?["spec"];
    let volumes = list(spec, "volumes").map(|v| ("volume", v));
    let containers = ["initContainers", "containers"].into_iter().flat_map(|field| list(spec, field));
    for (what, thing) in volumes.chain(containers.map(|c| ("container", c))) {
        let name = thing["name"].as_str().unwrap_or_default();
        if [VOLUME, INSTALL, keys::GATE_CONTAINER].contains(&name) || name.starts_with("stoker-pull-") {
            return Some(format!("the {what} name {name} is Stoker's own: choose another"));
        }
    }
    if gate == Gate::InitContainer {
        return None;
    }
    for container in list(spec, "containers") {
        let name = container["name"].as_str().unwrap_or_default();
        let has = |field: &str| container.get(field).is_some_and(|value| !value.is_null());
        if container["command"].as_array().is_none_or(Vec::is_empty) {
            return Some(format!(
                "gate: Exec wraps the command of container {name}, which gives none: set command (what the image starts is not known here), or use gate: InitContainer"
            ));
        }
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if has(probe) {
                return Some(format!(
                    "gate: Exec and the {probe} of container {name} do not go together: it would run while the work is held; leave it out, or use gate: InitContainer"
                ));
            }
        }
        if container["lifecycle"].get("postStart").is_some_and(|hook| !hook.is_null()) {
            return Some(format!(
                "gate: Exec and the postStart hook of container {name} do not go together: it would run before the work; leave it out, or use gate: InitContainer"
            ));
        }
    }
    None
}

fn mount(read_only: bool) -> Value {
    json!({"name": VOLUME, "mountPath": FOLDER, "readOnly": read_only})
}

/// Holds the container until the gate opens. A kubelet may take the gate for open which is not: one of 1.36 does when it
/// was itself started anew meanwhile. It then cannot start the container, as a link to itself cannot be mounted.
fn behind_the_door(container: &mut Value) {
    let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
    mounts
        .push(json!({"name": VOLUME, "mountPath": DOOR_MOUNT, "subPath": DOOR_IN_VOLUME, "readOnly": true}));
    container["volumeMounts"] = json!(mounts);
}

/// The container that is the gate: a sidecar, whose startup probe succeeds at the instant. A kubelet hears of that at
/// once, whereas it looks once a second whether an init container has ended.
fn sidecar(image: &str, instant: Timestamp, now: Timestamp) -> Value {
    let at = instant.to_string();
    let mut gate = own(keys::GATE_CONTAINER, image, &[PROGRAM, "hold", &at, DOOR], false);
    gate["restartPolicy"] = json!("Always");
    // One probe lasts until the instant; one that is cut off, by whatever it be, is followed by the next. The clock may be
    // set back meanwhile.
    let patience = instant.duration_since(now).max(SignedDuration::ZERO) + SignedDuration::from_hours(1);
    gate["startupProbe"] = json!({
        "exec": {"command": [PROGRAM, "wait", at, DOOR]},
        "timeoutSeconds": i32::try_from(patience.as_secs()).unwrap_or(i32::MAX),
        "periodSeconds": 1,
        "failureThreshold": i32::MAX,
    });
    gate
}

/// An init container of Stoker's own: next to nothing, and with no rights.
fn own(name: &str, image: &str, command: &[&str], read_only: bool) -> Value {
    json!({
        "name": name,
        "image": image,
        "command": command,
        "volumeMounts": [mount(read_only)],
        "resources": {
            "requests": {"cpu": "1m", "memory": "8Mi"},
            "limits": {"cpu": "100m", "memory": "32Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    })
}

/// Puts the gate into a pod's spec.
fn gated(spec: &mut Value, gate: Gate, image: &str, instant: Timestamp, now: Timestamp) {
    let mut of_user = spec["initContainers"].as_array().cloned().unwrap_or_default();
    let mut inits = Vec::new();
    match gate {
        Gate::InitContainer => {
            inits.push(own(INSTALL, image, &["/stoker-gate", "install", PROGRAM, DOOR], false));
            // A kubelet pulls an image when it starts a container of it: each is started once before the instant.
            let mut images: Vec<(&str, Option<&Value>)> = Vec::new();
            for container in list(spec, "containers").chain(&of_user) {
                let name = container["image"].as_str().unwrap_or_default();
                if !name.is_empty() && images.iter().all(|(known, _)| *known != name) {
                    images.push((name, container.get("imagePullPolicy")));
                }
            }
            let last = images.len().saturating_sub(1);
            for (index, (image, pull)) in images.into_iter().enumerate() {
                let mut init = if index == last {
                    sidecar(image, instant, now)
                } else {
                    own(&format!("stoker-pull-{index}"), image, &[PROGRAM, "pulled"], true)
                };
                if let Some(pull) = pull {
                    init["imagePullPolicy"] = pull.clone();
                }
                inits.push(init);
            }
            let containers = spec["containers"].as_array_mut().into_iter().flatten();
            containers.chain(&mut of_user).for_each(behind_the_door);
        }
        Gate::Exec => {
            inits.push(own(INSTALL, image, &["/stoker-gate", "install", PROGRAM], false));
            let instant = instant.to_string();
            for container in spec["containers"].as_array_mut().into_iter().flatten() {
                let mut command = vec![json!(PROGRAM), json!("exec"), json!(instant), json!("--")];
                command.extend(container["command"].as_array().cloned().unwrap_or_default());
                container["command"] = json!(command);
                let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
                mounts.push(mount(true));
                container["volumeMounts"] = json!(mounts);
            }
        }
    }
    inits.extend(of_user);
    spec["initContainers"] = json!(inits);
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    volumes.push(json!({"name": VOLUME, "emptyDir": {}}));
    spec["volumes"] = json!(volumes);
}

/// The spec of the Job of an instant, created now: gated, and with the time until the instant added to its deadline.
/// `labels` are added to its pods'.
pub fn job(
    template: &Map<String, Value>,
    gate: Gate,
    image: &str,
    instant: Timestamp,
    labels: &Map<String, Value>,
    now: Timestamp,
) -> Map<String, Value> {
    let mut spec = template.clone();
    let ahead = instant.duration_since(now).max(SignedDuration::ZERO);
    if let Some(deadline) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64) {
        let ahead = ahead.as_secs() + i64::from(ahead.subsec_nanos() > 0);
        spec.insert("activeDeadlineSeconds".to_owned(), json!(deadline.saturating_add(ahead)));
    }
    let Some(Value::Object(pod)) = spec.get_mut("template") else { return spec };
    let metadata = pod.entry("metadata").or_insert(json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    let mut all = metadata["labels"].as_object().cloned().unwrap_or_default();
    all.extend(labels.clone());
    metadata["labels"] = Value::Object(all);
    if let Some(spec) = pod.get_mut("spec") {
        gated(spec, gate, image, instant, now);
    }
    spec
}
