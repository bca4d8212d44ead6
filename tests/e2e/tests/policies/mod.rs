//! What a pool says of its policy.
#![allow(dead_code)]

use serde_json::json;
use stoker_api::HotStandbyDeployment;
use stoker_e2e::condition;

pub fn from_map() -> serde_json::Value {
    json!({"configMap": {"name": "rush-hour", "key": "policy.wasm"}})
}

pub fn healthy(pool: &HotStandbyDeployment) -> bool {
    condition(pool, "PolicyHealthy").is_some_and(|(status, ..)| status == "True")
}

pub fn unhealthy(reason: &str) -> impl Fn(&HotStandbyDeployment) -> bool {
    let reason = reason.to_owned();
    move |pool| {
        condition(pool, "PolicyHealthy").is_some_and(|(status, r, _)| status == "False" && r == reason)
    }
}

/// The digest that decides for a pool.
pub fn active(pool: &HotStandbyDeployment) -> Option<String> {
    pool.status.as_ref()?.policy.as_ref()?.active_digest.clone()
}
