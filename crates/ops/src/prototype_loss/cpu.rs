//! The streamed version: tiles of K, two passes.

use std::ops::Range;

use esvit_graph::{Io, Shape};
use esvit_simd::cpu::{self, madd};
use esvit_simd::gemm::{self, Product, Rounding};
use esvit_simd::{Mat, MatMut, Pool, lanes, math, multiversion};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rayon::prelude::*;

use super::PrototypeLoss;
use crate::precision::rounding;
use crate::weight_norm;

/// Prototypes of one tile.
const TILE: usize = 256;
/// Student rows whose logits are alive at once: with the tile, half a megabyte.
const BLOCK: usize = 512;
/// Ranges of K that are worked on independently. Fixed: results must not depend on the threads.
const RANGES: usize = 8;

/// Operands of both passes.
struct Operands<'a> {
    z: &'a [f32],
    student: Prototypes<'a>,
    teacher_z: &'a [f32],
    teacher: Prototypes<'a>,
    centre: &'a [f32],
    inverse_temperature: f32,
    pair_teacher: &'a [u32],
    pair_weight: &'a [f32],
    inverse_tau: f32,
    ns: usize,
    nt: usize,
    k: usize,
    d: usize,
    rounding: Rounding,
    pool: &'a Pool,
}

impl<'a> Operands<'a> {
    fn new(op: &PrototypeLoss, io: &Io<'a>) -> Operands<'a> {
        let ((ns, d), (k, _), (nt, _)) = (io.matrix(0), io.matrix(1), io.matrix(3));
        Operands {
            z: io.f32(0),
            student: Prototypes { v: io.f32(1), g: io.f32(2), d },
            teacher_z: io.f32(3),
            teacher: Prototypes { v: io.f32(4), g: io.f32(5), d },
            centre: io.f32(6),
            inverse_temperature: 1.0 / io.scalar(7),
            pair_teacher: io.inputs[8].u32(),
            pair_weight: io.f32(9),
            inverse_tau: 1.0 / op.student_temperature,
            ns,
            nt,
            k,
            d,
            rounding: rounding(io.precision),
            pool: io.pool,
        }
    }

    fn ranges(&self) -> usize {
        ranges(self.k)
    }

    /// Prototypes of a range, a whole number of tiles but for the last.
    fn range(&self, r: usize) -> Range<usize> {
        let tiles = self.k.div_ceil(TILE);
        let at = |r: usize| (r * tiles / self.ranges() * TILE).min(self.k);
        at(r)..at(r + 1)
    }

    /// `c (+)= a·b` on this thread.
    fn product(&self, a: Mat, b: Mat, c: MatMut, accumulate: bool) {
        Product { rounding: self.rounding, accumulate, ..Default::default() }.run(a, b, c, self.pool);
    }

    /// Logits `[rows, tile]` of rows `z` and a tile's prototypes `w`.
    fn logits(&self, z: &[f32], w: &[f32], out: &mut [f32]) {
        let (rows, n) = (z.len() / self.d, w.len() / self.d);
        self.product(Mat::new(z, rows, self.d), Mat::new(w, n, self.d).t(), MatMut::new(out, rows, n), false);
    }

    /// Some of the student's rows.
    fn rows(&self, rows: &Range<usize>) -> &'a [f32] {
        &self.z[rows.start * self.d..rows.end * self.d]
    }

    /// While row `i` is worked on: asks for its share of the next tile of `v`, so that memory is not waited for. A tile's prototypes are read
    /// once, and nothing else of it comes from so far away.
    fn prefetch(&self, v: &[f32], tile: &Range<usize>, i: usize) {
        let next = &v[tile.end * self.d..(tile.end + TILE).min(self.k) * self.d];
        let at = |i: usize| i * next.len() / self.ns;
        lanes::prefetch(&next[at(i)..at(i + 1)]);
    }

    /// Floats of a thread's tiles.
    fn tiles(&self) -> usize {
        (self.nt + BLOCK.min(self.ns) + self.d) * TILE
    }

