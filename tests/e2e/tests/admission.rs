//! What cannot work is refused when it is applied, in words.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use stoker_e2e::World;

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_specs_that_cannot_work_are_refused_in_words() -> Result<()> {
    let world = World::without_operator("refuse").await?;
    let digest = json!({"policy": {"builtin": "buffer", "digest": "md5:1"}});
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
