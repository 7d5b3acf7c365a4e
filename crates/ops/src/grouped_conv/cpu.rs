use esvit_graph::Io;
use esvit_simd::gemm::{self, Product};
use esvit_simd::{Mat, MatMut, Pool};

use super::GroupedConv;
use crate::conv2d::cpu::{for_taps, gather, images_each, scatter, store};
use crate::filter::Span;
use crate::precision::rounding;

// ---------------------------------------------------------------- reference

/// Channels of one group, before and after.
fn per_group(op: &GroupedConv, channels: usize, out: usize) -> [usize; 2] {
    [channels / op.groups, out / op.groups]
}

pub(super) fn reference(op: &GroupedConv, io: &mut Io) {
    let (x, weight) = (io.f32(0), io.f32(1));
    let ((_, channels), (out, cols), taps) = (io.matrix(0), io.matrix(1), op.filter.taps());
    let [before, after] = per_group(op, channels, out);
    let y = io.out();
    let mut sums = vec![0.0; y.len()];
    for_taps(op.filter, &op.layout, |to, from, tap| {
        for o in 0..out {
            let x = &x[from * channels + o / after * before..][..before];
            let taps = x.iter().enumerate().map(|(j, x)| f64::from(weight[o * cols + j * taps + tap]) * f64::from(*x));
            sums[to * out + o] += taps.sum::<f64>();
        }
    });
    store(&sums, y);
}

pub(super) fn input_gradient_reference(op: &GroupedConv, io: &mut Io) {
    let (dy, weight) = (io.f32(0), io.f32(1));
    let ((out, cols), taps) = (io.matrix(1), op.filter.taps());
    let channels = cols / taps * op.groups;
    let [before, after] = per_group(op, channels, out);
    let dx = io.out();
    let mut sums = vec![0.0; dx.len()];
    for_taps(op.filter, &op.layout, |to, from, tap| {
        for o in 0..out {
            for j in 0..before {
                let term = f64::from(dy[to * out + o]) * f64::from(weight[o * cols + j * taps + tap]);
                sums[from * channels + o / after * before + j] += term;
            }
        }
    });
    store(&sums, dx);
}

pub(super) fn weight_gradient_reference(op: &GroupedConv, io: &mut Io) {
    let (dy, x) = (io.f32(0), io.f32(1));
    let ((_, out), (_, channels), taps) = (io.matrix(0), io.matrix(1), op.filter.taps());
    let [before, after] = per_group(op, channels, out);
    let dw = io.out();
    let mut sums = vec![0.0; dw.len()];
    for_taps(op.filter, &op.layout, |to, from, tap| {
        for o in 0..out {
            for j in 0..before {
                let term = f64::from(dy[to * out + o]) * f64::from(x[from * channels + o / after * before + j]);
                sums[(o * before + j) * taps + tap] += term;
            }
        }
    });
    store(&sums, dw);
}

// ---------------------------------------------------------------- fast

// As in conv2d: products over a matrix of patches. A product of one narrow group would leave most of a register empty, so some groups are
// bundled: their weights become the blocks on the diagonal of a matrix that is zero elsewhere. The channels of a bundle are copied out of
// their rows first, and its results into theirs.

/// Columns that a product should have at least: those of a register.
const COLUMNS: usize = 16;

/// Bundles of groups that share products.
struct Bundles {
    /// Number of bundles.
    count: usize,
    /// Channels of a group before and after.
    group: [usize; 2],
    /// Channels of a bundle before and after.
    bundle: [usize; 2],
    taps: usize,
}

impl Bundles {
    fn new(op: &GroupedConv, channels: usize, out: usize) -> Bundles {
        let group = per_group(op, channels, out);
        let wide = |groups: usize| op.groups.is_multiple_of(groups) && groups * group[1] >= COLUMNS;
        let groups = (1..=op.groups).find(|&groups| wide(groups)).unwrap_or(op.groups);
        let bundle = group.map(|channels| channels * groups);
        Bundles { count: op.groups / groups, group, bundle, taps: op.filter.taps() }
    }

