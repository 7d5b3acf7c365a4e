use esvit_graph::{Io, Precision, Prepacked, Shape, Slice};
use esvit_simd::gemm::{Epilogue, Packed, Product};
use esvit_simd::{Mat, MatMut, Pool, lanes};

use crate::bf16x2::{operand, result};
use crate::column_sums::column_sums;
use crate::precision::rounding;

pub(super) fn reference(io: &mut Io) {
    let (x, weight) = (io.f32(0), io.f32(1));
    let bias = io.inputs.get(2).map(|b| b.f32());
    let ((_, width), (out, _)) = (io.matrix(0), io.matrix(1));
    for (x, y) in x.chunks(width).zip(io.out().chunks_mut(out)) {
        for (o, y) in y.iter_mut().enumerate() {
            let sum: f64 = x.iter().zip(&weight[o * width..]).map(|(&a, &b)| a as f64 * b as f64).sum();
            *y = sum as f32 + bias.map_or(0.0, |b| b[o]);
        }
    }
}

/// `y = x·Wᵀ + b`.
pub(super) fn fast(io: &mut Io, bias: Option<&[f32]>) {
    let ((rows, width), (out, _)) = (io.matrix(0), io.matrix(1));
    let how = Product { rounding: rounding(io.precision), bias, parallel: true, ..Default::default() };
    let (x, pool) = (operand(io, 0), io.pool);
    match io.prepacked.and_then(|p| p.downcast_ref::<Packed>()) {
        Some(weight) => how.run_packed(x, weight, result(&mut io.outputs[0], rows, out), pool),
        None => how.run(x, Mat::new(io.f32(1), out, width).t(), result(&mut io.outputs[0], rows, out), pool),
    }
}

/// Packs a weight that does not change in the order of the products.
pub(super) fn prepack(weight: Option<Slice>, shape: &Shape, precision: Precision) -> Option<Prepacked> {
    let packed = Packed::new(Mat::new(weight?.f32(), shape[0], shape[1]).t(), rounding(precision))?;
    Some(Prepacked { bytes: packed.bytes(), value: Box::new(packed), replaces: vec![1] })
}

pub(super) fn input_gradient_reference(io: &mut Io) {
    let (dy, weight) = (io.f32(0), io.f32(1));
    let (out, width) = io.matrix(1);
    for (dy, dx) in dy.chunks(out).zip(io.out().chunks_mut(width)) {
        for (i, dx) in dx.iter_mut().enumerate() {
            *dx = dy.iter().enumerate().map(|(o, &g)| g as f64 * weight[o * width + i] as f64).sum::<f64>() as f32;
        }
    }
}

/// `dx = epilogue(dy·W)`.
pub(crate) fn input_gradient(io: &mut Io, epilogue: Epilogue) {
    let (dy, weight) = (operand(io, 0), operand(io, 1));
    let ((rows, _), (_, width)) = (io.matrix(0), io.matrix(1));
    let pool = io.pool;
    let how = Product { rounding: rounding(io.precision), epilogue, parallel: true, ..Default::default() };
    how.run(dy, weight, result(&mut io.outputs[0], rows, width), pool);
}

/// Plain gradients of the weight and, as a second result, of the bias.
pub(super) fn weight_gradient_reference(io: &mut Io) {
    let (dy, x) = (io.f32(0), io.f32(1));
    let ((rows, out), (_, width)) = (io.matrix(0), io.matrix(1));
    let dw = io.out();
    for o in 0..out {
        for i in 0..width {
            dw[o * width + i] = (0..rows).map(|r| dy[r * out + o] as f64 * x[r * width + i] as f64).sum::<f64>() as f32;
        }
    }
    if let [_, db] = &mut io.outputs[..] {
        column_sum_plain(dy, db.f32());
    }
}

/// Gradient of the weight; the bias's comes with it where the product packs the columns of dy anyway.
pub(super) fn weight_gradient(io: &mut Io) {
    let ((_, out), (_, width)) = (io.matrix(0), io.matrix(1));
    let pool = io.pool;
    let how = Product { rounding: rounding(io.precision), parallel: true, ..Default::default() };
    let (a, b) = (operand(io, 0).t(), operand(io, 1));
    if let [dw, db] = &mut io.outputs[..] {
        if how.run_with_row_sums(a, b, MatMut::new(dw.f32(), out, width), db.f32(), pool) {
            return;
        }
        column_sum_fast(pool, io.inputs[0].f32(), out, db.f32());
    }
    how.run(a, b, MatMut::new(io.out(), out, width), pool);
}

pub(super) fn column_sum_reference(io: &mut Io) {
    column_sum_plain(io.f32(0), io.out());
}

pub(super) fn column_sum(io: &mut Io) {
    column_sum_fast(io.pool, io.f32(0), io.matrix(0).1, io.out());
}

fn column_sum_plain(x: &[f32], sums: &mut [f32]) {
    let cols = sums.len();
    for (c, sum) in sums.iter_mut().enumerate() {
        *sum = x.iter().skip(c).step_by(cols).map(|&v| v as f64).sum::<f64>() as f32;
    }
}

fn column_sum_fast(pool: &Pool, x: &[f32], cols: usize, sums: &mut [f32]) {
    column_sums(pool, x.len() / cols, cols, sums, |range, sums| {
        for row in x[range.start * cols..range.end * cols].chunks(cols) {
            lanes::accumulate(row, sums);
        }
    });
}
