use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result, sum};

use crate::Layout;

/// Mirrors `Params` in `residual.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ResidualParams {
    len: u32,
    image_len: u32,
    image: u32,
    x0: u32,
    f0: u32,
    y0: u32,
    pad: [u32; 2],
}

/// Mirrors `Params` in `scale_images.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ScaleImagesParams {
    len: u32,
    image_len: u32,
    image: u32,
    x0: u32,
    y0: u32,
    pad: [u32; 3],
}

static RESIDUAL: Kernel = Kernel::new::<ResidualParams>("residual", &[include_str!("residual.wgsl")], "main", 4);
static SCALE_IMAGES: Kernel = Kernel::new::<ScaleImagesParams>("scale_images", &[include_str!("scale_images.wgsl")], "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&RESIDUAL, &SCALE_IMAGES];

pub(super) fn forward(layout: &Layout, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let Some(scale) = io.inputs.get(2) else { return sum(rec, &io.inputs, &io.outputs[0]) };
    let (_, cols) = io.matrix(0);
    let (mut first, mut image) = (0, 0);
    for piece in layout.pieces(rec, |s| 4 * s.tokens_per_image() * cols) {
        let len = piece.tokens() * cols;
        let (x, x0) = rec.aligned(&io.inputs[0], first, len);
        let (f, f0) = rec.aligned(&io.inputs[1], first, len);
        let (y, y0) = rec.aligned(&io.outputs[0], first, len);
        let image_len = (piece.tokens_per_image() * cols) as u32;
        let params = ResidualParams { len: len as u32, image_len, image: image as u32, x0, f0, y0, pad: [0; 2] };
        rec.dispatch(&RESIDUAL, &[&x, &f, scale, &y], &params, Grid::elements(len, 256))?;
        first += len;
        image += piece.images;
    }
    Ok(())
}

pub(super) fn scale_images(layout: &Layout, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let (mut first, mut image) = (0, 0);
    for piece in layout.pieces(rec, |s| 4 * s.tokens_per_image() * cols) {
        let len = piece.tokens() * cols;
        let (x, x0) = rec.aligned(&io.inputs[0], first, len);
        let (y, y0) = rec.aligned(&io.outputs[0], first, len);
        let image_len = (piece.tokens_per_image() * cols) as u32;
        let params = ScaleImagesParams { len: len as u32, image_len, image: image as u32, x0, y0, pad: [0; 3] };
        rec.dispatch(&SCALE_IMAGES, &[&x, &io.inputs[1], &y], &params, Grid::elements(len, 256))?;
        first += len;
        image += piece.images;
    }
    Ok(())
}
