//! The GPU as the engine sees it: an adapter, memory, kernels, and recordings of them that are replayed every step.
//!
//! - [`Gpu`] opens the best adapter, owns its memory ([`View`]) and its compiled pipelines.
//! - [`Kernel`] is one WGSL file with one entry point; the files are valid as they stand.
//! - [`Recorder`] collects dispatches; [`Recording::run`] submits all of them at once, any number of times.
//! - [`matmul::Product`] is the matrix product, for every operator that needs one.

mod device;
mod error;
mod kernel;
pub mod matmul;
mod memory;
mod recorder;
pub mod reduce;

pub use device::{Adapter, Gpu, Kind, adapters};
pub use error::Error;
pub use kernel::{Kernel, Needs};
pub use memory::View;
pub use recorder::{Grid, OperatorTime, Recorder, Recording};

/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
