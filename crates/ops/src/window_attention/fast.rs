//! The fast version: work is divided into tasks, some heads over a range of windows, and a window's tile stays in the caches next to the
//! core.
//!
//! Both precisions take the same steps: scores are made with keys as rows and queries as columns, so that maxima and sums of the softmax
//! are taken over rows, register by register; the products after it read the tile by rows or by columns as they need it.

use std::ops::Range;

use esvit_graph::{Io, Precision, Prepacked, Slice};
use esvit_simd::pool::Scratch;
use esvit_simd::vector::{dispatch, stream_end};
use esvit_simd::{half, lanes};
use rayon::prelude::*;

use super::geometry::WindowGeometry;
#[cfg(target_arch = "x86_64")]
use super::mixed;
use super::operands::{TokenRows, WindowOperands, WindowRowsMut};
use super::single;
use super::tiles::{F32WindowTiles, WindowTileSizes};
use crate::precision::rounds;

/// Tasks to aim for: enough for many threads, fixed so that sums do not depend on their number.
const TASKS: usize = 64;
/// Multiplications of a task at least, where there are [`FEW`]: as many as 32 of Swin's windows of one head take. A task's first window is
/// not prefetched.
const LEAST: usize = 32 * 2 * 49 * 49 * 32;
/// Tasks of the smallest work, so that two or four threads end together.
const FEW: usize = 8;
/// Heads of a task at most: their rows and results stay in the caches next to the core.
const GROUP: usize = 6;

/// Heads whose bias one thread expands at a time.
const EXPANDED: usize = 6;

/// Tasks of a call: groups of heads, times ranges of windows.
struct TaskGrid {
    heads: usize,
    groups: usize,
    ranges: usize,
    windows: usize,
}

impl TaskGrid {
    fn new(geometry: &WindowGeometry, heads: usize, d: usize) -> TaskGrid {
        let windows = geometry.windows();
        let work = 2 * windows * heads * geometry.area.pow(2) * d;
        // Powers of two, like the windows of most grids: ranges are equal, and whole rows of windows.
        let tasks = (work / LEAST).next_power_of_two().clamp(FEW, TASKS);
        let groups = heads.div_ceil(GROUP);
        let ranges = (tasks / groups.next_power_of_two()).clamp(1, windows);
        TaskGrid { heads, groups: (tasks / ranges).clamp(groups, heads), ranges, windows }
    }

    fn tasks(&self) -> usize {
        self.groups * self.ranges
    }

    /// Heads of a task at most.
    fn group(&self) -> usize {
        self.heads.div_ceil(self.groups)
    }

    /// Heads and windows of task `i`.
    fn task(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let (group, range) = (i / self.ranges, i % self.ranges);
        let part = |i: usize, parts: usize, whole: usize| i * whole / parts..(i + 1) * whole / parts;
        (part(group, self.groups, self.heads), part(range, self.ranges, self.windows))
    }
}

/// Bias of every pair, `[H, panels]`.
struct PrepackedBias(Vec<f32>);

/// Prepacks the table as the fast version reads it.
pub(super) fn prepack(geometry: &WindowGeometry, heads: usize, d: usize, table: Option<Slice>, precision: Precision) -> Option<Prepacked> {
    let table = table?.f32();
    let mut panels = vec![0.0; heads * geometry.panels.len()];
    geometry.panels.expand(table, heads, 0..heads, factor(geometry, d, rounds(precision)), &mut panels);
    Some(Prepacked { bytes: 4 * panels.len(), value: Box::new(PrepackedBias(panels)), replaces: vec![1] })
}

/// Factor of the bias: where products round, scores begin without the factor that q gets elsewhere.
fn factor(geometry: &WindowGeometry, d: usize, rounds: bool) -> f32 {
    if rounds { 1.0 / geometry.scale(d) } else { 1.0 }
}

/// Bias of all heads for one call: as prepacked, or expanded for it.
enum HeadBias<'a> {
    Prepacked(&'a [f32]),
    Expanded(Scratch<'a>),
}

impl<'a> HeadBias<'a> {
    fn new(geometry: &WindowGeometry, heads: usize, io: &Io<'a>) -> HeadBias<'a> {
        if let Some(PrepackedBias(panels)) = io.prepacked.and_then(|p| p.downcast_ref()) {
            return HeadBias::Prepacked(panels);
        }
        let d = io.matrix(0).1 / 3 / heads;
        let (one, table, factor) = (geometry.panels.len(), io.f32(1), factor(geometry, d, rounds(io.precision)));
        let mut panels = io.pool.scratch(heads * one);
        panels.par_chunks_mut(EXPANDED * one).enumerate().for_each(|(i, to)| {
            let first = i * EXPANDED;
            geometry.panels.expand(table, heads, first..heads.min(first + EXPANDED), factor, to);
        });
        HeadBias::Expanded(panels)
    }
}

impl std::ops::Deref for HeadBias<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match self {
            HeadBias::Prepacked(panels) => panels,
            HeadBias::Expanded(panels) => panels,
        }
    }
}

/// Row of padding tokens, in the form of the other tokens.
fn padding<'a>(qkv: TokenRows, bias: &'a [f32], words: &'a mut Vec<u32>) -> TokenRows<'a> {
    let TokenRows::Bf16x2(_) = qkv else { return TokenRows::F32(bias) };
    words.resize(bias.len() / 2, 0);
    half::round(bias, words);
    TokenRows::Bf16x2(words)
}

