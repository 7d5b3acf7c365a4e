//! A block of queries in mixed precision: operands of products are rounded to bf16 as they are gathered and as the softmax leaves them,
//! sums are f32. Keys are rows and queries are columns, scores are logarithms to the base 2, as in window attention.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use bytemuck::cast_slice_mut;
use esvit_simd::bf16x2::softmax::{ScoreTile, SoftmaxGradient};
use esvit_simd::bf16x2::{Bf16Product, BiasRows, RowPart, Scores, lanes, pack_rows, pack_transposed, pack_vnni, words};
use esvit_simd::panel::padded;

use super::block::{BLOCK, BlockResults, BlockSizes, QueryBlock};
use super::geometry::{PADDING, QueryGroup};
use super::operands::AttentionHead;
use crate::aligned::{ALIGN, aligned};

/// Length of a row of scores.
const LINE: usize = BLOCK;

/// Tiles of a block of queries and `Tk` keys, `D` channels: f32, and words of two bf16 ([`esvit_simd::bf16x2`]).
pub(super) struct Bf16Block<'s> {
    max: &'s mut [f32],         // [LINE]
    inverse: &'s mut [f32],     // [LINE]
    bias: &'s mut [f32],        // [Tk, LINE]
    s: &'s mut [f32],           // [Tk, LINE]
    packed: [&'s mut [u32]; 3], // rows of q, k, v
    qt: &'s mut [u32],          // Q transposed
    v_across: &'s mut [u32],    // V, pairs of keys; forward only
    scores: &'s mut [u32],      // P; or dS, pairs of keys
    results: &'s mut [f32],     // [BLOCK, Dp]: y or dq
    // Backward only:
    along: &'s mut [f32],       // [LINE]
    dy: &'s mut [u32],          // rows
    dyt: &'s mut [u32],         // dY transposed
    across: [&'s mut [u32]; 3], // k, q, dy: pairs of keys, pairs of queries
    dp: &'s mut [f32],          // [Tk, LINE]
    p: &'s mut [u32],           // rows
    ds: &'s mut [u32],          // rows
    dbias: &'s mut [f32],       // [Tk, LINE]
    dk: &'s mut [f32],          // [Tk, Dp]
    dv: &'s mut [f32],          // [Tk, Dp]
    rows: Vec<*const f32>,
}

impl Bf16Block<'_> {
    /// Packs a block of queries and makes their scores with all keys.
    fn scores(&mut self, head: &AttentionHead, group: &QueryGroup, block: Range<usize>, bias: Option<&[f32]>) {
        let (nq, tk, d) = (block.len(), group.keys.len(), head.d);
        if let Some(bias) = bias {
            for (j, row) in self.bias.chunks_exact_mut(LINE).enumerate().take(tk) {
                for (s, i) in row.iter_mut().zip(block.clone()) {
                    *s = LOG2_E * bias[group.slot(i, j)];
                }
            }
        }
        let first = head.image.first_query;
        place(&mut self.rows, &group.queries[block], head.from.q, head.from.q_width, first);
        let part = RowPart { column: head.columns[0], scale: LOG2_E / (d as f32).sqrt(), to: self.packed[0].as_mut_ptr() };
        self.max[..nq].fill(f32::NEG_INFINITY);
        let product =
            Bf16Product { steps: d.div_ceil(2), a: self.packed[1].as_ptr(), a_row: words(d), a_step: 1, b: self.qt.as_ptr(), b_step: LINE };
        let bias = bias.map(|_| BiasRows { base: self.bias.as_mut_ptr(), starts: &[] });
        let scores = Scores { bias, masks: None, line: LINE, to: self.s.as_mut_ptr(), max: self.max.as_mut_ptr() };
        // SAFETY: these tiles are made only where the CPU multiplies bf16 (`rounds`); rows of q have the head's columns, and all tiles
        // are as large as the largest block, group and D make them.
        unsafe {
            pack_rows(&self.rows, d, 1, &[part]);
            pack_transposed(self.packed[0].as_ptr(), nq, d, self.qt.as_mut_ptr(), LINE);
            product.scores(tk, 0..nq, &scores);
        }
    }

    fn tile(&mut self, rows: usize, columns: usize) -> ScoreTile {
        ScoreTile { rows, columns: 0..columns, line: LINE, factor: 1.0, s: self.s.as_mut_ptr() }
    }
}

