use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

use super::GatherSegment;

/// Mirrors `Params` in `gather_rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    width: u32,
    rows_from: u32,
    rows_to: u32,
    x0: u32,
    y0: u32,
    pad: [u32; 2],
}

static GATHER_ROWS: Kernel = Kernel::new::<Params>("gather_rows", &[include_str!("gather_rows.wgsl")], "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&GATHER_ROWS];

pub(super) fn record(parts: &[GatherSegment], width: usize, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (mut from, mut to) = (0, 0);
    for part in parts {
        let (rows_from, rows_to) = (part.rows, part.index.len());
        if rows_to > 0 {
            let index = crate::constant(rec, "an index of rows", &part.index)?;
            for images in rec.image_pieces(part.images, 4 * rows_from.max(rows_to) * width) {
                let len = images.len() * rows_to * width;
                let (x, x0) = rec.aligned(&io.inputs[0], from + images.start * rows_from * width, images.len() * rows_from * width);
                let (y, y0) = rec.aligned(&io.outputs[0], to + images.start * rows_to * width, len);
                let params = Params {
                    len: len as u32,
                    width: width as u32,
                    rows_from: rows_from as u32,
                    rows_to: rows_to as u32,
                    x0,
                    y0,
                    pad: [0; 2],
                };
                rec.dispatch(&GATHER_ROWS, &[&x, &index, &y], &params, Grid::elements(len, 256))?;
            }
        }
        from += part.images * rows_from * width;
        to += part.images * rows_to * width;
    }
    Ok(())
}
