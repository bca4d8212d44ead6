//! What cannot work is refused when it is applied, in words.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use serde::Deserialize as _;
use serde_json::{Value, json};
use stoker_e2e::{World, root};

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_specs_that_cannot_work_are_refused_in_words() -> Result<()> {
    let world = World::without_operator("refuse").await?;
    let digest = json!({"policy": {"builtin": "buffer", "digest": "md5:1"}});
    let http = |http: Value| json!({"busyProbe": {"mode": "http", "http": http}});
    let redis = |fields: Value| {
        let mut redis = json!({"url": "redis://r"});
        stoker_e2e::merge(&mut redis, fields);
        json!({"busyProbe": {"mode": "redis", "redis": redis}})
    };
    let cases: &[(&str, Value, &str)] = &[
        ("empty selector", json!({"selector": {"matchLabels": {"app": null}}}), "would select every pod"),
        ("min > max", json!({"minReplicas": 5, "maxReplicas": 4}), "minReplicas must not be greater"),
        ("max 0", json!({"maxReplicas": 0}), "greater than or equal to 1"),
        ("negative idleTarget", json!({"idleTarget": -1}), "greater than or equal to 0"),
        ("negative minimum", json!({"minReplicas": -1}), "greater than or equal to 0"),
        ("negative delay", json!({"scaleDownDelaySeconds": -1}), "greater than or equal to 0"),
        ("no idleTarget", json!({"idleTarget": null}), "Required value"),
        ("no containers", json!({"podTemplate": {"spec": {"containers": null}}}), "containers"),
        (
            "labels that contradict",
            json!({"podTemplate": {"metadata": {"labels": {"app": "other"}}}}),
            "contradict selector.matchLabels",
        ),
        (
            "two policies",
            json!({"policy": {"builtin": "buffer", "configMap": {"name": "a"}}}),
            "exactly one source",
        ),
        ("no policy source", json!({"policy": {"config": {}}}), "exactly one source"),
        ("a digest of another kind", digest, "sha256"),
        (
            "too long a time limit",
            json!({"policy": {"builtin": "buffer", "limits": {"timeoutMilliseconds": 20000}}}),
            "10000",
        ),
        ("a negative surge", json!({"replenish": {"maxSurge": -1}}), "greater than or equal to 0"),
        ("no pod a second", json!({"replenish": {"maxPerSecond": 0}}), "greater than or equal to 1"),
        ("no idle time at all", json!({"maxIdleSeconds": 0}), "greater than or equal to 1"),
        ("no time to start", json!({"startupTimeoutSeconds": 0}), "greater than or equal to 1"),
        ("an unknown use", json!({"afterUse": "Burn"}), "Unsupported value: \"Burn\""),
        ("an unknown placement", json!({"placement": "Random"}), "Unsupported value: \"Random\""),
        ("an unknown disruption", json!({"disruption": "Never"}), "Unsupported value: \"Never\""),
        ("an unknown deletion", json!({"deletionPolicy": "Keep"}), "Unsupported value: \"Keep\""),
        ("an unknown probe", json!({"busyProbe": {"mode": "telepathy"}}), "Unsupported value: \"telepathy\""),
        (
            "a condition in annotation mode",
            json!({"busyProbe": {"condition": {"type": "Ready"}}}),
            "is for mode condition only",
        ),
        ("a request in annotation mode", json!({"busyProbe": {"http": {}}}), "is for mode http only"),
        (
            "a command in mode http",
            json!({"busyProbe": {"mode": "http", "exec": {}}}),
            "is for mode exec only",
        ),
        (
            "Redis in mode exec",
            json!({"busyProbe": {"mode": "exec", "redis": {"url": "redis://r"}}}),
            "is for mode redis only",
        ),
        ("Redis nowhere", json!({"busyProbe": {"mode": "redis"}}), "set busyProbe.redis.url"),
        (
            "failures of nobody's answers",
            json!({"busyProbe": {"probeFailure": {}}}),
            "is for modes http, exec and redis",
        ),
        ("port 0", http(json!({"port": 0})), "a number from 1 to 65535"),
        ("a port's odd name", http(json!({"port": "No Name"})), "a number from 1 to 65535"),
        ("a path without slash", http(json!({"path": "busy"})), "spec.busyProbe.http.path"),
        ("an unknown scheme", http(json!({"scheme": "ftp"})), "Unsupported value: \"ftp\""),
        ("no time", http(json!({"timeoutSeconds": 0})), "greater than or equal to 1"),
        (
            "longer than a period",
            http(json!({"timeoutSeconds": 11})),
            "must not be greater than http.periodSeconds",
        ),
        ("a header of two lines", http(json!({"headers": [{"name": "A", "value": "b\nC: d"}]})), "value"),
        (
            "a header of the connection",
            http(json!({"headers": [{"name": "Connection", "value": "close"}]})),
            "are not yours to set",
        ),
        (
            "no command",
            json!({"busyProbe": {"mode": "exec", "exec": {"command": []}}}),
            "should have at least 1 items",
        ),
        (
            "a run longer than its period",
            json!({"busyProbe": {"mode": "exec", "exec": {"timeoutSeconds": 5, "periodSeconds": 2}}}),
            "must not be greater than exec.periodSeconds",
        ),
        ("a web address for Redis", redis(json!({"url": "http://r"})), "must be redis://HOST"),
        ("a password in the open", redis(json!({"url": "redis://:secret@r"})), "go into a Secret"),
        (
            "an authority without TLS",
            redis(json!({"ca": {"secret": {"name": "a"}}})),
            "redis.ca is for TLS only",
        ),
        (
            "two authorities",
            redis(json!({"url": "rediss://r", "ca": {"secret": {"name": "a"}, "configMap": {"name": "a"}}})),
            "exactly one source",
        ),
        (
            "a word with two meanings",
            redis(json!({"values": {"busy": ["on"], "idle": ["on"]}})),
            "only one state",
        ),
        (
            "more patience than an answer lasts",
            json!({"busyProbe": {"mode": "http", "probeFailure": {"threshold": 4}}}),
            "less than or equal to 3",
        ),
        (
            "an unknown treatment",
            json!({"busyProbe": {"mode": "http", "probeFailure": {"treatAs": "Idle"}}}),
            "Unsupported value: \"Idle\"",
        ),
    ];
    for (what, fields, words) in cases {
        match world.apply_pool("game", fields.clone()).await {
            Ok(_) => panic!("{what} was accepted"),
            Err(error) => assert!(error.to_string().contains(words), "{what}: {error}"),
        }
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn probes_that_ask_work_with_what_they_must_be_told_alone() -> Result<()> {
    let world = World::without_operator("probes-ok").await?;
    for (i, probe) in [
        json!({"mode": "http"}),
        json!({"mode": "http", "http": {"port": "web", "path": "/state?full=1", "scheme": "HTTPS"}}),
        json!({"mode": "http", "http": {"headers": [{"name": "X-Token", "value": "a b"}]}, "probeFailure": {}}),
        json!({"mode": "exec"}),
        json!({"mode": "exec", "exec": {"command": ["sh", "-c", "test -e /tmp/busy"], "container": "app"}}),
        json!({"mode": "redis", "redis": {"url": "redis://redis.games.svc:6379/3"}}),
        json!({"mode": "redis", "redis": {
            "url": "rediss://[fd00::1]:6380",
            "credentials": {"name": "redis"},
            "ca": {"configMap": {"name": "redis-ca"}},
        }}),
    ]
    .into_iter()
    .enumerate()
    {
        let pool = world.apply_pool(&format!("game-{i}"), json!({"busyProbe": probe, "paused": true})).await?;
        let probe = pool.spec.pool.busy_probe;
        assert_eq!(probe.period_seconds(), Some(10), "{probe:?}");
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_selector_cannot_be_changed() -> Result<()> {
    let world = World::without_operator("selector").await?;
    world.apply_pool("game", json!({})).await?;
    let patch = json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}});
    let error =
        world.pools().patch("game", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap_err();
    assert!(error.to_string().contains("selector cannot be changed"), "{error}");
    world.patch_pool("game", json!({"idleTarget": 1})).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn manifests_of_the_older_system_work_with_another_api_version() -> Result<()> {
    let world = World::start("compat").await?;
    let old = json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "HotStandbyDeployment",
        "metadata": {"name": "game-ws"},
        "spec": {
            "idleTarget": 3,
            "minReplicas": 0,
            "maxReplicas": 50,
            "selector": {"matchLabels": {"app": "game-ws"}},
            "busyProbe": {"mode": "annotation", "annotationKey": "example.org/at-work"},
            "podTemplate": {
                "metadata": {"labels": {"app": "game-ws"}},
                "spec": {"containers": [{
                    "name": "app",
                    "image": "docker.io/local/busybox:1",
                    "ports": [{"name": "http", "containerPort": 8080}],
                }]},
            },
        },
    });
    let params = PatchParams::apply("e2e").force();
    let pool = world.pools().patch("game-ws", &params, &Patch::Apply(&old)).await?;
    assert_eq!(pool.spec.pool.scale_down_delay_seconds, 30, "the documented default");
    world.counts("game-ws", 0, 3, 3).await?;
    // Any case counts, as it did there.
    world.annotate(&world.alive("game-ws").await?[..2], "example.org/at-work", Some("True")).await?;
    world.counts("game-ws", 2, 3, 5).await?;
    world.finish().await
}

/// The manifests in a folder and those in it.
fn manifests(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(manifests(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn every_example_is_taken_with_every_field_of_it() -> Result<()> {
    let world = World::without_operator("manifests").await?;
    let files = manifests(&root().join("examples"))?;
    ensure!(files.len() > 20, "{files:?}");
    let params = PatchParams { dry_run: true, ..PatchParams::apply("e2e").validation_strict() };
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut object: DynamicObject = serde_json::from_value(Value::deserialize(document)?)
                .with_context(|| file.display().to_string())?;
            let types = object.types.clone().with_context(|| format!("{}: no kind", file.display()))?;
            let (kind, capabilities) =
                pinned_kind(&world.client, &GroupVersionKind::try_from(types)?).await?;
            let api: Api<DynamicObject> = match capabilities.scope {
                Scope::Cluster => Api::all_with(world.client.clone(), &kind),
                Scope::Namespaced => {
                    object.metadata.namespace = Some(world.namespace.clone());
                    Api::namespaced_with(world.client.clone(), &world.namespace, &kind)
                }
            };
            let name = object.metadata.name.clone().unwrap_or_default();
            let taken = api.patch(&name, &params, &Patch::Apply(&object)).await;
            taken.with_context(|| format!("{}: {} {name}", file.display(), kind.kind))?;
        }
    }
    world.finish().await
}
