//! Layers, backbones, heads and losses. They declare parameters and add nodes to a graph; nothing is computed here.
//!
//! - [`Scope`] gives a layer its names; [`Parameters`] collects what was declared, in the original's order.
//! - [`backbones`]: one file each, and the only match over their kinds.
//! - [`DinoHead`]: projection head. [`loss`]: view and region terms.
//! - [`spec`]: what a network is built from, complete and without defaults.

pub mod backbones;
mod head;
pub mod layers;
pub mod loss;
mod parameters;
pub mod spec;
mod tokens;

pub use head::DinoHead;
pub use layers::{Mode, RunningStatistics};
pub use parameters::{Init, ParameterEntry, Parameters, Role, Scope, leaf_name};
pub use tokens::TokenMatrix;
