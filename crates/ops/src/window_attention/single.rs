//! Tasks in single precision, on the registers of any CPU.
//!
//! Rows of q, k, v and of the incoming gradient are copied, all heads of the task at once, so that memory is read in its order. Q (and dY
//! in the backward pass) are transposed once a window and head; scores begin with the bias, keys as rows and queries as columns.

use std::ops::Range;

use esvit_simd::lanes;
use esvit_simd::panel::{PanelProduct, padded};
use esvit_simd::vector::{Vector, VectorKernel};

use super::gather::HeadColumns;
use super::operands::{TokenRows, WindowOperands, WindowRowsMut};
use super::softmax::WindowSoftmax;
use super::tiles::{F32WindowTiles, WindowTileSizes, transpose};

/// Queries whose scores with all keys are computed at a time, so that they stay in the caches next to the core.
const QUERIES: usize = 64;

/// Addresses of a tile's rows, from a column on.
fn rows_of(tile: &[f32], width: usize, column: usize) -> Vec<*const f32> {
    tile.chunks_exact(width).map(|row| row[column..].as_ptr()).collect()
}

/// Addresses of a tile's rows, to write them.
fn rows_of_mut(tile: &mut [f32], width: usize, column: usize) -> Vec<*mut f32> {
    tile.chunks_exact_mut(width).map(|row| row[column..].as_mut_ptr()).collect()
}

/// Columns of a tile: the rows of its transpose, a line apart.
fn columns_of(tile: &[f32], area: usize) -> Vec<*const f32> {
    (0..area).map(|i| tile.as_ptr().wrapping_add(i)).collect()
}

/// Rows of each part and head of a tile `[rows, parts, heads, Dp]`, part by part.
fn rows_of_heads(tile: &[f32], parts_heads: usize, dp: usize) -> Vec<Vec<*const f32>> {
    (0..parts_heads).map(|n| rows_of(tile, parts_heads * dp, n * dp)).collect()
}

/// Rows of each part and head of a tile, to write them.
fn rows_of_heads_mut(tile: &mut [f32], area: usize, parts_heads: usize, dp: usize) -> Vec<Vec<*mut f32>> {
    let tile = &mut tile[..area * parts_heads * dp];
    (0..parts_heads).map(|n| rows_of_mut(tile, parts_heads * dp, n * dp)).collect()
}

/// Columns of some queries, and where they begin in every tile.
struct QueryColumns {
    columns: Range<usize>,
    qt: Vec<*const f32>,
    bias: Vec<*const f32>,
    p: Vec<*mut f32>,
    // Backward only:
    dyt: Vec<*const f32>,
    ds: Vec<*mut f32>,
}

impl QueryColumns {
    fn all(tiles: &mut F32WindowTiles, o: &WindowOperands, heads: &Range<usize>) -> Vec<QueryColumns> {
        let WindowTileSizes { area, tp, line, .. } = tiles.sizes;
        let bias = |at: usize| {
            let rows =
                heads.clone().flat_map(|h| o.geometry.panels.starts.iter().map(move |&start| o.bias_of(h)[start as usize + at..].as_ptr()));
            rows.collect()
        };
        (0..area)
            .step_by(QUERIES)
            .map(|at| QueryColumns {
                columns: at..padded(area.min(at + QUERIES)).min(tp),
                qt: rows_of(tiles.qt, line, at),
                bias: bias(at),
                p: rows_of_mut(tiles.p, line, at),
                dyt: rows_of(tiles.dyt, line, at),
                ds: rows_of_mut(tiles.ds, line, at),
            })
            .collect()
    }
}

/// One task of the forward pass.
pub(super) struct F32WindowForward<'a> {
    pub operands: WindowOperands<'a>,
    pub heads: Range<usize>,
    pub windows: Range<usize>,
    pub y: WindowRowsMut,
    pub tiles: F32WindowTiles<'a>,
}

