//! The GPU as the engine sees it: an adapter, memory, kernels, and recordings of them that are replayed every step.
//!
//! - [`Gpu`] opens the best adapter, owns its memory ([`View`]) and its compiled pipelines.
//! - [`Kernel`] is one entry point of some WGSL files, which are a valid module one behind the other.
//! - [`Recorder`] collects dispatches; [`Recording::run`] submits all of them at once, any number of times.
//! - [`matmul::GpuProduct`] is the matrix product, for every operator that needs one.

mod adapter;
mod device;
mod error;
mod kernel;
pub mod matmul;
mod memory;
mod pipeline;
mod recorder;
mod recording;
pub mod reduce;

pub use adapter::{Adapter, AdapterKind, adapters};
pub use device::Gpu;
pub use error::Error;
pub use kernel::{Kernel, Needs};
pub use memory::View;
pub use recorder::Recorder;
pub use recording::{Grid, OperatorTime, Recording};

/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
