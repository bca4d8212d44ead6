//! Machine code of a component, and the only unsafe code of Stoker: loading it.
//!
//! The engine runs what it loads without checking it, so bytes from outside must never get there.
//! The one field of [`Artefact`] is private to this folder, [`super::child`] alone makes one, from
//! what its own child process wrote into the pipe between them, and nothing reads one from a file
//! or the network.
#![allow(unsafe_code)]

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::log::brief;

/// What the compiler made.
pub(crate) struct Artefact(pub(super) Vec<u8>);

impl Artefact {
    /// Bytes of machine code and tables; what a loaded component holds of memory.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Makes it ready to be instantiated in `engine`.
    pub(crate) fn load(self, engine: &Engine) -> Result<Component, String> {
        // SAFETY: `deserialize` asks that the bytes come from `Engine::precompile_component` and
        // are unchanged. `child` is the only place that makes an `Artefact`: from all that a
        // process of this same program, started for this, wrote to its standard output before it
        // ended with success, which is `precompile_component`'s output. No code changes the bytes
        // after that. The engine itself refuses output of another version or of other settings.
        let loaded = unsafe { Component::deserialize(engine, &self.0) };
        loaded.map_err(|error| in_words(&error))
    }
}

/// Why the code is not loaded, most often because it is too much for a slot of the allocator.
fn in_words(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    if text.contains("pooling allocator") {
        // What follows, if anything, is a table of what takes how much.
        let cause = error.root_cause().to_string();
        let cause = brief(cause.split("; breakdown").next().unwrap_or_default());
        return format!("it asks for more than a policy gets: {cause}; use less, or link less code into it");
    }
    brief(&text)
}
