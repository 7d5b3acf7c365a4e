//! One static program per step: build it, differentiate it, plan its memory, run it.
//!
//! - [`Graph`] collects nodes; [`Op`] is the contract of an operator.
//! - [`Graph::gradients`] adds the backward nodes: one rule for each operator, no tape at run time.
//! - [`Program`] drops what nobody needs and gives every buffer an offset in one arena, so the
//!   memory of a run is known before its first step.
//! - [`Program::run`] walks the nodes on the CPU; [`Program::record`] records them for a GPU.

mod bf16x2;
mod constants;
mod differentiate;
mod error;
mod fuse;
mod gpu;
mod io;
mod op;
mod plan;
mod program;
mod slice;
mod sum;
mod value;

pub use constants::{Constants, Leaves, Prepacked};
pub use error::Error;
pub use fuse::{Candidate, Pattern};
pub use gpu::GpuArena;
pub use io::{GpuIo, Io, Precision, Variant};
pub use op::Op;
pub use program::{Arena, Bindings, Consumed, NodeTime, Program, Stop};
pub use slice::{Slice, SliceMut};
pub use sum::{SUM, sum};
pub use value::{DType, Graph, Leaf, Node, Shape, Value, volume};

/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