    /// A thread's tiles: logits of the teacher, logits of the student, prototypes.
    fn split<'s>(&self, scratch: &'s mut [f32]) -> [&'s mut [f32]; 3] {
        let (teacher, rest) = scratch.split_at_mut(self.nt * TILE);
        let (student, w) = rest.split_at_mut(BLOCK.min(self.ns) * TILE);
        [teacher, student, w]
    }

    /// How kept logits are stored.
    fn kept(&self) -> Kept {
        let half = self.rounding == Rounding::Bf16 && cpu::bf16();
        Kept { half, tile_words: tile_words(self.ns, self.nt) / if half { 2 } else { 1 } }
    }
}

/// Directions `[K, D]` and gains `[K]` of a network's prototypes.
#[derive(Clone, Copy)]
struct Prototypes<'a> {
    v: &'a [f32],
    g: &'a [f32],
    d: usize,
}

impl Prototypes<'_> {
    fn row(&self, k: usize) -> &[f32] {
        &self.v[k * self.d..(k + 1) * self.d]
    }

    /// The prototypes of a tile, into `w` `[tile, D]`.
    fn normalise<'w>(&self, tile: &Range<usize>, w: &'w mut [f32]) -> &'w [f32] {
        let w = &mut w[..tile.len() * self.d];
        for (k, w) in tile.clone().zip(w.chunks_mut(self.d)) {
            weight_norm::row(self.row(k), self.g[k], w);
        }
        w
    }

    /// Makes a tile's `dW` its `dv`, and gives its `dg`.
    fn denormalise(&self, tile: &Range<usize>, dw: &mut [f32], dg: &mut [f32]) {
        for ((k, dw), dg) in tile.clone().zip(dw.chunks_mut(self.d)).zip(dg) {
            *dg = weight_norm::gradient_row(self.row(k), self.g[k], dw);
        }
    }
}

/// Words of a tile of both networks' logits in f32.
fn tile_words(ns: usize, nt: usize) -> usize {
    (ns + nt) * TILE
}

/// Words that are kept with a budget of `bytes`: the same for each range, and no more than there is to keep.
pub(super) fn kept_words(bytes: usize, ns: usize, nt: usize, k: usize) -> usize {
    let (ranges, all) = (ranges(k), tile_words(ns, nt) * k.div_ceil(TILE).div_ceil(ranges(k)));
    (bytes / 4 / ranges).min(all) * ranges
}

/// Logits of the first tiles of a range, for the backward pass: of each tile the teacher's, then the student's.
///
/// Where products round to bf16, f16 has three digits more than those leave right, at half the memory.
#[derive(Clone, Copy)]
struct Kept {
    half: bool,
    tile_words: usize,
}

impl Kept {
    /// Whether tile `t` of a range fits into its words.
    fn has(self, t: usize, words: &[f32]) -> bool {
        (t + 1) * self.tile_words <= words.len()
    }

    /// Keeps logits of tile `t` at element `at` of the tile, if it fits.
    fn store(self, words: &mut [f32], t: usize, at: usize, logits: &[f32]) {
        if !self.has(t, words) {
            return;
        }
        let tile = &mut words[t * self.tile_words..][..self.tile_words];
        if self.half {
            let bits: &mut [u16] = bytemuck::cast_slice_mut(tile);
            bits[at..at + logits.len()].reinterpret_cast_mut::<half::f16>().convert_from_f32_slice(logits);
        } else {
            tile[at..at + logits.len()].copy_from_slice(logits);
        }
    }

    /// The reverse.
    fn load(self, words: &[f32], t: usize, at: usize, logits: &mut [f32]) {
        let tile = &words[t * self.tile_words..][..self.tile_words];
        if self.half {
            let bits: &[u16] = bytemuck::cast_slice(tile);
            bits[at..at + logits.len()].reinterpret_cast::<half::f16>().convert_to_f32_slice(logits);
        } else {
            logits.copy_from_slice(&tile[at..at + logits.len()]);
        }
    }
}

/// Independent ranges of K.
fn ranges(k: usize) -> usize {
    RANGES.min(k.div_ceil(TILE))
}

