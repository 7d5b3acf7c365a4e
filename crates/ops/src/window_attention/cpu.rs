use esvit_graph::Io;
use esvit_simd::cpu::madd;
use esvit_simd::panel::{self, padded};
use esvit_simd::{lanes, math, multiversion};
use rayon::prelude::*;

use super::geometry::{Geometry, PADDING, Window};

/// What the reference adds between regions of a shifted grid.
const MASK: f32 = -100.0;

/// Rows of q, k or v of a window's token, or the bias where it is padding.
struct Rows<'a> {
    qkv: &'a [f32],
    bias: Option<&'a [f32]>,
    three_c: usize,
}

impl Rows<'_> {
    /// `D` values of third `part` (0 q, 1 k, 2 v), head `h`, of token `t` of the window.
    fn get(&self, window: &Window, t: usize, part: usize, h: usize, d: usize) -> Option<&[f32]> {
        let column = part * (self.three_c / 3) + h * d;
        match window.index[t] {
            PADDING => self.bias.map(|b| &b[column..column + d]),
            token => Some(&self.qkv[(window.first_token + token as usize) * self.three_c + column..][..d]),
        }
    }
}

// ---------------------------------------------------------------- reference

/// P of one window and head as the formula has it, `[T, T]`.
fn probabilities(geometry: &Geometry, rows: &Rows, table: &[f32], heads: usize, window: &Window, h: usize, d: usize) -> Vec<f32> {
    let area = geometry.area;
    let value = |t, part, c: usize| rows.get(window, t, part, h, d).map_or(0.0, |r| r[c]);
    let mut p = vec![0.0; area * area];
    for i in 0..area {
        let row = &mut p[i * area..][..area];
        for (j, s) in row.iter_mut().enumerate() {
            let dot: f32 = (0..d).map(|c| value(i, 0, c) * value(j, 1, c)).sum();
            let mask = if window.region[i] != window.region[j] { MASK } else { 0.0 };
            *s = dot * geometry.scale(d) + table[geometry.relative[i * area + j] as usize * heads + h] + mask;
        }
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|s| *s = (*s - max).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|s| *s /= sum);
    }
    p
}

pub(super) fn reference(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (qkv, table) = (io.f32(0), io.f32(1));
    let (_, three_c) = io.matrix(0);
    let rows = Rows { qkv, bias: io.inputs.get(2).map(|b| b.f32()), three_c };
    let (c, d) = (three_c / 3, three_c / 3 / heads);
    let y = io.out();
    for n in 0..geometry.windows() {
        let window = geometry.window(n);
        for h in 0..heads {
            let p = probabilities(geometry, &rows, table, heads, &window, h, d);
            for i in (0..geometry.area).filter(|&i| window.index[i] != PADDING) {
                let y = &mut y[(window.first_token + window.index[i] as usize) * c + h * d..][..d];
                for (k, y) in y.iter_mut().enumerate() {
                    *y = (0..geometry.area).map(|j| p[i * geometry.area + j] * rows.get(&window, j, 2, h, d).map_or(0.0, |r| r[k])).sum();
                }
            }
        }
    }
}

pub(super) fn maps(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (qkv, table) = (io.f32(0), io.f32(1));
    let (_, three_c) = io.matrix(0);
    let rows = Rows { qkv, bias: io.inputs.get(2).map(|b| b.f32()), three_c };
    let (d, area) = (three_c / 3 / heads, geometry.area);
    for (n, window_maps) in io.out().chunks_mut(heads * area * area).enumerate() {
        for (h, map) in window_maps.chunks_mut(area * area).enumerate() {
            map.copy_from_slice(&probabilities(geometry, &rows, table, heads, &geometry.window(n), h, d));
        }
    }
}

