//! The fast version: work is cut into some heads over a range of windows, and a window's tile stays in the caches next to the core.
//!
//! Both precisions do the same: scores are made with keys as rows and queries as columns, so that maxima and sums of the softmax are taken over
//! rows, register by register; the products after it read the tile by rows or by columns as they need it.

use std::ops::Range;

use esvit_graph::{Io, Precision};
use esvit_simd::lanes;
use esvit_simd::vector::dispatch;
use rayon::prelude::*;

use super::geometry::Geometry;
#[cfg(target_arch = "x86_64")]
use super::mixed;
use super::single;
use super::tiles::{Sizes, Tiles};
use crate::aligned::{ALIGN, aligned};
use crate::precision::rounds;

/// Pieces of work to aim for: enough for many threads, fixed so that sums do not depend on their number.
const TASKS: usize = 64;
/// Windows of a task at least, where there are as many: below, its preparations take longer than its work.
const WINDOWS: usize = 4;
/// Bytes of the bias of all pairs that a task keeps at hand.
const BIAS_BYTES: usize = 64 << 10;

/// How work is cut: groups of heads, times ranges of windows.
struct Cut {
    heads: usize,
    group: usize,
    ranges: usize,
    windows: usize,
}

impl Cut {
    fn new(geometry: &Geometry, heads: usize) -> Cut {
        let windows = geometry.windows();
        let tile = 4 * geometry.area * Sizes::new(geometry.area, 1).line;
        // Groups of equal size.
        let groups = heads.div_ceil((BIAS_BYTES / tile).clamp(1, heads));
        let group = heads.div_ceil(groups);
        let ranges = TASKS.div_ceil(heads.div_ceil(group)).min(windows.div_ceil(WINDOWS));
        Cut { heads, group, ranges, windows }
    }

    fn tasks(&self) -> usize {
        self.heads.div_ceil(self.group) * self.ranges
    }

    /// Heads and windows of task `i`.
    fn task(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let (group, range) = (i / self.ranges, i % self.ranges);
        let heads = group * self.group..((group + 1) * self.group).min(self.heads);
        (heads, range * self.windows / self.ranges..(range + 1) * self.windows / self.ranges)
    }
}

/// A pointer that pieces of parallel work write disjoint rows through.
#[derive(Clone, Copy)]
pub(super) struct RowsMut {
    pub base: *mut f32,
    pub len: usize,
}

// SAFETY: pieces own different windows or heads, and no token lies in two windows of one geometry, so the columns written
// through copies of this pointer never overlap; nobody reads them before the loop ends.
unsafe impl Send for RowsMut {}
// SAFETY: as above.
unsafe impl Sync for RowsMut {}

/// The matrices an operator reads.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub geometry: &'a Geometry,
    pub heads: usize,
    pub qkv: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub three_c: usize,
    /// The bias of every pair, `[H, T, line]` for keys as rows and queries as columns, by [`expand_table`].
    pub pairs: &'a [f32],
}

impl Operands<'_> {
    fn d(&self) -> usize {
        self.three_c / 3 / self.heads
    }

    /// The bias of every pair of these heads.
    pub fn pairs_of(&self, heads: &Range<usize>) -> &[f32] {
        let one = self.pairs.len() / self.heads;
        &self.pairs[heads.start * one..heads.end * one]
    }
}

/// Length of a row of scores, and the factor of scores: logarithms to the base 2 where products round.
fn scores(area: usize, rounds: bool) -> (usize, f32) {
    #[cfg(target_arch = "x86_64")]
    if rounds {
        return (esvit_simd::pairs::line(area), std::f32::consts::LOG2_E);
    }
    _ = rounds;
    (Sizes::new(area, 1).line, 1.0)
}

/// Floats of the bias of every pair of all heads.
fn pairs_len(geometry: &Geometry, heads: usize, rounds: bool) -> usize {
    ALIGN + heads * geometry.area * scores(geometry.area, rounds).0
}

/// The bias of every pair: `pairs[h, j, i]` for key j and query i, times the factor of the scores, zeros up to the line.
fn expand_table<'s>(pairs: &'s mut [f32], geometry: &Geometry, heads: usize, table: &[f32], rounds: bool) -> &'s [f32] {
    let (area, (line, factor)) = (geometry.area, scores(geometry.area, rounds));
    let pairs = &mut aligned(pairs)[..heads * area * line];
    pairs.par_chunks_mut(area * line).enumerate().for_each(|(h, tile)| {
        for (j, row) in tile.chunks_exact_mut(line).enumerate() {
            row[area..].fill(0.0);
            for (s, r) in row.iter_mut().zip(geometry.relative_to(j)) {
                *s = factor * table[r * heads + h];
            }
        }
    });
    pairs
}

/// Floats of one task's tiles.
fn floats(geometry: &Geometry, d: usize, group: usize, backward: bool, rounds: bool) -> usize {
    #[cfg(target_arch = "x86_64")]
    if rounds {
        return mixed::Sizes::new(geometry.area, d).floats(group, backward);
    }
    _ = rounds;
    Sizes::new(geometry.area, d).floats(group, backward)
}

