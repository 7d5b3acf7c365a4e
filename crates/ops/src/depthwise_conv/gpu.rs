use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, reduce};
use esvit_graph::{GpuIo, Result};

use super::DepthwiseConv;
use crate::filter::Span;

/// Mirrors `Params` in `forward.wgsl`, `input_gradient.wgsl` and `weight_gradient.wgsl`.
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
    rows: u32,
    first: u32,
    pad: [u32; 3],
}

static FORWARD: Kernel = Kernel::new::<Params>("depthwise_conv", include_str!("forward.wgsl"), "main", 3);
static INPUT_GRADIENT: Kernel = Kernel::new::<Params>("depthwise_conv_dx", include_str!("input_gradient.wgsl"), "main", 3);
static WEIGHT_GRADIENT: Kernel = Kernel::new::<Params>("depthwise_conv_dw", include_str!("weight_gradient.wgsl"), "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &INPUT_GRADIENT, &WEIGHT_GRADIENT];

/// Rows of dy that one thread of the weights' gradient adds up: `PIECE` in `weight_gradient.wgsl`.
const PIECE: usize = 256;

fn params(op: &DepthwiseConv, s: &Span, cols: usize, len: usize, x0: u32, y0: u32) -> Params {
    let [cols, kernel, stride, padding] = [cols, op.filter.kernel, op.filter.stride, op.filter.padding].map(|v| v as u32);
    let [height, width, out_height, out_width] = [s.height, s.width, s.out_height, s.out_width].map(|v| v as u32);
    let rows = (s.images * s.out_area()) as u32;
    Params { len: len as u32, cols, kernel, stride, padding, height, width, out_height, out_width, x0, y0, rows, first: 0, pad: [0; 3] }
}

fn pieces(op: &DepthwiseConv, cols: usize, rec: &Recorder) -> Vec<Span> {
    Span::all(&op.layout, &op.output).iter().flat_map(|s| s.pieces(rec, s.area().max(s.out_area()) * cols)).collect()
}

pub(super) fn forward(op: &DepthwiseConv, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    for s in pieces(op, cols, rec) {
        let (before, after) = (s.rows(cols), s.out_rows(cols));
        let (x, x0) = rec.aligned(&io.inputs[0], before.start, before.len());
        let (y, y0) = rec.aligned(&io.outputs[0], after.start, after.len());
        rec.dispatch(&FORWARD, &[&x, &io.inputs[1], &y], &params(op, &s, cols, after.len(), x0, y0), Grid::elements(after.len(), 256))?;
    }
    Ok(())
}

pub(super) fn input_gradient(op: &DepthwiseConv, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    for s in pieces(op, cols, rec) {
        let (before, after) = (s.rows(cols), s.out_rows(cols));
        let (dx, x0) = rec.aligned(&io.outputs[0], before.start, before.len());
        let (dy, y0) = rec.aligned(&io.inputs[0], after.start, after.len());
        let params = params(op, &s, cols, before.len(), x0, y0);
        rec.dispatch(&INPUT_GRADIENT, &[&dy, &io.inputs[1], &dx], &params, Grid::elements(before.len(), 256))?;
    }
    Ok(())
}

pub(super) fn weight_gradient(op: &DepthwiseConv, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let width = cols * op.filter.taps();
    let spans = pieces(op, cols, rec);
    let parts = |s: &Span| (s.images * s.out_area()).div_ceil(PIECE);
    let total = spans.iter().map(parts).sum();
    let partial = rec.scratch((4 * total * width) as u64);
    let mut first = 0;
    for s in spans {
        let (before, after) = (s.rows(cols), s.out_rows(cols));
        let (x, x0) = rec.aligned(&io.inputs[1], before.start, before.len());
        let (dy, y0) = rec.aligned(&io.inputs[0], after.start, after.len());
        let len = parts(&s) * width;
        let params = Params { first: first as u32, ..params(op, &s, cols, len, x0, y0) };
        rec.dispatch(&WEIGHT_GRADIENT, &[&dy, &x, &partial], &params, Grid::elements(len, 256))?;
        first += parts(&s);
    }
    Ok(reduce::column_sum(rec, &partial, &io.outputs[0], total, width)?)
}
