use esvit_graph::Io;
use esvit_simd::cpu::madd;
use esvit_simd::panel::{self, padded};
use esvit_simd::{lanes, math, multiversion};
use rayon::prelude::*;

use super::Operands;
use super::geometry::{Geometry, Group, Image, PADDING};

/// Queries of a block: their scores with all keys stay in the second-level cache.
const BLOCK: usize = 64;
/// Pieces of images that each add up a bias gradient of their own.
const PIECES: usize = 16;

/// One image's rows of one head.
struct Head<'a> {
    from: Operands<'a>,
    image: Image<'a>,
    /// First column of the head's q, k and v.
    columns: [usize; 3],
    d: usize,
}

impl<'a> Head<'a> {
    fn new(from: Operands<'a>, image: Image<'a>, h: usize) -> Head<'a> {
        let d = from.c / from.heads;
        Head { columns: [h * d, from.key_column + h * d, from.value_column + h * d], from, image, d }
    }

    fn query(&self, row: u32) -> &'a [f32] {
        &self.from.q[(self.image.first_query + row as usize) * self.from.q_width + self.columns[0]..][..self.d]
    }

    /// k (part 1) or v (part 2) of a row, or nothing for padding.
    fn key(&self, part: usize, row: u32) -> Option<&'a [f32]> {
        let at = || (self.image.first_key + row as usize) * self.from.kv_width + self.columns[part];
        (row != PADDING).then(|| &self.from.kv[at()..][..self.d])
    }
}

// ---------------------------------------------------------------- reference

fn dot(x: &[f32], y: Option<&[f32]>) -> f32 {
    y.map_or(0.0, |y| x.iter().zip(y).map(|(x, y)| x * y).sum())
}

/// P of a query as the formula has it, and the logarithm of its sum.
fn probabilities(head: &Head, group: &Group, i: usize, h: usize) -> (Vec<f32>, f32) {
    let q = head.query(group.queries[i]);
    let scale = 1.0 / (head.d as f32).sqrt();
    let bias = |j| head.from.bias.map_or(0.0, |b| b[group.slot(i, j) * head.from.heads + h]);
    let mut p: Vec<f32> = group.keys.iter().enumerate().map(|(j, &key)| scale * dot(q, head.key(1, key)) + bias(j)).collect();
    let max = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    p.iter_mut().for_each(|s| *s = (*s - max).exp());
    let sum: f32 = p.iter().sum();
    p.iter_mut().for_each(|s| *s /= sum);
    (p, max + sum.ln())
}

/// Calls `f(head, h, group, i, row of the query)` for every query of every image and head.
fn for_each_query(geometry: &Geometry, from: Operands, mut f: impl FnMut(&Head, usize, &Group, usize, usize)) {
    for n in 0..geometry.images() {
        let image = geometry.image(n, from.draws);
        for h in 0..from.heads {
            let head = Head::new(from, image, h);
            for group in image.groups {
                for (i, &query) in group.queries.iter().enumerate() {
                    f(&head, h, group, i, image.first_query + query as usize);
                }
            }
        }
    }
}

pub(super) fn reference(geometry: &Geometry, from: Operands, io: &mut Io) {
    let [y, stats] = io.outs::<2>();
    y.fill(0.0);
    stats.fill(0.0);
    for_each_query(geometry, from, |head, h, group, i, row| {
        let (p, log_sum) = probabilities(head, group, i, h);
        stats[row * from.heads + h] = log_sum;
        for c in 0..head.d {
            let value = |&key: &u32| head.key(2, key).map_or(0.0, |v| v[c]);
            y[row * from.c + h * head.d + c] = p.iter().zip(&group.keys).map(|(p, key)| p * value(key)).sum();
        }
    });
}

