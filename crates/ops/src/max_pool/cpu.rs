use esvit_graph::Io;
use rayon::prelude::*;

use super::MaxPool;
use crate::filter::Span;

pub(super) fn reference(op: &MaxPool, io: &mut Io) {
    let (x, k) = (io.f32(0), op.filter.kernel);
    let (_, cols) = io.matrix(0);
    let [y, taps] = &mut io.outputs[..] else { unreachable!("two results") };
    let (y, taps) = (y.f32(), taps.u32());
    for s in Span::all(&op.layout, &op.output()) {
        for n in 0..s.images * s.out_area() {
            let (image, t) = (n / s.out_area(), n % s.out_area());
            for c in 0..cols {
                let at = (s.out_first + n) * cols + c;
                y[at] = f32::NEG_INFINITY;
                for tap in 0..k * k {
                    let row = op.filter.input_of(t / s.out_width, tap / k, s.height);
                    let col = op.filter.input_of(t % s.out_width, tap % k, s.width);
                    let (Some(row), Some(col)) = (row, col) else { continue };
                    let v = x[(s.first + image * s.area() + row * s.width + col) * cols + c];
                    if v > y[at] || v.is_nan() {
                        (y[at], taps[at]) = (v, tap as u32);
                    }
                }
            }
        }
    }
}

pub(super) fn fast(op: &MaxPool, io: &mut Io) {
    let x = io.f32(0);
    let (_, cols) = io.matrix(0);
    let filter = op.filter;
    let [y, taps] = &mut io.outputs[..] else { unreachable!("two results") };
    let (y, taps) = (y.f32(), taps.u32());
    for s in Span::all(&op.layout, &op.output()) {
        let line = s.out_width * cols;
        let rows = y[s.out_rows(cols)].par_chunks_mut(line).zip(taps[s.out_rows(cols)].par_chunks_mut(line));
        rows.enumerate().for_each(|(n, (y, taps))| {
            let (image, row) = (n / s.out_height, n % s.out_height);
            let x = &x[(s.first + image * s.area()) * cols..][..s.area() * cols];
            for (col, (y, taps)) in y.chunks_mut(cols).zip(taps.chunks_mut(cols)).enumerate() {
                y.fill(f32::NEG_INFINITY);
                for ky in filter.taps_inside(row, s.height) {
                    for kx in filter.taps_inside(col, s.width) {
                        let token = (row * filter.stride + ky - filter.padding) * s.width + col * filter.stride + kx - filter.padding;
                        let tap = (ky * filter.kernel + kx) as u32;
                        for ((y, taps), &v) in y.iter_mut().zip(taps.iter_mut()).zip(&x[token * cols..][..cols]) {
                            let wins = v > *y || v.is_nan();
                            *y = if wins { v } else { *y };
                            *taps = if wins { tap } else { *taps };
                        }
                    }
                }
            }
        });
    }
}

/// Images in parallel: windows overlap, images do not.
pub(super) fn gradient(op: &MaxPool, io: &mut Io) {
    let (dy, taps, filter) = (io.f32(0), io.inputs[1].u32(), op.filter);
    let (_, cols) = io.matrix(0);
    let dx = io.out();
    for s in Span::all(&op.layout, &op.output()) {
        let out = s.out_area() * cols;
        let images = dx[s.rows(cols)].par_chunks_mut(s.area() * cols);
        images.zip(dy[s.out_rows(cols)].par_chunks(out)).zip(taps[s.out_rows(cols)].par_chunks(out)).for_each(|((dx, dy), taps)| {
            dx.fill(0.0);
            for (i, (dy, &tap)) in dy.iter().zip(taps).enumerate() {
                let (t, tap) = (i / cols, tap as usize);
                let row = t / s.out_width * filter.stride + tap / filter.kernel - filter.padding;
                let col = t % s.out_width * filter.stride + tap % filter.kernel - filter.padding;
                dx[(row * s.width + col) * cols + i % cols] += dy;
            }
        });
    }
}