impl VectorKernel for F32WindowForward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let F32WindowForward { operands: o, heads, windows, y, mut tiles } = self;
        let (qkv, padding, sizes) = (o.qkv.f32(), o.padding.map(TokenRows::f32), tiles.sizes);
        let WindowTileSizes { area, d, tp, line, dp } = sizes;
        let (scale, columns, group) = (o.geometry.scale(d), HeadColumns::new(&o, &heads, dp), heads.len());
        let queries = QueryColumns::all(&mut tiles, &o, &heads);
        let starts = &*o.geometry.panels.starts;
        let rows = rows_of_heads(&tiles.qkv[..tp * 3 * group * dp], 3 * group, dp);
        let results = rows_of_heads_mut(tiles.results, area, group, dp);
        let p_columns = columns_of(tiles.p, area);
        for n in windows.clone() {
            let window = o.geometry.window(n);
            let next = (n + 1 < windows.end).then(|| o.geometry.window(n + 1));
            let prefetch = |stage: usize| {
                let share = (stage, 2 * group);
                columns.prefetch_rows(next.as_ref(), share, qkv.as_ptr(), 3);
                columns.prefetch_result(next.as_ref(), share, y, 1);
            };
            columns.gather(&window, qkv, 3, padding, tiles.qkv);
            let masks = window.masks.map(|masks| (masks.as_ptr(), window.region));
            for g in 0..group {
                let [q, k, v] = [0, 1, 2].map(|part| &rows[part * group + g]);
                // SAFETY: Tp rows of Dp floats each.
                unsafe { transpose::<V>(q, scale, tiles.qt, &sizes) };
                prefetch(2 * g);
                for some in &queries {
                    let scores = PanelProduct {
                        n: some.columns.len(),
                        a: &k[..area],
                        a_step: 1,
                        b: &some.qt[..d],
                        init: Some(&some.bias[g * area..][..area]),
                        scale: None,
                        out: &some.p,
                    };
                    let softmax = WindowSoftmax { keys: area, columns: some.columns.clone(), line, p: tiles.p.as_mut_ptr(), masks, starts };
                    // SAFETY: rows of k hold D floats; rows of qt, bias, p and the masks are lines, and the columns are inside.
                    unsafe {
                        scores.compute::<V>();
                        softmax.forward::<V>(tiles.inverse.as_mut_ptr());
                    }
                }
                prefetch(2 * g + 1);
                let values = PanelProduct {
                    n: dp,
                    a: &p_columns,
                    a_step: line,
                    b: &v[..area],
                    init: None,
                    scale: Some(&tiles.inverse[..area]),
                    out: &results[g],
                };
                // SAFETY: columns of p hold T floats a line apart; rows of v and of the results hold Dp.
                unsafe { values.compute::<V>() };
            }
            columns.scatter(tiles.results, 1, &window, y, |_| {});
        }
    }
}

/// One task of the backward pass. It leaves the gradients of its heads' tables `[group, (2w−1)²]`, then those of the padding
/// `[3, group·D]`, in `sums`.
pub(super) struct F32WindowBackward<'a> {
    pub operands: WindowOperands<'a>,
    pub heads: Range<usize>,
    pub windows: Range<usize>,
    pub dy: &'a [f32],
    pub dqkv: WindowRowsMut,
    pub tiles: F32WindowTiles<'a>,
    pub sums: &'a mut [f32],
}

