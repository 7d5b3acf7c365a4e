use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use esvit_gpu::reduce::{self, column_sum};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::{GpuIo, Result, sum};

use super::{EPS, ranges};

/// Mirrors `Params` in `moments.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MomentsParams {
    rows: u32,
    cols: u32,
    piece: u32,
    first: u32,
    x0: u32,
    pad: [u32; 3],
}

/// Mirrors `Params` in `statistics.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct StatisticsParams {
    rows: u32,
    cols: u32,
    pieces: u32,
    pad: u32,
}

/// Mirrors `Params` in `forward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ForwardParams {
    len: u32,
    cols: u32,
    eps: f32,
    x0: u32,
    y0: u32,
    pad: [u32; 3],
}

/// Mirrors `Params` in `scale_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchNormScaleParams {
    rows: u32,
    cols: u32,
    piece: u32,
    first: u32,
    eps: f32,
    x0: u32,
    dy0: u32,
    pad: u32,
}

/// Mirrors `Params` in `input_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InputParams {
    len: u32,
    cols: u32,
    eps: f32,
    share: f32,
    x0: u32,
    dy0: u32,
    dx0: u32,
    pad: u32,
}

static MOMENTS: Kernel =
    Kernel::new::<MomentsParams>("batch_norm_moments", &[include_str!("moments.wgsl"), reduce::OVER_COLUMNS], "main", 2);
static STATISTICS: Kernel = Kernel::new::<StatisticsParams>("batch_norm_statistics", &[include_str!("statistics.wgsl")], "main", 3);
static FORWARD: Kernel = Kernel::new::<ForwardParams>("batch_norm", &[include_str!("forward.wgsl")], "main", 6);
static SCALE_GRADIENT: Kernel =
    Kernel::new::<BatchNormScaleParams>("batch_norm_dscale", &[include_str!("scale_gradient.wgsl"), reduce::OVER_COLUMNS], "main", 6);
static INPUT_GRADIENT: Kernel = Kernel::new::<InputParams>("batch_norm_dx", &[include_str!("input_gradient.wgsl")], "main", 8);

pub(crate) static KERNELS: &[&Kernel] = &[&MOMENTS, &STATISTICS, &FORWARD, &SCALE_GRADIENT, &INPUT_GRADIENT];

/// Columns of one workgroup of a sum over rows.
const COLUMNS: usize = 64;
/// Workgroups of a sum over rows that keep a large GPU busy.
const BUSY: usize = 1024;
/// Fewest rows that one of them adds up.
const PIECE: usize = 64;

/// Rows that one workgroup adds up.
fn piece_rows(rows: usize, cols: usize) -> usize {
    (rows * cols.div_ceil(COLUMNS)).div_ceil(BUSY).max(PIECE)
}

/// Elements of some rows of a group: a group need not begin where a binding can.
fn part(rec: &Recorder, view: &View, group: &Range<usize>, rows: &Range<usize>, cols: usize) -> (View, u32) {
    rec.aligned(view, (group.start + rows.start) * cols, rows.len() * cols)
}

pub(super) fn batch(groups: &[usize], io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    for (g, group) in ranges(groups).enumerate() {
        let [mean, variance] = [1, 2].map(|i| &io.outputs[2 * g + i]);
        rec.scoped(|rec| statistics(io, rec, &group, mean, variance))?;
        apply(io, rec, &group, mean, variance)?;
    }
    Ok(())
}

fn statistics(io: &GpuIo, rec: &mut Recorder, group: &Range<usize>, mean: &View, variance: &View) -> Result<()> {
    let (rows, cols) = (group.len(), io.matrix(0).1);
    let piece = piece_rows(rows, cols);
    let bound = rec.row_pieces(rows, 4 * cols);
    let pieces: usize = bound.iter().map(|rows| rows.len().div_ceil(piece)).sum();
    let moments = rec.scratch((pieces * 3 * cols * 4) as u64);
    let mut first = 0;
    for range in bound {
        let count = range.len().div_ceil(piece);
        let (x, x0) = part(rec, &io.inputs[0], group, &range, cols);
        let [of_range, of_cols, of_piece, of_first] = [range.len(), cols, piece, first].map(|v| v as u32);
        let params = MomentsParams { rows: of_range, cols: of_cols, piece: of_piece, first: of_first, x0, pad: [0; 3] };
        rec.dispatch(&MOMENTS, &[&x, &moments], &params, Grid([cols.div_ceil(COLUMNS) as u32, count as u32, 1]))?;
        first += count;
    }
    let params = StatisticsParams { rows: rows as u32, cols: cols as u32, pieces: pieces as u32, pad: 0 };
    Ok(rec.dispatch(&STATISTICS, &[&moments, mean, variance], &params, Grid::elements(cols, 64))?)
}