pub(super) fn gradient_reference(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (qkv, table) = (io.f32(0), io.f32(1));
    let (_, three_c) = io.matrix(0);
    let has_bias = io.inputs.len() == 4;
    let rows = Rows { qkv, bias: has_bias.then(|| io.f32(2)), three_c };
    let dy = io.f32(io.inputs.len() - 1);
    let (c, d, area) = (three_c / 3, three_c / 3 / heads, geometry.area);
    let scale = geometry.scale(d);
    let mut outputs = io.outputs.iter_mut();
    let mut next = || outputs.next().map(|o| o.f32());
    let (dqkv, dtable, mut dbias) = (next().expect("dqkv"), next().expect("dtable"), next());
    dqkv.fill(0.0);
    dtable.fill(0.0);
    if let Some(dbias) = dbias.as_deref_mut() {
        dbias.fill(0.0);
    }
    for n in 0..geometry.windows() {
        let window = geometry.window(n);
        for h in 0..heads {
            let p = probabilities(geometry, &rows, table, heads, &window, h, d);
            let value = |t, part, k: usize| rows.get(&window, t, part, h, d).map_or(0.0, |r| r[k]);
            let g = |t: usize, k: usize| match window.index[t] {
                PADDING => 0.0,
                token => dy[(window.first_token + token as usize) * c + h * d + k],
            };
            let mut add = |t: usize, part: usize, k: usize, v: f32| match window.index[t] {
                PADDING => {
                    if let Some(dbias) = dbias.as_deref_mut() {
                        dbias[part * c + h * d + k] += v;
                    }
                }
                token => dqkv[(window.first_token + token as usize) * three_c + part * c + h * d + k] += v,
            };
            for i in 0..area {
                let dp: Vec<f32> = (0..area).map(|j| (0..d).map(|k| g(i, k) * value(j, 2, k)).sum()).collect();
                let along: f32 = (0..area).map(|j| p[i * area + j] * dp[j]).sum();
                for j in 0..area {
                    let ds = p[i * area + j] * (dp[j] - along);
                    dtable[geometry.relative[i * area + j] as usize * heads + h] += ds;
                    for k in 0..d {
                        add(i, 0, k, ds * scale * value(j, 1, k));
                        add(j, 1, k, ds * scale * value(i, 0, k));
                        add(j, 2, k, p[i * area + j] * g(i, k));
                    }
                }
            }
        }
    }
}

// ---------------------------------------------------------------- fast

/// Windows are cut into this many pieces at most; each adds up its own table gradient.
const PIECES: usize = 32;

/// The bias of every pair, `[H, T, Tp]`: the table expanded once a call, −∞ in the padding columns.
fn expand_table(geometry: &Geometry, table: &[f32], heads: usize, out: &mut [f32]) {
    let (area, tp) = (geometry.area, padded(geometry.area));
    for h in 0..heads {
        for i in 0..area {
            let row = &mut out[(h * area + i) * tp..][..tp];
            row[area..].fill(f32::NEG_INFINITY);
            for (s, &r) in row.iter_mut().zip(&geometry.relative[i * area..][..area]) {
                *s = table[r as usize * heads + h];
            }
        }
    }
}

/// The tiles of one window and head. `T` tokens (padded to Tp), `D` channels (padded to Dp).
struct Tiles<'s> {
    q: &'s mut [f32],    // [T, Dp], scaled
    k: &'s mut [f32],    // [T, Dp]
    kt: &'s mut [f32],   // [D, Tp]
    v: &'s mut [f32],    // [T, Dp]
    p: &'s mut [f32],    // [T, Tp]
    y: &'s mut [f32],    // [T, Dp]; in the backward pass the incoming gradient
    vt: &'s mut [f32],   // [D, Tp], backward only
    ds: &'s mut [f32],   // [T, Tp], backward only
    grad: &'s mut [f32], // [T, Dp], backward only
}

impl<'s> Tiles<'s> {
    fn len(area: usize, d: usize, backward: bool) -> usize {
        let (tp, dp) = (padded(area), padded(d));
        let forward = 4 * area * dp + d * tp + area * tp;
        if backward { forward + d * tp + area * tp + area * dp } else { forward }
    }

