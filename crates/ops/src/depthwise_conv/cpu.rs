use esvit_graph::Io;
use esvit_simd::cpu::madd;
use esvit_simd::multiversion;

use super::DepthwiseConv;
use crate::column_sums::column_sums;
use crate::filter::Span;

// ---------------------------------------------------------------- reference

/// Calls `f(row of y, row of x, ky·k + kx)` for every tap that is inside its grid.
fn for_taps(op: &DepthwiseConv, mut f: impl FnMut(usize, usize, usize)) {
    let k = op.filter.kernel;
    for s in Span::all(&op.layout, &op.output) {
        for n in 0..s.images * s.out_area() {
            let (image, t) = (n / s.out_area(), n % s.out_area());
            for tap in 0..k * k {
                let row = op.filter.input_of(t / s.out_width, tap / k, s.height);
                let col = op.filter.input_of(t % s.out_width, tap % k, s.width);
                if let (Some(row), Some(col)) = (row, col) {
                    f(s.out_first + n, s.first + image * s.area() + row * s.width + col, tap);
                }
            }
        }
    }
}

pub(super) fn reference(op: &DepthwiseConv, io: &mut Io) {
    let (x, weight, taps) = (io.f32(0), io.f32(1), op.filter.taps());
    let (_, cols) = io.matrix(0);
    let y = io.out();
    y.fill(0.0);
    for_taps(op, |to, from, tap| {
        for c in 0..cols {
            y[to * cols + c] += weight[c * taps + tap] * x[from * cols + c];
        }
    });
}

pub(super) fn input_gradient_reference(op: &DepthwiseConv, io: &mut Io) {
    let (dy, weight, taps) = (io.f32(0), io.f32(1), op.filter.taps());
    let (_, cols) = io.matrix(0);
    let dx = io.out();
    dx.fill(0.0);
    for_taps(op, |to, from, tap| {
        for c in 0..cols {
            dx[from * cols + c] += weight[c * taps + tap] * dy[to * cols + c];
        }
    });
}

pub(super) fn weight_gradient_reference(op: &DepthwiseConv, io: &mut Io) {
    let (dy, x, taps) = (io.f32(0), io.f32(1), op.filter.taps());
    let (_, cols) = io.matrix(0);
    let dw = io.out();
    let mut sums = vec![0.0; dw.len()];
    for_taps(op, |to, from, tap| {
        for c in 0..cols {
            sums[c * taps + tap] += f64::from(dy[to * cols + c]) * f64::from(x[from * cols + c]);
        }
    });
    dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw = sum as f32);
}

// ---------------------------------------------------------------- fast

multiversion! {
    /// `to += a ⊙ b`.
    fn add_product(a: &[f32], b: &[f32], to: &mut [f32]) {
        for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) { *to = madd::<FMA>(a, b, *to); }
    }
}

/// `[C, k·k]` to `[k·k, C]`: a tap's weights are then a run of memory, like a token's channels.
fn taps_outside(weight: &[f32], taps: usize, to: &mut [f32]) {
    let cols = weight.len() / taps;
    for (tap, to) in to.chunks_mut(cols).enumerate() {
        to.iter_mut().enumerate().for_each(|(c, v)| *v = weight[c * taps + tap]);
    }
}

/// Elements of one piece of parallel work.
const PIECE: usize = 16384;

pub(super) fn fast(op: &DepthwiseConv, io: &mut Io) {
    let (x, weight, filter, pool) = (io.f32(0), io.f32(1), op.filter, io.pool);
    let (_, cols) = io.matrix(0);
    let mut w = pool.scratch(weight.len());
    taps_outside(weight, filter.taps(), &mut w);
    let w = &*w;
    let y = io.out();
    for s in Span::all(&op.layout, &op.output) {
        pool.for_rows(&mut y[s.out_rows(cols)], cols, (PIECE / cols).max(1), |first, rows| {
            for (n, y) in rows.chunks_mut(cols).enumerate() {
                let (image, t) = ((first + n) / s.out_area(), (first + n) % s.out_area());
                let (row, col) = (t / s.out_width, t % s.out_width);
                y.fill(0.0);
                for ky in filter.taps_inside(row, s.height) {
                    for kx in filter.taps_inside(col, s.width) {
                        let at = (row * filter.stride + ky - filter.padding) * s.width + col * filter.stride + kx - filter.padding;
                        let token = s.first + image * s.area() + at;
                        add_product(&w[(ky * filter.kernel + kx) * cols..][..cols], &x[token * cols..][..cols], y);
                    }
                }
            }
        });
    }
}

pub(super) fn input_gradient(op: &DepthwiseConv, io: &mut Io) {
    let (dy, weight, filter, pool) = (io.f32(0), io.f32(1), op.filter, io.pool);
    let (_, cols) = io.matrix(0);
    let mut w = pool.scratch(weight.len());
    taps_outside(weight, filter.taps(), &mut w);
    let w = &*w;
    let dx = io.out();
    for s in Span::all(&op.layout, &op.output) {
        pool.for_rows(&mut dx[s.rows(cols)], cols, (PIECE / cols).max(1), |first, rows| {
            for (n, dx) in rows.chunks_mut(cols).enumerate() {
                let (image, t) = ((first + n) / s.area(), (first + n) % s.area());
                dx.fill(0.0);
                for ky in 0..filter.kernel {
                    let Some(row) = filter.output_of(t / s.width, ky, s.out_height) else { continue };
                    for kx in 0..filter.kernel {
                        let Some(col) = filter.output_of(t % s.width, kx, s.out_width) else { continue };
                        let token = s.out_first + image * s.out_area() + row * s.out_width + col;
                        add_product(&w[(ky * filter.kernel + kx) * cols..][..cols], &dy[token * cols..][..cols], dx);
                    }
                }
            }
        });
    }
}

pub(super) fn weight_gradient(op: &DepthwiseConv, io: &mut Io) {
    let (dy, x, filter, pool) = (io.f32(0), io.f32(1), op.filter, io.pool);
    let ((rows, cols), taps) = (io.matrix(0), op.filter.taps());
    let spans = Span::all(&op.layout, &op.output);
    let mut dw = pool.scratch(taps * cols);
    column_sums(pool, rows, taps * cols, &mut dw, |range, sums| {
        for s in &spans {
            let end = s.out_first + s.images * s.out_area();
            for out in range.start.max(s.out_first)..range.end.min(end) {
                let (image, t) = ((out - s.out_first) / s.out_area(), (out - s.out_first) % s.out_area());
                let (row, col) = (t / s.out_width, t % s.out_width);
                for ky in filter.taps_inside(row, s.height) {
                    for kx in filter.taps_inside(col, s.width) {
                        let at = (row * filter.stride + ky - filter.padding) * s.width + col * filter.stride + kx - filter.padding;
                        let token = s.first + image * s.area() + at;
                        let sums = &mut sums[(ky * filter.kernel + kx) * cols..][..cols];
                        add_product(&dy[out * cols..][..cols], &x[token * cols..][..cols], sums);
                    }
                }
            }
        }
    });
    for (c, to) in io.out().chunks_mut(taps).enumerate() {
        to.iter_mut().enumerate().for_each(|(tap, v)| *v = dw[tap * cols + c]);
    }
}
