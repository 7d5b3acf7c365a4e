use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, reduce};
use esvit_graph::{GpuIo, Result};

use super::AddPositions;

/// Mirrors `Params` in `forward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    table_len: u32,
    first: u32,
    pad: u32,
}

/// Mirrors `Params` in `each.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct EachParams {
    len: u32,
    table_len: u32,
    x0: u32,
    table0: u32,
    y0: u32,
    pad: [u32; 3],
}

/// Mirrors `Params` in `sum_segments.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SumSegmentsParams {
    images: u32,
    len: u32,
    x0: u32,
    y0: u32,
    accumulate: u32,
    pad: [u32; 3],
}

static EACH: Kernel = Kernel::new::<EachParams>("positions", &[include_str!("each.wgsl")], "main", 3);
static SUM: Kernel = Kernel::new::<SumSegmentsParams>("positions_dtable", &[include_str!("sum_segments.wgsl")], "main", 2);
static FORWARD: Kernel = Kernel::new::<Params>("position", &[include_str!("forward.wgsl")], "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &EACH, &SUM];

/// Adds a table to every image of each segment.
pub(super) fn forward_each(op: &AddPositions, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let (mut first, mut first_row) = (0, 0);
    for s in op.layout.segments() {
        let image = s.tokens_per_image() * cols;
        for images in rec.image_pieces(s.images, 4 * image) {
            let (at, len) = (first + images.start * image, images.len() * image);
            let ((x, x0), (y, y0)) = (rec.aligned(&io.inputs[0], at, len), rec.aligned(&io.outputs[0], at, len));
            let (table, table0) = rec.aligned(&io.inputs[1], first_row * cols, image);
            let params = EachParams { len: len as u32, table_len: image as u32, x0, table0, y0, pad: [0; 3] };
            rec.dispatch(&EACH, &[&x, &table, &y], &params, Grid::elements(len, 256))?;
        }
        first += s.images * image;
        first_row += s.tokens_per_image();
    }
    Ok(())
}

/// An image is a row, an element of a segment's table a column.
pub(super) fn sum_segments(op: &AddPositions, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let (mut first, mut first_row) = (0, 0);
    for s in op.layout.segments() {
        let image = s.tokens_per_image() * cols;
        let (y, y0) = rec.aligned(&io.outputs[0], first_row * cols, image);
        let mut done = 0;
        for images in rec.image_pieces(s.images, 4 * image) {
            let (x, x0) = rec.aligned(&io.inputs[0], first + images.start * image, images.len() * image);
            let params =
                SumSegmentsParams { images: images.len() as u32, len: image as u32, x0, y0, accumulate: u32::from(done > 0), pad: [0; 3] };
            rec.dispatch(&SUM, &[&x, &y], &params, Grid::elements(image, 256))?;
            done += images.len();
        }
        first += s.images * image;
        first_row += s.tokens_per_image();
    }
    Ok(())
}

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((rows, cols), (tokens, _)) = (io.matrix(0), io.matrix(1));
    let table_len = tokens * cols;
    for piece in rec.row_pieces(rows * cols, 4) {
        let (x, y) = (io.inputs[0].rows(piece.start, piece.len(), 1), io.outputs[0].rows(piece.start, piece.len(), 1));
        let params = Params { len: piece.len() as u32, table_len: table_len as u32, first: (piece.start % table_len) as u32, pad: 0 };
        rec.dispatch(&FORWARD, &[&x, &io.inputs[1], &y], &params, Grid::elements(piece.len(), 256))?;
    }
    Ok(())
}

/// An image is a row, an element of the table a column.
pub(super) fn sum_images(tokens: usize, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    Ok(reduce::column_sum(rec, &io.inputs[0], &io.outputs[0], rows / tokens, tokens * cols)?)
}
