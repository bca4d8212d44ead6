//! The report service: takes what pods on nodes report, keeps it durably and serves it.
//!
//! ```text
//!   pod ──POST result|file|event──▶ callbacks ──▶ intake ──▶ store (temporary, fsync, rename) ──▶ 200
//!                                      │  │                     ▲
//!                        capability ◀──┘  └──▶ Cluster (limits, ├──── reader ──▶ pages, JSON, files
//!                     (may this URL?)          who is known,    └──── restore ─▶ series ──▶ /metrics
//!                                              Events)
//! ```
//!
//! A report that was answered with 2xx is in the store (I9). How an execution ended is written beside its reports, since the
//! cluster forgets it. The service reads nothing but its store, its key and what [`Cluster`] tells, and has no Kubernetes
//! client of its own.

mod callbacks;
mod capability;
mod catalogue;
mod cluster;
mod content;
mod disposition;
mod event;
mod execution;
mod fared;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzzing;
mod gate;
mod intake;
mod manifest;
mod metrics;
mod names;
mod pages;
mod prune;
mod reader;
mod refusal;
mod result;
mod series;
mod serve;
mod service;
mod slot;
mod store;
mod upload;

pub use callbacks::router as callback_router;
pub use capability::{BadBase, BadKey, BaseUrl, CallbackUrls, CapabilityKey, Keys, WeakKey, callback_urls};
pub use cluster::{
    Cluster, EventRefused, ExecutionView, Gauge, JobView, MetricsSpec, NodeState, NodeView, NotReady,
    ReportLimits, Retention,
};
pub use disposition::file_name as disposition_file_name;
pub use event::{BadEvent, PodEvent};
pub use gate::Limits;
pub use names::{MAX_FILE, clean as clean_file_name, node_key};
pub use prune::Pruned;
pub use reader::router as reader_router;
pub use result::{BadResult, Reported, parse as parse_result};
pub use serve::{Listener, serve};
pub use service::{Reports, Upkeep};
pub use slot::{BadExecutionId, ExecutionId, JobKey, PodSlot};
pub use store::{Store, StoreError};
