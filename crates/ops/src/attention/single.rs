//! A block of queries in single precision, on the registers of any CPU.

use std::ops::Range;

use esvit_simd::cpu::madd;
use esvit_simd::panel::{self, padded};
use esvit_simd::{math, multiversion};

use super::block::{BlockResults, BlockSizes, QueryBlock};
use super::geometry::{PADDING, QueryGroup};
use super::operands::AttentionHead;

/// Tiles of a block of queries and all keys of their group. `Tk` keys (padded to Tp), `D` channels (padded to Dp).
pub(super) struct F32Block<'s> {
    q: &'s mut [f32],  // [BLOCK, Dp], scaled by 1/√D
    p: &'s mut [f32],  // [BLOCK, Tp]
    y: &'s mut [f32],  // [BLOCK, Dp]; in the backward pass the incoming gradient
    kt: &'s mut [f32], // [D, Tp]
    v: &'s mut [f32],  // [Tk, Dp]
    // Backward only:
    k: &'s mut [f32],  // [Tk, Dp]
    vt: &'s mut [f32], // [D, Tp]
    ds: &'s mut [f32], // [BLOCK, Tp]
    dq: &'s mut [f32], // [BLOCK, Dp]
    dk: &'s mut [f32], // [Tk, Dp]
    dv: &'s mut [f32], // [Tk, Dp]
}

impl F32Block<'_> {
    /// Gathers a block of queries and leaves their biased scores in `p`, −∞ in the padding columns.
    fn scores(&mut self, head: &AttentionHead, group: &QueryGroup, block: Range<usize>, bias: Option<&[f32]>) {
        let (tk, dp, d) = (group.keys.len(), padded(head.d), head.d);
        let tp = padded(tk);
        let queries = &group.queries[block.clone()];
        gather(head.from.q, head.from.q_width, head.columns[0], head.image.first_query, queries, 1.0 / (d as f32).sqrt(), self.q, dp, d);
        panel::product(queries.len(), tp, d, self.q, dp, 1, self.kt, tp, self.p, tp, false);
        for (row, i) in self.p.chunks_exact_mut(tp).zip(block) {
            row[tk..].fill(f32::NEG_INFINITY);
            if let Some(bias) = bias {
                add_bias(&mut row[..tk], bias, group, i);
            }
        }
    }
}

impl<'s> QueryBlock<'s> for F32Block<'s> {
    fn floats(sizes: &BlockSizes, backward: bool) -> usize {
        let (tp, dp, scores) = (padded(sizes.keys), padded(sizes.d), sizes.scores);
        let forward = 2 * sizes.rows * dp + scores + sizes.d * tp + sizes.keys * dp;
        if backward { forward + 3 * sizes.keys * dp + sizes.d * tp + scores + sizes.rows * dp } else { forward }
    }

    fn new(mut scratch: &'s mut [f32], sizes: &BlockSizes, backward: bool) -> F32Block<'s> {
        let &BlockSizes { rows, keys, d, .. } = sizes;
        let (tp, dp, scores, on) = (padded(keys), padded(d), sizes.scores, usize::from(backward));
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        F32Block {
            q: take(rows * dp),
            p: take(scores),
            y: take(rows * dp),
            kt: take(d * tp),
            v: take(keys * dp),
            k: take(on * keys * dp),
            vt: take(on * d * tp),
            ds: take(on * scores),
            dq: take(on * rows * dp),
            dk: take(on * keys * dp),
            dv: take(on * keys * dp),
        }
    }

    fn keys(&mut self, head: &AttentionHead, group: &QueryGroup, backward: bool) {
        let (tp, dp, d) = (padded(group.keys.len()), padded(head.d), head.d);
        let gather = |part, to: &mut [f32]| {
            gather(head.from.kv, head.from.kv_width, head.columns[part], head.image.first_key, &group.keys, 1.0, to, dp, d)
        };
        let transpose = |part, to: &mut [f32]| {
            transpose(head.from.kv, head.from.kv_width, head.columns[part], head.image.first_key, &group.keys, to, tp, d)
        };
        transpose(1, self.kt);
        gather(2, self.v);
        if backward {
            gather(1, self.k);
            transpose(2, self.vt);
            self.dk[..group.keys.len() * dp].fill(0.0);
            self.dv[..group.keys.len() * dp].fill(0.0);
        }
    }

    fn forward(&mut self, head: &AttentionHead, group: &QueryGroup, block: Range<usize>, bias: Option<&[f32]>, log_sums: &mut [f32]) {
        let (nq, tk, dp) = (block.len(), group.keys.len(), padded(head.d));
        let tp = padded(tk);
        self.scores(head, group, block, bias);
        softmax(&mut self.p[..nq * tp], tp, log_sums);
        panel::product(nq, dp, tk, self.p, tp, 1, self.v, dp, self.y, dp, false);
    }

    fn backward(
        &mut self,
        head: &AttentionHead,
        group: &QueryGroup,
        block: Range<usize>,
        bias: Option<&[f32]>,
        dy: (&[f32], usize),
        log_sums: &[f32],
        dbias: &mut [f32],
    ) {
        let (queries, tk, d) = (&group.queries[block.clone()], group.keys.len(), head.d);
        let (nq, tp, dp) = (queries.len(), padded(tk), padded(d));
        self.scores(head, group, block.clone(), bias);
        softmax_from_sums(&mut self.p[..nq * tp], tp, log_sums);
        gather(dy.0, head.from.c, dy.1, head.image.first_query, queries, 1.0, self.y, dp, d);
        // dP = dY·Vᵀ, then dS
        panel::product(nq, tp, d, self.y, dp, 1, self.vt, tp, self.ds, tp, false);
        softmax_gradient(&self.p[..nq * tp], &mut self.ds[..nq * tp], tp);
        if !dbias.is_empty() {
            for (ds, i) in self.ds.chunks_exact(tp).zip(block) {
                add_bias_gradient(&ds[..tk], dbias, group, i);
            }
        }
        // dV += Pᵀ·dY, dQ = dS·K/√D, dK += dSᵀ·(Q/√D)
        panel::product(tk, dp, nq, self.p, 1, tp, self.y, dp, self.dv, dp, true);
        panel::product(nq, dp, tk, self.ds, tp, 1, self.k, dp, self.dq, dp, false);
        panel::product(tk, dp, nq, self.ds, 1, tp, self.q, dp, self.dk, dp, true);
    }

    fn results(&self, d: usize) -> BlockResults<'_> {
        BlockResults { y: self.y, dq: self.dq, dq_factor: 1.0 / (d as f32).sqrt(), dk: self.dk, dv: self.dv }
    }
}

