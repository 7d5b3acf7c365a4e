//! The fast version: work is cut into some heads over a range of windows, and a window's tile stays in the caches next to the core.
//!
//! Rows of q, k, v and of the incoming gradient are read where they lie, and results are written to where they belong. K (and V in the
//! backward pass) are transposed once a window and head; scores begin with the bias; a block of rows becomes probabilities while it
//! is in the first-level cache.

use std::ops::Range;

use esvit_graph::Io;
use esvit_simd::lanes;
use esvit_simd::panel::{PAD, Product, padded};
use esvit_simd::vector::{Kernel, Vector, dispatch, prefetch};
use rayon::prelude::*;

use super::cpu::MASK;
use super::geometry::{Geometry, PADDING, Window};
use super::softmax::{LINE, Softmax};

/// Pieces of work to aim for: enough for many threads, fixed so that sums do not depend on their number.
const TASKS: usize = 64;
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
        let tile = 4 * geometry.area * line(geometry.area);
        let group = (BIAS_BYTES / tile).clamp(1, heads);
        let ranges = TASKS.div_ceil(heads.div_ceil(group)).min(windows);
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

/// Length of a row of scores.
fn line(area: usize) -> usize {
    area.next_multiple_of(LINE)
}

/// Sizes of the tiles: `T` tokens, `D` channels a head, as they are and padded.
#[derive(Clone, Copy)]
struct Sizes {
    area: usize,
    d: usize,
    /// T padded to whole half registers, and to whole rows of scores.
    tp: usize,
    line: usize,
    /// D padded.
    dp: usize,
}

impl Sizes {
    fn new(area: usize, d: usize) -> Sizes {
        Sizes { area, d, tp: padded(area), line: line(area), dp: padded(d) }
    }

    /// Floats of one task's tiles: see [`Tiles::new`].
    fn floats(&self, group: usize, backward: bool) -> usize {
        let bias = group * self.area * self.line;
        let (rows, scores, transposed) = (self.tp * self.dp, self.area * self.line, self.dp * self.line);
        let shared = 2 * LINE + self.dp + 9 * self.line + bias + transposed + 4 * rows;
        if backward { shared + bias + transposed + 2 * scores + 3 * rows } else { shared + scores + rows }
    }
}

/// A pointer that pieces of parallel work write disjoint rows through.
#[derive(Clone, Copy)]
struct RowsMut {
    base: *mut f32,
    len: usize,
}

// SAFETY: pieces own different windows or heads, and no token lies in two windows of one geometry, so the columns written
// through copies of this pointer never overlap; nobody reads them before the loop ends.
unsafe impl Send for RowsMut {}
// SAFETY: as above.
unsafe impl Sync for RowsMut {}

/// The matrices an operator reads.
#[derive(Clone, Copy)]
struct Operands<'a> {
    geometry: &'a Geometry,
    heads: usize,
    qkv: &'a [f32],
    bias: Option<&'a [f32]>,
    table: &'a [f32],
    three_c: usize,
}

impl Operands<'_> {
    fn sizes(&self) -> Sizes {
        Sizes::new(self.geometry.area, self.three_c / 3 / self.heads)
    }
}

