use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View, reduce};
use esvit_graph::{GpuIo, Result};

/// Mirrors `Params` in `forward.wgsl` and `backward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    pad: [u32; 2],
}

static FORWARD: Kernel = Kernel::new::<Params>("weight_norm", &[include_str!("forward.wgsl"), reduce::OVER_ROWS], "main", 3);
static BACKWARD: Kernel = Kernel::new::<Params>("weight_norm_dv", &[include_str!("backward.wgsl"), reduce::OVER_ROWS], "main", 5);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];

/// Rows of one workgroup.
const ROWS: usize = 4;

/// Records `w` `[K, D]` from `v` and `g`.
pub(crate) fn normalize(rec: &mut Recorder, v: &View, g: &View, w: &View, [rows, cols]: [usize; 2]) -> Result<()> {
    for piece in rec.row_pieces(rows, 4 * cols) {
        let (from, rows) = (piece.start, piece.len());
        let (v, g, w) = (v.rows(from, rows, cols), g.rows(from, rows, 1), w.rows(from, rows, cols));
        let params = Params { rows: rows as u32, cols: cols as u32, pad: [0; 2] };
        rec.dispatch(&FORWARD, &[&v, &g, &w], &params, Grid::elements(rows, ROWS))?;
    }
    Ok(())
}

/// Records `dv` and `dg` from `v`, `g` and `dw`, which may not be `dv`.
pub(crate) fn denormalize(rec: &mut Recorder, [v, g, dw]: [&View; 3], [dv, dg]: [&View; 2], [rows, cols]: [usize; 2]) -> Result<()> {
    for piece in rec.row_pieces(rows, 4 * cols) {
        let (from, rows) = (piece.start, piece.len());
        let [v, dw, dv] = [v, dw, dv].map(|view| view.rows(from, rows, cols));
        let [g, dg] = [g, dg].map(|view| view.rows(from, rows, 1));
        let params = Params { rows: rows as u32, cols: cols as u32, pad: [0; 2] };
        rec.dispatch(&BACKWARD, &[&v, &g, &dw, &dv, &dg], &params, Grid::elements(rows, ROWS))?;
    }
    Ok(())
}

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    normalize(rec, &io.inputs[0], &io.inputs[1], &io.outputs[0], io.matrix(0).into())
}

pub(super) fn backward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let [v, g, dw] = [0, 1, 2].map(|i| &io.inputs[i]);
    denormalize(rec, [v, g, dw], [&io.outputs[0], &io.outputs[1]], io.matrix(0).into())
}
