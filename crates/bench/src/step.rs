//! A whole training step.

use std::time::Instant;

use esvit_engine::spec::TrainerSpec;
use esvit_engine::{Error, Pixels, Result, StepParameters, Trainer};
use serde::Serialize;

use crate::measurement::Begun;
use crate::{BenchCase, Machine, Measurement, Pace};

/// Time and arithmetic of one operator in one part of the step.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRow {
    /// Part of the step.
    pub phase: &'static str,
    /// Name of the operator.
    pub operator: &'static str,
    /// Number of applications.
    pub calls: u32,
    /// Milliseconds of all applications.
    pub ms: f64,
    /// Matrix products, 10⁹ operations.
    pub gflop: f64,
}

impl From<esvit_engine::ProfileRow> for StepRow {
    fn from(r: esvit_engine::ProfileRow) -> StepRow {
        StepRow { phase: r.phase, operator: r.operator, calls: r.calls, ms: r.time.as_secs_f64() * 1e3, gflop: r.flops as f64 / 1e9 }
    }
}

/// Steps on noise, which costs what pictures cost; with `profile` one more, split by part and operator.
///
/// # Errors
/// When the specification cannot be built, or the GPU has not enough memory or is lost.
pub fn step(spec: &TrainerSpec, machine: &Machine, pace: &mut Pace, profile: bool) -> Result<(Measurement, Vec<StepRow>)> {
    if spec.loss.mixup {
        return Err(Error::Spec("a step with mixup is not measured: turn loss.mixup off".into()));
    }
    let begun = Begun::new();
    let spec = TrainerSpec { threads: machine.pool().threads(), ..spec.clone() };
    let mut trainer = Trainer::new(spec.clone(), machine.device())?;
    let pixels = |images: usize, side: usize| noise(images * 3 * side * side);
    let (crops, images) = (&spec.crops, spec.crops.batch * spec.accumulate);
    let global = pixels(2 * images, crops.global_size);
    let local = pixels(crops.local_count * images, crops.local_size);
    let pixels = Pixels::U8 { global: &global, local: &local };
    // Everything is updated: no layer is frozen.
    let mut parameters = StepParameters {
        step: 0,
        progress: 0.0,
        learning_rate: 0.0005 * images as f64 / 256.0,
        weight_decay: 0.04,
        momentum: 0.996,
        teacher_temperature: 0.04,
        freeze_last_layer: false,
    };
    let times = pace.drive(|| {
        let started = Instant::now();
        trainer.step(pixels, None, &parameters)?;
        parameters.step += 1;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    })?;
    let mut rows = Vec::new();
    if profile {
        rows = trainer.profile(pixels, None, &parameters)?;
    }
    let plan = *trainer.plan();
    let planned = (plan.memory.arena + plan.memory.parameters + plan.memory.workspace) as u64;
    let measurement = begun.end(BenchCase::Step, &spec, machine, times, plan.flops as f64 / 1e9, planned);
    Ok((measurement, rows.into_iter().map(StepRow::from).collect()))
}

/// Pixels without a pattern, the same in every run.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}
