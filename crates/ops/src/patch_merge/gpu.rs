use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::{GpuIo, Result};

use crate::Layout;

/// Mirrors `Params` in `merge.wgsl` and `split.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    cols: u32,
    height: u32,
    width: u32,
    x0: u32,
    y0: u32,
    pad: [u32; 2],
}

static MERGE: Kernel = Kernel::new::<Params>("patch_merge", &[include_str!("merge.wgsl")], "main", 2);
static SPLIT: Kernel = Kernel::new::<Params>("patch_split", &[include_str!("split.wgsl")], "main", 2);

pub(crate) static KERNELS: &[&Kernel] = &[&MERGE, &SPLIT];

pub(super) fn merge(layout: &Layout, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    for_pieces(layout, cols, &io.inputs[0], &io.outputs[0], rec, |rec, [x, y], [_, len], params| {
        let params = Params { len: len as u32, ..params };
        Ok(rec.dispatch(&MERGE, &[x, y], &params, Grid::elements(len, 256))?)
    })
}

pub(super) fn split(layout: &Layout, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let cols = io.matrix(0).1 / 4;
    for_pieces(layout, cols, &io.outputs[0], &io.inputs[0], rec, |rec, [dx, dy], [len, _], params| {
        let params = Params { len: len as u32, ..params };
        Ok(rec.dispatch(&SPLIT, &[dy, dx], &params, Grid::elements(len, 256))?)
    })
}

/// Calls `f` with a piece's tokens before and after merging, how many elements they have, and everything of `Params` but `len`.
fn for_pieces(
    layout: &Layout,
    cols: usize,
    before: &View,
    after: &View,
    rec: &mut Recorder,
    f: impl Fn(&mut Recorder, [&View; 2], [usize; 2], Params) -> Result<()>,
) -> Result<()> {
    let merged = |height: usize, width: usize| 4 * height.div_ceil(2) * width.div_ceil(2);
    let (mut from, mut to) = (0, 0);
    for piece in layout.pieces(rec, |s| 4 * merged(s.height, s.width) * cols) {
        let lens = [piece.tokens() * cols, piece.images * merged(piece.height, piece.width) * cols];
        let (x, x0) = rec.aligned(before, from, lens[0]);
        let (y, y0) = rec.aligned(after, to, lens[1]);
        let params = Params { len: 0, cols: cols as u32, height: piece.height as u32, width: piece.width as u32, x0, y0, pad: [0; 2] };
        f(rec, [&x, &y], lens, params)?;
        from += lens[0];
        to += lens[1];
    }
    Ok(())
}