/// Bytes of scratch memory a call takes: each thread's tiles, of logits and of prototypes, and the largest of its products; what each range knows (forward), or its dz
/// (backward).
pub(super) fn scratch(inputs: &[&Shape], threads: usize, backward: bool) -> usize {
    let (ns, d, k, nt, pairs) = (inputs[0][0], inputs[0][1], inputs[1][0], inputs[3][0], inputs[8][0]);
    let (threads, block) = (threads.min(ranges(k)), BLOCK.min(ns));
    let tiles = threads * (nt + block + d) * TILE;
    let mut products = gemm::scratch(nt, TILE, d, 1).max(gemm::scratch(block, TILE, d, 1));
    if backward {
        products = products.max(gemm::scratch(block, d, TILE, 1)).max(gemm::scratch(TILE, d, block, 1));
    }
    let rows = if backward { ns * d } else { 2 * ns + 5 * nt + pairs };
    4 * (tiles + ranges(k) * rows) + threads * products
}

/// Pieces of at most `step`.
fn steps(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
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
        let (blocks, tail) = row.as_chunks_mut::<{ lanes::LANES }>();
        for block in blocks {
            for l in 0..lanes::LANES {
                let e = math::exp::<FMA>(block[l] - max);
                sum[l] += e;
                energy[l] = madd::<FMA>(e, block[l], energy[l]);
                block[l] = e;
            }
        }
        for (l, v) in tail.iter_mut().enumerate() {
            let e = math::exp::<FMA>(*v - max);
            sum[l] += e;
            energy[l] = madd::<FMA>(e, *v, energy[l]);
            *v = e;
        }
        (max, sum.iter().sum(), energy.iter().sum())
    }
}

multiversion! {
    /// Inner product. Four times the lanes of [`lanes::dot`]: a tile's row is short, and that one waits for its additions.
    fn row_dot(x: &[f32], y: &[f32]) -> f32 {
        const WIDE: usize = 4 * lanes::LANES;
        let mut acc = [0.0f32; WIDE];
        let (xs, x_tail) = x.as_chunks::<WIDE>();
        let (ys, y_tail) = y.as_chunks::<WIDE>();
        for (x, y) in xs.iter().zip(ys) {
            for l in 0..WIDE { acc[l] = madd::<FMA>(x[l], y[l], acc[l]); }
        }
        for (l, (&x, &y)) in x_tail.iter().zip(y_tail).enumerate() { acc[l] = madd::<FMA>(x, y, acc[l]); }
        let mut sums = [0.0f32; lanes::LANES];
        for l in 0..WIDE { sums[l % lanes::LANES] += acc[l]; }
        sums.iter().sum()
    }
}

