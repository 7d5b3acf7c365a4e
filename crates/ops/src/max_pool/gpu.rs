use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

use super::MaxPool;
use crate::filter::Span;

/// Mirrors `Params` in `forward.wgsl` and `backward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    cols: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    x0: u32,
    y0: u32,
    pad: u32,
}

const PARAMS: &str = include_str!("params.wgsl");

static FORWARD: Kernel = Kernel::new::<Params>("max_pool", &[include_str!("forward.wgsl"), PARAMS], "main", 3);
static BACKWARD: Kernel = Kernel::new::<Params>("max_pool_dx", &[include_str!("backward.wgsl"), PARAMS], "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];

fn params(op: &MaxPool, s: &Span, cols: usize, len: usize, x0: u32, y0: u32) -> Params {
    let [cols, kernel, stride, padding] = [cols, op.filter.kernel, op.filter.stride, op.filter.padding].map(|v| v as u32);
    let [height, width, out_height, out_width] = [s.height, s.width, s.out_height, s.out_width].map(|v| v as u32);
    Params { len: len as u32, cols, kernel, stride, padding, height, width, out_height, out_width, x0, y0, pad: 0 }
}

fn pieces(op: &MaxPool, cols: usize, rec: &Recorder) -> Vec<Span> {
    Span::all(&op.layout, &op.output()).iter().flat_map(|s| s.pieces(rec, s.area().max(s.out_area()) * cols)).collect()
}

pub(super) fn forward(op: &MaxPool, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    for s in pieces(op, cols, rec) {
        let (before, after) = (s.rows(cols), s.out_rows(cols));
        let (x, x0) = rec.aligned(&io.inputs[0], before.start, before.len());
        // Both results begin at the alignment of the arena.
        let (y, y0) = rec.aligned(&io.outputs[0], after.start, after.len());
        let (taps, _) = rec.aligned(&io.outputs[1], after.start, after.len());
        rec.dispatch(&FORWARD, &[&x, &y, &taps], &params(op, &s, cols, after.len(), x0, y0), Grid::elements(after.len(), 256))?;
    }
    Ok(())
}

pub(super) fn gradient(op: &MaxPool, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    for s in pieces(op, cols, rec) {
        let (before, after) = (s.rows(cols), s.out_rows(cols));
        let (dx, x0) = rec.aligned(&io.outputs[0], before.start, before.len());
        let (dy, y0) = rec.aligned(&io.inputs[0], after.start, after.len());
        let (taps, _) = rec.aligned(&io.inputs[1], after.start, after.len());
        rec.dispatch(&BACKWARD, &[&dy, &taps, &dx], &params(op, &s, cols, before.len(), x0, y0), Grid::elements(before.len(), 256))?;
    }
    Ok(())
}
