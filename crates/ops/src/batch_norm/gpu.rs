use bytemuck::{Pod, Zeroable};
use esvit_gpu::reduce::column_sum;
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::{GpuIo, Result};

use super::EPS;

/// Mirrors `Params` in `moments.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MomentsParams {
    rows: u32,
    cols: u32,
    piece: u32,
    first: u32,
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
    pad: u32,
}

/// Mirrors `Params` in `scale_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ScaleParams {
    rows: u32,
    cols: u32,
    piece: u32,
    first: u32,
    eps: f32,
    pad: [u32; 3],
}

/// Mirrors `Params` in `input_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InputParams {
    len: u32,
    cols: u32,
    eps: f32,
    share: f32,
}

static MOMENTS: Kernel = Kernel::new::<MomentsParams>("batch_norm_moments", include_str!("moments.wgsl"), "main", 2);
static STATISTICS: Kernel = Kernel::new::<StatisticsParams>("batch_norm_statistics", include_str!("statistics.wgsl"), "main", 3);
static FORWARD: Kernel = Kernel::new::<ForwardParams>("batch_norm", include_str!("forward.wgsl"), "main", 6);
static SCALE_GRADIENT: Kernel = Kernel::new::<ScaleParams>("batch_norm_dscale", include_str!("scale_gradient.wgsl"), "main", 6);
static INPUT_GRADIENT: Kernel = Kernel::new::<InputParams>("batch_norm_dx", include_str!("input_gradient.wgsl"), "main", 8);

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

pub(super) fn batch(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    let (mean, variance) = (&io.outputs[1], &io.outputs[2]);
    let piece = piece_rows(rows, cols);
    let bound = rec.row_pieces(rows, 4 * cols);
    let pieces: usize = bound.iter().map(|rows| rows.len().div_ceil(piece)).sum();
    let moments = rec.scratch((pieces * 3 * cols * 4) as u64);
    let mut first = 0;
    for range in bound {
        let count = range.len().div_ceil(piece);
        let params = MomentsParams { rows: range.len() as u32, cols: cols as u32, piece: piece as u32, first: first as u32 };
        let x = io.inputs[0].rows(range.start, range.len(), cols);
        rec.dispatch(&MOMENTS, &[&x, &moments], &params, Grid([cols.div_ceil(COLUMNS) as u32, count as u32, 1]))?;
        first += count;
    }
    let params = StatisticsParams { rows: rows as u32, cols: cols as u32, pieces: pieces as u32, pad: 0 };
    rec.dispatch(&STATISTICS, &[&moments, mean, variance], &params, Grid::elements(cols, 64))?;
    apply(io, rec, mean, variance)
}

pub(super) fn eval(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    apply(io, rec, &io.inputs[3], &io.inputs[4])
}

fn apply(io: &GpuIo, rec: &mut Recorder, mean: &View, variance: &View) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    for range in rec.row_pieces(rows, 4 * cols) {
        let [x, y] = [&io.inputs[0], &io.outputs[0]].map(|view| view.rows(range.start, range.len(), cols));
        let len = range.len() * cols;
        let params = ForwardParams { len: len as u32, cols: cols as u32, eps: EPS, pad: 0 };
        rec.dispatch(&FORWARD, &[&x, &io.inputs[1], &io.inputs[2], mean, variance, &y], &params, Grid::elements(len, 256))?;
    }
    Ok(())
}

pub(super) fn gradient(io: &GpuIo, rec: &mut Recorder, through_statistics: bool) -> Result<()> {
    let [x, gamma, mean, variance, dy] = [0, 1, 2, 3, 4].map(|i| &io.inputs[i]);
    let [dx, dgamma, dbeta] = [0, 1, 2].map(|i| &io.outputs[i]);
    let (rows, cols) = io.matrix(0);
    scale_gradient(rec, [x, mean, variance, dy], [dgamma, dbeta], rows, cols)?;
    let share = if through_statistics { 1.0 / rows as f32 } else { 0.0 };
    for range in rec.row_pieces(rows, 4 * cols) {
        let [x, dy, dx] = [x, dy, dx].map(|view| view.rows(range.start, range.len(), cols));
        let len = range.len() * cols;
        let params = InputParams { len: len as u32, cols: cols as u32, eps: EPS, share };
        let views = [&x, gamma, mean, variance, &dy, dgamma, dbeta, &dx];
        rec.dispatch(&INPUT_GRADIENT, &views, &params, Grid::elements(len, 256))?;
    }
    Ok(())
}

fn scale_gradient(
    rec: &mut Recorder,
    [x, mean, variance, dy]: [&View; 4],
    [dgamma, dbeta]: [&View; 2],
    rows: usize,
    cols: usize,
) -> Result<()> {
    let piece = piece_rows(rows, cols);
    let bound = rec.row_pieces(rows, 4 * cols);
    let pieces: usize = bound.iter().map(|rows| rows.len().div_ceil(piece)).sum();
    // One piece is the sum itself.
    let [gammas, betas] = [dgamma, dbeta].map(|sum| if pieces == 1 { sum.clone() } else { rec.scratch((pieces * cols * 4) as u64) });
    let mut first = 0;
    for range in bound {
        let [x, dy] = [x, dy].map(|view| view.rows(range.start, range.len(), cols));
        let count = range.len().div_ceil(piece);
        let size = [range.len(), cols, piece, first].map(|v| v as u32);
        let params = ScaleParams { rows: size[0], cols: size[1], piece: size[2], first: size[3], eps: EPS, pad: [0; 3] };
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
