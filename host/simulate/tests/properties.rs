//! What holds for any load and any pool.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use stoker_operator::rehearsal::Pool;
use stoker_policy::{HostOptions, PolicyHost};
use stoker_simulate::{Decider, Load, Outcome, Request, Setup, Startup, run};

/// The formula on requests, each (second, seconds), in a pool of these bounds whose pods all start as fast.
fn formula(requests: &[(i64, i64)], idle: u32, most: u32, starts: i64, claims: bool) -> Outcome {
    let pods = json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "HotStandbyDeployment",
        "metadata": {"name": "a", "namespace": "default", "uid": "u", "generation": 1},
        "spec": {
            "idleTarget": idle,
            "maxReplicas": most,
            "selector": {"matchLabels": {"app": "a"}},
            "podTemplate": {"spec": {"containers": [{"name": "a", "image": "a"}]}},
        },
    });
    let pool = Pool::Pods(Arc::new(serde_json::from_value(pods).unwrap()));
    run_on(pool, requests, starts, claims)
}

/// The same of a pool of Jobs.
fn jobs(requests: &[(i64, i64)], idle: u32, most: u32, starts: i64) -> Outcome {
    let jobs = json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "HotStandbyJob",
        "metadata": {"name": "a", "namespace": "default", "uid": "u", "generation": 1},
        "spec": {
            "idleTarget": idle,
            "maxReplicas": most,
            "jobTemplate": {"template": {"spec": {"containers": [{"name": "a", "image": "a"}]}}},
        },
    });
    run_on(Pool::Jobs(Arc::new(serde_json::from_value(jobs).unwrap())), requests, starts, false)
}

fn run_on(pool: Pool, requests: &[(i64, i64)], starts: i64, claims: bool) -> Outcome {
    let of = |(at, lasts): &(i64, i64)| Request {
        at: Timestamp::from_second(1_767_571_200 + at).unwrap(),
        lasts: SignedDuration::from_secs(*lasts),
    };
    let load = Load::new("a", requests.iter().map(of).collect());
    let starts = SignedDuration::from_secs(starts);
    let startup = Startup { p50: starts, p99: starts };
    let setup =
        Setup { pool, host: PolicyHost::new(HostOptions::default()).unwrap(), startup, claims, seed: 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&setup, &load, "formula", &Decider::Formula, |_| {}))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_request_is_served_or_told_no_pod_goes_at_work_and_the_maximum_holds(
        requests in prop::collection::vec((0..3_000_i64, 1..400_i64), 1..60),
        idle in 0..8_u32,
        most in 1..20_u32,
        starts in 1..90_i64,
        claims: bool,
    ) {
        let outcome = formula(&requests, idle, most, starts, claims);
        prop_assert_eq!(outcome.requests, requests.len());
        prop_assert!(outcome.unserved <= outcome.misses && outcome.misses <= outcome.requests);
        prop_assert_eq!(outcome.interrupted, 0);
        prop_assert!(outcome.most_pods <= most);
        for point in &outcome.points {
            prop_assert!(point.busy + point.standby + point.starting <= most, "{:?}", point);
        }
        prop_assert!(outcome.busy_hours <= outcome.pod_hours + 1e-9);
    }

    #[test]
    fn each_job_serves_one_request_and_is_not_seen_again(
        requests in prop::collection::vec((0..3_000_i64, 1..400_i64), 1..60),
        idle in 1..8_u32,
        most in 8..20_u32,
        starts in 1..90_i64,
    ) {
        let outcome = jobs(&requests, idle, most, starts);
        prop_assert_eq!(outcome.requests, requests.len());
        prop_assert_eq!(outcome.interrupted, 0);
        prop_assert!(outcome.most_pods <= most);
        prop_assert!(outcome.created >= requests.len() - outcome.unserved, "{} Jobs", outcome.created);
        prop_assert!(outcome.busy_hours <= outcome.pod_hours + 1e-9);
    }

    #[test]
    fn who_serves_everything_at_once_takes_no_less_than_hindsight(
        requests in prop::collection::vec((0..3_000_i64, 1..400_i64), 1..40),
        starts in 1..90_i64,
        // Every request finds a standby: there is one for each.
        idle in 40..50_u32,
    ) {
        let outcome = formula(&requests, idle, 1000, starts, false);
        prop_assert_eq!(outcome.misses, 0);
        prop_assert!(
            outcome.best_hours <= outcome.pod_hours + 1e-9,
            "{} above {}", outcome.best_hours, outcome.pod_hours
        );
    }
}

#[test]
fn a_pool_that_is_just_large_enough_takes_what_hindsight_takes() {
    let outcome = formula(&[(0, 100)], 1, 1, 20, false);
    assert_eq!((outcome.misses, outcome.pod_hours), (0, outcome.best_hours));
}
