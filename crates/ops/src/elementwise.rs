//! Kernels with one thread for each element.

use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::Result;

/// Mirrors `Params` of such kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    len: u32,
    pad: [u32; 3],
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