pub(super) fn eval(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    apply(io, rec, &(0..io.matrix(0).0), &io.inputs[3], &io.inputs[4])
}

fn apply(io: &GpuIo, rec: &mut Recorder, group: &Range<usize>, mean: &View, variance: &View) -> Result<()> {
    let (_, cols) = io.matrix(0);
    for range in rec.row_pieces(group.len(), 4 * cols) {
        let [(x, x0), (y, y0)] = [&io.inputs[0], &io.outputs[0]].map(|view| part(rec, view, group, &range, cols));
        let len = range.len() * cols;
        let params = ForwardParams { len: len as u32, cols: cols as u32, eps: EPS, x0, y0, pad: [0; 3] };
        rec.dispatch(&FORWARD, &[&x, &io.inputs[1], &io.inputs[2], mean, variance, &y], &params, Grid::elements(len, 256))?;
    }
    Ok(())
}

pub(super) fn gradient(groups: &[usize], io: &GpuIo, rec: &mut Recorder, through_statistics: bool) -> Result<()> {
    let [x, gamma, dy] = [0, 1, 2].map(|i| &io.inputs[i]);
    let [dx, dgamma, dbeta] = [0, 1, 2].map(|i| &io.outputs[i]);
    let (_, cols) = io.matrix(0);
    // With several groups each has its sums, which are added at the end.
    let mut shares = Vec::with_capacity(groups.len());
    for (g, group) in ranges(groups).enumerate() {
        let [mean, variance] = [3, 4].map(|i| &io.inputs[2 * g + i]);
        let own = if groups.len() == 1 { [dgamma.clone(), dbeta.clone()] } else { [0, 1].map(|_| rec.scratch(4 * cols as u64)) };
        rec.scoped(|rec| scale_gradient(rec, [x, mean, variance, dy], [&own[0], &own[1]], &group, cols))?;
        let share = if through_statistics { 1.0 / group.len() as f32 } else { 0.0 };
        for range in rec.row_pieces(group.len(), 4 * cols) {
            let [(x, x0), (dy, dy0), (dx, dx0)] = [x, dy, dx].map(|view| part(rec, view, &group, &range, cols));
            let len = range.len() * cols;
            let params = InputParams { len: len as u32, cols: cols as u32, eps: EPS, share, x0, dy0, dx0, pad: 0 };
            let views = [&x, gamma, mean, variance, &dy, &own[0], &own[1], &dx];
            rec.dispatch(&INPUT_GRADIENT, &views, &params, Grid::elements(len, 256))?;
        }
        shares.push(own);
    }
    if groups.len() > 1 {
        for (i, total) in [dgamma, dbeta].into_iter().enumerate() {
            let terms: Vec<View> = shares.iter().map(|own| own[i].clone()).collect();
            sum(rec, &terms, total)?;
        }
    }
    Ok(())
}

fn scale_gradient(
    rec: &mut Recorder,
    [x, mean, variance, dy]: [&View; 4],
    [dgamma, dbeta]: [&View; 2],
    group: &Range<usize>,
    cols: usize,
) -> Result<()> {
    let rows = group.len();
    let piece = piece_rows(rows, cols);
    let bound = rec.row_pieces(rows, 4 * cols);
    let pieces: usize = bound.iter().map(|rows| rows.len().div_ceil(piece)).sum();
    // One piece is the sum itself.
    let [gammas, betas] = [dgamma, dbeta].map(|sum| if pieces == 1 { sum.clone() } else { rec.scratch((pieces * cols * 4) as u64) });
    let mut first = 0;
    for range in bound {
        let [(x, x0), (dy, dy0)] = [x, dy].map(|view| part(rec, view, group, &range, cols));
        let count = range.len().div_ceil(piece);
        let size = [range.len(), cols, piece, first].map(|v| v as u32);
        let params = BatchNormScaleParams { rows: size[0], cols: size[1], piece: size[2], first: size[3], eps: EPS, x0, dy0, pad: 0 };
        let grid = Grid([cols.div_ceil(COLUMNS) as u32, count as u32, 1]);
        rec.dispatch(&SCALE_GRADIENT, &[&x, mean, variance, &dy, &gammas, &betas], &params, grid)?;
        first += count;
    }
    if pieces > 1 {
        column_sum(rec, &gammas, dgamma, pieces, cols)?;
        column_sum(rec, &betas, dbeta, pieces, cols)?;
    }
    Ok(())
}
