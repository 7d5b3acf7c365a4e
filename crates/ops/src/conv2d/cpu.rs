use esvit_graph::{Io, Precision, Prepacked, Shape, Slice};
use esvit_simd::gemm::{self, Packed, Product};
use esvit_simd::{Mat, MatMut, Pool, lanes};
use rayon::prelude::*;

use super::Conv2d;
use crate::Layout;
use crate::filter::{Filter, Span};
use crate::precision::rounding;

// ---------------------------------------------------------------- reference

/// Calls `f(row of y, row of x, ky·k + kx)` for every tap that is inside its grid.
pub(crate) fn for_taps(filter: Filter, layout: &Layout, mut f: impl FnMut(usize, usize, usize)) {
    let k = filter.kernel;
    for s in Span::all(layout, &filter.output(layout)) {
        for n in 0..s.images * s.out_area() {
            let (image, t) = (n / s.out_area(), n % s.out_area());
            for tap in 0..k * k {
                let row = filter.input_of(t / s.out_width, tap / k, s.height);
                let col = filter.input_of(t % s.out_width, tap % k, s.width);
                if let (Some(row), Some(col)) = (row, col) {
                    f(s.out_first + n, s.first + image * s.area() + row * s.width + col, tap);
                }
            }
        }
    }
}

pub(crate) fn store(sums: &[f64], out: &mut [f32]) {
    out.iter_mut().zip(sums).for_each(|(y, &sum)| *y = sum as f32);
}

pub(super) fn reference(op: &Conv2d, io: &mut Io) {
    let (x, weight) = (io.f32(0), io.f32(1));
    let bias = io.inputs.get(2).map(|b| b.f32());
    let ((_, channels), (out, patch), taps) = (io.matrix(0), io.matrix(1), op.filter.taps());
    let y = io.out();
    let mut sums: Vec<f64> = (0..y.len()).map(|i| bias.map_or(0.0, |b| f64::from(b[i % out]))).collect();
    for_taps(op.filter, &op.layout, |to, from, tap| {
        for o in 0..out {
            let taps = (0..channels).map(|i| f64::from(weight[o * patch + i * taps + tap]) * f64::from(x[from * channels + i]));
            sums[to * out + o] += taps.sum::<f64>();
        }
    });
    store(&sums, y);
}

pub(super) fn input_gradient_reference(op: &Conv2d, io: &mut Io) {
    let (dy, weight) = (io.f32(0), io.f32(1));
    let ((out, patch), taps) = (io.matrix(1), op.filter.taps());
    let channels = patch / taps;
    let dx = io.out();
    let mut sums = vec![0.0; dx.len()];
    for_taps(op.filter, &op.layout, |to, from, tap| {
        for i in 0..channels {
            let outs = (0..out).map(|o| f64::from(dy[to * out + o]) * f64::from(weight[o * patch + i * taps + tap]));
            sums[from * channels + i] += outs.sum::<f64>();
        }
    });
    store(&sums, dx);
}

pub(super) fn weight_gradient_reference(op: &Conv2d, io: &mut Io) {
    let (dy, x) = (io.f32(0), io.f32(1));
    let ((_, out), (_, channels), taps) = (io.matrix(0), io.matrix(1), op.filter.taps());
    let dw = io.out();
    let mut sums = vec![0.0; dw.len()];
    for_taps(op.filter, &op.layout, |to, from, tap| {
        for o in 0..out {
            for i in 0..channels {
                sums[(o * channels + i) * taps + tap] += f64::from(dy[to * out + o]) * f64::from(x[from * channels + i]);
            }
        }
    });
    store(&sums, dw);
}

// ---------------------------------------------------------------- fast

// Products over a matrix of patches `[tokens of y, k·k·I]`, made for a few images at a time. Its columns are in the order
// (ky, kx, i), in which the taps of a row of the kernel are one run of memory; the weights are brought into that order once a call.

/// Elements of the matrix of patches: 8 MB, about what the last-level cache gives one of several users; an image needs more than that
/// only where it is larger.
const PATCHES: usize = 2 << 20;

