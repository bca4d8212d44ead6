//! An operator that cannot start says what to do.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use anyhow::Result;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::Kubeconfig;
use serde_json::json;
use stoker_e2e::operator::binary;
use stoker_e2e::{World, kubeconfig};

fn run(kubeconfig: &std::path::Path, namespace: &str) -> Result<(Option<i32>, String)> {
    let out = Command::new(binary())
        .args(["run", "--namespace", namespace, "--listen", "off"])
        .env("KUBECONFIG", kubeconfig)
        .output()?;
    Ok((out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned()))
}

#[test]
#[ignore = "needs the local cluster: make e2e"]
fn without_a_cluster_it_says_how_to_name_one() -> Result<()> {
    let (code, words) = run(std::path::Path::new("/nonexistent/kubeconfig"), "default")?;
    assert_eq!(code, Some(1));
    assert!(words.contains("set KUBECONFIG"), "{words}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_cluster_that_does_not_answer_is_named() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("stoker-e2e-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let path = dir.join("nowhere");
    let text = std::fs::read_to_string(kubeconfig())?;
    // Port 1 of loopback: nothing listens there.
    let nowhere: Vec<String> = text
        .lines()
        .map(|l| {
            if l.trim_start().starts_with("server:") {
                "    server: https://127.0.0.1:1".into()
            } else {
                l.to_owned()
            }
        })
        .collect();
    std::fs::write(&path, nowhere.join("\n"))?;
    let (code, words) = run(&path, "default")?;
    std::fs::remove_dir_all(&dir)?;
    assert_eq!(code, Some(1));
    assert!(words.contains("https://127.0.0.1:1") && words.contains("does not answer"), "{words}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn an_account_without_rights_is_told_which_are_missing() -> Result<()> {
    let world = World::without_operator("rights").await?;
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "nobody"}}))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &world.namespace);
    accounts.create(&PostParams::default(), &account).await?;
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..Default::default() };
    let token = accounts.create_token_request("nobody", &PostParams::default(), &request).await?;

    let mut config = Kubeconfig::read_from(kubeconfig())?;
    for user in &mut config.auth_infos {
        user.auth_info =
            Some(serde_json::from_value(json!({"token": token.status.as_ref().unwrap().token}))?);
    }
    let path = std::env::temp_dir().join(format!("{}.kubeconfig", world.namespace));
    std::fs::write(&path, serde_json::to_string(&config)?)?;
    let (code, words) = run(&path, &world.namespace)?;
    std::fs::remove_file(&path)?;
    assert_eq!(code, Some(1));
    let expected = format!("may not list hotstandbydeployments.stoker.dev in namespace {}", world.namespace);
    assert!(words.contains(&expected) && words.contains("grant it"), "{words}");
    world.finish().await
}
