//! The plain version: every logit at once, in f64.

use esvit_graph::Io;

use super::PrototypeLoss;

/// `[K][D]`: directions of length 1, and their lengths.
fn directions(v: &[f32], d: usize) -> Vec<(Vec<f64>, f64)> {
    let row = |v: &[f32]| {
        let length = v.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt();
        (v.iter().map(|&x| x as f64 / length).collect(), length)
    };
    v.chunks(d).map(row).collect()
}

/// `[K][D]` prototypes.
fn prototypes(v: &[f32], g: &[f32], d: usize) -> Vec<Vec<f64>> {
    directions(v, d).iter().zip(g).map(|((u, _), &g)| u.iter().map(|u| g as f64 * u).collect()).collect()
}

/// `[rows, K]` logits.
fn logits(z: &[f32], w: &[Vec<f64>], d: usize) -> Vec<Vec<f64>> {
    let row = |z: &[f32]| w.iter().map(|w| z.iter().zip(w).map(|(&a, b)| a as f64 * b).sum()).collect();
    z.chunks(d).map(row).collect()
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}

/// Teacher distributions with the log-sum-exp of each row.
fn teacher(io: &Io, d: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let (center, temperature) = (io.f32(6), io.scalar(7) as f64);
    let mut rows = logits(io.f32(3), &prototypes(io.f32(4), io.f32(5), d), d);
    let mut lse = Vec::new();
    for row in &mut rows {
        row.iter_mut().zip(center).for_each(|(t, &c)| *t = (*t - c as f64) / temperature);
        let l = log_sum_exp(row);
        row.iter_mut().for_each(|t| *t = (*t - l).exp());
        lse.push(l);
    }
    (rows, lse)
}

pub(super) fn forward(op: &PrototypeLoss, io: &mut Io) {
    let (_, d) = io.matrix(0);
    let tau = op.student_temperature as f64;
    let (pair_teacher, pair_weight) = (io.inputs[8].u32(), io.f32(9));
    let students = logits(io.f32(0), &prototypes(io.f32(1), io.f32(2), d), d);
    let teachers = logits(io.f32(3), &prototypes(io.f32(4), io.f32(5), d), d);
    let (q, q_lse) = teacher(io, d);
    let [loss, lse_s, lse_t, mean, entropy] = io.outs();
    let mut total = 0.0;
    for (i, s) in students.iter().enumerate() {
        let scaled: Vec<f64> = s.iter().map(|v| v / tau).collect();
        let l = log_sum_exp(&scaled);
        lse_s[i] = l as f32;
        for p in op.pairs(i) {
            let q = &q[pair_teacher[p] as usize];
            total += pair_weight[p] as f64 * q.iter().zip(&scaled).map(|(q, s)| q * (l - s)).sum::<f64>();
        }
    }
    loss[0] = total as f32;
    for (out, l) in lse_t.iter_mut().zip(&q_lse) {
        *out = *l as f32;
    }
    for (k, mean) in mean.iter_mut().enumerate() {
        *mean = (teachers.iter().map(|t| t[k]).sum::<f64>() / teachers.len() as f64) as f32;
    }
    let h = |q: &Vec<f64>| -q.iter().filter(|v| **v > 0.0).map(|v| v * v.ln()).sum::<f64>();
    entropy[0] = (q.iter().map(h).sum::<f64>() / q.len() as f64) as f32;
}

pub(super) fn backward(op: &PrototypeLoss, io: &mut Io) {
    let ((_, d), (k, _)) = (io.matrix(0), io.matrix(1));
    let tau = op.student_temperature as f64;
    let (z, v, magnitudes) = (io.f32(0), io.f32(1), io.f32(2));
    let w = prototypes(v, magnitudes, d);
    let (pair_teacher, pair_weight, dloss) = (io.inputs[8].u32(), io.f32(9), io.scalar(12) as f64);
    let students = logits(z, &w, d);
    let (q, _) = teacher(io, d);
    let [dz, dv, dg] = io.outs();
    let mut dw = vec![0.0f64; k * d];
    for (i, s) in students.iter().enumerate() {
        let scaled: Vec<f64> = s.iter().map(|v| v / tau).collect();
        let l = log_sum_exp(&scaled);
        let mut g = vec![0.0; k];
        for p in op.pairs(i) {
            for (c, g) in g.iter_mut().enumerate() {
                *g += dloss * pair_weight[p] as f64 * ((scaled[c] - l).exp() - q[pair_teacher[p] as usize][c]) / tau;
            }
        }
        for c in 0..d {
            dz[i * d + c] = (0..k).map(|r| g[r] * w[r][c]).sum::<f64>() as f32;
        }
        for (r, g) in g.iter().enumerate() {
            for c in 0..d {
                dw[r * d + c] += g * z[i * d + c] as f64;
            }
        }
    }
    for (r, (u, length)) in directions(v, d).iter().enumerate() {
        let dw = &dw[r * d..(r + 1) * d];
        let along: f64 = dw.iter().zip(u).map(|(dw, u)| dw * u).sum();
        dg[r] = along as f32;
        for c in 0..d {
            dv[r * d + c] = (magnitudes[r] as f64 / length * (dw[c] - u[c] * along)) as f32;
        }
    }
}