/// One task's memory: floats, and where rows are.
struct Tiles<'s> {
    sizes: Sizes,
    zeros: &'s [f32],            // [Dp]
    masks: &'s mut [f32],        // [9, line]: what the scores of each region's rows get
    bias: &'s mut [f32],         // [group, T, line], −∞ in the padding columns
    kt: &'s mut [f32],           // [Dp, line], scaled
    copies: [&'s mut [f32]; 4],  // [Tp, Dp] each: rows of q, k, v, dy where D is not whole registers
    p: &'s mut [f32],            // [T, line]
    ds: &'s mut [f32],           // [T, line], backward only
    vt: &'s mut [f32],           // [Dp, line], backward only
    dbias: &'s mut [f32],        // [group, T, line], backward only
    results: [&'s mut [f32]; 3], // [Tp, Dp] each: y, or dq, dk, dv of padding tokens and of partial registers
}

impl<'s> Tiles<'s> {
    fn new(scratch: &'s mut [f32], sizes: Sizes, group: usize, backward: bool) -> Tiles<'s> {
        // Every tile begins with a cache line, and so does every row of scores: registers are then stored and loaded in one piece.
        let start = scratch.as_ptr().align_offset(4 * LINE).min(LINE);
        let mut scratch = &mut scratch[start..];
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        let on = usize::from(backward);
        let (rows, scores, transposed) = (sizes.tp * sizes.dp, sizes.area * sizes.line, sizes.dp * sizes.line);
        let mut tiles = Tiles {
            sizes,
            zeros: {
                let zeros = take(sizes.dp.next_multiple_of(LINE));
                zeros.fill(0.0);
                zeros
            },
            masks: take(9 * sizes.line),
            bias: take(group * scores),
            kt: take(transposed),
            copies: std::array::from_fn(|_| take(rows)),
            p: take(scores),
            ds: take(on * scores),
            vt: take(on * transposed),
            dbias: take(on * group * scores),
            results: [take(rows), take(on * rows), take(on * rows)],
        };
        // Padding channels of the copies stay zero.
        tiles.copies.iter_mut().for_each(|copy| copy.fill(0.0));
        tiles.dbias.fill(0.0);
        tiles
    }

    /// The bias of every pair of these heads.
    fn expand_table(&mut self, o: &Operands, heads: &Range<usize>) {
        let Sizes { area, line, .. } = self.sizes;
        for (g, h) in heads.clone().enumerate() {
            for i in 0..area {
                let row = &mut self.bias[(g * area + i) * line..][..line];
                row[area..].fill(f32::NEG_INFINITY);
                for (s, &r) in row.iter_mut().zip(&o.geometry.relative[i * area..][..area]) {
                    *s = o.table[r as usize * o.heads + h];
                }
            }
        }
    }

    /// What the scores of rows of each region get in a window of more than one.
    fn expand_masks(&mut self, window: &Window) {
        for (region, row) in self.masks.chunks_exact_mut(self.sizes.line).enumerate() {
            for (m, &other) in row.iter_mut().zip(window.region) {
                *m = if usize::from(other) == region { 0.0 } else { MASK };
            }
            row[self.sizes.area..].fill(0.0);
        }
    }
}

/// Where the rows of a window's head begin.
#[derive(Default)]
struct Places {
    /// q, k, v and the incoming gradient; k and v with rows of zeros up to Tp.
    from: [Vec<*const f32>; 4],
    /// y, or dq, dk, dv.
    to: [Vec<*mut f32>; 3],
}

/// Points `places` at `d` columns from `column` of the window's tokens; padding at `padding`. Where `d` is not whole half registers
/// the rows are copied.
fn gather(
    places: &mut Vec<*const f32>,
    copy: &mut [f32],
    sizes: &Sizes,
    window: &Window,
    from: &[f32],
    width: usize,
    column: usize,
    padding: Option<&[f32]>,
    zeros: &[f32],
) {
    places.clear();
    let whole = sizes.d == sizes.dp;
    for (t, &token) in window.index.iter().enumerate() {
        let row = match (token, padding) {
            (PADDING, None) => zeros,
            (PADDING, Some(bias)) => &bias[column..],
            _ => &from[(window.first_token + token as usize) * width + column..],
        };
        places.push(if whole {
            row[..sizes.d].as_ptr()
        } else {
            let copy = &mut copy[t * sizes.dp..][..sizes.dp];
            copy[..sizes.d].copy_from_slice(&row[..sizes.d]);
            copy.as_ptr()
        });
    }
    places.resize(sizes.tp, zeros.as_ptr());
}

/// Points `places` at `d` columns from `column` of the window's tokens in `to`; padding, and everything where `d` is not
/// whole half registers, at `tile`.
fn targets(places: &mut Vec<*mut f32>, tile: &mut [f32], sizes: &Sizes, window: &Window, to: RowsMut, width: usize, column: usize) {
    places.clear();
    let whole = sizes.d == sizes.dp;
    for (tile, &token) in tile.chunks_exact_mut(sizes.dp).zip(window.index) {
        places.push(if whole && token != PADDING {
            let at = (window.first_token + token as usize) * width + column;
            assert!(at + sizes.d <= to.len);
            // SAFETY: inside the buffer (assert).
            unsafe { to.base.add(at) }
        } else {
            tile.as_mut_ptr()
        });
    }
}

/// Asks for what the next window of this head reads and writes: rows `tokens` of it, each matrix with its width and a column.
/// A window's rows lie too far apart for the processor to see the pattern.
#[inline(always)]
fn look_ahead(next: Option<&Window>, tokens: Range<usize>, d: usize, matrices: &[(*const f32, usize, usize)]) {
    let Some(next) = next else { return };
    for &token in next.index[tokens].iter().filter(|token| **token != PADDING) {
        for &(base, width, column) in matrices {
            prefetch(base.wrapping_add((next.first_token + token as usize) * width + column), d);
        }
    }
}

/// Copies the rows that [`targets`] pointed at the tile to where they belong; padding is added to `padding`.
fn deliver(tile: &[f32], sizes: &Sizes, window: &Window, to: RowsMut, width: usize, column: usize, mut padding: Option<&mut [f32]>) {
    if sizes.d == sizes.dp && !window.index.contains(&PADDING) {
        return;
    }
    for (row, &token) in tile.chunks_exact(sizes.dp).zip(window.index) {
        if token == PADDING {
            if let Some(padding) = padding.as_deref_mut() {
                lanes::accumulate(&row[..sizes.d], padding);
            }
        } else if sizes.d != sizes.dp {
            let at = (window.first_token + token as usize) * width + column;
            assert!(at + sizes.d <= to.len);
            // SAFETY: inside the buffer (assert); these tokens belong to this window alone, these columns to this head.
            unsafe { std::slice::from_raw_parts_mut(to.base.add(at), sizes.d) }.copy_from_slice(&row[..sizes.d]);
        }
    }
}

/// `to[c, t] = scale·rows[t][c]`, `[Dp, line]`.
///
/// # Safety
/// The CPU has these registers; there are `Tp` rows of `Dp` floats.
#[inline(always)]
unsafe fn transpose<V: Vector>(rows: &[*const f32], scale: f32, to: &mut [f32], sizes: &Sizes) {
    for (t, eight) in rows.as_chunks::<PAD>().0.iter().enumerate() {
        for c in (0..sizes.dp).step_by(PAD) {
            debug_assert!((c + PAD - 1) * sizes.line + (t + 1) * PAD <= to.len());
            // SAFETY: columns c..c + 8 of eight rows, to rows c..c + 8 at columns 8t..8t + 8, which exist.
            unsafe { V::transpose8(eight.map(|row| row.add(c)), scale, to.as_mut_ptr().add(c * sizes.line + t * PAD), sizes.line) };
        }
    }
}

/// The rows of a tile.
fn rows_of(tile: &[f32], width: usize) -> Vec<*const f32> {
    tile.chunks_exact(width).map(<[f32]>::as_ptr).collect()
}

fn rows_of_mut(tile: &mut [f32], width: usize) -> Vec<*mut f32> {
    tile.chunks_exact_mut(width).map(<[f32]>::as_mut_ptr).collect()
}

/// One task of the forward pass.
struct Forward<'a> {
    operands: Operands<'a>,
    heads: Range<usize>,
    windows: Range<usize>,
    y: RowsMut,
    tiles: Tiles<'a>,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Forward { operands: o, heads, windows, y, mut tiles } = self;
        let sizes = tiles.sizes;
        let (area, c, line) = (sizes.area, o.three_c / 3, sizes.line);
        let scale = o.geometry.scale(sizes.d);
        tiles.expand_table(&o, &heads);
        let mut places = Places::default();
        let [bias, kt, p] = [rows_of(tiles.bias, line), rows_of(tiles.kt, line), rows_of(tiles.p, line)];
        let p_mut = rows_of_mut(tiles.p, line);
        let mut inverse = vec![0.0; area];
        for n in windows.clone() {
            let window = o.geometry.window(n);
            let next = (n + 1 < windows.end).then(|| o.geometry.window(n + 1));
            if window.mixed {
                tiles.expand_masks(&window);
            }
            for (g, h) in heads.clone().enumerate() {
                let column = h * sizes.d;
                for part in 0..3 {
                    let (from, copy) = (&mut places.from[part], &mut *tiles.copies[part]);
                    gather(from, copy, &sizes, &window, o.qkv, o.three_c, part * c + column, o.bias, tiles.zeros);
                }
                targets(&mut places.to[0], tiles.results[0], &sizes, &window, y, c, column);
                let [q, k, v, _] = &places.from;
                let qkv = |part: usize| (o.qkv.as_ptr(), o.three_c, part * c + column);
                let ahead = [qkv(0), qkv(1), qkv(2), (y.base.cast_const(), c, column)];
                // SAFETY: Tp rows of Dp floats each.
                unsafe { transpose::<V>(k, scale, tiles.kt, &sizes) };
                let blocks = area.div_ceil(V::ROWS);
                for block in 0..blocks {
                    let rows = block * area / blocks..(block + 1) * area / blocks;
                    look_ahead(next.as_ref(), rows.clone(), sizes.d, &ahead);
                    let scores = Product {
                        n: sizes.tp,
                        a: &q[rows.clone()],
                        a_step: 1,
                        b: &kt[..sizes.d],
                        init: Some(&bias[g * area..][rows.clone()]),
                        scale: None,
                        out: &p_mut[rows.clone()],
                    };
                    // SAFETY: rows of q hold D floats; kt, bias and p have rows of `line` floats, at least Tp.
                    unsafe { scores.compute::<V>() };
                    for i in rows.clone() {
                        tiles.p[i * line + sizes.tp..(i + 1) * line].fill(f32::NEG_INFINITY);
                    }
                    let masks = window.mixed.then_some((tiles.masks.as_ptr(), window.region));
                    let softmax = Softmax { rows: rows.clone(), line, p: tiles.p.as_mut_ptr(), masks };
                    // SAFETY: rows of p and of the masks are whole lines.
                    unsafe { softmax.forward::<V>(&mut inverse) };
                    let values = Product {
                        n: sizes.dp,
                        a: &p[rows.clone()],
                        a_step: 1,
                        b: &v[..area],
                        init: None,
                        scale: Some(&inverse[rows.clone()]),
                        out: &places.to[0][rows],
                    };
                    // SAFETY: rows of p hold T floats; rows of v and targets hold Dp; these targets belong to this task alone.
                    unsafe { values.compute::<V>() };
                }
                deliver(tiles.results[0], &sizes, &window, y, c, column, None);
            }
        }
    }
}

