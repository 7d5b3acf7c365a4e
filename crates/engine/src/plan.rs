//! Sizes of a training run, known before anything is allocated for it.

use esvit_graph::DType;
use esvit_nn::{ParameterEntry, Parameters, Role};
use esvit_simd::Pool;
use serde::{Serialize, Serializer};

use crate::network::{self, CompiledStep};
use crate::optimizer::Optimizer;
use crate::pixels::PixelMemory;
use crate::spec::TrainerSpec;
use crate::{DeviceKind, Result};

/// Memory of a trainer in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct MemoryPlan {
    /// Activations and gradients, in the device's memory.
    pub arena: usize,
    /// Both networks, moments, centers; with accumulation also the sums of the gradients.
    pub parameters: usize,
    /// With mixup the pixels of a pass as floats, and on the CPU scratch memory of the operators.
    pub workspace: usize,
    /// The largest tensor of a state: a checkpoint takes as much while it is written.
    pub largest_tensor: usize,
}

/// Sizes of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct TrainerPlan {
    /// Memory in bytes.
    pub memory: MemoryPlan,
    /// Number of trained values in the student.
    pub parameter_count: usize,
    /// Matrix-product arithmetic of a step, all its passes; in 10⁹ operations where it is serialized.
    #[serde(rename = "gflop", serialize_with = "gflop")]
    #[cfg_attr(feature = "typescript", ts(rename = "gflop", type = "number"))]
    pub flops: u64,
}

/// Serializes a number of operations in units of 10⁹.
pub(crate) fn gflop<S: Serializer>(flops: &u64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64(*flops as f64 / 1e9)
}

impl TrainerPlan {
    /// The plan of the trainer that [`crate::Trainer::new`] would build on such a device. Costs milliseconds and no memory to speak of.
    ///
    /// # Errors
    /// When the specification cannot be built.
    pub fn new(spec: &TrainerSpec, device: DeviceKind) -> Result<TrainerPlan> {
        let dtype = spec.pixel_type();
        Ok(TrainerPlan::of(spec, dtype, &network::build(spec, dtype, device)?, device))
    }

    pub(crate) fn of(spec: &TrainerSpec, dtype: DType, step: &CompiledStep, device: DeviceKind) -> TrainerPlan {
        let held = |p: &Parameters| p.entries.iter().filter(|e| e.role.has_values()).map(ParameterEntry::volume).sum::<usize>();
        let parameter_count = step.student.entries.iter().filter(|e| e.role == Role::Parameter).map(ParameterEntry::volume).sum::<usize>();
        let centers = spec.head.out_dim * if spec.loss.region { 2 } else { 1 };
        let moments = parameter_count * Optimizer::moments_per_value(spec.optimizer);
        let sums = if spec.accumulate > 1 { parameter_count } else { 0 };
        let scratch = match device {
            DeviceKind::Cpu => step.program.scratch_bytes(Pool::threads_for(spec.threads)),
            DeviceKind::Gpu => 0,
        };
        let memory = MemoryPlan {
            arena: step.program.arena_bytes(),
            parameters: 4 * (held(&step.student) + held(&step.teacher) + moments + sums + centers),
            workspace: PixelMemory::bytes(dtype, step.pixels) + scratch,
            largest_tensor: 4 * step.student.entries.iter().map(ParameterEntry::volume).max().unwrap_or(0).max(spec.head.out_dim),
        };
        TrainerPlan { memory, parameter_count, flops: spec.accumulate as u64 * step.program.flops() }
    }
}
