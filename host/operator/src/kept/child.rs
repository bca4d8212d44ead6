//! What can be kept: Jobs with their pods, and bare pods. What differs between them stands here.

use kube::api::PropagationPolicy;
use stoker_core::pod::PodView;
use stoker_core::pool::JobView;

use super::Keeper;
use crate::observe::Child;
use crate::slim_job::SlimJob;
use crate::slim_pod::SlimPod;

/// Children that a finalizer can keep.
pub trait KeptChild: Child {
    /// What texts call one.
    const WORD: &'static str;
    /// What traces call a request to create one.
    const CREATION: &'static str;
    /// How one is deleted with what runs of it; None = by itself.
    const DELETION: Option<PropagationPolicy>;
    /// How one that has ended is deleted.
    const FORGETTING: Option<PropagationPolicy>;

    fn name_of(view: &Self::View) -> &str;
    /// Its finalizers: all of them, if Stoker's is among them.
    fn finalizers_of(view: &mut Self::View) -> &mut Vec<String>;
}

/// What is kept of a child of a kind of object.
pub type View<K> = <<K as Keeper>::Child as Child>::View;

impl KeptChild for SlimJob {
    const WORD: &'static str = "Job";
    const CREATION: &'static str = "create_job";
    const DELETION: Option<PropagationPolicy> = Some(PropagationPolicy::Foreground);
    const FORGETTING: Option<PropagationPolicy> = Some(PropagationPolicy::Background);

    fn name_of(view: &JobView) -> &str {
        &view.name
    }

    fn finalizers_of(view: &mut JobView) -> &mut Vec<String> {
        &mut view.finalizers
    }
}

impl KeptChild for SlimPod {
    const WORD: &'static str = "pod";
    const CREATION: &'static str = "create_pod";
    const DELETION: Option<PropagationPolicy> = None;
    const FORGETTING: Option<PropagationPolicy> = None;

    fn name_of(view: &PodView) -> &str {
        &view.name
    }

    fn finalizers_of(view: &mut PodView) -> &mut Vec<String> {
        &mut view.finalizers
    }
}
