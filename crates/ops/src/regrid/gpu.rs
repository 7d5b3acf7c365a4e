use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

use super::Regrid;

/// Mirrors `Params` in `copy.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    cols: u32,
    height: u32,
    width: u32,
    to_height: u32,
    to_width: u32,
    x0: u32,
    y0: u32,
}

static COPY: Kernel = Kernel::new::<Params>("regrid", &[include_str!("copy.wgsl")], "main", 2);

pub(crate) static KERNELS: &[&Kernel] = &[&COPY];

pub(super) fn forward(op: &Regrid, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    op.for_segments(|to, first, from| {
        let words = to.tokens_per_image().max(from.map_or(0, |(s, ..)| s.tokens_per_image())) * cols;
        for images in rec.image_pieces(to.images, 4 * words) {
            let len = images.len() * to.tokens_per_image() * cols;
            let (y, y0) = rec.aligned(&io.outputs[0], (first + images.start * to.tokens_per_image()) * cols, len);
            let sides = (to.height as u32, to.width as u32);
            let mut params =
                Params { len: len as u32, cols: cols as u32, height: 0, width: 0, to_height: sides.0, to_width: sides.1, x0: 0, y0 };
            // Zeros are a copy of a grid without rows; any operand will do.
            let mut x = io.inputs[0].part(0, 4);
            if let Some((s, x_first, operand)) = from {
                let area = s.tokens_per_image();
                (x, params.x0) = rec.aligned(&io.inputs[operand], (x_first + images.start * area) * cols, images.len() * area * cols);
                (params.height, params.width) = (s.height as u32, s.width as u32);
            }
            rec.dispatch(&COPY, &[&x, &y], &params, Grid::elements(len, 256))?;
        }
        Ok(())
    })
}