/// First pass over one range of K. `mean` are the range's mean teacher logits, `kept` its words for logits.
fn first_pass(op: &PrototypeLoss, x: &Operands, range: Range<usize>, mean_z: &[f32], mean: &mut [f32], kept: &mut [f32]) -> Part {
    let mut part = Part {
        student: vec![Running::EMPTY; x.ns],
        teacher: vec![Running::EMPTY; x.nt],
        teacher_energy: vec![0.0; x.nt],
        pair: vec![0.0; x.pair_teacher.len()],
    };
    let mut factors = vec![(0.0f32, 0.0f32); x.nt];
    let mut scratch = x.pool.scratch(x.tiles());
    let [teacher, student, w] = x.split(&mut scratch);
    let keep = x.kept();
    let first = range.start;
    for (t, tile) in steps(range, TILE).enumerate() {
        let n = tile.len();
        let teacher = &mut teacher[..x.nt * n];
        let w_teacher = x.teacher.normalise(&tile, w);
        x.logits(x.teacher_z, w_teacher, teacher);
        keep.store(kept, t, 0, teacher);
        // The mean logit is the logit of the mean, and the prototypes are in the cache.
        for (w, mean) in w_teacher.chunks(x.d).zip(&mut mean[tile.start - first..]) {
            *mean = row_dot(w, mean_z);
        }
        for (j, row) in teacher.chunks_mut(n).enumerate() {
            let (max, sum, energy) = teacher_row(row, &x.centre[tile.clone()], x.inverse_temperature);
            factors[j] = part.teacher[j].merge(max, sum);
            part.teacher_energy[j] = part.teacher_energy[j] * factors[j].0 + energy * factors[j].1;
        }
        let w = x.student.normalise(&tile, w);
        for rows in steps(0..x.ns, BLOCK) {
            let student = &mut student[..rows.len() * n];
            x.logits(x.rows(&rows), w, student);
            keep.store(kept, t, x.nt * TILE + rows.start * n, student);
            for (i, row) in rows.zip(student.chunks_mut(n)) {
                x.prefetch(x.student.v, &tile, i);
                x.prefetch(x.teacher.v, &tile, i);
                for p in op.pairs(i) {
                    let j = x.pair_teacher[p] as usize;
                    let dot = row_dot(&teacher[j * n..][..n], row);
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
    let parts: Vec<Part> = jobs.into_par_iter().map(|(range, mean, kept)| first_pass(op, &x, range, &mean_z, mean, kept)).collect();

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
    let (lse_s, lse_t) = (io.f32(10), io.f32(11));
    let gain = io.scalar(12) * x.inverse_tau;
    let pool = io.pool;
    let kept = io.inputs.get(13).map_or(&[][..], |kept| kept.f32());
    let kept_each = kept.len() / x.ranges();
    let [dz, dv, dg] = io.outs();
    let keep = x.kept();
    let row_weight: Vec<f32> = (0..x.ns).map(|i| gain * x.pair_weight[op.pairs(i)].iter().sum::<f32>()).collect();

    let mut partial = pool.scratch(x.ranges() * x.ns * x.d);
    let (mut dv, mut dg) = (dv, dg);
    let mut jobs = Vec::new();
    for (r, dz) in partial.chunks_mut(x.ns * x.d).enumerate() {
        let (dv_piece, dv_rest) = dv.split_at_mut(x.range(r).len() * x.d);
        let (dg_piece, dg_rest) = dg.split_at_mut(x.range(r).len());
        jobs.push((x.range(r), dz, dv_piece, dg_piece, &kept[r * kept_each..][..kept_each]));
        (dv, dg) = (dv_rest, dg_rest);
    }
    jobs.into_par_iter().for_each(|(range, dz, dv, dg, kept)| {
        let mut scratch = pool.scratch(x.tiles());
        let [teacher, student, w] = x.split(&mut scratch);
        let first = range.start;
        for (t, tile) in steps(range, TILE).enumerate() {
            let n = tile.len();
            let teacher = &mut teacher[..x.nt * n];
            let is_kept = keep.has(t, kept);
            if is_kept {
                keep.load(kept, t, 0, teacher)
            } else {
                x.logits(x.teacher_z, x.teacher.normalise(&tile, w), teacher)
            }
            for (row, &lse) in teacher.chunks_mut(n).zip(lse_t) {
                teacher_probabilities(row, &x.centre[tile.clone()], x.inverse_temperature, lse);
            }
            let w = x.student.normalise(&tile, w);
            let tile_rows = tile.start - first..tile.end - first;
            let dw = &mut dv[tile_rows.start * x.d..tile_rows.end * x.d];
            for rows in steps(0..x.ns, BLOCK) {
                let g = &mut student[..rows.len() * n];
                if is_kept {
                    keep.load(kept, t, x.nt * TILE + rows.start * n, g)
                } else {
                    x.logits(x.rows(&rows), w, g)
                }
                for (i, row) in rows.clone().zip(g.chunks_mut(n)) {
                    x.prefetch(x.student.v, &tile, i);
                    if !keep.has(t + 1, kept) {
                        x.prefetch(x.teacher.v, &tile, i);
                    }
                    student_probabilities(row, x.inverse_tau, lse_s[i], row_weight[i]);
                    for p in op.pairs(i) {
                        lanes::axpy(-gain * x.pair_weight[p], &teacher[x.pair_teacher[p] as usize * n..][..n], row);
                    }
                }
                let g = Mat::new(g, rows.len(), n);
                let dz = MatMut::new(&mut dz[rows.start * x.d..], rows.len(), x.d);
                x.product(g, Mat::new(w, n, x.d), dz, tile.start > first);
                let z = Mat::new(x.rows(&rows), rows.len(), x.d);
                x.product(g.t(), z, MatMut::new(dw, n, x.d), rows.start > 0);
            }
            x.student.denormalise(&tile, dw, &mut dg[tile_rows]);
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