/// One task of the backward pass. Gives the gradients of its heads' tables `[group, (2w−1)²]`, then those of the padding
/// `[3, group·D]`, in `sums`.
struct Backward<'a> {
    operands: Operands<'a>,
    heads: Range<usize>,
    windows: Range<usize>,
    dy: &'a [f32],
    dqkv: RowsMut,
    tiles: Tiles<'a>,
    sums: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Backward { operands: o, heads, windows, dy, dqkv, mut tiles, sums } = self;
        let sizes = tiles.sizes;
        let (area, c, line) = (sizes.area, o.three_c / 3, sizes.line);
        let scale = o.geometry.scale(sizes.d);
        tiles.expand_table(&o, &heads);
        let (dtable, dpadding) = sums.split_at_mut(heads.len() * o.geometry.table_rows());
        let mut places = Places::default();
        let [bias, kt, vt] = [rows_of(tiles.bias, line), rows_of(tiles.kt, line), rows_of(tiles.vt, line)];
        let ds = rows_of(tiles.ds, line);
        let [p_mut, ds_mut] = [rows_of_mut(tiles.p, line), rows_of_mut(tiles.ds, line)];
        // Columns of P and dS: the rows of their transposes, a line apart.
        let columns = |tile: &[f32]| -> Vec<*const f32> { (0..area).map(|j| tile.as_ptr().wrapping_add(j)).collect() };
        let [p_columns, ds_columns] = [columns(tiles.p), columns(tiles.ds)];
        let scales = vec![scale; area];
        let mut inverse = vec![0.0; area];
        for n in windows.clone() {
            let window = o.geometry.window(n);
            let next = (n + 1 < windows.end).then(|| o.geometry.window(n + 1));
            if window.mixed {
                tiles.expand_masks(&window);
            }
            for (g, h) in heads.clone().enumerate() {
                let column = h * sizes.d;
                for part in 0..3 {
                    let (from, copy) = (&mut places.from[part], &mut *tiles.copies[part]);
                    gather(from, copy, &sizes, &window, o.qkv, o.three_c, part * c + column, o.bias, tiles.zeros);
                    targets(&mut places.to[part], tiles.results[part], &sizes, &window, dqkv, o.three_c, part * c + column);
                }
                gather(&mut places.from[3], tiles.copies[3], &sizes, &window, dy, c, column, None, tiles.zeros);
                let qkv = |base: *const f32, part: usize| (base, o.three_c, part * c + column);
                let (from, to) = (o.qkv.as_ptr(), dqkv.base.cast_const());
                let ahead = [qkv(from, 0), qkv(from, 1), qkv(from, 2), (dy.as_ptr(), c, column), qkv(to, 0), qkv(to, 1), qkv(to, 2)];
                let [q, k, v, dy] = &places.from;
                // SAFETY: Tp rows of Dp floats each.
                unsafe {
                    transpose::<V>(k, scale, tiles.kt, &sizes);
                    transpose::<V>(v, 1.0, tiles.vt, &sizes);
                }
                let blocks = area.div_ceil(V::ROWS);
                for block in 0..blocks {
                    let rows = block * area / blocks..(block + 1) * area / blocks;
                    look_ahead(next.as_ref(), rows.clone(), sizes.d, &ahead);
                    let scores = Product {
                        n: sizes.tp,
                        a: &q[rows.clone()],
                        a_step: 1,
                        b: &kt[..sizes.d],
                        init: Some(&bias[g * area..][rows.clone()]),
                        scale: None,
                        out: &p_mut[rows.clone()],
                    };
                    // dP = dY·Vᵀ
                    let dp = Product { a: &dy[rows.clone()], b: &vt[..sizes.d], init: None, out: &ds_mut[rows.clone()], ..scores };
                    // SAFETY: rows of q and dy hold D floats; kt, vt, bias, p and ds have rows of `line` floats, at least Tp.
                    unsafe {
                        scores.compute::<V>();
                        dp.compute::<V>();
                    }
                    for i in rows.clone() {
                        let padding = i * line + sizes.tp..(i + 1) * line;
                        tiles.p[padding.clone()].fill(f32::NEG_INFINITY);
                        tiles.ds[padding].fill(0.0);
                    }
                    let masks = window.mixed.then_some((tiles.masks.as_ptr(), window.region));
                    let softmax = Softmax { rows: rows.clone(), line, p: tiles.p.as_mut_ptr(), masks };
                    let dbias = &mut tiles.dbias[g * area * line..][..area * line];
                    // SAFETY: rows of p, ds, dbias and the masks are whole lines.
                    unsafe { softmax.gradient::<V>(tiles.ds.as_mut_ptr(), dbias.as_mut_ptr(), &mut inverse) };
                    // dQ = dS·K/√D
                    let dq = Product {
                        n: sizes.dp,
                        a: &ds[rows.clone()],
                        a_step: 1,
                        b: &k[..area],
                        init: None,
                        scale: Some(&scales[rows.clone()]),
                        out: &places.to[0][rows],
                    };
                    // SAFETY: rows of ds hold T floats; rows of k and targets hold Dp; these targets belong to this task alone.
                    unsafe { dq.compute::<V>() };
                }
                // dV = Pᵀ·dY, dK = dSᵀ·Q/√D
                let dv = Product { n: sizes.dp, a: &p_columns, a_step: line, b: &dy[..area], init: None, scale: None, out: &places.to[2] };
                let dk = Product { a: &ds_columns, b: &q[..area], scale: Some(&scales), out: &places.to[1], ..dv };
                // SAFETY: columns of p and ds hold T floats a line apart; rows of dy, q and targets hold Dp floats.
                unsafe {
                    dv.compute::<V>();
                    dk.compute::<V>();
                }
                for part in 0..3 {
                    let padding = &mut dpadding[(part * heads.len() + g) * sizes.d..][..sizes.d];
                    deliver(tiles.results[part], &sizes, &window, dqkv, o.three_c, part * c + column, Some(padding));
                }
            }
        }
        for (tile, dtable) in tiles.dbias.chunks_exact(area * line).zip(dtable.chunks_exact_mut(o.geometry.table_rows())) {
            for (row, relative) in tile.chunks_exact(line).zip(o.geometry.relative.chunks_exact(area)) {
                for (d, &r) in row.iter().zip(relative) {
                    dtable[r as usize] += d;
                }
            }
        }
    }
}

