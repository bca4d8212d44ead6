//! The author's tools on a cluster: a component is pushed, decides, is recorded and asked again, and what it did is told.
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result};
use serde_json::json;
use stoker_e2e::operator::binary;
use stoker_e2e::{DEADLINE, World, root};
use tokio::process::Command;

/// What a program said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

async fn stoker(words: &[&str]) -> Result<Said> {
    let ended = Command::new(binary())
        .args(words)
        .env("KUBECONFIG", stoker_e2e::kubeconfig())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, ended).await.context("it does not end")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) })
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_component_is_pushed_decides_is_recorded_and_explained() -> Result<()> {
    let records = root().join("target/e2e").join(format!("decisions-{}.jsonl", std::process::id()));
    let file = records.to_str().unwrap();
    let world = World::start_with("policy-tools", &["--record", file]).await?;
    let push = async |component: &str| {
        stoker(&["policy", "push", component, "--name", "rush-hour", "-n", &world.namespace]).await
    };
    let pushed = push("builtin:buffer").await?;
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    assert!(pushed.out.contains("configMap: {name: rush-hour, key: policy.wasm}"), "{}", pushed.out);

    let policy = json!({"configMap": {"name": "rush-hour", "key": "policy.wasm"}});
    world.apply_pool("game", json!({"policy": policy})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 2, 2, 4).await?;

    let pushed = push("builtin:percent-buffer").await?;
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    let swapped = |p: &stoker_api::HotStandbyDeployment| {
        let policy = p.status.as_ref().and_then(|status| status.policy.as_ref());
        let digest = policy.and_then(|policy| policy.active_digest.clone());
        digest.is_some_and(|digest| pushed.out.contains(&digest))
    };
    world.status("game", "decided by what was pushed", swapped).await?;

    let told = stoker(&["explain", "hsd/game", "-n", &world.namespace]).await?;
    assert_eq!(told.code, Some(0), "{told:?}");
    let head = format!("HotStandbyDeployment {}/game has 4 pods: 2 busy, 2 idle\n", world.namespace);
    assert!(told.out.starts_with(&head), "{}", told.out);
    assert!(told.out.contains("Policy configMap/rush-hour/policy.wasm asked for 4, "), "{}", told.out);
    let none = stoker(&["explain", "hsd/other", "-n", &world.namespace]).await?;
    assert!(
        none.code == Some(1) && none.error.contains("no HotStandbyDeployment other in namespace"),
        "{none:?}"
    );

    // Decisions are written beside: both components' are there in the end, and come again.
    let replayed = || async {
        let said = stoker(&["policy", "replay", file]).await?;
        assert!(said.code == Some(0) && said.out.contains("the same, bit for bit; 0 differ"), "{said:?}");
        let text = std::fs::read_to_string(file)?;
        Ok(text.contains("\"policy\":\"buffer ") && text.contains("\"policy\":\"percent-buffer "))
    };
    world.until("game", "recorded with both components", replayed).await?;
    std::fs::remove_file(&records)?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_the_operator_decided_of_late_is_told_and_asked_again() -> Result<()> {
    let world = World::start_with("of-late", &["--decisions", "127.0.0.1:0"]).await?;
    let on_trial = json!({"builtin": "percent-buffer", "config": {"percent": 200}});
    world.apply_pool("game", json!({"policy": {"builtin": "buffer", "shadow": on_trial}})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 2, 2, 4).await?;
    let log = world.operator().log();
    let listens = log.rsplit(" listens=").next().and_then(|rest| rest.split_whitespace().next());
    let reach = ["-n", world.namespace.as_str(), "--operator", listens.unwrap()];

    let explained = || async {
        let told = stoker(&[&["explain", "hsd/game"], &reach[..]].concat()).await?;
        assert_eq!(told.code, Some(0), "{told:?}");
        let lines = told.out.split("Decisions, the newest last:\n").nth(1).unwrap_or_default();
        let has = |words: &str| lines.lines().any(|line| line.contains(words));
        Ok(has(" ago  2 by builtin/buffer: 0 busy + 2 idle")
            && has(" ago  4 by builtin/buffer: 2 busy + 2 idle; on trial: would keep 6 instead of 4")
            && told.out.contains(
                "On trial, percent-buffer 0.1.0 (builtin/percent-buffer) would keep 6 instead of 4",
            ))
    };
    world.until("game", "explained with its decisions", explained).await?;

    let replayed = stoker(&[&["policy", "replay", "hsd/game"], &reach[..]].concat()).await?;
    assert!(
        replayed.code == Some(0) && replayed.out.contains("the same, bit for bit; 0 differ"),
        "{replayed:?}"
    );
    let other = [&["policy", "replay", "hsd/game", "--policy", "builtin:expression"], &reach[..]].concat();
    let other = stoker(&other).await?;
    assert!(other.code == Some(0) && other.out.contains(" scale of HotStandbyDeployment "), "{other:?}");
    let none = stoker(&[&["policy", "replay", "hsd/none"], &reach[..]].concat()).await?;
    assert!(none.code == Some(1) && none.error.contains("does not look after this object"), "{none:?}");
    let told = stoker(&["explain", "hsd/game", "-n", &world.namespace, "--operator", "127.0.0.1:1"]).await?;
    let words = "Earlier decisions are not at hand: no operator tells of its decisions at 127.0.0.1:1";
    assert!(told.code == Some(0) && told.out.contains(words), "{told:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_is_no_policy_is_not_pushed() -> Result<()> {
    let world = World::without_operator("policy-push").await?;
    let file = root().join("target/e2e").join(format!("no-policy-{}.wasm", std::process::id()));
    std::fs::write(&file, b"hello")?;
    let said =
        stoker(&["policy", "push", file.to_str().unwrap(), "--name", "a", "-n", &world.namespace]).await?;
    assert!(said.code == Some(1) && said.error.contains("not a WebAssembly component"), "{said:?}");
    let dry = ["policy", "push", "builtin:buffer", "--name", "a", "-n", &world.namespace, "--dry-run"];
    let said = stoker(&dry).await?;
    assert!(said.code == Some(0) && said.out.contains("would be in ConfigMap a"), "{said:?}");
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(stoker_e2e::client().await?, &world.namespace);
    assert!(maps.get_opt("a").await?.is_none(), "neither of them wrote anything");
    std::fs::remove_file(&file)?;
    world.finish().await
}