pub(super) fn maps(geometry: &Geometry, from: Operands, io: &mut Io) {
    let out = io.out();
    out.fill(0.0);
    let mut at = 0;
    for n in 0..geometry.images() {
        let image = geometry.image(n, from.draws);
        for h in 0..from.heads {
            let head = Head::new(from, image, h);
            for group in image.groups {
                for (i, &query) in group.queries.iter().enumerate() {
                    for (p, &key) in probabilities(&head, group, i, h).0.iter().zip(&group.keys).filter(|(_, key)| **key != PADDING) {
                        out[at + query as usize * image.grid.key_rows + key as usize] += p;
                    }
                }
            }
            at += image.grid.query_rows * image.grid.key_rows;
        }
    }
}

pub(super) fn gradient_reference(geometry: &Geometry, from: Operands, io: &mut Io) {
    let dy = io.f32(io.inputs.len() - 1);
    let fused = from.is_fused();
    let mut outputs = io.outputs.iter_mut().map(|o| o.f32());
    let dq = outputs.next().expect("dq");
    let mut dkv = if fused { None } else { outputs.next() };
    let mut dbias = outputs.next();
    dq.fill(0.0);
    for more in [dkv.as_deref_mut(), dbias.as_deref_mut()].into_iter().flatten() {
        more.fill(0.0);
    }
    for_each_query(geometry, from, |head, h, group, i, row| {
        let (p, _) = probabilities(head, group, i, h);
        let (q, d) = (head.query(group.queries[i]), head.d);
        let scale = 1.0 / (d as f32).sqrt();
        let dy = &dy[row * from.c + h * d..][..d];
        let dp: Vec<f32> = group.keys.iter().map(|&key| dot(dy, head.key(2, key))).collect();
        let along: f32 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        for (j, &key) in group.keys.iter().enumerate() {
            let ds = p[j] * (dp[j] - along);
            if let Some(dbias) = dbias.as_deref_mut() {
                dbias[group.slot(i, j) * from.heads + h] += ds;
            }
            let Some(k) = head.key(1, key) else { continue };
            let to = (head.image.first_key + key as usize) * from.kv_width;
            for c in 0..d {
                dq[row * from.q_width + head.columns[0] + c] += ds * scale * k[c];
                let dkv = dkv.as_deref_mut().unwrap_or(dq);
                dkv[to + head.columns[1] + c] += ds * scale * q[c];
                dkv[to + head.columns[2] + c] += p[j] * dy[c];
            }
        }
    });
}

// ---------------------------------------------------------------- fast

/// A pointer that parallel work writes disjoint rows and columns through.
#[derive(Clone, Copy)]
struct RowsMut {
    base: *mut f32,
    len: usize,
    width: usize,
}

// SAFETY: units own different images or different heads, so what they write through copies of this pointer never overlaps;
// nobody reads it before the loop ends.
unsafe impl Send for RowsMut {}
// SAFETY: as above.
unsafe impl Sync for RowsMut {}

impl RowsMut {
    fn new(values: &mut [f32], width: usize) -> RowsMut {
        RowsMut { base: values.as_mut_ptr(), len: values.len(), width }
    }

    /// `from.len()` columns from `column` of a row become `factor·from`.
    ///
    /// # Safety
    /// No other unit reads or writes them.
    unsafe fn write(&self, row: usize, column: usize, from: &[f32], factor: f32) {
        let at = row * self.width + column;
        assert!(at + from.len() <= self.len);
        // SAFETY: inside the buffer (assert), exclusive by the caller's promise.
        let to = unsafe { std::slice::from_raw_parts_mut(self.base.add(at), from.len()) };
        lanes::scale(factor, from, to);
    }
}

/// Tiles of a block of queries and all keys of their group. `Tk` keys (padded to Tp), `D` channels (padded to Dp).
struct Tiles<'s> {
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

/// Sizes of the largest groups' tiles.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    keys: usize,
    /// Scores of a block.
    scores: usize,
    d: usize,
}

