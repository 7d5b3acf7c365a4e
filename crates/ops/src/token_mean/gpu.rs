use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, reduce};
use esvit_graph::{GpuIo, Result};

use crate::Layout;

/// Mirrors `Params` in `forward.wgsl`, where `count` is `images`, and in `spread.wgsl`, where it is `len`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    tokens: u32,
    cols: u32,
    x0: u32,
    y0: u32,
    pad: [u32; 3],
}

static FORWARD: Kernel = Kernel::new::<Params>("token_mean", &[include_str!("forward.wgsl"), reduce::OVER_COLUMNS], "main", 2);
static SPREAD: Kernel = Kernel::new::<Params>("token_mean_dx", &[include_str!("spread.wgsl")], "main", 2);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &SPREAD];

pub(super) fn forward(layout: &Layout, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let (mut token, mut image) = (0, 0);
    for piece in layout.pieces(rec, |s| 4 * s.tokens_per_image() * cols) {
        let (x, x0) = rec.aligned(&io.inputs[0], token * cols, piece.tokens() * cols);
        let (y, y0) = rec.aligned(&io.outputs[0], image * cols, piece.images * cols);
        let tokens = piece.tokens_per_image() as u32;
        let params = Params { count: piece.images as u32, tokens, cols: cols as u32, x0, y0, pad: [0; 3] };
        rec.dispatch(&FORWARD, &[&x, &y], &params, Grid::fold(piece.images * cols.div_ceil(64)))?;
        token += piece.tokens();
        image += piece.images;
    }
    Ok(())
}

pub(super) fn spread(layout: &Layout, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let (mut token, mut image) = (0, 0);
    for piece in layout.pieces(rec, |s| 4 * s.tokens_per_image() * cols) {
        let len = piece.tokens() * cols;
        let (dy, y0) = rec.aligned(&io.inputs[0], image * cols, piece.images * cols);
        let (dx, x0) = rec.aligned(&io.outputs[0], token * cols, len);
        let tokens = piece.tokens_per_image() as u32;
        let params = Params { count: len as u32, tokens, cols: cols as u32, x0, y0, pad: [0; 3] };
        rec.dispatch(&SPREAD, &[&dy, &dx], &params, Grid::elements(len, 256))?;
        token += piece.tokens();
        image += piece.images;
    }
    Ok(())
}
