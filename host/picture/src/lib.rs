//! Steps that depend on each other, drawn: in a terminal with box characters, and as SVG.
//!
//! [`Layout::new`] decides which layer each step stands in and in which order; [`terminal`] and [`svg`] give it
//! room and draw it. What does not fit is a list by layers instead. Nothing here reads or writes anything.
//!
//! The layout is the usual one for layered graphs: layers by the longest path, bends where an edge passes a layer,
//! few crossings by barycentres, and positions that pull neighbours together without overlap.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bundle;
mod canvas;
mod graph;
mod layout;
mod list;
mod order;
mod place;
mod svg;
mod terminal;
mod text;
mod wires;

pub use graph::{Edge, Graph, State, Step};
pub use layout::Layout;
pub use svg::svg;
pub use terminal::terminal;
