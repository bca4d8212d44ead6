//! One operator for all namespaces, under what the chart grants for that. It sees the objects of every other test, too: in a
//! file of its own it runs while no other test does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use serde_json::json;
use stoker_api::{HotStandbyDeployment, HotStandbyJob};
use stoker_e2e::World;
use stoker_e2e::account::{Features, OPERATOR, REPORTS};
use stoker_e2e::jobs::JobPool;
use stoker_e2e::operator::Operator;

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn one_operator_looks_after_pools_of_all_namespaces() -> Result<()> {
    let mut first = World::with_features("wide", &Features::everywhere()).await?;
    let second = World::with_features("wide-other", &Features::base()).await?;
    first.operator = Some(Operator::start_everywhere(&first.namespace, &[]).await?);
    // Whatever goes wrong in the other namespace stands in the log of this operator.
    let log = |error| anyhow!("{error}\n{}", first.operator().log_tail());
    // They have the same name, and are two all the same.
    for world in [&first, &second] {
        world.apply_pool("game", json!({"policy": {"builtin": "buffer"}})).await?;
    }
    first.counts("game", 0, 2, 2).await?;
    second.counts("game", 0, 2, 2).await.map_err(log)?;
    second.set_busy(&second.alive("game").await?[..1], true).await?;
    second.counts("game", 1, 2, 3).await.map_err(log)?;
    first.counts("game", 0, 2, 2).await?;
    let work = JobPool { world: &second, name: "work" };
    work.apply(json!({"idleTarget": 1})).await?;
    work.counts(0, 1, 1).await.map_err(log)?;
    // Objects are gone before the operator is.
    first.delete_all::<HotStandbyDeployment>().await?;
    second.delete_all::<HotStandbyDeployment>().await?;
    second.delete_all::<HotStandbyJob>().await?;
    first.finish().await?;
    second.finish().await
}

#[test]
#[ignore = "needs Helm: make e2e"]
fn what_is_granted_everywhere_is_what_is_granted_in_a_namespace() -> Result<()> {
    // Lease and features are granted in namespaces that are named, whatever is looked after.
    let everywhere = Features::everywhere().claims().reports().granted("stoker-system", "watched")?;
    let base = Features::base().claims().reports().granted("stoker-system", "watched")?;
    for account in [OPERATOR, REPORTS] {
        let (wide, narrow) = (everywhere.deeds(account), base.deeds(account));
        assert!(!narrow.is_empty());
        assert_eq!(wide, narrow, "{account}");
        for deed in wide.iter().chain(&Features::all().granted("stoker-system", "watched")?.deeds(account)) {
            assert!(!deed.what.contains('*'), "{account} is granted a wildcard: {deed}");
        }
    }
    // Without a namespace none of it is a matter of Roles; with one, only nodes, definitions and reviews are not.
    assert_eq!(everywhere.in_namespaces(OPERATOR), BTreeSet::new());
    let outside = &base.deeds(OPERATOR) - &base.in_namespaces(OPERATOR);
    let resources: BTreeSet<_> = outside.iter().filter_map(|deed| deed.what.split(' ').nth(1)).collect();
    assert_eq!(
        resources,
        BTreeSet::from([
            "customresourcedefinitions.apiextensions.k8s.io",
            "nodes",
            "subjectaccessreviews.authorization.k8s.io",
            "tokenreviews.authentication.k8s.io",
        ])
    );
    Ok(())
}