    fn new(mut scratch: &'s mut [f32], area: usize, d: usize, backward: bool) -> Tiles<'s> {
        let (tp, dp) = (padded(area), padded(d));
        scratch.fill(0.0); // the padding columns stay zero
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        let on = usize::from(backward);
        Tiles {
            q: take(area * dp),
            k: take(area * dp),
            kt: take(d * tp),
            v: take(area * dp),
            p: take(area * tp),
            y: take(area * dp),
            vt: take(on * d * tp),
            ds: take(on * area * tp),
            grad: take(on * area * dp),
        }
    }

    /// Gathers q, k, v and leaves P in `p`.
    fn scores(&mut self, geometry: &Geometry, rows: &Rows, bias: &[f32], window: &Window, h: usize, d: usize) {
        let (area, tp, dp) = (geometry.area, padded(geometry.area), padded(d));
        let columns = |part: usize| part * (rows.three_c / 3) + h * d;
        gather(rows.qkv, rows.bias, rows.three_c, columns(0), window.first_token, window.index, geometry.scale(d), self.q, dp, d);
        gather(rows.qkv, rows.bias, rows.three_c, columns(1), window.first_token, window.index, 1.0, self.k, dp, d);
        gather(rows.qkv, rows.bias, rows.three_c, columns(2), window.first_token, window.index, 1.0, self.v, dp, d);
        transpose(self.k, area, d, dp, self.kt, tp);
        panel::product(area, tp, d, self.q, dp, 1, self.kt, tp, self.p, tp, false);
        softmax(self.p, &bias[h * area * tp..][..area * tp], tp, if window.mixed { Some(window.region) } else { None });
    }
}

multiversion! {
    /// `to[t] = scale·from[token t]` for `d` columns from `column`; padding takes the bias, or zeros without one.
    fn gather(
        from: &[f32], bias: Option<&[f32]>, width: usize, column: usize, first_token: usize, index: &[u32], scale: f32, to: &mut [f32], ld: usize, d: usize,
    ) {
        for (to, &token) in to.chunks_exact_mut(ld).zip(index) {
            let to = &mut to[..d];
            let row = match (token, bias) {
                (PADDING, None) => { to.fill(0.0); continue; }
                (PADDING, Some(bias)) => &bias[column..column + d],
                _ => &from[(first_token + token as usize) * width + column..][..d],
            };
            for c in 0..d { to[c] = scale * row[c]; }
        }
    }
}

multiversion! {
    /// `to[c, r] = from[r, c]` for `rows × cols` values with the given row strides.
    fn transpose(from: &[f32], rows: usize, cols: usize, ld_from: usize, to: &mut [f32], ld_to: usize) {
        for c in 0..cols {
            let to = &mut to[c * ld_to..][..rows];
            for (to, from) in to.iter_mut().zip(from.chunks_exact(ld_from)) { *to = from[c]; }
        }
    }
}

multiversion! {
    /// Rows of `p` (scores) become probabilities; `bias` has −∞ in the padding columns.
    fn softmax(p: &mut [f32], bias: &[f32], tp: usize, region: Option<&[u8]>) {
        const L: usize = panel::PAD;
        for (i, (row, bias)) in p.chunks_exact_mut(tp).zip(bias.chunks_exact(tp)).enumerate() {
            for (s, b) in row.iter_mut().zip(bias) { *s += b; }
            if let Some(region) = region {
                for (s, r) in row.iter_mut().zip(region) {
                    *s += if *r != region[i] { MASK } else { 0.0 };
                }
            }
            let mut max = [f32::NEG_INFINITY; L];
            for block in row.chunks_exact(L) {
                for l in 0..L { max[l] = if block[l] > max[l] { block[l] } else { max[l] }; }
            }
            let max = max.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
            let mut sum = [0.0f32; L];
            for block in row.chunks_exact_mut(L) {
                for l in 0..L {
                    block[l] = math::exp::<FMA>(block[l] - max);
                    sum[l] += block[l];
                }
            }
            let scale = 1.0 / sum.iter().sum::<f32>();
            for s in row.iter_mut() { *s *= scale; }
        }
    }
}

/// A pointer that pieces of parallel work write disjoint rows through.
#[derive(Clone, Copy)]
struct RowsMut {
    base: *mut f32,
    len: usize,
}

// SAFETY: pieces own different windows, and no token lies in two windows of one geometry, so the rows written
// through copies of this pointer never overlap; nobody reads them before the loop ends.
unsafe impl Send for RowsMut {}
// SAFETY: as above.
unsafe impl Sync for RowsMut {}

impl RowsMut {
    /// Writes `factor·from[t]` to `d` columns from `column` of every token of the window; padding is passed over.
    ///
    /// # Safety
    /// No other piece reads or writes those columns of those tokens.
    unsafe fn scatter(&self, window: &Window, width: usize, column: usize, from: &[f32], ld: usize, d: usize, factor: f32) {
        for (from, &token) in from.chunks_exact(ld).zip(window.index).filter(|(_, token)| **token != PADDING) {
            let at = (window.first_token + token as usize) * width + column;
            assert!(at + d <= self.len);
            // SAFETY: inside the buffer (assert), exclusive by the caller's promise.
            let to = unsafe { std::slice::from_raw_parts_mut(self.base.add(at), d) };
            for (to, from) in to.iter_mut().zip(from) {
                *to = factor * from;
            }
        }
    }
}

/// Number of pieces and the windows of each: fixed, so that sums do not depend on the threads.
fn pieces(windows: usize) -> (usize, impl Fn(usize) -> std::ops::Range<usize>) {
    let pieces = windows.min(PIECES);
    (pieces, move |i| i * windows / pieces..(i + 1) * windows / pieces)
}

/// Bytes of scratch memory a call takes: the expanded table, each thread's tiles, and the pieces' sums of the backward pass.
pub(super) fn scratch(geometry: &Geometry, heads: usize, three_c: usize, threads: usize, backward: bool) -> usize {
    let (area, tp) = (geometry.area, padded(geometry.area));
    let (count, _) = pieces(geometry.windows());
    let sums = if backward { count * (heads * area * tp + three_c) } else { 0 };
    4 * (heads * area * tp + threads.min(count) * Tiles::len(area, three_c / 3 / heads, backward) + sums)
}

pub(super) fn fast(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (qkv, table) = (io.f32(0), io.f32(1));
    let (_, three_c) = io.matrix(0);
    let rows = Rows { qkv, bias: io.inputs.get(2).map(|b| b.f32()), three_c };
    let (c, d, area) = (three_c / 3, three_c / 3 / heads, geometry.area);
    let (tp, dp, pool) = (padded(area), padded(d), io.pool);
    let mut bias = pool.scratch(heads * area * tp);
    expand_table(geometry, table, heads, &mut bias);
    let bias = &*bias;
    let y = io.out();
    let y = RowsMut { base: y.as_mut_ptr(), len: y.len() };
    let (count, range) = pieces(geometry.windows());
    (0..count).into_par_iter().for_each(|piece| {
        let mut scratch = pool.scratch(Tiles::len(area, d, false));
        let mut tiles = Tiles::new(&mut scratch, area, d, false);
        for n in range(piece) {
            let window = geometry.window(n);
            for h in 0..heads {
                tiles.scores(geometry, &rows, bias, &window, h, d);
                panel::product(area, dp, area, tiles.p, tp, 1, tiles.v, dp, tiles.y, dp, false);
                // SAFETY: these tokens belong to this window alone, and these columns to this head.
                unsafe { y.scatter(&window, c, h * d, tiles.y, dp, d, 1.0) };
            }
        }
    });
}

multiversion! {
    /// `ds = p ⊙ (dp − Σ_j p·dp)`, row by row, in place of `dp`; added to `dbias` as well.
    fn softmax_gradient(p: &[f32], ds: &mut [f32], dbias: &mut [f32], tp: usize) {
        const L: usize = panel::PAD;
        for ((p, ds), dbias) in p.chunks_exact(tp).zip(ds.chunks_exact_mut(tp)).zip(dbias.chunks_exact_mut(tp)) {
            let mut along = [0.0f32; L];
            for (p, dp) in p.chunks_exact(L).zip(ds.chunks_exact(L)) {
                for l in 0..L { along[l] = madd::<FMA>(p[l], dp[l], along[l]); }
            }
            let along: f32 = along.iter().sum();
            for ((p, ds), dbias) in p.iter().zip(ds.iter_mut()).zip(dbias) {
                *ds = p * (*ds - along);
                *dbias += *ds;
            }
        }
    }
}

pub(super) fn gradient(geometry: &Geometry, heads: usize, io: &mut Io) {
    let (qkv, table) = (io.f32(0), io.f32(1));
    let (_, three_c) = io.matrix(0);
    let has_bias = io.inputs.len() == 4;
    let rows = Rows { qkv, bias: has_bias.then(|| io.f32(2)), three_c };
    let dy = io.f32(io.inputs.len() - 1);
    let (c, d, area) = (three_c / 3, three_c / 3 / heads, geometry.area);
    let (tp, dp, pool) = (padded(area), padded(d), io.pool);
    let scale = geometry.scale(d);
    let mut bias = pool.scratch(heads * area * tp);
    expand_table(geometry, table, heads, &mut bias);
    let bias = &*bias;

    let (count, range) = pieces(geometry.windows());
    // Each piece's sums: bias gradients of all pairs, then the padding's share of the qkv bias.
    let width = heads * area * tp + three_c;
    let mut partial = pool.scratch(count * width);
    let dqkv = io.outputs[0].f32();
    let dqkv = RowsMut { base: dqkv.as_mut_ptr(), len: dqkv.len() };
    partial.par_chunks_mut(width).enumerate().for_each(|(piece, sums)| {
        sums.fill(0.0);
        let (dpairs, dpadding) = sums.split_at_mut(heads * area * tp);
        let mut scratch = pool.scratch(Tiles::len(area, d, true));
        let mut tiles = Tiles::new(&mut scratch, area, d, true);
        for n in range(piece) {
            let window = geometry.window(n);
            for h in 0..heads {
                tiles.scores(geometry, &rows, bias, &window, h, d);
                gather(dy, None, c, h * d, window.first_token, window.index, 1.0, tiles.y, dp, d);
                let mut store = |part: usize, grad: &[f32], factor: f32| {
                    let column = part * c + h * d;
                    for (from, _) in grad.chunks_exact(dp).zip(window.index).filter(|(_, token)| **token == PADDING) {
                        lanes::axpy(factor, &from[..d], &mut dpadding[column..][..d]);
                    }
                    // SAFETY: these tokens belong to this window alone, these columns to this head and third.
                    unsafe { dqkv.scatter(&window, three_c, column, grad, dp, d, factor) };
                };
                // dV = Pᵀ·dY
                panel::product(area, dp, area, tiles.p, 1, tp, tiles.y, dp, tiles.grad, dp, false);
                store(2, tiles.grad, 1.0);
                // dP = dY·Vᵀ, then dS
                transpose(tiles.v, area, d, dp, tiles.vt, tp);
                panel::product(area, tp, d, tiles.y, dp, 1, tiles.vt, tp, tiles.ds, tp, false);
                softmax_gradient(tiles.p, tiles.ds, &mut dpairs[h * area * tp..][..area * tp], tp);
                // dQ = dS·K/√D, dK = dSᵀ·(Q/√D)
                panel::product(area, dp, area, tiles.ds, tp, 1, tiles.k, dp, tiles.grad, dp, false);
                store(0, tiles.grad, scale);
                panel::product(area, dp, area, tiles.ds, 1, tp, tiles.q, dp, tiles.grad, dp, false);
                store(1, tiles.grad, 1.0);
            }
        }
    });
    let (total, rest) = partial.split_at_mut(width);
    for sums in rest.chunks(width) {
        lanes::accumulate(sums, total);
    }
    let dtable = io.outputs[1].f32();
    dtable.fill(0.0);
    for h in 0..heads {
        for i in 0..area {
            for j in 0..area {
                dtable[geometry.relative[i * area + j] as usize * heads + h] += total[(h * area + i) * tp + j];
            }
        }
    }
    if has_bias {
        io.outputs[2].f32().copy_from_slice(&total[heads * area * tp..]);
    }
}
