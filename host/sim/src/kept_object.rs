//! The object whose Jobs are kept, and the nodes that they run on: what is stored in the simulated cluster beside Jobs and
//! pods.

use std::collections::BTreeMap;

use stoker_core::PodView;
use stoker_core::fan_out::NodeView;
use stoker_core::pool::JobView;

use crate::keeper::Kind;
use crate::store::{Object, Store};

/// Name of the object.
pub const OWN: &str = "own";
/// Its UID.
pub const OWN_UID: &str = "0b3c";

/// The object.
#[derive(Clone, Debug, PartialEq)]
pub struct Own<K: Kind> {
    version: String,
    /// Goes up with each change of the spec, and with the deletion.
    pub generation: i64,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The spec.
    pub spec: K::Spec,
    /// The status.
    pub status: K::Status,
    /// It has Stoker's finalizer.
    pub finalizer: bool,
    /// It is being deleted.
    pub deleted: bool,
}

impl<K: Kind> Own<K> {
    /// One that was just created.
    pub fn new(spec: K::Spec, annotations: BTreeMap<String, String>) -> Self {
        let (version, status) = (String::new(), K::Status::default());
        Self { version, generation: 1, annotations, spec, status, finalizer: false, deleted: false }
    }

    /// Its version, as a number: those of one object can be compared.
    pub(crate) fn number(&self) -> u64 {
        self.version.parse().unwrap_or(0)
    }
}

impl<K: Kind> Object for Own<K> {
    fn name(&self) -> &str {
        OWN
    }

    fn uid(&self) -> &str {
        OWN_UID
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn set_version(&mut self, version: String) {
        self.version = version;
    }

    fn terminating(&self) -> bool {
        self.deleted
    }

    fn terminate(&mut self) {
        self.generation += i64::from(!self.deleted);
        self.deleted = true;
    }

    fn lingers(&self) -> bool {
        self.finalizer
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// As it is seen.
    pub view: NodeView,
    version: String,
}

impl Node {
    /// One of some name and UID, Ready.
    pub fn new(name: &str, uid: &str) -> Self {
        let (name, uid) = (name.to_owned(), uid.to_owned());
        let view = NodeView { name, uid, ready: true, ..NodeView::default() };
        Self { view, version: String::new() }
    }
}

impl Object for Node {
    fn name(&self) -> &str {
        &self.view.name
    }

    fn uid(&self) -> &str {
        &self.view.uid
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn set_version(&mut self, version: String) {
        self.version = version;
    }

    fn terminating(&self) -> bool {
        false
    }

    fn terminate(&mut self) {}

    fn lingers(&self) -> bool {
        false
    }
}

/// The truth that an operator's watches tell of.
#[derive(Clone, Copy)]
pub struct Stores<'a, K: Kind> {
    /// The object.
    pub objects: &'a Store<Own<K>>,
    /// Its Jobs.
    pub jobs: &'a Store<JobView>,
    /// Their pods.
    pub pods: &'a Store<PodView>,
    /// The nodes.
    pub nodes: &'a Store<Node>,
}
