//! The plain version: the formula, window by window and head by head.

use esvit_graph::Io;

use super::geometry::{MASK, PADDING, WindowGeometry, WindowTokens};

/// Rows of q, k or v of a window's tokens, or the bias where they are padding.
struct QkvRows<'a> {
    qkv: &'a [f32],
    bias: Option<&'a [f32]>,
    three_c: usize,
}

impl QkvRows<'_> {
    /// Row of `D` values of third `part` (0 q, 1 k, 2 v), head `h`, of token `t` of the window.
    fn get(&self, window: &WindowTokens, t: usize, part: usize, h: usize, d: usize) -> Option<&[f32]> {
        let column = part * (self.three_c / 3) + h * d;
        match window.index[t] {
            PADDING => self.bias.map(|b| &b[column..column + d]),
            token => Some(&self.qkv[(window.first_token + token as usize) * self.three_c + column..][..d]),
        }
    }
}

/// Probabilities of one window and head as the formula has them, `[T, T]`.
fn probabilities(
    geometry: &WindowGeometry,
    rows: &QkvRows,
    table: &[f32],
    heads: usize,
    window: &WindowTokens,
    h: usize,
    d: usize,
) -> Vec<f32> {
    let area = geometry.area;
    let value = |t, part, c: usize| rows.get(window, t, part, h, d).map_or(0.0, |r| r[c]);
    let mut p = vec![0.0; area * area];
    for i in 0..area {
        let row = &mut p[i * area..][..area];
        for (j, s) in row.iter_mut().enumerate() {
            let dot: f32 = (0..d).map(|c| value(i, 0, c) * value(j, 1, c)).sum();
            let mask = if window.region[i] != window.region[j] { MASK } else { 0.0 };
            *s = dot * geometry.scale(d) + table[geometry.relative[i * area + j] as usize * heads + h] + mask;
        }
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|s| *s = (*s - max).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|s| *s /= sum);
    }
    p
}

pub(super) fn reference(geometry: &WindowGeometry, heads: usize, io: &mut Io) {
    let (qkv, table) = (io.f32(0), io.f32(1));
    let (_, three_c) = io.matrix(0);
    let rows = QkvRows { qkv, bias: io.inputs.get(2).map(|b| b.f32()), three_c };
    let (c, d) = (three_c / 3, three_c / 3 / heads);
    let y = io.out();
    for n in 0..geometry.windows() {
        let window = geometry.window(n);
        for h in 0..heads {
            let p = probabilities(geometry, &rows, table, heads, &window, h, d);
            for i in (0..geometry.area).filter(|&i| window.index[i] != PADDING) {
                let y = &mut y[(window.first_token + window.index[i] as usize) * c + h * d..][..d];
                for (k, y) in y.iter_mut().enumerate() {
                    *y = (0..geometry.area).map(|j| p[i * geometry.area + j] * rows.get(&window, j, 2, h, d).map_or(0.0, |r| r[k])).sum();
                }
            }
        }
    }
}

pub(super) fn maps(geometry: &WindowGeometry, heads: usize, io: &mut Io) {
    let (qkv, table) = (io.f32(0), io.f32(1));
    let (_, three_c) = io.matrix(0);
    let rows = QkvRows { qkv, bias: io.inputs.get(2).map(|b| b.f32()), three_c };
    let (d, area) = (three_c / 3 / heads, geometry.area);
    for (n, window_maps) in io.out().chunks_mut(heads * area * area).enumerate() {
        for (h, map) in window_maps.chunks_mut(area * area).enumerate() {
            map.copy_from_slice(&probabilities(geometry, &rows, table, heads, &geometry.window(n), h, d));
        }
    }
}

pub(super) fn gradient_reference(geometry: &WindowGeometry, heads: usize, io: &mut Io) {
    let (qkv, table) = (io.f32(0), io.f32(1));
    let (_, three_c) = io.matrix(0);
    let has_bias = io.inputs.len() == 4;
    let rows = QkvRows { qkv, bias: has_bias.then(|| io.f32(2)), three_c };
    let dy = io.f32(io.inputs.len() - 1);
    let (c, d, area) = (three_c / 3, three_c / 3 / heads, geometry.area);
    let scale = geometry.scale(d);
    let mut outputs = io.outputs.iter_mut();
    let mut next = || outputs.next().map(|o| o.f32());
    let (dqkv, dtable, mut dbias) = (next().expect("dqkv"), next().expect("dtable"), next());
    dqkv.fill(0.0);
    dtable.fill(0.0);
    if let Some(dbias) = dbias.as_deref_mut() {
        dbias.fill(0.0);
    }
    for n in 0..geometry.windows() {
        let window = geometry.window(n);
        for h in 0..heads {
            let p = probabilities(geometry, &rows, table, heads, &window, h, d);
            let value = |t, part, k: usize| rows.get(&window, t, part, h, d).map_or(0.0, |r| r[k]);
            let g = |t: usize, k: usize| match window.index[t] {
                PADDING => 0.0,
                token => dy[(window.first_token + token as usize) * c + h * d + k],
            };
            let mut add = |t: usize, part: usize, k: usize, v: f32| match window.index[t] {
                PADDING => {
                    if let Some(dbias) = dbias.as_deref_mut() {
                        dbias[part * c + h * d + k] += v;
                    }
                }
                token => dqkv[(window.first_token + token as usize) * three_c + part * c + h * d + k] += v,
            };
            for i in 0..area {
                let dp: Vec<f32> = (0..area).map(|j| (0..d).map(|k| g(i, k) * value(j, 2, k)).sum()).collect();
                let along: f32 = (0..area).map(|j| p[i * area + j] * dp[j]).sum();
                for j in 0..area {
                    let ds = p[i * area + j] * (dp[j] - along);
                    dtable[geometry.relative[i * area + j] as usize * heads + h] += ds;
                    for k in 0..d {
                        add(i, 0, k, ds * scale * value(j, 1, k));
                        add(j, 1, k, ds * scale * value(i, 0, k));
                        add(j, 2, k, p[i * area + j] * g(i, k));
                    }
                }
            }
        }
    }
}
