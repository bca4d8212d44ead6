//! `stoker doctor` on a cluster whose operator is no pod, with an object that is not well.
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result};
use serde_json::json;
use stoker_e2e::operator::binary;
use stoker_e2e::{DEADLINE, World, condition};
use tokio::process::Command;

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_is_well_and_what_is_not_is_told() -> Result<()> {
    let world = World::start("doctor").await?;
    world.apply_pool("game", json!({"policy": {"builtin": "no-such"}})).await?;
    let refused = |pool: &stoker_api::HotStandbyDeployment| {
        condition(pool, "PolicyHealthy").is_some_and(|(status, ..)| status == "False")
    };
    world.status("game", "told of its policy", refused).await?;
    let ended = Command::new(binary())
        .args(["doctor", "--operator-namespace", &world.namespace])
        .env("KUBECONFIG", stoker_e2e::kubeconfig())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, ended).await.context("it does not end")??;
    let said = String::from_utf8_lossy(&output.stdout);
    for words in [
        "ok    the API server answers: Kubernetes v1.".to_owned(),
        "ok    this machine's clock agrees with the API server's, to a second\n".to_owned(),
        "ok    8 CRDs are of this program's revision ".to_owned(),
        format!("ILL   no operator runs as a pod of namespace {}: ", world.namespace),
        " not well.\n".to_owned(),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
    // Other tests' objects may be told of, too, and only so many are.
    let told = format!("ILL   HotStandbyDeployment {}/game: PolicyHealthy: ", world.namespace);
    assert!(said.contains(&told) || said.contains(" more objects\n"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    world.finish().await
}