    /// Columns of a matrix of patches.
    fn patch(&self) -> usize {
        self.bundle[0] * self.taps
    }

    /// Images of every segment, a matrix of patches at a time; each piece counts its tokens from its own first one.
    fn pieces(&self, op: &GroupedConv) -> Vec<(Span, Span)> {
        let cut = |s: Span| {
            let each = images_each(&s, self.patch());
            (0..s.images.div_ceil(each)).map(move |i| s.part(i * each..((i + 1) * each).min(s.images)))
        };
        let own = |s: Span| (s, Span { first: 0, out_first: 0, ..s });
        Span::all(&op.layout, &op.output()).into_iter().flat_map(cut).map(own).collect()
    }

    /// Rows of `weight` (`[O, I/G, k·k]`) and of the blocks (`[O of the bundle, k·k, I of the bundle]`) that mean the same weight.
    fn for_weights(&self, bundle: usize, mut f: impl FnMut(usize, usize)) {
        let [before, after] = self.group;
        for o in 0..self.bundle[1] {
            for j in 0..before {
                for tap in 0..self.taps {
                    let weight = ((bundle * self.bundle[1] + o) * before + j) * self.taps + tap;
                    f(weight, (o * self.taps + tap) * self.bundle[0] + o / after * before + j);
                }
            }
        }
    }

    fn blocks(&self, bundle: usize, weight: &[f32], blocks: &mut [f32]) {
        blocks.fill(0.0);
        self.for_weights(bundle, |from, to| blocks[to] = weight[from]);
    }
}

/// Rows of a copy that one thread takes at a time.
const ROWS: usize = 256;

/// The columns of a bundle, `[rows, narrow]`, out of `[rows, wide]`.
fn take(from: &[f32], wide: usize, bundle: usize, to: &mut [f32], narrow: usize, pool: &Pool) {
    pool.for_rows(to, narrow, ROWS, |first, rows| {
        for (n, row) in rows.chunks_mut(narrow).enumerate() {
            row.copy_from_slice(&from[(first + n) * wide + bundle * narrow..][..narrow]);
        }
    });
}

/// The other way round.
fn put(from: &[f32], narrow: usize, bundle: usize, to: &mut [f32], wide: usize, pool: &Pool) {
    pool.for_rows(to, wide, ROWS, |first, rows| {
        for (n, row) in rows.chunks_mut(wide).enumerate() {
            row[bundle * narrow..][..narrow].copy_from_slice(&from[(first + n) * narrow..][..narrow]);
        }
    });
}

/// Floats of scratch memory: blocks, the channels of a bundle before and after, patches.
fn room(op: &GroupedConv, b: &Bundles) -> [usize; 4] {
    let spans = Span::all(&op.layout, &op.output());
    let most = |area: fn(&Span) -> usize| spans.iter().map(|s| images_each(s, b.patch()) * area(s)).max().unwrap_or(0);
    let (tokens, rows) = (most(Span::area), most(Span::out_area));
    [b.bundle[1] * b.patch(), tokens * b.bundle[0], rows * b.bundle[1], rows * b.patch()]
}

/// Bytes of scratch memory, with what the products take.
pub(super) fn scratch(op: &GroupedConv, channels: usize, out: usize, threads: usize) -> usize {
    let b = Bundles::new(op, channels, out);
    let room = room(op, &b);
    let (after, rows) = (b.bundle[1], room[3] / b.patch().max(1));
    let products = [(rows, after, b.patch()), (rows, b.patch(), after), (after, b.patch(), rows)];
    let products = products.map(|(m, n, k)| gemm::scratch(m, n, k, threads)).into_iter().max().unwrap_or(0);
    4 * room.iter().sum::<usize>() + products
}

/// The parts of the scratch memory.
fn parts(memory: &mut [f32], room: [usize; 4]) -> [&mut [f32]; 4] {
    let (blocks, memory) = memory.split_at_mut(room[0]);
    let (before, memory) = memory.split_at_mut(room[1]);
    let (after, patches) = memory.split_at_mut(room[2]);
    [blocks, before, after, patches]
}

