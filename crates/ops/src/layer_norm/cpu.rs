use esvit_graph::{Io, SliceMut};
use esvit_simd::cpu::madd;
use esvit_simd::{half, lanes, multiversion};
use rayon::prelude::*;

use crate::column_sums::column_sums;

pub(super) fn reference(io: &mut Io, eps: f32) {
    let (x, gamma, beta) = (io.f32(0), io.f32(1), io.f32(2));
    let cols = gamma.len();
    let [y, stats] = io.outs();
    for ((x, y), stats) in x.chunks(cols).zip(y.chunks_mut(cols)).zip(stats.chunks_mut(2)) {
        let mean = x.iter().sum::<f32>() / cols as f32;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / cols as f32;
        let rstd = 1.0 / (var + eps).sqrt();
        for c in 0..cols {
            y[c] = (x[c] - mean) * rstd * gamma[c] + beta[c];
        }
        stats.copy_from_slice(&[mean, rstd]);
    }
}

pub(super) fn fast(io: &mut Io, eps: f32) {
    let (x, gamma, beta) = (io.f32(0), io.f32(1), io.f32(2));
    let cols = gamma.len();
    let rows = lanes::piece_rows(cols);
    let [y, stats] = &mut io.outputs[..] else { unreachable!("a layer norm has two results") };
    let normalized = |((y, stats), x): ((&mut [f32], &mut [f32]), &[f32])| {
        for ((x, y), stats) in x.chunks(cols).zip(y.chunks_mut(cols)).zip(stats.chunks_mut(2)) {
            stats.copy_from_slice(&lanes::layer_norm(x, gamma, beta, eps, y));
        }
    };
    let (stats, x) = (stats.f32().par_chunks_mut(rows * 2), x.par_chunks(rows * cols));
    match y {
        SliceMut::F32(y) => y.par_chunks_mut(rows * cols).zip(stats).zip(x).for_each(normalized),
        SliceMut::U32(words) => words.par_chunks_mut(rows * cols / 2).zip(stats).zip(x).for_each(|((words, stats), x)| {
            let mut y = vec![0.0; x.len()];
            normalized(((&mut y, stats), x));
            half::round(&y, words);
        }),
    }
}

pub(super) fn input_gradient_reference(io: &mut Io) {
    let (x, gamma, stats, dy) = (io.f32(0), io.f32(1), io.f32(2), io.f32(3));
    let cols = gamma.len();
    for (r, dx) in io.out().chunks_mut(cols).enumerate() {
        let (mean, rstd) = (stats[2 * r], stats[2 * r + 1]);
        let h = |c: usize| dy[r * cols + c] * gamma[c];
        let xhat = |c: usize| (x[r * cols + c] - mean) * rstd;
        let mean_h = (0..cols).map(h).sum::<f32>() / cols as f32;
        let mean_hx = (0..cols).map(|c| h(c) * xhat(c)).sum::<f32>() / cols as f32;
        for (c, dx) in dx.iter_mut().enumerate() {
            *dx = rstd * (h(c) - mean_h - xhat(c) * mean_hx);
        }
    }
}

multiversion! {
    fn input_gradient_row(x: &[f32], gamma: &[f32], mean: f32, rstd: f32, dy: &[f32], dx: &mut [f32]) {
        let cols = dx.len();
        let (x, gamma, dy) = (&x[..cols], &gamma[..cols], &dy[..cols]);
        let (mut sum_h, mut sum_hx) = ([0.0f32; lanes::LANES], [0.0f32; lanes::LANES]);
        let whole = cols / lanes::LANES * lanes::LANES;
        for start in (0..whole).step_by(lanes::LANES) {
            for l in 0..lanes::LANES {
                let c = start + l;
                let h = dy[c] * gamma[c];
                sum_h[l] += h;
                sum_hx[l] = madd::<FMA>(h, (x[c] - mean) * rstd, sum_hx[l]);
            }
        }
        for c in whole..cols {
            let h = dy[c] * gamma[c];
            sum_h[c - whole] += h;
            sum_hx[c - whole] = madd::<FMA>(h, (x[c] - mean) * rstd, sum_hx[c - whole]);
        }
        let mean_h = sum_h.iter().sum::<f32>() / cols as f32;
        let mean_hx = sum_hx.iter().sum::<f32>() / cols as f32;
        for c in 0..cols {
            let xhat = (x[c] - mean) * rstd;
            dx[c] = rstd * (madd::<FMA>(dy[c], gamma[c], -mean_h) - xhat * mean_hx);
        }
    }
}

pub(super) fn input_gradient(io: &mut Io) {
    let (x, gamma, stats, dy) = (io.f32(0), io.f32(1), io.f32(2), io.f32(3));
    let cols = gamma.len();
    let rows = lanes::piece_rows(cols);
    io.out().par_chunks_mut(rows * cols).enumerate().for_each(|(piece, dx)| {
        for (i, dx) in dx.chunks_mut(cols).enumerate() {
            let r = piece * rows + i;
            let row = r * cols..(r + 1) * cols;
            input_gradient_row(&x[row.clone()], gamma, stats[2 * r], stats[2 * r + 1], &dy[row], dx);
        }
    });
}

pub(super) fn scale_gradient_reference(io: &mut Io) {
    let (x, stats, dy) = (io.f32(0), io.f32(1), io.f32(2));
    let (rows, cols) = io.matrix(0);
    let [dgamma, dbeta] = io.outs();
    for c in 0..cols {
        let term = |r: usize| dy[r * cols + c] as f64;
        dbeta[c] = (0..rows).map(term).sum::<f64>() as f32;
        dgamma[c] = (0..rows).map(|r| term(r) * ((x[r * cols + c] - stats[2 * r]) * stats[2 * r + 1]) as f64).sum::<f64>() as f32;
    }
}

multiversion! {
    fn scale_gradient_row(x: &[f32], mean: f32, rstd: f32, dy: &[f32], dgamma: &mut [f32], dbeta: &mut [f32]) {
        let cols = dgamma.len();
        let (x, dy, dbeta) = (&x[..cols], &dy[..cols], &mut dbeta[..cols]);
        for c in 0..cols {
            dgamma[c] = madd::<FMA>(dy[c], (x[c] - mean) * rstd, dgamma[c]);
            dbeta[c] += dy[c];
        }
    }
}

pub(super) fn scale_gradient(io: &mut Io) {
    let (x, stats, dy) = (io.f32(0), io.f32(1), io.f32(2));
    let (rows, cols) = io.matrix(0);
    let pool = io.pool;
    let mut both = pool.scratch(2 * cols);
    column_sums(pool, rows, 2 * cols, &mut both, |range, sums| {
        let (dgamma, dbeta) = sums.split_at_mut(cols);
        for r in range {
            let row = r * cols..(r + 1) * cols;
            scale_gradient_row(&x[row.clone()], stats[2 * r], stats[2 * r + 1], &dy[row], dgamma, dbeta);
        }
    });
    let [dgamma, dbeta] = io.outs();
    dgamma.copy_from_slice(&both[..cols]);
    dbeta.copy_from_slice(&both[cols..]);
}
