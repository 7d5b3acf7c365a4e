//! Executors: what runs a compiled step on a device. [`CpuExecutor`] computes at once; [`GpuExecutor`] replays recordings and holds the
//! current state in its device's memory. Both follow [`schedule`].

mod contract;
mod cpu;
pub(crate) mod gpu;
mod schedule;

pub(crate) use contract::{Executor, StepContext};

use self::cpu::CpuExecutor;
use self::gpu::GpuExecutor;
use crate::network::CompiledStep;
use crate::spec::TrainerSpec;
use crate::state::TrainingState;
use crate::{Device, Result};

/// The executor of a device, with this state.
///
/// # Errors
/// When the device cannot run the step, or has not enough memory.
pub(crate) fn open(device: Device, spec: &TrainerSpec, step: &CompiledStep, state: &TrainingState) -> Result<Box<dyn Executor>> {
    Ok(match device {
        Device::Cpu => Box::new(CpuExecutor::new(spec)?),
        Device::Gpu(gpu) => Box::new(GpuExecutor::new(gpu, spec, step, state)?),
    })
}