pub(super) fn fast(op: &GroupedConv, io: &mut Io) {
    let (x, weight, pool) = (io.f32(0), io.f32(1), io.pool);
    let ((_, channels), (out, _)) = (io.matrix(0), io.matrix(1));
    let b = Bundles::new(op, channels, out);
    let ([before, after], patch, room) = (b.bundle, b.patch(), room(op, &b));
    let how = Product { rounding: rounding(io.precision), parallel: true, ..Default::default() };
    let y = io.out();
    let mut memory = pool.scratch(room.iter().sum());
    let [blocks, own_x, own_y, patches] = parts(&mut memory, room);
    for bundle in 0..b.count {
        b.blocks(bundle, weight, blocks);
        for (s, own) in b.pieces(op) {
            let (tokens, rows) = (s.images * s.area(), s.images * s.out_area());
            take(&x[s.rows(channels)], channels, bundle, &mut own_x[..tokens * before], before, pool);
            gather(op.filter, &own, own_x, before, &mut patches[..rows * patch], pool);
            how.run(Mat::new(patches, rows, patch), Mat::new(blocks, after, patch).t(), MatMut::new(own_y, rows, after), pool);
            put(own_y, after, bundle, &mut y[s.out_rows(out)], out, pool);
        }
    }
}

pub(super) fn input_gradient(op: &GroupedConv, io: &mut Io) {
    let (dy, weight, pool) = (io.f32(0), io.f32(1), io.pool);
    let (out, cols) = io.matrix(1);
    let channels = cols / op.filter.taps() * op.groups;
    let b = Bundles::new(op, channels, out);
    let ([before, after], patch, room) = (b.bundle, b.patch(), room(op, &b));
    let how = Product { rounding: rounding(io.precision), parallel: true, ..Default::default() };
    let dx = io.out();
    let mut memory = pool.scratch(room.iter().sum());
    let [blocks, own_dx, own_dy, patches] = parts(&mut memory, room);
    for bundle in 0..b.count {
        b.blocks(bundle, weight, blocks);
        for (s, own) in b.pieces(op) {
            let (tokens, rows) = (s.images * s.area(), s.images * s.out_area());
            take(&dy[s.out_rows(out)], out, bundle, &mut own_dy[..rows * after], after, pool);
            how.run(Mat::new(own_dy, rows, after), Mat::new(blocks, after, patch), MatMut::new(patches, rows, patch), pool);
            scatter(op.filter, &own, &patches[..rows * patch], before, &mut own_dx[..tokens * before]);
            put(own_dx, before, bundle, &mut dx[s.rows(channels)], channels, pool);
        }
    }
}

pub(super) fn weight_gradient(op: &GroupedConv, io: &mut Io) {
    let (dy, x, pool) = (io.f32(0), io.f32(1), io.pool);
    let ((_, out), (_, channels)) = (io.matrix(0), io.matrix(1));
    let b = Bundles::new(op, channels, out);
    let ([before, after], patch, room) = (b.bundle, b.patch(), room(op, &b));
    let how = Product { rounding: rounding(io.precision), accumulate: true, parallel: true, ..Default::default() };
    let dw = io.out();
    let mut memory = pool.scratch(room.iter().sum());
    let [blocks, own_x, own_dy, patches] = parts(&mut memory, room);
    for bundle in 0..b.count {
        blocks.fill(0.0);
        for (s, own) in b.pieces(op) {
            let (tokens, rows) = (s.images * s.area(), s.images * s.out_area());
            take(&x[s.rows(channels)], channels, bundle, &mut own_x[..tokens * before], before, pool);
            take(&dy[s.out_rows(out)], out, bundle, &mut own_dy[..rows * after], after, pool);
            gather(op.filter, &own, own_x, before, &mut patches[..rows * patch], pool);
            let c = MatMut::new(blocks, after, patch);
            how.run(Mat::new(own_dy, rows, after).t(), Mat::new(patches, rows, patch), c, pool);
        }
        // Off the diagonal are gradients of weights that do not exist.
        b.for_weights(bundle, |to, from| dw[to] = blocks[from]);
    }
}
