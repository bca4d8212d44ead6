//! A policy that is ready to be asked: compiled, linked to the closed world, and described.

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::contract::bindings::exports::stoker::policy::{busyness, scaling, settings, warm_up};
use crate::contract::settings::Info;
use crate::digest::Digest;
use crate::error::Refusal;
use crate::log::brief;
use crate::observer::Observer;
use crate::state::State;
use crate::wasi;
use crate::workers::Lane;

/// Which decisions a policy makes. For the others the built-in rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exports {
    /// How many replicas.
    pub scaling: bool,
    /// Which pods are busy.
    pub busyness: bool,
    /// How early a warm-up begins.
    pub warm_up: bool,
}

/// A component that fits the contract.
pub struct Policy {
    pub(crate) linked: Arc<Linked>,
    pub(crate) info: Info,
    /// Bytes of machine code and tables.
    pub(crate) code_bytes: usize,
}

impl Policy {
    /// The processor time of its last call, for whomever that was: what asking it again may cost.
    pub fn last_cost(&self) -> std::time::Duration {
        self.linked.lane.cost()
    }

    /// The digest of the component's bytes.
    pub fn digest(&self) -> &Digest {
        &self.linked.digest
    }

    /// What the policy says about itself.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Which decisions it makes; at least one.
    pub fn exports(&self) -> Exports {
        let linked = &self.linked;
        Exports {
            scaling: linked.scaling.is_some(),
            busyness: linked.busyness.is_some(),
            warm_up: linked.warm_up.is_some(),
        }
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Info { name, version, .. } = &self.info;
        write!(f, "Policy({name} {version}, {})", self.linked.digest.short())
    }
}

/// A component with its imports resolved and its exports looked up, so that a call starts with
/// the instance.
pub(crate) struct Linked {
    pub(crate) digest: Digest,
    pub(crate) lane: Arc<Lane>,
    pub(crate) pre: InstancePre<State>,
    pub(crate) settings: settings::GuestIndices,
    pub(crate) scaling: Option<scaling::GuestIndices>,
    pub(crate) busyness: Option<busyness::GuestIndices>,
    pub(crate) warm_up: Option<warm_up::GuestIndices>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.observer.forgotten(&self.digest);
    }
}

impl Linked {
    /// Links a component whose names have been checked.
    pub(crate) fn new(
        digest: Digest,
        base: &Linker<State>,
        component: &Component,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, Refusal> {
        let contract = |error| misfit(&error);
        let mut linker = base.clone();
        wasi::add_stubs(&mut linker, component).map_err(contract)?;
        let pre = linker.instantiate_pre(component).map_err(contract)?;
        let settings = settings::GuestIndices::new(&pre).map_err(contract)?;

        // An interface that is exported must be whole; one that is not is simply absent.
        let names = exported(component, component.engine());
        let exports = |interface: &str| names.iter().any(|name| name == interface);
        let scaling =
            exports("scaling").then(|| scaling::GuestIndices::new(&pre)).transpose().map_err(contract)?;
        let busyness =
            exports("busyness").then(|| busyness::GuestIndices::new(&pre)).transpose().map_err(contract)?;
        let warm_up =
            exports("warm-up").then(|| warm_up::GuestIndices::new(&pre)).transpose().map_err(contract)?;
        let observer = Arc::clone(observer);
        Ok(Self { digest, lane: Lane::new(), pre, settings, scaling, busyness, warm_up, observer })
    }
}

/// The refusal of a component whose types or imports are not those of the contract.
pub(crate) fn misfit(error: &wasmtime::Error) -> Refusal {
    let words = brief(&format!("{error:#}"));
    Refusal::Contract(format!("{words}; build it against the wit/ folder of this release"))
}

/// Names of the contract's interfaces that `component` exports.
fn exported(component: &Component, engine: &Engine) -> Vec<String> {
    let ty = component.component_type();
    ty.exports(engine)
        .filter_map(|(name, _)| {
            let (interface, _) = name.strip_prefix("stoker:policy/")?.split_once('@')?;
            Some(interface.to_owned())
        })
        .collect()
}

/// What every component is linked to.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    use wasmtime::component::HasSelf;

    use crate::contract::bindings::stoker::policy::{log, types};

    let mut linker = Linker::new(engine);
    log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}
