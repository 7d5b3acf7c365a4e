//! Pooled features of a batch of images.

use std::time::Instant;

use esvit_engine::spec::{EncoderSpec, FeatureOutput, TrainerSpec};
use esvit_engine::{Encoder, ProfileRow, Result};

use crate::measurement::Begun;
use crate::step::noise;
use crate::{BenchCase, Machine, Measurement, Pace};

/// `batch` images of the global crops' size; with `profile` they are encoded once more, split by operator.
pub(crate) fn measure(spec: &TrainerSpec, machine: &Machine, pace: &mut Pace, profile: bool) -> Result<(Measurement, Vec<ProfileRow>)> {
    let begun = Begun::new();
    let (batch, image_size) = (spec.crops.batch, spec.crops.global_size);
    let encoder = EncoderSpec {
        backbone: spec.backbone.clone(),
        image_size,
        batch,
        precision: spec.precision,
        threads: machine.pool().threads(),
        output: FeatureOutput::View,
    };
    let mut encoder = Encoder::new(encoder, machine.device())?;
    let pixels = noise(batch * 3 * image_size * image_size);
    let times = pace.drive(|| {
        let started = Instant::now();
        encoder.encode(&pixels, batch)?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    })?;
    let (gflop, planned) = (encoder.flops() as f64 / 1e9, encoder.memory() as u64);
    let rows = if profile { encoder.profile()? } else { Vec::new() };
    Ok((begun.end(BenchCase::Inference, spec, machine, times, gflop, planned), rows))
}
