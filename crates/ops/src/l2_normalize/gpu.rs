use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, reduce};
use esvit_graph::{GpuIo, Result};

use super::EPS;

/// Mirrors `Params` in `forward.wgsl` and `backward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
    pad: u32,
}

static FORWARD: Kernel = Kernel::new::<Params>("l2_normalize", &[include_str!("forward.wgsl"), reduce::OVER_ROWS], "main", 3);
static BACKWARD: Kernel = Kernel::new::<Params>("l2_normalize_dx", &[include_str!("backward.wgsl"), reduce::OVER_ROWS], "main", 4);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];

/// Rows of one workgroup.
const ROWS: usize = 4;

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    for piece in rec.row_pieces(rows, 4 * cols) {
        let (from, rows) = (piece.start, piece.len());
        let (x, y, norms) = (io.inputs[0].rows(from, rows, cols), io.outputs[0].rows(from, rows, cols), io.outputs[1].rows(from, rows, 1));
        let params = Params { rows: rows as u32, cols: cols as u32, eps: EPS, pad: 0 };
        rec.dispatch(&FORWARD, &[&x, &y, &norms], &params, Grid::elements(rows, ROWS))?;
    }
    Ok(())
}

pub(super) fn backward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    for piece in rec.row_pieces(rows, 4 * cols) {
        let (from, rows) = (piece.start, piece.len());
        let [y, dy, dx] = [&io.inputs[0], &io.inputs[2], &io.outputs[0]].map(|view| view.rows(from, rows, cols));
        let norms = io.inputs[1].rows(from, rows, 1);
        let params = Params { rows: rows as u32, cols: cols as u32, eps: EPS, pad: 0 };
        rec.dispatch(&BACKWARD, &[&y, &norms, &dy, &dx], &params, Grid::elements(rows, ROWS))?;
    }
    Ok(())
}
