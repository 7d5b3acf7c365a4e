use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, reduce};
use esvit_graph::{GpuIo, Result};

/// Mirrors `Params` in `forward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    table_len: u32,
    first: u32,
    pad: u32,
}

static FORWARD: Kernel = Kernel::new::<Params>("position", include_str!("forward.wgsl"), "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD];

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
