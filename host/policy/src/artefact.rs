//! Machine code of a component, and the only unsafe code of Stoker: loading it.
//!
//! The engine runs what it loads without checking it, so bytes from outside must never get there.
//! The one field of [`Artefact`] is private, [`Artefact::compile`] alone makes one, and nothing
//! reads one from a file or the network.
#![allow(unsafe_code)]

use wasmtime::Engine;
use wasmtime::component::Component;

/// What [`Artefact::compile`] made.
pub(crate) struct Artefact(Vec<u8>);

impl Artefact {
    /// Compiles a component. Takes time and memory that nothing here bounds.
    pub(crate) fn compile(engine: &Engine, component: &[u8]) -> Result<Self, String> {
        engine.precompile_component(component).map(Self).map_err(|error| format!("{error:#}"))
    }

    /// Makes it ready to be instantiated in `engine`.
    pub(crate) fn load(self, engine: &Engine) -> Result<Component, String> {
        // SAFETY: `deserialize` asks that the bytes come from `Engine::precompile_component` and
        // are unchanged. `compile` is the only place that makes an `Artefact`, it puts the
        // compiler's output there, and no code can reach the bytes after it. The engine itself
        // refuses output of another version or of other settings.
        let loaded = unsafe { Component::deserialize(engine, &self.0) };
        loaded.map_err(|error| format!("{error:#}"))
    }
}
