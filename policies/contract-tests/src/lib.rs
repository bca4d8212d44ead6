//! Looks into a built component and holds it against `wit/`, so that a file that no host would
//! take is found where it is built. Running components is the host's own tests' business.

use std::collections::BTreeSet;
use std::path::Path;

use wit_component::DecodedWasm;
use wit_parser::{Resolve, World, WorldId, WorldKey};

/// What may be imported besides the contract's own `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// The host links a closed WASI, so the imports of a language's runtime are fine.
    Allowed,
    Refused,
}

/// Checks that the component exports exactly what `world` of the contract does, with the same types,
/// and imports nothing that the host does not offer.
///
/// # Errors
/// A sentence that says what differs.
pub fn check(component: &[u8], wit: &Path, world: &str, wasi: Wasi) -> Result<(), String> {
    if !wasmparser::Parser::is_component(component) {
        return Err("it is not a component (a plain module, or no WebAssembly at all)".to_owned());
    }
    let (contract, id) = contract(wit, world)?;
    let wanted = &contract.worlds[id];
    let (resolve, found) = match wit_component::decode(component) {
        Ok(DecodedWasm::Component(resolve, found)) => (resolve, found),
        Ok(DecodedWasm::WitPackage(..)) => return Err("it is a WIT package, not a component".to_owned()),
        Err(error) => return Err(format!("it is not a component: {error:#}")),
    };
    let found = &resolve.worlds[found];

    let (exports, expected) =
        (names(&resolve, found, Side::Exports), names(&contract, wanted, Side::Exports));
    if exports != expected {
        return Err(format!("it exports {exports:?}, the world {world} exports {expected:?}"));
    }

    // What a world imports and nobody uses is left out of the component, so a part is enough.
    // The shared types are there in any case.
    let mut offered = names(&contract, wanted, Side::Imports);
    offered.extend(types(&contract));
    let mut strangers = names(&resolve, found, Side::Imports);
    strangers.retain(|name| !offered.contains(name));
    if wasi == Wasi::Allowed {
        strangers.retain(|name| !name.starts_with("wasi:"));
    }
    if !strangers.is_empty() {
        return Err(format!("it imports {strangers:?}, which the host does not offer here"));
    }

    // Without WASI the component can be held against the world as a whole, types included.
    if wasi == Wasi::Refused {
        wit_component::targets(&contract, id, component)
            .map_err(|error| format!("it does not fit the world {world}: {error:#}"))?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Side {
    Imports,
    Exports,
}

fn contract(wit: &Path, world: &str) -> Result<(Resolve, WorldId), String> {
    let mut resolve = Resolve::default();
    let (package, _) =
        resolve.push_path(wit).map_err(|error| format!("cannot read {}: {error:#}", wit.display()))?;
    let id = resolve
        .select_world(&[package], Some(world))
        .map_err(|error| format!("no world {world} in {}: {error:#}", wit.display()))?;
    Ok((resolve, id))
}

fn names(resolve: &Resolve, world: &World, side: Side) -> BTreeSet<String> {
    let items = match side {
        Side::Imports => &world.imports,
        Side::Exports => &world.exports,
    };
    items.keys().map(|key: &WorldKey| resolve.name_world_key(key)).collect()
}

/// The interface of shared types, which has no functions and so asks nothing of the host.
fn types(resolve: &Resolve) -> impl Iterator<Item = String> + '_ {
    resolve
        .interfaces
        .iter()
        .filter(|(_, interface)| interface.functions.is_empty())
        .filter_map(|(id, _)| resolve.id_of(id))
}