impl Sizes {
    fn of(geometry: &Geometry, d: usize) -> Sizes {
        let rows = |g: &Group| g.queries.len().min(BLOCK);
        // One group has many queries, another (a global token's) many keys.
        let scores = geometry.most(|g| rows(g) * padded(g.keys.len()));
        Sizes { rows: geometry.most(rows), keys: geometry.most(|g| g.keys.len()), scores, d }
    }

    fn len(self, backward: bool) -> usize {
        let (tp, dp) = (padded(self.keys), padded(self.d));
        let forward = 2 * self.rows * dp + self.scores + self.d * tp + self.keys * dp;
        if backward { forward + 3 * self.keys * dp + self.d * tp + self.scores + self.rows * dp } else { forward }
    }
}

impl<'s> Tiles<'s> {
    fn new(mut scratch: &'s mut [f32], sizes: Sizes, backward: bool) -> Tiles<'s> {
        let Sizes { rows, keys, scores, d } = sizes;
        let (tp, dp, on) = (padded(keys), padded(d), usize::from(backward));
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        Tiles {
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

    /// Gathers keys and values of a group.
    fn keys(&mut self, head: &Head, group: &Group, backward: bool) {
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

    /// Gathers a block of queries and leaves their biased scores in `p`, −∞ in the padding columns.
    fn scores(&mut self, head: &Head, group: &Group, block: std::ops::Range<usize>, bias: Option<&[f32]>) {
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

fn add_bias(row: &mut [f32], bias: &[f32], group: &Group, i: usize) {
    let (absolute, relative) = row.split_at_mut(group.absolute);
    let (own, slots) = group.key_slots.split_at(group.absolute);
    for (s, &slot) in absolute.iter_mut().zip(own) {
        *s += bias[slot as usize];
    }
    let bias = &bias[group.query_slots[i] as usize..];
    for (s, &slot) in relative.iter_mut().zip(slots) {
        *s += bias[slot as usize];
    }
}

fn add_bias_gradient(ds: &[f32], dbias: &mut [f32], group: &Group, i: usize) {
    let (own, slots) = group.key_slots.split_at(group.absolute);
    let (absolute, relative) = ds.split_at(group.absolute);
    for (ds, &slot) in absolute.iter().zip(own) {
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
    /// The same, transposed: `to[c, t]`.
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
    fn softmax_again(p: &mut [f32], tp: usize, stats: &[f32]) {
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

/// The bias with each head's column in one piece, `[H, R]`.
fn by_heads(bias: &[f32], heads: usize, to: &mut [f32]) {
    let rows = bias.len() / heads;
    for (h, to) in to.chunks_exact_mut(rows.max(1)).enumerate() {
        for (to, row) in to.iter_mut().zip(bias.chunks_exact(heads)) {
            *to = row[h];
        }
    }
}

/// Bytes of scratch memory a call takes: the bias by heads, each thread's tiles, and the sums of the backward pass.
pub(super) fn scratch(geometry: &Geometry, heads: usize, c: usize, threads: usize, backward: bool) -> usize {
    let d = c / heads;
    let bias = heads * geometry.bias_rows;
    let tiles = Sizes::of(geometry, d).len(backward) + if backward { 2 * most_keys(geometry) * padded(d) } else { 0 };
    let sums = if backward { geometry.images().min(PIECES) * bias } else { 0 };
    4 * (bias + threads.min(geometry.images() * heads) * (tiles + BLOCK) + sums)
}

fn most_keys(geometry: &Geometry) -> usize {
    geometry.grids.iter().map(|g| g.key_rows).max().unwrap_or(0)
}

/// Blocks of at most [`BLOCK`] queries.
fn blocks(group: &Group) -> impl Iterator<Item = std::ops::Range<usize>> {
    let queries = group.queries.len();
    (0..queries.div_ceil(BLOCK)).map(move |b| b * BLOCK..((b + 1) * BLOCK).min(queries))
}

pub(super) fn fast(geometry: &Geometry, from: Operands, io: &mut Io) {
    let (pool, heads, rows) = (io.pool, from.heads, geometry.bias_rows);
    let d = from.c / heads;
    let sizes = Sizes::of(geometry, d);
    let mut by_head = pool.scratch(heads * rows);
    if let Some(bias) = from.bias {
        by_heads(bias, heads, &mut by_head);
    }
    let by_head = &*by_head;
    let [y, stats] = io.outs::<2>();
    if !geometry.is_complete() {
        y.fill(0.0);
        stats.fill(0.0);
    }
    let (y, stats) = (RowsMut::new(y, from.c), RowsMut::new(stats, heads));
    (0..geometry.images() * heads).into_par_iter().for_each(|unit| {
        let (n, h) = (unit / heads, unit % heads);
        let image = geometry.image(n, from.draws);
        let head = Head::new(from, image, h);
        let bias = from.bias.map(|_| &by_head[h * rows..][..rows]);
        let mut scratch = pool.scratch(sizes.len(false));
        let mut tiles = Tiles::new(&mut scratch, sizes, false);
        let mut log_sums = [0.0; BLOCK];
        for group in image.groups {
            tiles.keys(&head, group, false);
            let (tk, dp) = (group.keys.len(), padded(d));
            let tp = padded(tk);
            for block in blocks(group) {
                let queries = &group.queries[block.clone()];
                tiles.scores(&head, group, block, bias);
                softmax(&mut tiles.p[..queries.len() * tp], tp, &mut log_sums);
                panel::product(queries.len(), dp, tk, tiles.p, tp, 1, tiles.v, dp, tiles.y, dp, false);
                for (i, &query) in queries.iter().enumerate() {
                    let row = image.first_query + query as usize;
                    // SAFETY: this image's rows and this head's columns are this unit's alone.
                    unsafe {
                        y.write(row, h * d, &tiles.y[i * dp..][..d], 1.0);
                        stats.write(row, h, &log_sums[i..i + 1], 1.0);
                    }
                }
            }
        }
    });
}

/// Images are cut into this many pieces, whatever the threads; each adds up its bias gradient.
fn pieces(images: usize, biased: bool) -> (usize, impl Fn(usize) -> std::ops::Range<usize>) {
    let pieces = if biased { images.min(PIECES) } else { images };
    (pieces, move |i| i * images / pieces..(i + 1) * images / pieces)
}

pub(super) fn gradient(geometry: &Geometry, from: Operands, io: &mut Io) {
    let (pool, heads, rows) = (io.pool, from.heads, geometry.bias_rows);
    let d = from.c / heads;
    let (dp, sizes) = (padded(d), Sizes::of(geometry, d));
    let count = io.inputs.len();
    let (stats, dy) = (io.f32(count - 2), io.f32(count - 1));
    let mut by_head = pool.scratch(heads * rows);
    if let Some(bias) = from.bias {
        by_heads(bias, heads, &mut by_head);
    }
    let by_head = &*by_head;

    let mut outputs = io.outputs.iter_mut().map(|o| o.f32());
    let dq = outputs.next().expect("dq");
    if !geometry.is_complete() {
        dq.fill(0.0);
    }
    let dq = RowsMut::new(dq, from.q_width);
    let dkv = if from.is_fused() { dq } else { RowsMut::new(outputs.next().expect("dkv"), from.kv_width) };
    let dbias = outputs.next();

    let (count, range) = pieces(geometry.images(), dbias.is_some());
    let mut sums = pool.scratch(if dbias.is_some() { count * heads * rows } else { 0 });
    let unit = |unit: usize, sums: &mut [f32]| {
        let (piece, h) = (unit / heads, unit % heads);
        sums.fill(0.0);
        let bias = from.bias.map(|_| &by_head[h * rows..][..rows]);
        let mut scratch = pool.scratch(sizes.len(true));
        let mut tiles = Tiles::new(&mut scratch, sizes, true);
        let mut totals = pool.scratch(2 * most_keys(geometry) * dp);
        for n in range(piece) {
            let image = geometry.image(n, from.draws);
            let head = Head::new(from, image, h);
            let key_rows = image.grid.key_rows;
            let (all_dk, all_dv) = totals[..2 * key_rows * dp].split_at_mut(key_rows * dp);
            all_dk.fill(0.0);
            all_dv.fill(0.0);
            for group in image.groups {
                tiles.keys(&head, group, true);
                let tk = group.keys.len();
                let tp = padded(tk);
                for block in blocks(group) {
                    let queries = &group.queries[block.clone()];
                    let nq = queries.len();
                    tiles.scores(&head, group, block.clone(), bias);
                    let mut log_sums = [0.0; BLOCK];
                    for (sum, &query) in log_sums.iter_mut().zip(queries) {
                        *sum = stats[(image.first_query + query as usize) * heads + h];
                    }
                    softmax_again(&mut tiles.p[..nq * tp], tp, &log_sums);
                    gather(dy, from.c, h * d, image.first_query, queries, 1.0, tiles.y, dp, d);
                    // dP = dY·Vᵀ, then dS
                    panel::product(nq, tp, d, tiles.y, dp, 1, tiles.vt, tp, tiles.ds, tp, false);
                    softmax_gradient(&tiles.p[..nq * tp], &mut tiles.ds[..nq * tp], tp);
                    if !sums.is_empty() {
                        for (ds, i) in tiles.ds.chunks_exact(tp).zip(block) {
                            add_bias_gradient(&ds[..tk], sums, group, i);
                        }
                    }
                    // dV += Pᵀ·dY, dQ = dS·K/√D, dK += dSᵀ·(Q/√D)
                    panel::product(tk, dp, nq, tiles.p, 1, tp, tiles.y, dp, tiles.dv, dp, true);
                    panel::product(nq, dp, tk, tiles.ds, tp, 1, tiles.k, dp, tiles.dq, dp, false);
                    panel::product(tk, dp, nq, tiles.ds, 1, tp, tiles.q, dp, tiles.dk, dp, true);
                    for (i, &query) in queries.iter().enumerate() {
                        let row = image.first_query + query as usize;
                        // SAFETY: this image's rows and this head's columns are this unit's alone.
                        unsafe { dq.write(row, head.columns[0], &tiles.dq[i * dp..][..d], 1.0 / (d as f32).sqrt()) };
                    }
                }
                for (k, &key) in group.keys.iter().enumerate().filter(|(_, key)| **key != PADDING) {
                    let to = key as usize * dp..(key as usize + 1) * dp;
                    lanes::accumulate(&tiles.dk[k * dp..][..dp], &mut all_dk[to.clone()]);
                    lanes::accumulate(&tiles.dv[k * dp..][..dp], &mut all_dv[to]);
                }
            }
            for row in 0..key_rows {
                // SAFETY: as above; q, k and v have different columns.
                unsafe {
                    dkv.write(image.first_key + row, head.columns[1], &all_dk[row * dp..][..d], 1.0);
                    dkv.write(image.first_key + row, head.columns[2], &all_dv[row * dp..][..d], 1.0);
                }
            }
        }
    };
    match dbias {
        None => (0..count * heads).into_par_iter().for_each(|u| unit(u, &mut [])),
        Some(dbias) => {
            sums.par_chunks_mut(rows).enumerate().for_each(|(u, sums)| unit(u, sums));
            let (total, rest) = sums.split_at_mut(heads * rows);
            for more in rest.chunks(heads * rows) {
                lanes::accumulate(more, total);
            }
            for (h, column) in total.chunks(rows).enumerate() {
                for (to, &v) in dbias.chunks_exact_mut(heads).zip(column) {
                    to[h] = v;
                }
            }
        }
    }
}
