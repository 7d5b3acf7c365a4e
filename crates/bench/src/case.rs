//! What can be measured.

use esvit_engine::Result;
use esvit_engine::spec::TrainerSpec;

use crate::{Machine, Measurement, Pace, attention, inference, loss, step};

/// A measurement that `bench/peer/` makes too, by the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Teacher, student, loss, backward, clipping, optimizer, teacher's average, centers.
    Step,
    /// Pooled features of `batch` images of the global crops' size.
    Inference,
    /// Last layer, view and (if the specification has it) region loss of one step, matching included, forward and backward.
    Loss,
    /// Window attention of the first stage, shifted, on the global crops' token grid.
    Attention {
        /// With the products in front (q, k, v) and behind.
        projections: bool,
        /// Forward and backward.
        backward: bool,
    },
}

impl Case {
    /// All of them.
    pub const ALL: [Case; 7] = [
        Case::Step,
        Case::Inference,
        Case::Loss,
        Case::Attention { projections: true, backward: true },
        Case::Attention { projections: true, backward: false },
        Case::Attention { projections: false, backward: true },
        Case::Attention { projections: false, backward: false },
    ];

    /// Its name in tables, in JSON and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Case::Step => "step",
            Case::Inference => "inference",
            Case::Loss => "loss",
            Case::Attention { projections: true, backward: true } => "window_attention",
            Case::Attention { projections: true, backward: false } => "window_attention_forward",
            Case::Attention { projections: false, backward: true } => "window_attention_core",
            Case::Attention { projections: false, backward: false } => "window_attention_core_forward",
        }
    }
}

/// Measures a case at the sizes of a specification.
///
/// # Errors
/// When it cannot be built, or the GPU has not enough memory or is lost.
pub fn measure(case: Case, spec: &TrainerSpec, machine: &Machine, pace: &mut Pace) -> Result<Measurement> {
    match case {
        Case::Step => Ok(step::step(spec, machine, pace, false)?.0),
        Case::Inference => Ok(inference::measure(spec, machine, pace, false)?.0),
        Case::Loss => loss::measure(spec, machine, pace),
        Case::Attention { projections, backward } => attention::measure(spec, machine, pace, projections, backward),
    }
}