/// Images that share a matrix of patches.
pub(crate) fn images_each(s: &Span, patch: usize) -> usize {
    (PATCHES / (s.out_area() * patch).max(1)).clamp(1, s.images.max(1))
}

/// Images of every segment, a matrix of patches at a time.
fn pieces(op: &Conv2d, patch: usize) -> Vec<Span> {
    let cut = |s: Span| {
        let each = images_each(&s, patch);
        (0..s.images.div_ceil(each)).map(move |i| s.part(i * each..((i + 1) * each).min(s.images)))
    };
    Span::all(&op.layout, &op.output()).into_iter().flat_map(cut).collect()
}

/// Bytes of scratch memory: patches, weights (or their gradient) in the order of the patches, and what the products take.
pub(super) fn scratch(op: &Conv2d, out: usize, patch: usize, threads: usize) -> usize {
    let rows = Span::all(&op.layout, &op.output()).iter().map(|s| images_each(s, patch) * s.out_area()).max().unwrap_or(0);
    let products = [(rows, out, patch), (rows, patch, out), (out, patch, rows)].map(|(m, n, k)| gemm::scratch(m, n, k, threads));
    4 * (rows * patch + out * patch) + products.into_iter().max().unwrap_or(0)
}

/// `[O, I, k·k]` to `[O, k·k, I]`.
fn taps_outside(from: &[f32], taps: usize, to: &mut [f32], channels: usize) {
    for (from, to) in from.chunks(taps * channels).zip(to.chunks_mut(taps * channels)) {
        for (tap, to) in to.chunks_mut(channels).enumerate() {
            to.iter_mut().enumerate().for_each(|(i, v)| *v = from[i * taps + tap]);
        }
    }
}

/// `[O, k·k, I]` to `[O, I, k·k]`.
fn taps_inside(from: &[f32], taps: usize, to: &mut [f32], channels: usize) {
    for (from, to) in from.chunks(taps * channels).zip(to.chunks_mut(taps * channels)) {
        for (tap, from) in from.chunks(channels).enumerate() {
            from.iter().enumerate().for_each(|(i, v)| to[i * taps + tap] = *v);
        }
    }
}

/// Calls `f(first column of the patch, first token of the image's grid, tokens)` for every run of taps of output `t`.
fn for_runs(filter: Filter, s: &Span, t: usize, channels: usize, mut f: impl FnMut(usize, usize, usize)) {
    let (row, col) = (t / s.out_width, t % s.out_width);
    let xs = filter.taps_inside(col, s.width);
    if xs.is_empty() {
        return;
    }
    let first = col * filter.stride + xs.start - filter.padding;
    for ky in filter.taps_inside(row, s.height) {
        let at = row * filter.stride + ky - filter.padding;
        f((ky * filter.kernel + xs.start) * channels, at * s.width + first, xs.len());
    }
}

/// The patches of a piece, `[tokens of y, k·k·I]`.
pub(crate) fn gather(filter: Filter, s: &Span, x: &[f32], channels: usize, patches: &mut [f32], pool: &Pool) {
    let patch = filter.taps() * channels;
    pool.for_rows(patches, patch, (16384 / patch).max(1), |first, rows| {
        for (n, row) in rows.chunks_mut(patch).enumerate() {
            let (image, t) = ((first + n) / s.out_area(), (first + n) % s.out_area());
            let inside = filter.taps_inside(t / s.out_width, s.height).len() * filter.taps_inside(t % s.out_width, s.width).len();
            if inside < filter.taps() {
                row.fill(0.0);
            }
            let image = &x[(s.first + image * s.area()) * channels..][..s.area() * channels];
            for_runs(filter, s, t, channels, |column, token, tokens| {
                row[column..column + tokens * channels].copy_from_slice(&image[token * channels..(token + tokens) * channels]);
            });
        }
    });
}