/// Floats of a task's sums in the backward pass.
fn sums_len(geometry: &Geometry, group: usize, d: usize) -> usize {
    group * (geometry.table_rows() + 3 * d)
}

/// Bytes of scratch memory a call takes, in either precision: each thread's tiles, and the tasks' sums of the backward pass.
pub(super) fn scratch(geometry: &Geometry, heads: usize, three_c: usize, threads: usize, backward: bool) -> usize {
    let (cut, d) = (Cut::new(geometry, heads), three_c / 3 / heads);
    let sums = if backward { cut.tasks() * sums_len(geometry, cut.group, d) } else { 0 };
    let of = |rounds| threads.min(cut.tasks()) * floats(geometry, d, cut.group, backward, rounds) + pairs_len(geometry, heads, rounds);
    4 * (of(false).max(of(rounds(Precision::Mixed))) + sums)
}

pub(super) fn forward(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (_, three_c) = io.matrix(0);
    let (cut, pool, rounds) = (Cut::new(geometry, heads), io.pool, rounds(io.precision));
    let mut pairs = pool.scratch(pairs_len(geometry, heads, rounds));
    let pairs = expand_table(&mut pairs, geometry, heads, io.f32(1), rounds);
    let operands = Operands { geometry, heads, qkv: io.f32(0), bias: io.inputs.get(2).map(|b| b.f32()), three_c, pairs };
    let d = operands.d();
    let y = io.out();
    let y = RowsMut { base: y.as_mut_ptr(), len: y.len() };
    (0..cut.tasks()).into_par_iter().for_each(|i| {
        let (heads, windows) = cut.task(i);
        let mut scratch = pool.scratch(floats(geometry, d, cut.group, false, rounds));
        #[cfg(target_arch = "x86_64")]
        if rounds {
            // SAFETY: `rounds` asked whether the CPU multiplies bf16.
            unsafe { mixed::Task::new(operands, heads, windows, cut.group, false, &mut scratch) }.forward(y);
            return;
        }
        let tiles = Tiles::new(&mut scratch, Sizes::new(geometry.area, d), cut.group, false);
        dispatch(single::Forward { operands, heads, windows, y, tiles });
    });
}

pub(super) fn gradient(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (_, three_c) = io.matrix(0);
    let bias = (io.inputs.len() == 4).then(|| io.f32(2));
    let (cut, pool, rounds) = (Cut::new(geometry, heads), io.pool, rounds(io.precision));
    let mut pairs = pool.scratch(pairs_len(geometry, heads, rounds));
    let pairs = expand_table(&mut pairs, geometry, heads, io.f32(1), rounds);
    let operands = Operands { geometry, heads, qkv: io.f32(0), bias, three_c, pairs };
    let dy = io.f32(io.inputs.len() - 1);
    let d = operands.d();
    let width = sums_len(geometry, cut.group, d);
    let mut partial = pool.scratch(cut.tasks() * width);
    let dqkv = io.outputs[0].f32();
    let dqkv = RowsMut { base: dqkv.as_mut_ptr(), len: dqkv.len() };
    partial.par_chunks_mut(width).enumerate().for_each(|(i, sums)| {
        sums.fill(0.0);
        let (heads, windows) = cut.task(i);
        let mut scratch = pool.scratch(floats(geometry, d, cut.group, true, rounds));
        #[cfg(target_arch = "x86_64")]
        if rounds {
            // SAFETY: `rounds` asked whether the CPU multiplies bf16.
            unsafe { mixed::Task::new(operands, heads, windows, cut.group, true, &mut scratch) }.backward(dy, dqkv, sums);
            return;
        }
        let tiles = Tiles::new(&mut scratch, Sizes::new(geometry.area, d), cut.group, true);
        dispatch(single::Backward { operands, heads, windows, dy, dqkv, tiles, sums });
    });
    // A group's sums over its ranges of windows, in order; then to the columns of its heads.
    let dtable = io.outputs[1].f32();
    let mut dbias = vec![0.0; three_c];
    for (number, sums) in partial.chunks_mut(cut.ranges * width).enumerate() {
        let (total, rest) = sums.split_at_mut(width);
        rest.chunks(width).for_each(|more| lanes::accumulate(more, total));
        let (of_heads, _) = cut.task(number * cut.ranges);
        let rows = geometry.table_rows();
        let (tables, padding) = total.split_at(of_heads.len() * rows);
        for (g, h) in of_heads.clone().enumerate() {
            for (r, d) in tables[g * rows..][..rows].iter().enumerate() {
                dtable[r * heads + h] = *d;
            }
            for part in 0..3 {
                let from = &padding[(part * of_heads.len() + g) * d..][..d];
                dbias[part * three_c / 3 + h * d..][..d].copy_from_slice(from);
            }
        }
    }
    if bias.is_some() {
        io.outputs[2].f32().copy_from_slice(&dbias);
    }
}