fn add_bias(row: &mut [f32], bias: &[f32], group: &QueryGroup, i: usize) {
    let (absolute, relative) = row.split_at_mut(group.absolute);
    let (fixed, slots) = group.key_slots.split_at(group.absolute);
    for (s, &slot) in absolute.iter_mut().zip(fixed) {
        *s += bias[slot as usize];
    }
    let bias = &bias[group.query_slots[i] as usize..];
    for (s, &slot) in relative.iter_mut().zip(slots) {
        *s += bias[slot as usize];
    }
}

fn add_bias_gradient(ds: &[f32], dbias: &mut [f32], group: &QueryGroup, i: usize) {
    let (fixed, slots) = group.key_slots.split_at(group.absolute);
    let (absolute, relative) = ds.split_at(group.absolute);
    for (ds, &slot) in absolute.iter().zip(fixed) {
        dbias[slot as usize] += ds;
    }
    let dbias = &mut dbias[group.query_slots[i] as usize..];
    for (ds, &slot) in relative.iter().zip(slots) {
        dbias[slot as usize] += ds;
    }
}

multiversion! {
    /// `to[t] = scale·from[first + row t]` for `d` columns from `column`; zeros for padding, of columns too.
    fn gather(from: &[f32], width: usize, column: usize, first: usize, rows: &[u32], scale: f32, to: &mut [f32], ld: usize, d: usize) {
        for (to, &row) in to.chunks_exact_mut(ld).zip(rows) {
            if row == PADDING { to.fill(0.0); continue; }
            to[d..].fill(0.0);
            let to = &mut to[..d];
            let from = &from[(first + row as usize) * width + column..][..d];
            for c in 0..d { to[c] = scale * from[c]; }
        }
    }
}

multiversion! {
    /// `to[c, t] = from[first + row t]` for `d` columns from `column`, [`gather`] transposed.
    fn transpose(from: &[f32], width: usize, column: usize, first: usize, rows: &[u32], to: &mut [f32], ld: usize, d: usize) {
        for c in 0..d { to[c * ld + rows.len()..(c + 1) * ld].fill(0.0); }
        for (t, &row) in rows.iter().enumerate() {
            if row == PADDING {
                for c in 0..d { to[c * ld + t] = 0.0; }
                continue;
            }
            let from = &from[(first + row as usize) * width + column..][..d];
            for c in 0..d { to[c * ld + t] = from[c]; }
        }
    }
}

multiversion! {
    /// Rows of scores become probabilities; `stats` gets the logarithm of each row's sum.
    fn softmax(p: &mut [f32], tp: usize, stats: &mut [f32]) {
        const L: usize = panel::PAD;
        for (row, stat) in p.chunks_exact_mut(tp).zip(stats) {
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
            let sum = sum.iter().sum::<f32>();
            let scale = 1.0 / sum;
            for s in row.iter_mut() { *s *= scale; }
            *stat = max + sum.ln();
        }
    }
}

multiversion! {
    /// Rows of scores become probabilities, whose sums are known.
    fn softmax_from_sums(p: &mut [f32], tp: usize, stats: &[f32]) {
        for (row, &stat) in p.chunks_exact_mut(tp).zip(stats) {
            for s in row.iter_mut() { *s = math::exp::<FMA>(*s - stat); }
        }
    }
}

multiversion! {
    /// `ds = p ⊙ (dp − Σ_j p·dp)`, row by row, in place of `dp`.
    fn softmax_gradient(p: &[f32], ds: &mut [f32], tp: usize) {
        const L: usize = panel::PAD;
        for (p, ds) in p.chunks_exact(tp).zip(ds.chunks_exact_mut(tp)) {
            let mut along = [0.0f32; L];
            for (p, dp) in p.chunks_exact(L).zip(ds.chunks_exact(L)) {
                for l in 0..L { along[l] = madd::<FMA>(p[l], dp[l], along[l]); }
            }
            let along: f32 = along.iter().sum();
            for (p, ds) in p.iter().zip(ds.iter_mut()) { *ds = p * (*ds - along); }
        }
    }
}