/// Collects pointers to rows of a matrix; null for padding.
fn place(rows: &mut Vec<*const f32>, which: &[u32], from: &[f32], width: usize, first: usize) {
    rows.clear();
    rows.extend(which.iter().map(|&row| match row {
        PADDING => std::ptr::null(),
        row => from[(first + row as usize) * width..][..width].as_ptr(),
    }));
}

impl<'s> QueryBlock<'s> for Bf16Block<'s> {
    fn floats(sizes: &BlockSizes, backward: bool) -> usize {
        let &BlockSizes { rows, keys, d, .. } = sizes;
        let (scores, pairs, channels, dp) = (keys * LINE, keys.div_ceil(2) * LINE, d.div_ceil(2) * LINE, padded(d));
        let forward = ALIGN + 2 * LINE + 2 * scores + (rows + 2 * keys) * words(d) + channels + pairs + rows * dp;
        let across = |rows: usize| rows.div_ceil(2) * lanes(d);
        if !backward {
            return forward + across(keys);
        }
        forward + LINE + rows * words(d) + channels + across(keys) + 2 * across(rows) + 3 * scores + 2 * keys * dp
    }

    fn new(scratch: &'s mut [f32], sizes: &BlockSizes, backward: bool) -> Bf16Block<'s> {
        let &BlockSizes { rows, keys, d, .. } = sizes;
        let (scores, pairs, channels, dp) = (keys * LINE, keys.div_ceil(2) * LINE, d.div_ceil(2) * LINE, padded(d));
        let across = |rows: usize| rows.div_ceil(2) * lanes(d);
        let on = usize::from(backward);
        let mut scratch = aligned(scratch);
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        let zeroed = |tile: &'s mut [f32]| {
            tile.fill(0.0);
            tile
        };
        // Columns that no product writes are finite: what comes of them meets zeros.
        Bf16Block {
            max: take(LINE),
            inverse: zeroed(take(LINE)),
            bias: zeroed(take(scores)),
            s: zeroed(take(scores)),
            packed: [rows, keys, keys].map(|rows| cast_slice_mut(take(rows * words(d)))),
            qt: cast_slice_mut(take(channels)),
            v_across: cast_slice_mut(take((1 - on) * across(keys))),
            scores: cast_slice_mut(take(pairs)),
            results: take(rows * dp),
            along: zeroed(take(on * LINE)),
            dy: cast_slice_mut(take(on * rows * words(d))),
            dyt: cast_slice_mut(take(on * channels)),
            across: [keys, rows, rows].map(|rows| cast_slice_mut(take(on * across(rows)))),
            dp: zeroed(take(on * scores)),
            p: cast_slice_mut(take(on * scores / 2)),
            ds: cast_slice_mut(take(on * scores / 2)),
            dbias: take(on * scores),
            dk: take(on * keys * dp),
            dv: take(on * keys * dp),
            rows: Vec::new(),
        }
    }

    fn keys(&mut self, head: &AttentionHead, group: &QueryGroup, backward: bool) {
        let (tk, d, dp) = (group.keys.len(), head.d, padded(head.d));
        place(&mut self.rows, &group.keys, head.from.kv, head.from.kv_width, head.image.first_key);
        let [_, k, v] = &mut self.packed;
        let parts = [(1, k), (2, v)].map(|(part, to)| RowPart { column: head.columns[part], scale: 1.0, to: to.as_mut_ptr() });
        // SAFETY: as in `scores`, rows of k and v.
        unsafe {
            pack_rows(&self.rows, d, 1, &parts);
            match backward {
                true => pack_vnni(self.packed[1].as_ptr(), tk, d, self.across[0].as_mut_ptr()),
                false => pack_vnni(self.packed[2].as_ptr(), tk, d, self.v_across.as_mut_ptr()),
            }
        }
        if backward {
            self.dk[..tk * dp].fill(0.0);
            self.dv[..tk * dp].fill(0.0);
        }
    }

    fn forward(&mut self, head: &AttentionHead, group: &QueryGroup, block: Range<usize>, bias: Option<&[f32]>, log_sums: &mut [f32]) {
        let (nq, tk, d) = (block.len(), group.keys.len(), head.d);
        self.scores(head, group, block, bias);
        let tile = self.tile(tk, nq);
        let (a, b) = (self.scores.as_ptr(), self.v_across.as_ptr());
        let values = Bf16Product { steps: tk.div_ceil(2), a, a_row: 1, a_step: LINE, b, b_step: lanes(d) };
        // SAFETY: as in `scores`.
        unsafe {
            tile.exponentials_vnni(self.max.as_ptr(), self.inverse.as_mut_ptr(), self.scores.as_mut_ptr());
            values.store_rows(nq, d, 1.0, Some(&self.inverse[..nq]), false, self.results.as_mut_ptr(), padded(d));
        }
        for ((sum, max), inverse) in log_sums.iter_mut().zip(&self.max[..nq]).zip(&*self.inverse) {
            *sum = LN_2 * max - inverse.ln();
        }
    }

    fn backward(
        &mut self,
        head: &AttentionHead,
        group: &QueryGroup,
        block: Range<usize>,
        bias: Option<&[f32]>,
        dy: (&[f32], usize),
        // The sums are recomputed: they cost less than another operand's way into the tiles.
        _log_sums: &[f32],
        dbias: &mut [f32],
    ) {
        let (nq, tk, d, dp) = (block.len(), group.keys.len(), head.d, padded(head.d));
        self.scores(head, group, block.clone(), bias);
        place(&mut self.rows, &group.queries[block.clone()], dy.0, head.from.c, head.image.first_query);
        let part = RowPart { column: dy.1, scale: 1.0, to: self.dy.as_mut_ptr() };
        let (dp_tile, tile) = (self.dp.as_mut_ptr(), self.tile(tk, nq));
        self.along[..nq].fill(0.0);
        if !dbias.is_empty() {
            self.dbias[..tk * LINE].fill(0.0);
        }
        let gradient = SoftmaxGradient {
            dp: dp_tile,
            inverse: self.inverse.as_ptr(),
            column_dots: self.along.as_ptr(),
            dbias: (!dbias.is_empty()).then_some(BiasRows { base: self.dbias.as_mut_ptr(), starts: &[] }),
            p: self.p.as_mut_ptr(),
            ds: self.ds.as_mut_ptr(),
            ds_vnni: self.scores.as_mut_ptr(),
        };
        let step = lanes(d);
        let with_dy = Bf16Product {
            steps: d.div_ceil(2),
            a: self.packed[2].as_ptr(),
            a_row: words(d),
            a_step: 1,
            b: self.dyt.as_ptr(),
            b_step: LINE,
        };
        let [k, q, dy] = [0, 1, 2].map(|n| self.across[n].as_ptr());
        let dq = Bf16Product { steps: tk.div_ceil(2), a: self.scores.as_ptr(), a_row: 1, a_step: LINE, b: k, b_step: step };
        let dk = Bf16Product { steps: nq.div_ceil(2), a: self.ds.as_ptr(), a_row: LINE / 2, a_step: 1, b: q, b_step: step };
        let dv = Bf16Product { a: self.p.as_ptr(), b: dy, ..dk };
        // SAFETY: as in `scores`, rows of dy.
        unsafe {
            pack_rows(&self.rows, d, 1, &[part]);
            pack_transposed(self.dy.as_ptr(), nq, d, self.dyt.as_mut_ptr(), LINE);
            pack_vnni(self.packed[0].as_ptr(), nq, d, self.across[1].as_mut_ptr());
            pack_vnni(self.dy.as_ptr(), nq, d, self.across[2].as_mut_ptr());
            tile.exponentials(self.max.as_ptr(), self.inverse.as_mut_ptr());
            // dPᵀ = V·dYᵀ, then dS
            with_dy.store_and_dot(tk, 0..nq, tile.s, LINE, dp_tile, self.along.as_mut_ptr());
            tile.gradient(&gradient);
            // dQ = dS·K/√D, dK += dSᵀ·Q/√D, dV += Pᵀ·dY, where rows of the tiles are keys; Q holds its factor already.
            dq.store_rows(nq, d, 1.0 / (d as f32).sqrt(), None, false, self.results.as_mut_ptr(), dp);
            dk.store_rows(tk, d, LN_2, None, true, self.dk.as_mut_ptr(), dp);
            dv.store_rows(tk, d, 1.0, None, true, self.dv.as_mut_ptr(), dp);
        }
        if !dbias.is_empty() {
            for (j, row) in self.dbias.chunks_exact(LINE).enumerate().take(tk) {
                for (ds, i) in row.iter().zip(block.clone()) {
                    dbias[group.slot(i, j)] += ds;
                }
            }
        }
    }

    fn results(&self, _d: usize) -> BlockResults<'_> {
        BlockResults { y: self.results, dq: self.results, dq_factor: 1.0, dk: self.dk, dv: self.dv }
    }
}
