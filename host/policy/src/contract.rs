//! The types of `wit/policy.wit` in Rust, generated. Fields and their units are described there.
#![allow(missing_docs)]

pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "full-policy",
        imports: { default: trappable },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// `stoker:policy/types`: the shared vocabulary.
pub mod types {
    pub use super::bindings::stoker::policy::types::{
        Extensions, Milliseconds, PodState, PoolIdentity, Timestamp,
    };
}

/// `stoker:policy/settings`: who the policy is.
pub mod settings {
    pub use super::bindings::exports::stoker::policy::settings::Info;
}

/// `stoker:policy/scaling`: how many replicas.
pub mod scaling {
    pub use super::bindings::exports::stoker::policy::scaling::{
        Counts, Decision, Demand, Input, Limit, Pod, Previous, Sample, Signal, Startup,
    };
}

/// `stoker:policy/busyness`: which pods are busy.
pub mod busyness {
    pub use super::bindings::exports::stoker::policy::busyness::{
        Evidence, ExecAnswer, HttpAnswer, Input, Phase, Probe, ProbeKind, Question, Verdict, VerdictState,
    };
}

/// `stoker:policy/warm-up`: how early to begin.
pub mod warm_up {
    pub use super::bindings::exports::stoker::policy::warm_up::{Decision, Input, Phases};
}
