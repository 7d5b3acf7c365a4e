use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::{GpuIo, Result, volume};

/// Mirrors `Params` in `relu.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    pad: [u32; 3],
}

static RELU: Kernel = Kernel::new::<Params>("relu", include_str!("relu.wgsl"), "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&RELU];

/// `passed` where `x` is positive: `x` itself, or the gradient.
pub(super) fn record(x: &View, passed: &View, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    for piece in rec.row_pieces(volume(io.shapes[0]), 4) {
        let part = |view: &View| view.rows(piece.start, piece.len(), 1);
        let params = Params { len: piece.len() as u32, pad: [0; 3] };
        rec.dispatch(&RELU, &[&part(x), &part(passed), &part(&io.outputs[0])], &params, Grid::elements(piece.len(), 256))?;
    }
    Ok(())
}
