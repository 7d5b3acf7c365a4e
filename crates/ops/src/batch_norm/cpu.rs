use esvit_graph::Io;
use esvit_simd::cpu::madd;
use esvit_simd::{Pool, multiversion};
use rayon::prelude::*;

use super::{EPS, ranges};

// ---------------------------------------------------------------- reference

/// Mean and biased variance of a column, in f64.
fn moments(x: &[f32], cols: usize, c: usize) -> (f32, f32) {
    let n = (x.len() / cols) as f64;
    let column = || x.iter().skip(c).step_by(cols).map(|&v| v as f64);
    let mean = column().sum::<f64>() / n;
    (mean as f32, (column().map(|v| (v - mean).powi(2)).sum::<f64>() / n) as f32)
}

fn apply_reference(x: &[f32], gamma: &[f32], beta: &[f32], mean: &[f32], var: &[f32], y: &mut [f32]) {
    let cols = gamma.len();
    let scale: Vec<f32> = (0..cols).map(|c| gamma[c] / (var[c] + EPS).sqrt()).collect();
    for (x, y) in x.chunks(cols).zip(y.chunks_mut(cols)) {
        for c in 0..cols {
            y[c] = (x[c] - mean[c]) * scale[c] + beta[c];
        }
    }
}

pub(super) fn batch_reference(groups: &[usize], io: &mut Io) {
    let (x, gamma, beta) = (io.f32(0), io.f32(1), io.f32(2));
    let cols = gamma.len();
    let [y, statistics @ ..] = &mut io.outputs[..] else { unreachable!("y and statistics") };
    for (rows, statistics) in ranges(groups).zip(statistics.chunks_mut(2)) {
        let [mean, var] = statistics else { unreachable!("a mean and a variance") };
        let (mean, var) = (mean.f32(), var.f32());
        let range = rows.start * cols..rows.end * cols;
        for c in 0..cols {
            (mean[c], var[c]) = moments(&x[range.clone()], cols, c);
        }
        apply_reference(&x[range.clone()], gamma, beta, mean, var, &mut y.f32()[range]);
    }
}

pub(super) fn eval_reference(io: &mut Io) {
    let (x, gamma, beta, mean, var) = (io.f32(0), io.f32(1), io.f32(2), io.f32(3), io.f32(4));
    apply_reference(x, gamma, beta, mean, var, io.out());
}

pub(super) fn gradient_reference(groups: &[usize], io: &mut Io, through_statistics: bool) {
    let (x, gamma, dy) = (io.f32(0), io.f32(1), io.f32(2));
    let cols = gamma.len();
    let statistics = io.inputs[3..].to_vec();
    let [dx, dgamma, dbeta] = io.outs();
    dgamma.fill(0.0);
    dbeta.fill(0.0);
    for (rows, statistics) in ranges(groups).zip(statistics.chunks(2)) {
        let (mean, var) = (statistics[0].f32(), statistics[1].f32());
        for c in 0..cols {
            let (center, rstd) = (f64::from(mean[c]), 1.0 / f64::from(var[c] + EPS).sqrt());
            let xhat = |r: usize| (f64::from(x[r * cols + c]) - center) * rstd;
            let sum: f64 = rows.clone().map(|r| f64::from(dy[r * cols + c])).sum();
            let sum_xhat: f64 = rows.clone().map(|r| f64::from(dy[r * cols + c]) * xhat(r)).sum();
            dgamma[c] += sum_xhat as f32;
            dbeta[c] += sum as f32;
            for r in rows.clone() {
                let through = if through_statistics { (sum + xhat(r) * sum_xhat) / rows.len() as f64 } else { 0.0 };
                dx[r * cols + c] = (f64::from(gamma[c]) * rstd * (f64::from(dy[r * cols + c]) - through)) as f32;
            }
        }
    }
}

// ---------------------------------------------------------------- fast

/// Rows of a piece: each adds up on its own in single precision, the pieces are added in double precision, in order.
const PIECE: usize = 128;

/// Bytes of scratch memory for the largest group's pieces, two sums each.
pub(super) fn scratch(groups: &[usize], cols: usize) -> usize {
    groups.iter().map(|rows| 4 * rows.div_ceil(PIECE) * 2 * cols).max().unwrap_or(0)
}

/// Two sums of each column over some rows: `add(elements, sums of 2·cols)` adds those of a piece.
fn two_sums(pool: &Pool, rows: std::ops::Range<usize>, cols: usize, add: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync) -> Vec<f64> {
    let mut partial = pool.scratch(rows.len().div_ceil(PIECE) * 2 * cols);
    partial.par_chunks_mut(2 * cols).enumerate().for_each(|(i, sums)| {
        sums.fill(0.0);
        let (from, to) = (rows.start + i * PIECE, (rows.start + (i + 1) * PIECE).min(rows.end));
        add(from * cols..to * cols, sums);
    });
    let mut total = vec![0.0; 2 * cols];
    for sums in partial.chunks(2 * cols) {
        total.iter_mut().zip(sums).for_each(|(total, &sum)| *total += f64::from(sum));
    }
    total
}

multiversion! {
    /// `sums[0] += x`, `sums[1] += (x − at)²`, row by row.
    fn add_moments(x: &[f32], at: &[f32], sums: &mut [f32]) {
        let cols = at.len();
        let (sum, squares) = sums.split_at_mut(cols);
        for x in x.chunks_exact(cols) {
            for c in 0..cols {
                let d = x[c] - at[c];
                sum[c] += d;
                squares[c] = madd::<FMA>(d, d, squares[c]);
            }
        }
    }
}

