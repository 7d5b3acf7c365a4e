use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

/// Mirrors `Params` in `forward.wgsl` and `backward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    pad: [u32; 2],
}

static FORWARD: Kernel = Kernel::new::<Params>("weight_norm", include_str!("forward.wgsl"), "main", 3);
static BACKWARD: Kernel = Kernel::new::<Params>("weight_norm_dv", include_str!("backward.wgsl"), "main", 5);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];

/// Rows of one workgroup.
const ROWS: usize = 4;

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    for piece in rec.row_pieces(rows, 4 * cols) {
        let (from, rows) = (piece.start, piece.len());
        let (v, g, w) = (io.inputs[0].rows(from, rows, cols), io.inputs[1].rows(from, rows, 1), io.outputs[0].rows(from, rows, cols));
        let params = Params { rows: rows as u32, cols: cols as u32, pad: [0; 2] };
        rec.dispatch(&FORWARD, &[&v, &g, &w], &params, Grid::elements(rows, ROWS))?;
    }
    Ok(())
}

pub(super) fn backward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    for piece in rec.row_pieces(rows, 4 * cols) {
        let (from, rows) = (piece.start, piece.len());
        let [v, dw, dv] = [&io.inputs[0], &io.inputs[2], &io.outputs[0]].map(|view| view.rows(from, rows, cols));
        let [g, dg] = [&io.inputs[1], &io.outputs[1]].map(|view| view.rows(from, rows, 1));
        let params = Params { rows: rows as u32, cols: cols as u32, pad: [0; 2] };
        rec.dispatch(&BACKWARD, &[&v, &g, &dw, &dv, &dg], &params, Grid::elements(rows, ROWS))?;
    }
    Ok(())
}
