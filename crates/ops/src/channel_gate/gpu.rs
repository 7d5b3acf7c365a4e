use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

use crate::Layout;

/// Mirrors `Params` in both files.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    tokens: u32,
    cols: u32,
    x0: u32,
    z0: u32,
    y0: u32,
    out0: u32,
    pad: u32,
}

static FORWARD: Kernel = Kernel::new::<Params>("channel_gate", &[include_str!("forward.wgsl")], "main", 3);
static BACKWARD: Kernel = Kernel::new::<Params>("channel_gate_dz", &[include_str!("backward.wgsl")], "main", 4);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];

pub(super) fn forward(layout: &Layout, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let (mut token, mut image) = (0, 0);
    for piece in layout.pieces(rec, |s| 4 * s.tokens_per_image() * cols) {
        let len = piece.tokens() * cols;
        let (x, x0) = rec.aligned(&io.inputs[0], token * cols, len);
        let (z, z0) = rec.aligned(&io.inputs[1], image * cols, piece.images * cols);
        let (y, y0) = rec.aligned(&io.outputs[0], token * cols, len);
        let params = Params { len: len as u32, tokens: piece.tokens_per_image() as u32, cols: cols as u32, x0, z0, y0, out0: 0, pad: 0 };
        rec.dispatch(&FORWARD, &[&x, &z, &y], &params, Grid::elements(len, 256))?;
        token += piece.tokens();
        image += piece.images;
    }
    Ok(())
}

pub(super) fn gradient(layout: &Layout, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let (mut token, mut image) = (0, 0);
    for piece in layout.pieces(rec, |s| 4 * s.tokens_per_image() * cols) {
        let len = piece.images * cols;
        let (x, x0) = rec.aligned(&io.inputs[0], token * cols, piece.tokens() * cols);
        let (z, z0) = rec.aligned(&io.inputs[1], image * cols, len);
        let (dy, y0) = rec.aligned(&io.inputs[2], token * cols, piece.tokens() * cols);
        let (dz, out0) = rec.aligned(&io.outputs[0], image * cols, len);
        let params = Params { len: len as u32, tokens: piece.tokens_per_image() as u32, cols: cols as u32, x0, z0, y0, out0, pad: 0 };
        rec.dispatch(&BACKWARD, &[&x, &z, &dy, &dz], &params, Grid::elements(len, 256))?;
        token += piece.tokens();
        image += piece.images;
    }
    Ok(())
}
