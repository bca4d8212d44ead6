//! What the claim server takes and answers, as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest token.
pub const MAX_TOKEN: usize = 256;
/// Most entries of a selector or of metadata.
pub const MAX_ENTRIES: usize = 32;
/// Longest value of metadata, in bytes.
pub const MAX_VALUE: usize = 1024;
/// Longest time for which a claim may be made or renewed, in seconds: a year.
pub const MAX_TTL_SECONDS: u32 = 31_536_000;
/// Longest wait for a pod, in seconds.
pub const MAX_WAIT_SECONDS: u32 = 3_600;

/// The body of `POST /v1/namespaces/NAMESPACE/pools/NAME/claims`; may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimRequest {
    /// The same token gets the same pod as long as its claim lasts: with it a request may be repeated. Up to 256
    /// characters, known within the account and the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Seconds after which the claim ends unless it is renewed, 1 to 31,536,000. Omitted: it does not end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
    /// Labels that the pod must have, up to 32.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Seconds to wait for a pod if none is ready, 0 to 3,600.
    pub wait_seconds: u32,
    /// Written into the pod's annotation `stoker.dev/claim`, for the workload to read: up to 32 entries of up to 1 KiB.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl ClaimRequest {
    /// What is wrong with it, with the field and the bound.
    pub fn problem(&self) -> Option<String> {
        let long = |text: &str, most: usize| text.len() > most;
        if self.token.as_ref().is_some_and(|t| t.is_empty() || long(t, MAX_TOKEN)) {
            return Some(format!("token must have 1 to {MAX_TOKEN} characters"));
        }
        if self.ttl_seconds.is_some_and(|ttl| !(1..=MAX_TTL_SECONDS).contains(&ttl)) {
            return Some(format!("ttlSeconds must be 1 to {MAX_TTL_SECONDS}, or left out"));
        }
        if self.wait_seconds > MAX_WAIT_SECONDS {
            return Some(format!("waitSeconds must be 0 to {MAX_WAIT_SECONDS}"));
        }
        for (name, map) in [("selector", &self.selector), ("metadata", &self.metadata)] {
            if map.len() > MAX_ENTRIES {
                return Some(format!("{name} must have {MAX_ENTRIES} entries at most"));
            }
            if let Some((key, _)) = map.iter().find(|(k, v)| long(k, MAX_VALUE) || long(v, MAX_VALUE)) {
                let key: String = key.chars().take(80).collect();
                return Some(format!("{name}.{key} must be {MAX_VALUE} bytes at most"));
            }
        }
        None
    }
}

/// The body of `POST …/claims/ID/renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenewRequest {
    /// Seconds from now after which the claim ends, 1 to 31,536,000.
    pub ttl_seconds: u32,
}

/// A claim that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedClaim {
    /// Names the claim, for its renewal and release.
    pub id: String,
    /// The pod.
    pub pod: ClaimedPod,
    /// Who claimed.
    pub claimed_by: String,
    /// When.
    pub claimed_at: Timestamp,
    /// When it ends unless it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What the claimant wrote.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A pod that was handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimedPod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The named ports of its containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// The node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The answer to `GET …/claims`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimList {
    /// The claims that last, by their pods' names.
    pub claims: Vec<GrantedClaim>,
    /// Claims that wait for a pod.
    pub waiting: u32,
}

/// The answer to a request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// In one word, for programs.
    pub reason: String,
    /// What is wrong and what to do.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_checked_by_its_bounds() {
        let problem = |text: &str| serde_json::from_str::<ClaimRequest>(text).map(|r| r.problem());
        assert_eq!(problem("{}").ok(), Some(None));
        for (text, words) in [
            (r#"{"token": ""}"#, "token must have 1 to 256 characters"),
            (r#"{"ttlSeconds": 0}"#, "ttlSeconds must be 1 to 31536000, or left out"),
            (r#"{"waitSeconds": 3601}"#, "waitSeconds must be 0 to 3600"),
        ] {
            assert_eq!(problem(text).ok().flatten().as_deref(), Some(words), "{text}");
        }
        let long = ClaimRequest {
            metadata: BTreeMap::from([("a".to_owned(), "x".repeat(1025))]),
            ..ClaimRequest::default()
        };
        assert_eq!(long.problem().as_deref(), Some("metadata.a must be 1024 bytes at most"));
        assert!(problem(r#"{"ttl": 5}"#).is_err(), "an unknown field is refused");
    }
}
