//! A whole training step.

use std::time::Instant;

use esvit_engine::spec::TrainerSpec;
use esvit_engine::{Batch, BatchLayout, BatchReader, Error, Pixels, ProfileRow, Result, StepParameters, Trainer};

use crate::measurement::Begun;
use crate::{BenchCase, Machine, Measurement, Pace};

/// Steps on noise, which costs what pictures cost; with `profile` one more, split by part and operator.
///
/// # Errors
/// When the specification cannot be built, or the GPU has not enough memory or is lost.
pub fn step(spec: &TrainerSpec, machine: &Machine, pace: &mut Pace, profile: bool) -> Result<(Measurement, Vec<ProfileRow>)> {
    if spec.loss.mixup {
        return Err(Error::Spec("a step with mixup is not measured: turn loss.mixup off".into()));
    }
    let begun = Begun::new();
    let spec = TrainerSpec { threads: machine.pool().threads(), ..spec.clone() };
    let mut trainer = Trainer::new(spec.clone(), machine.device())?;
    let images = spec.crops.batch * spec.accumulate;
    let batch = noise_batch(&spec)?;
    let pixels = Pixels::U8(&batch);
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
    Ok((measurement, rows))
}

/// A full batch of noise.
fn noise_batch(spec: &TrainerSpec) -> Result<BatchReader> {
    let pixels = |images: usize, side: usize| noise(images * 3 * side * side);
    let (crops, images) = (&spec.crops, spec.crops.batch * spec.accumulate);
    let (global, local) = (pixels(2 * images, crops.global_size), pixels(crops.local_count * images, crops.local_size));
    Batch::from_crops(BatchLayout::of(spec), &global, &local)?.read()
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
