//! The engine: parameters, optimizers, the moving-average teacher, the training step, the encoder, k-NN.
//!
//! - [`Plan`] says what a run needs before anything is allocated.
//! - [`Trainer`] owns a compiled step and everything that changes from step to step.
//! - [`Encoder`] owns a compiled forward pass.
//! - [`knn`] classifies features by their neighbors.

mod batch;
mod encoder;
mod error;
mod gpu;
pub mod knn;
mod monitor;
mod network;
mod optimizer;
pub mod peak;
mod plan;
mod profile;
mod random;
mod scaler;
pub mod spec;
mod staging;
mod state;
mod step;
mod store;
mod trainer;

pub use batch::{Batch, BatchLayout, BatchReader, PlaceWriter};
pub use encoder::Encoder;
pub use error::Error;
pub use esvit_gpu as device;
pub use esvit_graph::Error as GraphError;
pub use esvit_nn::Role;
pub use network::step_program;
pub use optimizer::OptimizerState;
pub use plan::{MemoryPlan, Plan};
pub use profile::ProfileRow;
pub use scaler::LossScaler;
pub use staging::Pixels;
pub use state::{StatePart, Tensor, TensorValues, TensorView, TrainerState};
pub use step::{StepParameters, StepStats};
pub use store::{LoadReport, Store};
pub use trainer::Trainer;

/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// Every GPU kernel of a training run, for checks that need no GPU.
pub fn kernels() -> Vec<&'static esvit_gpu::Kernel> {
    esvit_ops::kernels().into_iter().chain(gpu::KERNELS.iter().copied()).collect()
}