impl VectorKernel for F32WindowBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let F32WindowBackward { operands: o, heads, windows, dy, dqkv, mut tiles, sums } = self;
        let (qkv, padding, sizes) = (o.qkv.f32(), o.padding.map(TokenRows::f32), tiles.sizes);
        let WindowTileSizes { area, d, tp, line, dp } = sizes;
        let (scale, columns, group) = (o.geometry.scale(d), HeadColumns::new(&o, &heads, dp), heads.len());
        let panels = &o.geometry.panels;
        let (dtable, dpadding) = sums.split_at_mut(group * o.geometry.table_rows());
        let queries = QueryColumns::all(&mut tiles, &o, &heads);
        let starts = &*panels.starts;
        let rows = rows_of_heads(&tiles.qkv[..tp * 3 * group * dp], 3 * group, dp);
        let dy_rows = rows_of_heads(&tiles.dy[..tp * group * dp], group, dp);
        let results = rows_of_heads_mut(tiles.results, area, 3 * group, dp);
        let [p, ds] = [&*tiles.p, &*tiles.ds].map(|tile| rows_of(tile, line, 0));
        let ds_columns = columns_of(tiles.ds, area);
        let scales = vec![scale; area];
        for n in windows.clone() {
            let window = o.geometry.window(n);
            let next = (n + 1 < windows.end).then(|| o.geometry.window(n + 1));
            let prefetch = |stage: usize| {
                let share = (stage, 4 * group);
                columns.prefetch_rows(next.as_ref(), share, qkv.as_ptr(), 3);
                columns.prefetch_rows(next.as_ref(), share, dy.as_ptr(), 1);
                columns.prefetch_result(next.as_ref(), share, dqkv, 3);
            };
            columns.gather(&window, qkv, 3, padding, tiles.qkv);
            columns.gather(&window, dy, 1, None, tiles.dy);
            let masks = window.masks.map(|masks| (masks.as_ptr(), window.region));
            for g in 0..group {
                let [q, k, v] = [0, 1, 2].map(|part| &rows[part * group + g]);
                // SAFETY: Tp rows of Dp floats each.
                unsafe {
                    transpose::<V>(q, scale, tiles.qt, &sizes);
                    transpose::<V>(&dy_rows[g], 1.0, tiles.dyt, &sizes);
                }
                prefetch(4 * g);
                for some in &queries {
                    let scores = PanelProduct {
                        n: some.columns.len(),
                        a: &k[..area],
                        a_step: 1,
                        b: &some.qt[..d],
                        init: Some(&some.bias[g * area..][..area]),
                        scale: None,
                        out: &some.p,
                    };
                    // dPᵀ = V·dYᵀ
                    let dp = PanelProduct { a: &v[..area], b: &some.dyt[..d], init: None, out: &some.ds, ..scores };
                    let softmax = WindowSoftmax { keys: area, columns: some.columns.clone(), line, p: tiles.p.as_mut_ptr(), masks, starts };
                    let dbias = &mut tiles.dbias[g * panels.len()..][..panels.len()];
                    // SAFETY: rows of k and v hold D floats; rows of all tiles and of the masks are lines, and the columns are inside.
                    unsafe {
                        scores.compute::<V>();
                        dp.compute::<V>();
                        softmax.gradient::<V>(tiles.ds.as_mut_ptr(), dbias.as_mut_ptr());
                    }
                }
                // dQ = dS·K/√D, dK = dSᵀ·Q/√D, dV = Pᵀ·dY, where rows of the tiles are keys.
                let dq =
                    PanelProduct { n: dp, a: &ds_columns, a_step: line, b: &k[..area], init: None, scale: Some(&scales), out: &results[g] };
                let dk = PanelProduct { a: &ds, a_step: 1, b: &q[..area], out: &results[group + g], ..dq };
                let dv = PanelProduct { a: &p, b: &dy_rows[g][..area], scale: None, out: &results[2 * group + g], ..dk };
                for (part, product) in [dq, dk, dv].into_iter().enumerate() {
                    prefetch(4 * g + 1 + part);
                    // SAFETY: rows and columns of p and ds hold T floats; rows of k, q, dy and of the results hold Dp.
                    unsafe { product.compute::<V>() };
                }
            }
            columns.scatter(tiles.results, 3, &window, dqkv, |row| {
                for (row, sum) in row.chunks_exact(dp).zip(dpadding.chunks_exact_mut(d)) {
                    lanes::accumulate(&row[..d], sum);
                }
            });
        }
        panels.collect(tiles.dbias, dtable);
    }
}
