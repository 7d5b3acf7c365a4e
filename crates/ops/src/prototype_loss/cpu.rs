//! The streamed version: tiles of K, two passes.

use esvit_graph::{Io, Shape};
use esvit_simd::cpu::madd;
use esvit_simd::gemm::gemm;
use esvit_simd::{Mat, MatMut, lanes, math, multiversion};
use rayon::prelude::*;

use super::PrototypeLoss;

/// Prototypes of one tile.
const TILE: usize = 256;
/// Student rows whose logits are alive at once: with the tile, a quarter of a megabyte.
const BLOCK: usize = 256;
/// Ranges of K that are worked on independently. Fixed: results must not depend on the threads.
const RANGES: usize = 8;

/// Operands of both passes.
struct Operands<'a> {
    z: &'a [f32],
    w: &'a [f32],
    teacher_z: &'a [f32],
    teacher_w: &'a [f32],
    centre: &'a [f32],
    inverse_temperature: f32,
    pair_teacher: &'a [u32],
    pair_weight: &'a [f32],
    inverse_tau: f32,
    ns: usize,
    nt: usize,
    k: usize,
    d: usize,
}

impl<'a> Operands<'a> {
    fn new(op: &PrototypeLoss, io: &Io<'a>) -> Operands<'a> {
        let ((ns, d), (k, _), (nt, _)) = (io.matrix(0), io.matrix(1), io.matrix(2));
        Operands {
            z: io.f32(0),
            w: io.f32(1),
            teacher_z: io.f32(2),
            teacher_w: io.f32(3),
            centre: io.f32(4),
            inverse_temperature: 1.0 / io.scalar(5),
            pair_teacher: io.inputs[6].u32(),
            pair_weight: io.f32(7),
            inverse_tau: 1.0 / op.student_temperature,
            ns,
            nt,
            k,
            d,
        }
    }

    fn ranges(&self) -> usize {
        ranges(self.k)
    }

    /// Prototypes of a range, a whole number of tiles but for the last.
    fn range(&self, r: usize) -> std::ops::Range<usize> {
        let tiles = self.k.div_ceil(TILE);
        let at = |r: usize| (r * tiles / self.ranges() * TILE).min(self.k);
        at(r)..at(r + 1)
    }

    /// Teacher logits of a tile into `out` `[Nt, tile]`.
    fn teacher_tile(&self, tile: &std::ops::Range<usize>, out: &mut [f32]) {
        let w = Mat::new(&self.teacher_w[tile.start * self.d..], tile.len(), self.d);
        gemm(Mat::new(self.teacher_z, self.nt, self.d), w.t(), MatMut::new(out, self.nt, tile.len()), false, None);
    }

    /// Student logits of some rows and a tile into `out` `[rows, tile]`.
    fn student_tile(&self, rows: &std::ops::Range<usize>, tile: &std::ops::Range<usize>, out: &mut [f32]) {
        let z = Mat::new(&self.z[rows.start * self.d..], rows.len(), self.d);
        let w = Mat::new(&self.w[tile.start * self.d..], tile.len(), self.d);
        gemm(z, w.t(), MatMut::new(out, rows.len(), tile.len()), false, None);
    }
}

/// Independent ranges of K.
fn ranges(k: usize) -> usize {
    RANGES.min(k.div_ceil(TILE))
}

/// Bytes of scratch memory a call takes: each thread's tiles; what each range knows (forward), or its dz (backward).
pub(super) fn scratch(inputs: &[&Shape], threads: usize, backward: bool) -> usize {
    let (ns, d, k, nt, pairs) = (inputs[0][0], inputs[0][1], inputs[1][0], inputs[2][0], inputs[6][0]);
    let tiles = threads.min(ranges(k)) * (nt + BLOCK.min(ns)) * TILE;
    let rows = if backward { ns * d } else { 2 * ns + 5 * nt + pairs };
    4 * (tiles + ranges(k) * rows)
}

/// Pieces of at most `step`.
fn steps(range: std::ops::Range<usize>, step: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let end = range.end;
    range.step_by(step).map(move |start| start..(start + step).min(end))
}

/// A running maximum with the sum of exponentials relative to it.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

impl Running {
    const EMPTY: Running = Running { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Takes in another part; returns what the old and the new part's relative sums are multiplied with.
    fn merge(&mut self, max: f32, sum: f32) -> (f32, f32) {
        let new = self.max.max(max);
        let (old_factor, new_factor) = ((self.max - new).exp(), (max - new).exp());
        self.sum = self.sum * old_factor + sum * new_factor;
        self.max = new;
        (old_factor, new_factor)
    }
}

/// What one range of K knows after the first pass.
struct Part {
    student: Vec<Running>,
    teacher: Vec<Running>,
    /// Σ q̃·y of each teacher row, relative to its maximum: for the entropy.
    teacher_energy: Vec<f32>,
    /// Σ q̃_j·s_i of each pair, relative to the teacher row's maximum.
    pair: Vec<f32>,
}

multiversion! {
    /// `y = (row − centre)·scale`; leaves `exp(y − max)`; returns max, Σ exp and Σ exp·y.
    fn teacher_row(row: &mut [f32], centre: &[f32], scale: f32) -> (f32, f32, f32) {
        let n = row.len();
        let centre = &centre[..n];
        for c in 0..n { row[c] = (row[c] - centre[c]) * scale; }
        let mut max = [f32::NEG_INFINITY; lanes::LANES];
        let (blocks, tail) = row.as_chunks::<{ lanes::LANES }>();
        for block in blocks {
            for (m, &v) in max.iter_mut().zip(block) { *m = if v > *m { v } else { *m }; }
        }
        for (m, &v) in max.iter_mut().zip(tail) { *m = if v > *m { v } else { *m }; }
        let max = max.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
        let (mut sum, mut energy) = ([0.0f32; lanes::LANES], [0.0f32; lanes::LANES]);
        for block in row.chunks_mut(lanes::LANES) {
            for (l, v) in block.iter_mut().enumerate() {
                let e = math::exp::<FMA>(*v - max);
                sum[l] += e;
                energy[l] = madd::<FMA>(e, *v, energy[l]);
                *v = e;
            }
        }
        (max, sum.iter().sum(), energy.iter().sum())
    }
}

/// First pass over one range of K.
fn first_pass(op: &PrototypeLoss, x: &Operands, range: std::ops::Range<usize>, scratch: &mut [f32]) -> Part {
    let mut part = Part {
        student: vec![Running::EMPTY; x.ns],
        teacher: vec![Running::EMPTY; x.nt],
        teacher_energy: vec![0.0; x.nt],
        pair: vec![0.0; x.pair_teacher.len()],
    };
    let mut factors = vec![(0.0f32, 0.0f32); x.nt];
    let (teacher, student) = scratch.split_at_mut(x.nt * TILE);
    for tile in steps(range, TILE) {
        let n = tile.len();
        let teacher = &mut teacher[..x.nt * n];
        x.teacher_tile(&tile, teacher);
        for (j, row) in teacher.chunks_mut(n).enumerate() {
            let (max, sum, energy) = teacher_row(row, &x.centre[tile.clone()], x.inverse_temperature);
            factors[j] = part.teacher[j].merge(max, sum);
            part.teacher_energy[j] = part.teacher_energy[j] * factors[j].0 + energy * factors[j].1;
        }
        for rows in steps(0..x.ns, BLOCK) {
            let student = &mut student[..rows.len() * n];
            x.student_tile(&rows, &tile, student);
            for (i, row) in rows.zip(student.chunks_mut(n)) {
                for p in op.pairs(i) {
                    let j = x.pair_teacher[p] as usize;
                    let dot = lanes::dot(&teacher[j * n..][..n], row);
                    part.pair[p] = part.pair[p] * factors[j].0 + dot * factors[j].1;
                }
                let max = lanes::max(row) * x.inverse_tau;
                let sum = math::exp_sum(row, x.inverse_tau, max);
                part.student[i].merge(max, sum);
            }
        }
    }
    part
}

pub(super) fn forward(op: &PrototypeLoss, io: &mut Io) {
    let x = Operands::new(op, io);
    let pool = io.pool;
    let parts: Vec<Part> = (0..x.ranges())
        .into_par_iter()
        .map(|r| {
            let mut scratch = pool.scratch((x.nt + BLOCK.min(x.ns)) * TILE);
            first_pass(op, &x, x.range(r), &mut scratch)
        })
        .collect();

    let [loss, lse_s, lse_t, mean, entropy] = io.outs();
    let merge = |rows: &dyn Fn(&Part) -> Running| {
        let mut all = Running::EMPTY;
        for part in &parts {
            let row = rows(part);
            all.merge(row.max, row.sum);
        }
        all
    };
    let student: Vec<Running> = (0..x.ns).map(|i| merge(&|part| part.student[i])).collect();
    let teacher: Vec<Running> = (0..x.nt).map(|j| merge(&|part| part.teacher[j])).collect();
    for (out, row) in lse_s.iter_mut().zip(&student).chain(lse_t.iter_mut().zip(&teacher)) {
        *out = row.max + row.sum.ln();
    }
    // A part's sums relative to its own maximum, made relative to the whole row's.
    let rescale = |part: &Part, j: usize| ((part.teacher[j].max - teacher[j].max) as f64).exp();
    let mut total = 0.0f64;
    for i in 0..x.ns {
        for p in op.pairs(i) {
            let j = x.pair_teacher[p] as usize;
            let dot: f64 = parts.iter().map(|part| part.pair[p] as f64 * rescale(part, j)).sum::<f64>() / teacher[j].sum as f64;
            total += x.pair_weight[p] as f64 * (lse_s[i] as f64 - dot * x.inverse_tau as f64);
        }
    }
    loss[0] = total as f32;
    let mut sum = 0.0f64;
    for j in 0..x.nt {
        let energy: f64 = parts.iter().map(|part| part.teacher_energy[j] as f64 * rescale(part, j)).sum();
        sum += lse_t[j] as f64 - energy / teacher[j].sum as f64;
    }
    entropy[0] = (sum / x.nt as f64) as f32;
    // The mean logit is the logit of the mean: no second pass over K.
    let mut mean_z = vec![0.0f32; x.d];
    for z in x.teacher_z.chunks(x.d) {
        lanes::axpy(1.0 / x.nt as f32, z, &mut mean_z);
    }
    pool.for_rows(mean, 1, 1024, |first, piece| {
        for (i, m) in piece.iter_mut().enumerate() {
            *m = lanes::dot(&x.teacher_w[(first + i) * x.d..][..x.d], &mean_z);
        }
    });
}

multiversion! {
    /// `row = exp((row − centre)·scale − lse)`.
    fn teacher_probabilities(row: &mut [f32], centre: &[f32], scale: f32, lse: f32) {
        let n = row.len();
        let centre = &centre[..n];
        for c in 0..n { row[c] = math::exp::<FMA>(madd::<FMA>(row[c] - centre[c], scale, -lse)); }
    }
}

multiversion! {
    /// `row = weight·exp(row·scale − lse)`.
    fn student_probabilities(row: &mut [f32], scale: f32, lse: f32, weight: f32) {
        for v in row.iter_mut() { *v = weight * math::exp::<FMA>(madd::<FMA>(*v, scale, -lse)); }
    }
}

pub(super) fn backward(op: &PrototypeLoss, io: &mut Io) {
    let x = Operands::new(op, io);
    let (lse_s, lse_t) = (io.f32(8), io.f32(9));
    let gain = io.scalar(10) * x.inverse_tau;
    let pool = io.pool;
    let [dz, dw] = io.outs();
    let row_weight: Vec<f32> = (0..x.ns).map(|i| gain * x.pair_weight[op.pairs(i)].iter().sum::<f32>()).collect();

    let mut partial = pool.scratch(x.ranges() * x.ns * x.d);
    let mut rest = dw;
    let mut jobs = Vec::new();
    for (r, dz) in partial.chunks_mut(x.ns * x.d).enumerate() {
        let (piece, tail) = rest.split_at_mut(x.range(r).len() * x.d);
        jobs.push((x.range(r), dz, piece));
        rest = tail;
    }
    jobs.into_par_iter().for_each(|(range, dz, dw)| {
        let mut scratch = pool.scratch((x.nt + BLOCK.min(x.ns)) * TILE);
        let (teacher, student) = scratch.split_at_mut(x.nt * TILE);
        let first = range.start;
        for tile in steps(range, TILE) {
            let n = tile.len();
            let teacher = &mut teacher[..x.nt * n];
            x.teacher_tile(&tile, teacher);
            for (row, &lse) in teacher.chunks_mut(n).zip(lse_t) {
                teacher_probabilities(row, &x.centre[tile.clone()], x.inverse_temperature, lse);
            }
            let w = Mat::new(&x.w[tile.start * x.d..], n, x.d);
            for rows in steps(0..x.ns, BLOCK) {
                let g = &mut student[..rows.len() * n];
                x.student_tile(&rows, &tile, g);
                for (i, row) in rows.clone().zip(g.chunks_mut(n)) {
                    student_probabilities(row, x.inverse_tau, lse_s[i], row_weight[i]);
                    for p in op.pairs(i) {
                        lanes::axpy(-gain * x.pair_weight[p], &teacher[x.pair_teacher[p] as usize * n..][..n], row);
                    }
                }
                let g = Mat::new(g, rows.len(), n);
                gemm(g, w, MatMut::new(&mut dz[rows.start * x.d..], rows.len(), x.d), tile.start > first, None);
                let z = Mat::new(&x.z[rows.start * x.d..], rows.len(), x.d);
                gemm(g.t(), z, MatMut::new(&mut dw[(tile.start - first) * x.d..], n, x.d), rows.start > 0, None);
            }
        }
    });
    pool.for_rows(dz, x.d, 64, |first, piece| {
        let range = first * x.d..first * x.d + piece.len();
        piece.copy_from_slice(&partial[range.clone()]);
        for part in partial.chunks(x.ns * x.d).skip(1) {
            lanes::accumulate(&part[range.clone()], piece);
        }
    });
}