multiversion! {
    /// `sums[0] += dy`, `sums[1] += dy·(x − mean)`, row by row.
    fn add_gradients(x: &[f32], dy: &[f32], mean: &[f32], sums: &mut [f32]) {
        let cols = mean.len();
        let (sum, along) = sums.split_at_mut(cols);
        for (x, dy) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)) {
            for c in 0..cols {
                sum[c] += dy[c];
                along[c] = madd::<FMA>(dy[c], x[c] - mean[c], along[c]);
            }
        }
    }
}

multiversion! {
    /// `y = (x − mean)·scale + beta`.
    fn apply_rows(x: &[f32], mean: &[f32], scale: &[f32], beta: &[f32], y: &mut [f32]) {
        let cols = mean.len();
        for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
            for c in 0..cols { y[c] = madd::<FMA>(x[c] - mean[c], scale[c], beta[c]); }
        }
    }
}

multiversion! {
    /// `dx = a·dy − b − c·(x − mean)`.
    fn gradient_rows(x: &[f32], dy: &[f32], mean: &[f32], a: &[f32], b: &[f32], c: &[f32], dx: &mut [f32]) {
        let cols = mean.len();
        for ((x, dy), dx) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)).zip(dx.chunks_exact_mut(cols)) {
            for i in 0..cols { dx[i] = madd::<FMA>(a[i], dy[i], -b[i]) - c[i] * (x[i] - mean[i]); }
        }
    }
}

/// Rows of a piece of the passes that write.
fn rows_each(cols: usize) -> usize {
    (16384 / cols).max(1)
}

fn apply(pool: &Pool, x: &[f32], gamma: &[f32], beta: &[f32], mean: &[f32], var: &[f32], y: &mut [f32]) {
    let cols = gamma.len();
    let scale: Vec<f32> = gamma.iter().zip(var).map(|(gamma, var)| gamma / (var + EPS).sqrt()).collect();
    pool.for_rows(y, cols, rows_each(cols), |first, y| apply_rows(&x[first * cols..][..y.len()], mean, &scale, beta, y));
}

pub(super) fn batch(groups: &[usize], io: &mut Io) {
    let (x, gamma, beta, pool) = (io.f32(0), io.f32(1), io.f32(2), io.pool);
    let cols = gamma.len();
    let [y, statistics @ ..] = &mut io.outputs[..] else { unreachable!("y and statistics") };
    for (rows, statistics) in ranges(groups).zip(statistics.chunks_mut(2)) {
        let [mean, var] = statistics else { unreachable!("a mean and a variance") };
        let (mean, var, n) = (mean.f32(), var.f32(), rows.len() as f64);
        let zero = vec![0.0; cols];
        let sums = two_sums(pool, rows.clone(), cols, |range, sums| add_moments(&x[range], &zero, sums));
        mean.iter_mut().zip(&sums).for_each(|(mean, sum)| *mean = (sum / n) as f32);
        // About the rounded mean: what rounding moved it by is taken off again.
        let sums = two_sums(pool, rows.clone(), cols, |range, sums| add_moments(&x[range], mean, sums));
        for (c, var) in var.iter_mut().enumerate() {
            *var = (sums[cols + c] / n - (sums[c] / n).powi(2)).max(0.0) as f32;
        }
        let range = rows.start * cols..rows.end * cols;
        apply(pool, &x[range.clone()], gamma, beta, mean, var, &mut y.f32()[range]);
    }
}

pub(super) fn eval(io: &mut Io) {
    let (x, gamma, beta, mean, var, pool) = (io.f32(0), io.f32(1), io.f32(2), io.f32(3), io.f32(4), io.pool);
    apply(pool, x, gamma, beta, mean, var, io.out());
}

pub(super) fn gradient(groups: &[usize], io: &mut Io, through_statistics: bool) {
    let (x, gamma, dy, pool) = (io.f32(0), io.f32(1), io.f32(2), io.pool);
    let cols = gamma.len();
    let statistics = io.inputs[3..].to_vec();
    let [dx, dgamma, dbeta] = io.outs();
    dgamma.fill(0.0);
    dbeta.fill(0.0);
    for (rows, statistics) in ranges(groups).zip(statistics.chunks(2)) {
        let (mean, var) = (statistics[0].f32(), statistics[1].f32());
        let sums = two_sums(pool, rows.clone(), cols, |range, sums| add_gradients(&x[range.clone()], &dy[range], mean, sums));
        let mut factors = vec![0.0; 3 * cols];
        let (a, rest) = factors.split_at_mut(cols);
        let (b, c) = rest.split_at_mut(cols);
        let share = if through_statistics { 1.0 / rows.len() as f64 } else { 0.0 };
        for i in 0..cols {
            let rstd = 1.0 / f64::from(var[i] + EPS).sqrt();
            let scale = f64::from(gamma[i]) * rstd;
            dgamma[i] += (sums[cols + i] * rstd) as f32;
            dbeta[i] += sums[i] as f32;
            (a[i], b[i]) = (scale as f32, (scale * share * sums[i]) as f32);
            c[i] = (scale * share * rstd * rstd * sums[cols + i]) as f32;
        }
        let (a, b, c) = (&*a, &*b, &*c);
        let range = rows.start * cols..rows.end * cols;
        let (x, dy) = (&x[range.clone()], &dy[range.clone()]);
        pool.for_rows(&mut dx[range], cols, rows_each(cols), |first, dx| {
            let range = first * cols..first * cols + dx.len();
            gradient_rows(&x[range.clone()], &dy[range], mean, a, b, c, dx);
        });
    }
}
