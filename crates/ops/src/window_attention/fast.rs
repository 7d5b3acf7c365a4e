//! The fast version: work is cut into some heads over a range of windows, and a window's tile stays in the caches next to the core.
//!
//! Both precisions do the same: scores are made with keys as rows and queries as columns, so that maxima and sums of the softmax are taken over
//! rows, register by register; the products after it read the tile by rows or by columns as they need it.

use std::ops::Range;

use esvit_graph::{Io, Precision, Prepacked, Slice, SliceMut};
use esvit_simd::pool::Scratch;
use esvit_simd::vector::{dispatch, stream_end};
use esvit_simd::{half, lanes};
use rayon::prelude::*;

use super::geometry::Geometry;
#[cfg(target_arch = "x86_64")]
use super::mixed;
use super::single;
use super::tiles::{Sizes, Tiles};
use crate::precision::rounds;

/// Pieces of work to aim for: enough for many threads, fixed so that sums do not depend on their number.
const TASKS: usize = 64;
/// Multiplications of a task at least, where there are [`FEW`]: as many as 32 of Swin's windows of one head take. A task's first window is not
/// asked for before.
const LEAST: usize = 32 * 2 * 49 * 49 * 32;
/// Pieces of the smallest work, so that two or four threads end together.
const FEW: usize = 8;
/// Heads of a task at most: their rows and results stay in the caches next to the core.
const GROUP: usize = 6;

/// Heads whose bias is made by one thread at a time.
const EXPANDED: usize = 6;

/// How work is cut: groups of heads, times ranges of windows.
struct Cut {
    heads: usize,
    groups: usize,
    ranges: usize,
    windows: usize,
}

