use bytemuck::{Pod, Zeroable};
use esvit_gpu::reduce::{self, column_sum};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

/// Mirrors `Params` in `forward.wgsl` and `input_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
    pad: u32,
}

/// Mirrors `Params` in `scale_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ScaleGradientParams {
    rows: u32,
    cols: u32,
    piece: u32,
    first: u32,
}

static FORWARD: Kernel = Kernel::new::<Params>("layer_norm", &[include_str!("forward.wgsl"), reduce::OVER_ROWS], "main", 5);
static INPUT_GRADIENT: Kernel =
    Kernel::new::<Params>("layer_norm_dx", &[include_str!("input_gradient.wgsl"), reduce::OVER_ROWS], "main", 5);
static SCALE_GRADIENT: Kernel =
    Kernel::new::<ScaleGradientParams>("layer_norm_dscale", &[include_str!("scale_gradient.wgsl"), reduce::OVER_COLUMNS], "main", 5);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &INPUT_GRADIENT, &SCALE_GRADIENT];

/// Rows of one workgroup.
const ROWS: usize = 4;

/// Columns of one workgroup of a sum over rows.
const COLUMNS: usize = 64;
/// Workgroups of a sum over rows that keep a large GPU busy.
const BUSY: usize = 1024;
/// Fewest rows that one of them adds up.
const PIECE: usize = 64;

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder, eps: f32) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    for piece in rec.row_pieces(rows, 4 * cols.max(2)) {
        let (from, rows) = (piece.start, piece.len());
        let (x, y, stats) = (io.inputs[0].rows(from, rows, cols), io.outputs[0].rows(from, rows, cols), io.outputs[1].rows(from, rows, 2));
        let params = Params { rows: rows as u32, cols: cols as u32, eps, pad: 0 };
        rec.dispatch(&FORWARD, &[&x, &io.inputs[1], &io.inputs[2], &y, &stats], &params, Grid::elements(rows, ROWS))?;
    }
    Ok(())
}

pub(super) fn input_gradient(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    for piece in rec.row_pieces(rows, 4 * cols.max(2)) {
        let (from, rows) = (piece.start, piece.len());
        let [x, dy, dx] = [&io.inputs[0], &io.inputs[3], &io.outputs[0]].map(|view| view.rows(from, rows, cols));
        let stats = io.inputs[2].rows(from, rows, 2);
        let params = Params { rows: rows as u32, cols: cols as u32, eps: 0.0, pad: 0 };
        rec.dispatch(&INPUT_GRADIENT, &[&x, &io.inputs[1], &stats, &dy, &dx], &params, Grid::elements(rows, ROWS))?;
    }
    Ok(())
}

pub(super) fn scale_gradient(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    let groups = cols.div_ceil(COLUMNS);
    let piece = (rows * groups).div_ceil(BUSY).max(PIECE);
    let bound = rec.row_pieces(rows, 4 * cols.max(2));
    let pieces: usize = bound.iter().map(|rows| rows.len().div_ceil(piece)).sum();
    // One piece is the sum itself.
    let [dgamma, dbeta] = [0, 1].map(|i| if pieces == 1 { io.outputs[i].clone() } else { rec.scratch((pieces * cols * 4) as u64) });
    let mut first = 0;
    for range in bound {
        let (from, rows) = (range.start, range.len());
        let (x, stats, dy) = (io.inputs[0].rows(from, rows, cols), io.inputs[1].rows(from, rows, 2), io.inputs[2].rows(from, rows, cols));
        let count = rows.div_ceil(piece);
        let params = ScaleGradientParams { rows: rows as u32, cols: cols as u32, piece: piece as u32, first: first as u32 };
        let grid = Grid([groups as u32, count as u32, 1]);
        rec.dispatch(&SCALE_GRADIENT, &[&x, &stats, &dy, &dgamma, &dbeta], &params, grid)?;
        first += count;
    }
    if pieces > 1 {
        column_sum(rec, &dgamma, &io.outputs[0], pieces, cols)?;
        column_sum(rec, &dbeta, &io.outputs[1], pieces, cols)?;
    }
    Ok(())
}
