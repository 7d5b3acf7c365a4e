//! The measurement of each case.

use esvit_engine::Result;
use esvit_engine::spec::TrainerSpec;

use crate::{BenchCase, Machine, Measurement, Pace, attention, inference, loss, step};

/// Measures a case at the sizes of a specification.
///
/// # Errors
/// When it cannot be built, or the GPU has not enough memory or is lost.
pub fn measure(case: BenchCase, spec: &TrainerSpec, machine: &Machine, pace: &mut Pace) -> Result<Measurement> {
    match case {
        BenchCase::Step => Ok(step::step(spec, machine, pace, false)?.0),
        BenchCase::Inference => Ok(inference::measure(spec, machine, pace, false)?.0),
        BenchCase::Loss => loss::measure(spec, machine, pace),
        BenchCase::Attention { projections, backward } => attention::measure(spec, machine, pace, projections, backward),
    }
}