impl Cut {
    fn new(geometry: &Geometry, heads: usize, d: usize) -> Cut {
        let windows = geometry.windows();
        let work = 2 * windows * heads * geometry.area.pow(2) * d;
        // Powers of two, like the windows of most grids: ranges are equal, and whole rows of windows.
        let tasks = (work / LEAST).next_power_of_two().clamp(FEW, TASKS);
        let groups = heads.div_ceil(GROUP);
        let ranges = (tasks / groups.next_power_of_two()).clamp(1, windows);
        Cut { heads, groups: (tasks / ranges).clamp(groups, heads), ranges, windows }
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

/// Rows of tokens as the program keeps them.
#[derive(Clone, Copy)]
pub(super) enum Tokens<'a> {
    F32(&'a [f32]),
    /// Words of two bf16.
    Pairs(&'a [u32]),
}

impl<'a> Tokens<'a> {
    fn of(io: &Io<'a>, i: usize) -> Tokens<'a> {
        io.bf16x2(i).map_or_else(|| Tokens::F32(io.f32(i)), Tokens::Pairs)
    }

    /// The floats. Products that do not round get no others.
    pub fn f32(self) -> &'a [f32] {
        match self {
            Tokens::F32(data) => data,
            Tokens::Pairs(_) => panic!("window attention in single precision with an operand in bf16"),
        }
    }
}

/// A pointer that pieces of parallel work write disjoint rows through.
#[derive(Clone, Copy)]
pub(super) struct RowsMut {
    pub base: *mut f32,
    /// Words of 32 bits.
    pub len: usize,
    /// Whether they are of two bf16 each.
    pub pairs: bool,
}

impl RowsMut {
    fn new(result: &mut SliceMut) -> RowsMut {
        match result {
            SliceMut::F32(y) => RowsMut { base: y.as_mut_ptr(), len: y.len(), pairs: false },
            SliceMut::U32(y) => RowsMut { base: y.as_mut_ptr().cast(), len: y.len(), pairs: true },
        }
    }
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
    pub qkv: Tokens<'a>,
    /// The row that padding has; zeros without.
    pub padding: Option<Tokens<'a>>,
    pub three_c: usize,
    /// The bias of each head in [`Strips`](super::bias::Strips).
    pub strips: &'a [f32],
}

impl Operands<'_> {
    fn d(&self) -> usize {
        self.three_c / 3 / self.heads
    }

    /// The bias of a head.
    pub fn bias_of(&self, head: usize) -> &[f32] {
        let one = self.geometry.strips.len();
        &self.strips[head * one..][..one]
    }
}

/// The bias of every pair, `[H, strips]`.
struct Prebuilt(Vec<f32>);

/// Brings the table into the form that the fast version reads, if that is all that is needed of it.
pub(super) fn prepack(geometry: &Geometry, heads: usize, d: usize, table: Option<Slice>, precision: Precision) -> Option<Prepacked> {
    let table = table?.f32();
    let mut strips = vec![0.0; heads * geometry.strips.len()];
    geometry.strips.expand(table, heads, 0..heads, factor(geometry, d, rounds(precision)), &mut strips);
    Some(Prepacked { bytes: 4 * strips.len(), value: Box::new(Prebuilt(strips)), replaces: vec![1] })
}

/// Factor of the bias: where products round, scores begin without the factor that q gets elsewhere.
fn factor(geometry: &Geometry, d: usize, rounds: bool) -> f32 {
    if rounds { 1.0 / geometry.scale(d) } else { 1.0 }
}

/// The same for one call: as prepacked, or made for it.
enum Bias<'a> {
    Given(&'a [f32]),
    Made(Scratch<'a>),
}

impl<'a> Bias<'a> {
    fn new(geometry: &Geometry, heads: usize, io: &Io<'a>) -> Bias<'a> {
        if let Some(Prebuilt(strips)) = io.prepacked.and_then(|p| p.downcast_ref()) {
            return Bias::Given(strips);
        }
        let d = io.matrix(0).1 / 3 / heads;
        let (one, table, factor) = (geometry.strips.len(), io.f32(1), factor(geometry, d, rounds(io.precision)));
        let mut strips = io.pool.scratch(heads * one);
        strips.par_chunks_mut(EXPANDED * one).enumerate().for_each(|(i, to)| {
            let first = i * EXPANDED;
            geometry.strips.expand(table, heads, first..heads.min(first + EXPANDED), factor, to);
        });
        Bias::Made(strips)
    }
}

impl std::ops::Deref for Bias<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match self {
            Bias::Given(strips) => strips,
            Bias::Made(strips) => strips,
        }
    }
}

/// What padding tokens hold, as the others are kept.
fn padding<'a>(qkv: Tokens, bias: &'a [f32], words: &'a mut Vec<u32>) -> Tokens<'a> {
    let Tokens::Pairs(_) = qkv else { return Tokens::F32(bias) };
    words.resize(bias.len() / 2, 0);
    half::round(bias, words);
    Tokens::Pairs(words)
}

/// Floats of one task's tiles.
fn floats(geometry: &Geometry, d: usize, group: usize, backward: bool, rounds: bool) -> usize {
    #[cfg(target_arch = "x86_64")]
    if rounds {
        return mixed::Sizes::new(geometry.area, d).floats(group, geometry.strips.len(), backward);
    }
    _ = rounds;
    Sizes::new(geometry.area, d).floats(group, geometry.strips.len(), backward)
}

/// Floats of a task's sums in the backward pass.
fn sums_len(geometry: &Geometry, group: usize, d: usize) -> usize {
    group * (geometry.table_rows() + 3 * d)
}

/// Bytes of scratch memory a call takes, in either precision: each thread's tiles, and the tasks' sums of the backward pass.
pub(super) fn scratch(geometry: &Geometry, heads: usize, three_c: usize, threads: usize, backward: bool) -> usize {
    let d = three_c / 3 / heads;
    let cut = Cut::new(geometry, heads, d);
    let sums = if backward { cut.tasks() * sums_len(geometry, cut.group(), d) } else { 0 };
    let of = |rounds| threads.min(cut.tasks()) * floats(geometry, d, cut.group(), backward, rounds);
    4 * (of(false).max(of(rounds(Precision::Mixed))) + heads * geometry.strips.len() + sums)
}

pub(super) fn forward(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (_, three_c) = io.matrix(0);
    let (pool, rounds) = (io.pool, rounds(io.precision));
    let strips = &*Bias::new(geometry, heads, io);
    let (qkv, mut words) = (Tokens::of(io, 0), Vec::new());
    let padding = io.inputs.get(2).map(|b| padding(qkv, b.f32(), &mut words));
    let operands = Operands { geometry, heads, qkv, padding, three_c, strips };
    let d = operands.d();
    let cut = Cut::new(geometry, heads, d);
    let group = cut.group();
    let y = RowsMut::new(&mut io.outputs[0]);
    (0..cut.tasks()).into_par_iter().for_each(|i| {
        let (heads, windows) = cut.task(i);
        let mut scratch = pool.scratch(floats(geometry, d, group, false, rounds));
        #[cfg(target_arch = "x86_64")]
        if rounds {
            // SAFETY: `rounds` asked whether the CPU multiplies bf16.
            unsafe { mixed::Task::new(operands, heads, windows, group, false, &mut scratch) }.forward(y);
            stream_end();
            return;
        }
        let tiles = Tiles::new(&mut scratch, Sizes::new(geometry.area, d), group, geometry.strips.len(), false);
        dispatch(single::Forward { operands, heads, windows, y, tiles });
        stream_end();
    });
}

pub(super) fn gradient(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (_, three_c) = io.matrix(0);
    let qkv_bias = (io.inputs.len() == 4).then(|| io.f32(2));
    let (pool, rounds) = (io.pool, rounds(io.precision));
    let strips = &*Bias::new(geometry, heads, io);
    let (qkv, mut words) = (Tokens::of(io, 0), Vec::new());
    let padding = qkv_bias.map(|bias| padding(qkv, bias, &mut words));
    let operands = Operands { geometry, heads, qkv, padding, three_c, strips };
    let dy = Tokens::of(io, io.inputs.len() - 1);
    let d = operands.d();
    let cut = Cut::new(geometry, heads, d);
    let group = cut.group();
    let width = sums_len(geometry, group, d);
    let mut partial = pool.scratch(cut.tasks() * width);
    let dqkv = RowsMut::new(&mut io.outputs[0]);
    partial.par_chunks_mut(width).enumerate().for_each(|(i, sums)| {
        sums.fill(0.0);
        let (heads, windows) = cut.task(i);
        let mut scratch = pool.scratch(floats(geometry, d, group, true, rounds));
        #[cfg(target_arch = "x86_64")]
        if rounds {
            // SAFETY: `rounds` asked whether the CPU multiplies bf16.
            unsafe { mixed::Task::new(operands, heads, windows, group, true, &mut scratch) }.backward(dy, dqkv, sums);
            stream_end();
            return;
        }
        let tiles = Tiles::new(&mut scratch, Sizes::new(geometry.area, d), group, geometry.strips.len(), true);
        dispatch(single::Backward { operands, heads, windows, dy: dy.f32(), dqkv, tiles, sums });
        stream_end();
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
    if qkv_bias.is_some() {
        io.outputs[2].f32().copy_from_slice(&dbias);
    }
}
