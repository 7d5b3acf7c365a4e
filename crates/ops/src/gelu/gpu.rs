use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::{GpuIo, Result};

/// Mirrors `Params` in `forward.wgsl` and `backward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    len: u32,
    pad: [u32; 3],
}

static FORWARD: Kernel = Kernel::new::<Params>("gelu", include_str!("forward.wgsl"), "main", 2);
static BACKWARD: Kernel = Kernel::new::<Params>("gelu_dx", include_str!("backward.wgsl"), "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    elementwise(rec, &FORWARD, &[&io.inputs[0], &io.outputs[0]])
}

pub(super) fn backward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    elementwise(rec, &BACKWARD, &[&io.inputs[0], &io.inputs[1], &io.outputs[0]])
}

/// One thread for each element, in pieces that can be bound.
pub(crate) fn elementwise(rec: &mut Recorder, kernel: &'static Kernel, views: &[&View]) -> Result<()> {
    let len = (views[0].bytes() / 4) as usize;
    for piece in rec.row_pieces(len, 4) {
        let parts: Vec<View> = views.iter().map(|view| view.rows(piece.start, piece.len(), 1)).collect();
        let params = Params { len: piece.len() as u32, pad: [0; 3] };
        rec.dispatch(kernel, &parts.iter().collect::<Vec<_>>(), &params, Grid::elements(piece.len(), 256))?;
    }
    Ok(())
}
