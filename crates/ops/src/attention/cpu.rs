//! The plain version: the formula, query by query.

use esvit_graph::Io;

use super::geometry::{AttentionGeometry, PADDING, QueryGroup};
use super::operands::{AttentionHead, AttentionOperands};

fn dot(x: &[f32], y: Option<&[f32]>) -> f32 {
    y.map_or(0.0, |y| x.iter().zip(y).map(|(x, y)| x * y).sum())
}

/// Probabilities of a query as the formula has them, and the logarithm of its sum.
fn probabilities(head: &AttentionHead, group: &QueryGroup, i: usize, h: usize) -> (Vec<f32>, f32) {
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
fn for_each_query(
    geometry: &AttentionGeometry,
    from: AttentionOperands,
    mut f: impl FnMut(&AttentionHead, usize, &QueryGroup, usize, usize),
) {
    for n in 0..geometry.images() {
        let image = geometry.image(n, from.draws);
        for h in 0..from.heads {
            let head = AttentionHead::new(from, image, h);
            for group in image.groups {
                for (i, &query) in group.queries.iter().enumerate() {
                    f(&head, h, group, i, image.first_query + query as usize);
                }
            }
        }
    }
}

pub(super) fn reference(geometry: &AttentionGeometry, from: AttentionOperands, io: &mut Io) {
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

pub(super) fn maps(geometry: &AttentionGeometry, from: AttentionOperands, io: &mut Io) {
    let out = io.out();
    out.fill(0.0);
    let mut at = 0;
    for n in 0..geometry.images() {
        let image = geometry.image(n, from.draws);
        for h in 0..from.heads {
            let head = AttentionHead::new(from, image, h);
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

pub(super) fn gradient_reference(geometry: &AttentionGeometry, from: AttentionOperands, io: &mut Io) {
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
