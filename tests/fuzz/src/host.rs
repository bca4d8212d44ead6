//! One policy host for all runs of a target. Its compiler is the operator's program, which STOKER_BIN names.
#![allow(dead_code)]

use std::sync::LazyLock;

use stoker_policy::contract::{scaling, types};
use stoker_policy::{HostOptions, PolicyHost};
use tokio::runtime::Runtime;

static SHARED: LazyLock<(Runtime, PolicyHost)> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let compiler = std::env::var_os("STOKER_BIN").expect("STOKER_BIN names the operator's program");
    let options = HostOptions { compiler: compiler.into(), ..HostOptions::default() };
    let host = runtime.block_on(async { PolicyHost::new(options).expect("a host") });
    (runtime, host)
});

/// Runs something with the host.
pub fn run<T>(work: impl AsyncFnOnce(&PolicyHost) -> T) -> T {
    let (runtime, host) = &*SHARED;
    runtime.block_on(work(host))
}

/// A pool of so many busy and idle pods.
pub fn input(busy: u32, idle: u32) -> scaling::Input {
    let pod = |state| scaling::Pod { state, since: 0, age: 1, node: 0, cordoned: false, template_current: true };
    let pods = (0..busy).map(|_| pod(types::PodState::Busy));
    scaling::Input {
        now: 1_700_000_000_000,
        pool: types::PoolIdentity {
            kind: "HotStandbyDeployment".into(),
            namespace: "default".into(),
            name: "boiler".into(),
            uid: "b0c1d2e3".into(),
            generation: 1,
        },
        config: "{}".into(),
        minimum: 0,
        maximum: 100,
        idle_target: 3,
        counts: scaling::Counts {
            current: busy + idle,
            ready: busy + idle,
            starting: 0,
            idle,
            busy,
            claimed: 0,
            unknown: 0,
            terminating: 0,
            unschedulable: 0,
            failed: 0,
        },
        demand: scaling::Demand { waiting: 0, misses: 0, oldest_wait: 0 },
        pods: pods.chain((0..idle).map(|_| pod(types::PodState::Idle))).collect(),
        history: vec![],
        startup: scaling::Startup { samples: 0, p50: 0, p90: 0, p99: 0 },
        signals: vec![],
        previous: None,
        state: vec![],
        extensions: vec![],
    }
}
