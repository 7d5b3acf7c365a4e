//! One call for every measurement.

use esvit_engine::Result;
use esvit_engine::spec::TrainerSpec;

use crate::{Case, Machine, Measurement, Pace, attention, inference, loss, step};

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
