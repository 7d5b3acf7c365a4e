//! The first pass: log-sum-exps, the loss, and the mean teacher logits for the center.

use std::f32::consts::LOG2_E;
use std::f64::consts::LN_2;
use std::ops::Range;

use esvit_graph::Io;
use esvit_simd::lanes;
use esvit_simd::vector::stream_end;
use rayon::prelude::*;

use super::{BLOCK, LossOperands, LossTiles, TILE, rows, steps};
use crate::prototype_loss::PrototypeLoss;

/// A running maximum with the sum of powers of 2 relative to it.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

impl Running {
    const EMPTY: Running = Running { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Takes in a sum relative to a maximum that is not below its own; returns what older relative sums are multiplied with.
    fn add(&mut self, max: f32, sum: f32) -> f32 {
        // Mostly it stays: no power is needed.
        let factor = if max > self.max { (self.max - max).exp2() } else { 1.0 };
        *self = Running { max, sum: self.sum * factor + sum };
        factor
    }

    /// Takes in another range's.
    fn merge(&mut self, other: Running) {
        let max = self.max.max(other.max);
        self.add(max, other.sum * (other.max - max).exp2());
    }

    /// In nats.
    fn log_sum_exp(self) -> f64 {
        LN_2 * (f64::from(self.max) + f64::from(self.sum).log2())
    }
}

/// Sums of the first pass over one range of K.
struct RangeSums {
    student: Vec<Running>,
    teacher: Vec<Running>,
    /// Σ q̃·y of each teacher row, relative to its maximum: for the entropy.
    teacher_energy: Vec<f32>,
    /// Σ q̃_j·s_i of each pair, relative to the teacher row's maximum.
    pair: Vec<f32>,
}

/// First pass over one range of K. `mean` are the range's mean teacher logits, `words` its words for logits.
fn first_pass(op: &PrototypeLoss, x: &LossOperands, range: Range<usize>, mean_z: &[f32], mean: &mut [f32], words: &mut [f32]) -> RangeSums {
    let mut part = RangeSums {
        student: vec![Running::EMPTY; x.ns],
        teacher: vec![Running::EMPTY; x.nt],
        teacher_energy: vec![0.0; x.nt],
        pair: vec![0.0; x.pair_teacher.len()],
    };
    let mut factors = vec![0.0f32; x.nt];
    let mut scratch = x.pool.scratch(LossTiles::sizes(x.ns, x.nt, x.d, false).iter().sum());
    let tiles = LossTiles::of(x, false, &mut scratch);
    let kept = x.kept();
    let first = range.start;
    let [inverse_temperature, inverse_tau] = [x.inverse_temperature * LOG2_E, x.inverse_tau * LOG2_E];
    for (t, tile) in steps(range, TILE).enumerate() {
        let n = tile.len();
        let mut keep = kept.tile_mut(words, t);
        let lengths = x.teacher.lengths(&tile);
        // The mean logit is the logit of the mean.
        x.teacher.logit(&tile, &lengths, mean_z, &mut mean[tile.start - first..tile.end - first]);
        let w = x.teacher.columns(&tile, &lengths, x.rounding, tiles.columns);
        let teacher = &mut tiles.teacher[..x.nt * n];
        x.logits(x.teacher_z, &w, teacher, x.student.directions(&tile));
        for (j, row) in teacher.chunks_mut(n).enumerate() {
            if let Some(keep) = &mut keep {
                kept.store(keep, j * n, row);
            }
            let (max, sum, energy) = rows::teacher_exponentials(row, &x.center[tile.clone()], inverse_temperature, part.teacher[j].max);
            factors[j] = part.teacher[j].add(max, sum);
            part.teacher_energy[j] = part.teacher_energy[j] * factors[j] + energy;
        }
        let w = x.student.columns(&tile, &x.student.lengths(&tile), x.rounding, tiles.columns);
        for block in steps(0..x.ns, BLOCK) {
            let student = &mut tiles.student[..block.len() * n];
            x.logits(x.rows(&block), &w, student, x.share(x.teacher.directions(&x.next(&tile)), &block));
            for (i, row) in block.zip(student.chunks(n)) {
                if let Some(keep) = &mut keep {
                    kept.store(keep, x.nt * TILE + i * n, row);
                }
                for p in op.pairs(i) {
                    let j = x.pair_teacher[p] as usize;
                    part.pair[p] = part.pair[p] * factors[j] + rows::dot(&teacher[j * n..][..n], row);
                }
                let (max, sum) = rows::student_exponentials(row, inverse_tau, part.student[i].max);
                part.student[i].add(max, sum);
            }
        }
    }
    stream_end();
    part
}

/// See [`PrototypeLoss`].
pub(in crate::prototype_loss) fn forward(op: &PrototypeLoss, io: &mut Io) {
    let x = LossOperands::new(op, io);
    let mut outputs = io.outputs.iter_mut();
    let [loss, lse_s, lse_t, mean, entropy] = std::array::from_fn(|_| outputs.next().expect("an output each").f32());
    let kept = outputs.next().map_or(&mut [][..], |kept| kept.f32());
    let mut mean_z = vec![0.0f32; x.d];
    for z in x.teacher_z.chunks(x.d) {
        lanes::axpy(1.0 / x.nt as f32, z, &mut mean_z);
    }
    let kept_each = kept.len() / x.ranges();
    let (mut mean, mut kept) = (mean, kept);
    let mut jobs = Vec::new();
    for r in 0..x.ranges() {
        let (piece, mean_rest) = mean.split_at_mut(x.range(r).len());
        let (keep, kept_rest) = kept.split_at_mut(kept_each);
        jobs.push((x.range(r), piece, keep));
        (mean, kept) = (mean_rest, kept_rest);
    }
    let pass = |(range, mean, kept)| first_pass(op, &x, range, &mean_z, mean, kept);
    let parts: Vec<RangeSums> = jobs.into_par_iter().map(pass).collect();

    let merge = |rows: &dyn Fn(&RangeSums) -> Running| {
        let mut all = Running::EMPTY;
        for part in &parts {
            all.merge(rows(part));
        }
        all
    };
    let student: Vec<Running> = (0..x.ns).map(|i| merge(&|part| part.student[i])).collect();
    let teacher: Vec<Running> = (0..x.nt).map(|j| merge(&|part| part.teacher[j])).collect();
    for (out, row) in lse_s.iter_mut().zip(&student).chain(lse_t.iter_mut().zip(&teacher)) {
        *out = row.log_sum_exp() as f32;
    }
    // A part's sums relative to its own maximum, made relative to the whole row's.
    let rescale = |part: &RangeSums, j: usize| f64::from(part.teacher[j].max - teacher[j].max).exp2();
    let mut total = 0.0f64;
    for i in 0..x.ns {
        let lse = student[i].log_sum_exp();
        for p in op.pairs(i) {
            let j = x.pair_teacher[p] as usize;
            let dot: f64 = parts.iter().map(|part| part.pair[p] as f64 * rescale(part, j)).sum::<f64>() / teacher[j].sum as f64;
            total += x.pair_weight[p] as f64 * (lse - dot * x.inverse_tau as f64);
        }
    }
    loss[0] = total as f32;
    let mut sum = 0.0f64;
    for j in 0..x.nt {
        let energy: f64 = parts.iter().map(|part| part.teacher_energy[j] as f64 * rescale(part, j)).sum();
        sum += teacher[j].log_sum_exp() - LN_2 * energy / teacher[j].sum as f64;
    }
    entropy[0] = (sum / x.nt as f64) as f32;
}
