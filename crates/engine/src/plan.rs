//! What a training run needs, known before anything is allocated for it.

use esvit_graph::DType;
use esvit_nn::{Entry, Parameters, Role};
use esvit_simd::Pool;

use crate::Result;
use crate::network::{self, Step};
use crate::optimizer::Optimizer;
use crate::spec::TrainerSpec;

/// Memory of a trainer in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Activations and gradients, on the CPU.
    pub arena: usize,
    /// The same on a GPU, which keeps all gradients until its update.
    pub gpu_arena: usize,
    /// Both networks, moments, centres; with accumulation also the sums of the gradients.
    pub parameters: usize,
    /// Staging of pixels, and scratch memory of the operators.
    pub workspace: usize,
}

/// Sizes of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In bytes.
    pub memory: MemoryPlan,
    /// Number of trained values in the student.
    pub parameter_count: usize,
    /// Matrix-product arithmetic of a step, all its passes.
    pub flops: u64,
}

impl Plan {
    /// The plan of the trainer that [`crate::Trainer::new`] would build. Costs milliseconds and no memory to speak of.
    ///
    /// # Errors
    /// When the specification cannot be built.
    pub fn new(spec: &TrainerSpec) -> Result<Plan> {
        let dtype = pixel_type(spec);
        Ok(Plan::of(spec, dtype, &network::build(spec, dtype, network::KEPT_LOGITS)?))
    }

    pub(crate) fn of(spec: &TrainerSpec, dtype: DType, step: &Step) -> Plan {
        let held = |p: &Parameters| p.entries.iter().filter(|e| e.role.has_values()).map(Entry::volume).sum::<usize>();
        let parameter_count = step.student.entries.iter().filter(|e| e.role == Role::Parameter).map(Entry::volume).sum::<usize>();
        let centers = spec.head.out_dim * if spec.loss.region { 2 } else { 1 };
        let moments = parameter_count * Optimizer::moments_per_value(spec.optimizer);
        let sums = if spec.accumulate > 1 { parameter_count } else { 0 };
        let pixels = step.pixels;
        let staging = match dtype {
            DType::U8 => pixels.global + pixels.local,
            // The teacher's crops are staged apart: the student's are mixed.
            _ => 4 * (2 * pixels.global + pixels.local),
        };
        let memory = MemoryPlan {
            arena: step.program.arena_bytes(),
            gpu_arena: step.kept.as_ref().unwrap_or(&step.program).arena_bytes(),
            parameters: 4 * (held(&step.student) + held(&step.teacher) + moments + sums + centers),
            workspace: staging + step.program.scratch_bytes(Pool::threads_for(spec.threads)),
        };
        Plan { memory, parameter_count, flops: spec.accumulate as u64 * step.program.flops() }
    }
}

/// Pixels of a trainer: with mixup they are floats.
pub(crate) fn pixel_type(spec: &TrainerSpec) -> DType {
    if spec.loss.mixup { DType::F32 } else { DType::U8 }
}
