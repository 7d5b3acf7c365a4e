//! The engine: parameters, optimizers, the moving-average teacher, the training step, the encoder, k-NN.
//!
//! - [`TrainerPlan`] tells the sizes of a run before anything is allocated.
//! - [`Trainer`] is the state of a run and an executor of its compiled step, on the CPU or a GPU.
//! - [`Encoder`] is a set of weights and an executor of a compiled forward pass.
//! - [`knn`] classifies features by their neighbors.

mod averages;
mod batch;
mod encoder;
mod error;
mod executor;
mod forward;
pub mod knn;
mod monitor;
mod network;
mod optimizer;
pub mod peak;
mod pixels;
mod plan;
mod profile;
mod random;
mod scaler;
pub mod spec;
mod state;
mod step;
mod store;
mod target;
mod tensor;
mod trainer;

pub use batch::{Batch, BatchLayout, BatchReader, PlaceWriter};
pub use encoder::Encoder;
pub use error::Error;
pub use esvit_gpu as device;
pub use esvit_graph::Error as GraphError;
pub use esvit_nn::Role;
pub use network::step_program;
pub use optimizer::OptimizerState;
pub use pixels::Pixels;
pub use plan::{MemoryPlan, TrainerPlan};
pub use profile::ProfileRow;
pub use scaler::LossScaler;
pub use state::{StatePart, TrainerState};
pub use step::{StepParameters, StepStats};
pub use store::{LoadReport, Store};
pub use target::{Device, DeviceKind};
pub use tensor::{Tensor, TensorValues, TensorView};
pub use trainer::Trainer;

/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// Every GPU kernel of a training run, for checks that need no GPU.
pub fn kernels() -> Vec<&'static esvit_gpu::Kernel> {
    esvit_ops::kernels().into_iter().chain(executor::gpu::KERNELS.iter().copied()).collect()
}