/// Floats of a task's sums in the backward pass.
fn sums_len(geometry: &Geometry, group: usize, d: usize) -> usize {
    group * (geometry.table_rows() + 3 * d)
}

/// Bytes of scratch memory a call takes: each thread's tiles, and the tasks' sums of the backward pass.
pub(super) fn scratch(geometry: &Geometry, heads: usize, three_c: usize, threads: usize, backward: bool) -> usize {
    let (cut, d) = (Cut::new(geometry, heads), three_c / 3 / heads);
    let sums = if backward { cut.tasks() * sums_len(geometry, cut.group, d) } else { 0 };
    4 * (threads.min(cut.tasks()) * Sizes::new(geometry.area, d).floats(cut.group, backward) + sums)
}

pub(super) fn forward(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (_, three_c) = io.matrix(0);
    let operands = Operands { geometry, heads, qkv: io.f32(0), bias: io.inputs.get(2).map(|b| b.f32()), table: io.f32(1), three_c };
    let (sizes, cut, pool) = (operands.sizes(), Cut::new(geometry, heads), io.pool);
    let y = io.out();
    let y = RowsMut { base: y.as_mut_ptr(), len: y.len() };
    (0..cut.tasks()).into_par_iter().for_each(|i| {
        let (heads, windows) = cut.task(i);
        let mut scratch = pool.scratch(sizes.floats(cut.group, false));
        let tiles = Tiles::new(&mut scratch, sizes, cut.group, false);
        dispatch(Forward { operands, heads, windows, y, tiles });
    });
}