/// The patches' gradients added up where they came from; `dx` is that of the piece.
pub(crate) fn scatter(filter: Filter, s: &Span, patches: &[f32], channels: usize, dx: &mut [f32]) {
    let patch = filter.taps() * channels;
    dx.par_chunks_mut(s.area() * channels).zip(patches.par_chunks(s.out_area() * patch)).for_each(|(dx, patches)| {
        dx.fill(0.0);
        for (t, row) in patches.chunks(patch).enumerate() {
            for_runs(filter, s, t, channels, |column, token, tokens| {
                lanes::accumulate(&row[column..column + tokens * channels], &mut dx[token * channels..(token + tokens) * channels]);
            });
        }
    });
}

pub(super) fn fast(op: &Conv2d, io: &mut Io) {
    let x = io.f32(0);
    let bias = io.inputs.get(2).map(|b| b.f32());
    let ((_, channels), (out, patch), pool) = (io.matrix(0), io.matrix(1), io.pool);
    let packed = io.prepacked.and_then(|p| p.downcast_ref::<Packed>());
    let mut w = pool.scratch(if packed.is_some() { 0 } else { out * patch });
    if packed.is_none() {
        taps_outside(io.f32(1), op.filter.taps(), &mut w, channels);
    }
    let how = Product { rounding: rounding(io.precision), bias, parallel: true, ..Default::default() };
    let y = io.out();
    for s in pieces(op, patch) {
        let rows = s.images * s.out_area();
        let mut patches = pool.scratch(rows * patch);
        gather(op.filter, &s, x, channels, &mut patches, pool);
        let y = MatMut::new(&mut y[s.out_rows(out)], rows, out);
        let patches = Mat::new(&patches, rows, patch);
        match packed {
            Some(weight) => how.run_packed(patches, weight, y, pool),
            None => how.run(patches, Mat::new(&w, out, patch).t(), y, pool),
        }
    }
}

/// Weights that do not change, in the order of the products.
pub(super) fn prepack(op: &Conv2d, weight: Option<Slice>, shape: &Shape, precision: Precision) -> Option<Prepacked> {
    let (out, patch) = (shape[0], shape[1]);
    let mut w = vec![0.0; out * patch];
    taps_outside(weight?.f32(), op.filter.taps(), &mut w, patch / op.filter.taps());
    let packed = Packed::new(Mat::new(&w, out, patch).t(), rounding(precision))?;
    Some(Prepacked { bytes: packed.bytes(), value: Box::new(packed), replaces: vec![1] })
}

pub(super) fn input_gradient(op: &Conv2d, io: &mut Io) {
    let (dy, weight) = (io.f32(0), io.f32(1));
    let ((out, patch), pool) = (io.matrix(1), io.pool);
    let channels = patch / op.filter.taps();
    let mut w = pool.scratch(out * patch);
    taps_outside(weight, op.filter.taps(), &mut w, channels);
    let how = Product { rounding: rounding(io.precision), parallel: true, ..Default::default() };
    let dx = io.out();
    for s in pieces(op, patch) {
        let rows = s.images * s.out_area();
        let mut patches = pool.scratch(rows * patch);
        let dy = Mat::new(&dy[s.out_rows(out)], rows, out);
        how.run(dy, Mat::new(&w, out, patch), MatMut::new(&mut patches, rows, patch), pool);
        scatter(op.filter, &s, &patches, channels, &mut dx[s.rows(channels)]);
    }
}

pub(super) fn weight_gradient(op: &Conv2d, io: &mut Io) {
    let (dy, x) = (io.f32(0), io.f32(1));
    let ((_, out), (_, channels), pool) = (io.matrix(0), io.matrix(1), io.pool);
    let patch = channels * op.filter.taps();
    let mut dw = pool.scratch(out * patch);
    dw.fill(0.0);
    let how = Product { rounding: rounding(io.precision), accumulate: true, parallel: true, ..Default::default() };
    for s in pieces(op, patch) {
        let rows = s.images * s.out_area();
        let mut patches = pool.scratch(rows * patch);
        gather(op.filter, &s, x, channels, &mut patches, pool);
        let dy = Mat::new(&dy[s.out_rows(out)], rows, out).t();
        how.run(dy, Mat::new(&patches, rows, patch), MatMut::new(&mut dw, out, patch), pool);
    }
    taps_inside(&dw, op.filter.taps(), io.out(), channels);
}