/// Floats of one task's tiles.
fn floats(geometry: &WindowGeometry, d: usize, group: usize, backward: bool, rounds: bool) -> usize {
    #[cfg(target_arch = "x86_64")]
    if rounds {
        return mixed::Bf16WindowTileSizes::new(geometry.area, d).floats(group, geometry.panels.len(), backward);
    }
    _ = rounds;
    WindowTileSizes::new(geometry.area, d).floats(group, geometry.panels.len(), backward)
}

/// Floats of a task's sums in the backward pass.
fn sums_len(geometry: &WindowGeometry, group: usize, d: usize) -> usize {
    group * (geometry.table_rows() + 3 * d)
}

/// Scratch bytes of one call, in either precision: each thread's tiles, and the tasks' sums of the backward pass.
pub(super) fn scratch(geometry: &WindowGeometry, heads: usize, three_c: usize, threads: usize, backward: bool) -> usize {
    let d = three_c / 3 / heads;
    let grid = TaskGrid::new(geometry, heads, d);
    let sums = if backward { grid.tasks() * sums_len(geometry, grid.group(), d) } else { 0 };
    let of = |rounds| threads.min(grid.tasks()) * floats(geometry, d, grid.group(), backward, rounds);
    4 * (of(false).max(of(rounds(Precision::Mixed))) + heads * geometry.panels.len() + sums)
}

pub(super) fn forward(geometry: &WindowGeometry, heads: usize, io: &mut Io) {
    let (_, three_c) = io.matrix(0);
    let (pool, rounds) = (io.pool, rounds(io.precision));
    let panels = &*HeadBias::new(geometry, heads, io);
    let (qkv, mut words) = (TokenRows::of(io, 0), Vec::new());
    let padding = io.inputs.get(2).map(|b| padding(qkv, b.f32(), &mut words));
    let operands = WindowOperands { geometry, heads, qkv, padding, three_c, panels };
    let d = operands.d();
    let grid = TaskGrid::new(geometry, heads, d);
    let group = grid.group();
    let y = WindowRowsMut::new(&mut io.outputs[0]);
    (0..grid.tasks()).into_par_iter().for_each(|i| {
        let (heads, windows) = grid.task(i);
        let mut scratch = pool.scratch(floats(geometry, d, group, false, rounds));
        #[cfg(target_arch = "x86_64")]
        if rounds {
            // SAFETY: `rounds` is true only where the CPU multiplies bf16.
            unsafe { mixed::Bf16WindowTask::new(operands, heads, windows, group, false, &mut scratch) }.forward(y);
            stream_end();
            return;
        }
        let tiles = F32WindowTiles::new(&mut scratch, WindowTileSizes::new(geometry.area, d), group, geometry.panels.len(), false);
        dispatch(single::F32WindowForward { operands, heads, windows, y, tiles });
        stream_end();
    });
}

pub(super) fn gradient(geometry: &WindowGeometry, heads: usize, io: &mut Io) {
    let (_, three_c) = io.matrix(0);
    let qkv_bias = (io.inputs.len() == 4).then(|| io.f32(2));
    let (pool, rounds) = (io.pool, rounds(io.precision));
    let panels = &*HeadBias::new(geometry, heads, io);
    let (qkv, mut words) = (TokenRows::of(io, 0), Vec::new());
    let padding = qkv_bias.map(|bias| padding(qkv, bias, &mut words));
    let operands = WindowOperands { geometry, heads, qkv, padding, three_c, panels };
    let dy = TokenRows::of(io, io.inputs.len() - 1);
    let d = operands.d();
    let grid = TaskGrid::new(geometry, heads, d);
    let group = grid.group();
    let width = sums_len(geometry, group, d);
    let mut partial = pool.scratch(grid.tasks() * width);
    let dqkv = WindowRowsMut::new(&mut io.outputs[0]);
    partial.par_chunks_mut(width).enumerate().for_each(|(i, sums)| {
        sums.fill(0.0);
        let (heads, windows) = grid.task(i);
        let mut scratch = pool.scratch(floats(geometry, d, group, true, rounds));
        #[cfg(target_arch = "x86_64")]
        if rounds {
            // SAFETY: `rounds` is true only where the CPU multiplies bf16.
            unsafe { mixed::Bf16WindowTask::new(operands, heads, windows, group, true, &mut scratch) }.backward(dy, dqkv, sums);
            stream_end();
            return;
        }
        let tiles = F32WindowTiles::new(&mut scratch, WindowTileSizes::new(geometry.area, d), group, geometry.panels.len(), true);
        dispatch(single::F32WindowBackward { operands, heads, windows, dy: dy.f32(), dqkv, tiles, sums });
        stream_end();
    });
    // A group's sums over its ranges of windows, in order; then to the columns of its heads.
    let dtable = io.outputs[1].f32();
    let mut dbias = vec![0.0; three_c];
    for (number, sums) in partial.chunks_mut(grid.ranges * width).enumerate() {
        let (total, rest) = sums.split_at_mut(width);
        rest.chunks(width).for_each(|more| lanes::accumulate(more, total));
        let (of_heads, _) = grid.task(number * grid.ranges);
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
    if qkv_bias.is_some() {
        io.outputs[2].f32().copy_from_slice(&dbias);
    }
}