pub(super) fn gradient(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (_, three_c) = io.matrix(0);
    let bias = (io.inputs.len() == 4).then(|| io.f32(2));
    let operands = Operands { geometry, heads, qkv: io.f32(0), bias, table: io.f32(1), three_c };
    let dy = io.f32(io.inputs.len() - 1);
    let (sizes, cut, pool) = (operands.sizes(), Cut::new(geometry, heads), io.pool);
    let width = sums_len(geometry, cut.group, sizes.d);
    let mut partial = pool.scratch(cut.tasks() * width);
    let dqkv = io.outputs[0].f32();
    let dqkv = RowsMut { base: dqkv.as_mut_ptr(), len: dqkv.len() };
    partial.par_chunks_mut(width).enumerate().for_each(|(i, sums)| {
        sums.fill(0.0);
        let (heads, windows) = cut.task(i);
        let mut scratch = pool.scratch(sizes.floats(cut.group, true));
        let tiles = Tiles::new(&mut scratch, sizes, cut.group, true);
        dispatch(Backward { operands, heads, windows, dy, dqkv, tiles, sums });
    });
    // A group's sums over its ranges of windows, in order; then to the columns of its heads.
    let dtable = io.outputs[1].f32();
    let mut dbias = vec![0.0; three_c];
    for group in partial.chunks_mut(cut.ranges * width).enumerate() {
        let (number, sums) = group;
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
                let from = &padding[(part * of_heads.len() + g) * sizes.d..][..sizes.d];
                dbias[part * three_c / 3 + h * sizes.d..][..sizes.d].copy_from_slice(from);
            }
        }
    }
    if bias.is_some() {
        io.outputs[2].f32().copy_from_slice(&dbias);
    }
}
