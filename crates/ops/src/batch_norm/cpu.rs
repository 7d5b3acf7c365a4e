use esvit_graph::Io;

use super::EPS;

/// Mean and biased variance of a column, in f64: few columns, many rows.
fn moments(x: &[f32], cols: usize, c: usize) -> (f32, f32) {
    let n = (x.len() / cols) as f64;
    let column = || x.iter().skip(c).step_by(cols).map(|&v| v as f64);
    let mean = column().sum::<f64>() / n;
    (mean as f32, (column().map(|v| (v - mean).powi(2)).sum::<f64>() / n) as f32)
}

fn apply(x: &[f32], gamma: &[f32], beta: &[f32], mean: &[f32], var: &[f32], y: &mut [f32]) {
    let cols = gamma.len();
    let scale: Vec<f32> = (0..cols).map(|c| gamma[c] / (var[c] + EPS).sqrt()).collect();
    for (x, y) in x.chunks(cols).zip(y.chunks_mut(cols)) {
        for c in 0..cols {
            y[c] = (x[c] - mean[c]) * scale[c] + beta[c];
        }
    }
}

pub(super) fn batch(io: &mut Io) {
    let (x, gamma, beta) = (io.f32(0), io.f32(1), io.f32(2));
    let cols = gamma.len();
    let [y, mean, var] = io.outs();
    for c in 0..cols {
        (mean[c], var[c]) = moments(x, cols, c);
    }
    apply(x, gamma, beta, mean, var, y);
}

pub(super) fn eval(io: &mut Io) {
    let (x, gamma, beta, mean, var) = (io.f32(0), io.f32(1), io.f32(2), io.f32(3), io.f32(4));
    apply(x, gamma, beta, mean, var, io.out());
}

pub(super) fn gradient(io: &mut Io, through_statistics: bool) {
    let (x, gamma, mean, var, dy) = (io.f32(0), io.f32(1), io.f32(2), io.f32(3), io.f32(4));
    let (rows, cols) = io.matrix(0);
    let rstd: Vec<f32> = var.iter().map(|v| 1.0 / (v + EPS).sqrt()).collect();
    let (mut sum, mut sum_xhat) = (vec![0.0f64; cols], vec![0.0f64; cols]);
    for (x, dy) in x.chunks(cols).zip(dy.chunks(cols)) {
        for c in 0..cols {
            sum[c] += dy[c] as f64;
            sum_xhat[c] += (dy[c] * (x[c] - mean[c]) * rstd[c]) as f64;
        }
    }
    let [dx, dgamma, dbeta] = io.outs();
    for c in 0..cols {
        dgamma[c] = sum_xhat[c] as f32;
        dbeta[c] = sum[c] as f32;
    }
    let n = rows as f32;
    for ((x, dy), dx) in x.chunks(cols).zip(dy.chunks(cols)).zip(dx.chunks_mut(cols)) {
        for c in 0..cols {
            let through = if through_statistics { (dbeta[c] + (x[c] - mean[c]) * rstd[c] * dgamma[c]) / n } else { 0.0 };
            dx[c] = gamma[c] * rstd[c] * (dy[c] - through);
        }
    }
}
