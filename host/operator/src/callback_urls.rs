//! Where pods of NodeBatchJobs report to: addresses that serve one pod each.

use std::path::Path;

use kube::ResourceExt as _;
use stoker_api::NodeBatchJob;
use stoker_core::node_batch::{Callbacks as PodCallbacks, NewPod};
use stoker_reports::{BaseUrl, CapabilityKey, JobKey, PodSlot, callback_urls};

use crate::startup::StartError;

/// What makes the addresses.
pub struct Callbacks {
    base: BaseUrl,
    key: CapabilityKey,
}

impl Callbacks {
    /// From the report service's address and the file of the key that it has, too.
    ///
    /// # Errors
    /// When one of them is not good, in words.
    pub fn read(url: &str, key_file: &Path) -> Result<Self, StartError> {
        let base =
            BaseUrl::parse(url).map_err(|error| StartError::Reports(format!("--reports-url: {error}")))?;
        let key = CapabilityKey::read(key_file)
            .map_err(|error| StartError::Reports(format!("--reports-key-file: {error}")))?;
        Ok(Self { base, key })
    }

    /// Those of a pod.
    pub fn of(&self, object: &NodeBatchJob, pod: &NewPod) -> Option<PodCallbacks> {
        let job = JobKey { namespace: object.namespace().unwrap_or_default(), name: object.name_any() };
        let slot = PodSlot {
            job,
            uid: object.uid().unwrap_or_default(),
            // The ids that are made here are all legal.
            execution: pod.execution.parse().ok()?,
            node: pod.node.clone(),
            pod: pod.name.clone(),
        };
        let urls = callback_urls(&self.base, &self.key, &slot);
        Some(PodCallbacks {
            host: self.base.host().to_owned(),
            port: self.base.port(),
            result: urls.result,
            file: urls.file,
            event: urls.event,
        })
    }
}
