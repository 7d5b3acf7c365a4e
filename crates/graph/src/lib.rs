//! One static program per step: build it, differentiate it, plan its memory, run it.
//!
//! - [`Graph`] collects nodes; [`Op`] is the contract of an operator.
//! - [`Graph::gradients`] adds the backward nodes: one rule for each operator, no tape at run time.
//! - [`Program`] drops what nobody needs and gives every buffer an offset in one arena, so the memory of a run is known before its first
//!   step. [`Program::ready_points`] tell where gradients are complete.
//! - [`Program::run`] walks the nodes on the CPU; [`Program::record`] records them for a GPU. [`Bindings`] give them
//!   the values they read from outside, by the handles of leaves, [`Leaf`].

mod bf16x2;
mod bindings;
mod compile;
mod constants;
mod differentiate;
mod error;
mod fuse;
mod gpu;
mod graph;
mod io;
mod plan;
mod prepack;
mod program;
mod ready;
mod run;
mod slice;
mod sum;
mod value;

pub use bindings::Bindings;
pub use constants::{Constants, Prepacked};
pub use error::Error;
pub use fuse::{Candidate, Pattern};
pub use gpu::GpuArena;
pub use graph::op::Op;
pub use graph::{Graph, NamedLeaf, Node};
pub use io::{GpuIo, Io, Precision, Variant};
pub use prepack::LeafSource;
pub use program::Program;
pub use ready::{Consumed, ReadyPoint};
pub use run::{Arena, NodeTime};
pub use slice::{Slice, SliceMut};
pub use sum::{SUM, sum};
pub use value::{DType, Leaf, Shape, Value, volume};

/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
