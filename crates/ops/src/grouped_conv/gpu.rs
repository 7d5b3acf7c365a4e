use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, reduce};
use esvit_graph::{GpuIo, Result};

use crate::filter::Span;
use crate::{Filter, Layout};

/// Mirrors `Params` in `forward.wgsl`, `input_gradient.wgsl` and `weight_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    groups: u32,
    before: u32,
    after: u32,
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
    pad: u32,
}

const PARAMS: &str = include_str!("params.wgsl");

static FORWARD: Kernel = Kernel::new::<Params>("grouped_conv", &[include_str!("forward.wgsl"), PARAMS], "main", 3);
static INPUT_GRADIENT: Kernel = Kernel::new::<Params>("grouped_conv_dx", &[include_str!("input_gradient.wgsl"), PARAMS], "main", 3);
static WEIGHT_GRADIENT: Kernel = Kernel::new::<Params>("grouped_conv_dw", &[include_str!("weight_gradient.wgsl"), PARAMS], "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &INPUT_GRADIENT, &WEIGHT_GRADIENT];

/// Rows of dy that one thread of the weights' gradient adds up: `PIECE` in `weight_gradient.wgsl`.
const PIECE: usize = 256;

/// The convolution: grids of `x` and `y`, filter and groups. A depthwise one has as many groups as channels.
pub(crate) struct Grids<'a> {
    pub layout: &'a Layout,
    pub output: &'a Layout,
    pub filter: Filter,
    pub groups: usize,
}

/// A call: channels before and after, and the images of each dispatch.
struct Call<'a> {
    op: &'a Grids<'a>,
    channels: [usize; 2],
    spans: Vec<Span>,
}

impl<'a> Call<'a> {
    fn new(op: &'a Grids, channels: [usize; 2], rec: &Recorder) -> Call<'a> {
        let words = |s: &Span| (s.area() * channels[0]).max(s.out_area() * channels[1]);
        let spans = Span::all(op.layout, op.output).iter().flat_map(|s| s.pieces(rec, words(s))).collect();
        Call { op, channels, spans }
    }

    fn params(&self, s: &Span, len: usize, [x0, y0]: [u32; 2]) -> Params {
        let filter = self.op.filter;
        let [before, after] = self.channels.map(|channels| (channels / self.op.groups) as u32);
        let [len, groups, kernel, stride, padding] = [len, self.op.groups, filter.kernel, filter.stride, filter.padding].map(|v| v as u32);
        let [height, width, out_height, out_width] = [s.height, s.width, s.out_height, s.out_width].map(|v| v as u32);
        let rows = (s.images * s.out_area()) as u32;
        Params { len, groups, before, after, kernel, stride, padding, height, width, out_height, out_width, x0, y0, rows, first: 0, pad: 0 }
    }
}

pub(crate) fn forward(op: &Grids, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let call = Call::new(op, [io.matrix(0).1, io.matrix(1).0], rec);
    for s in &call.spans {
        let (before, after) = (s.rows(call.channels[0]), s.out_rows(call.channels[1]));
        let (x, x0) = rec.aligned(&io.inputs[0], before.start, before.len());
        let (y, y0) = rec.aligned(&io.outputs[0], after.start, after.len());
        rec.dispatch(&FORWARD, &[&x, &io.inputs[1], &y], &call.params(s, after.len(), [x0, y0]), Grid::elements(after.len(), 256))?;
    }
    Ok(())
}

pub(crate) fn input_gradient(op: &Grids, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (out, cols) = io.matrix(1);
    let call = Call::new(op, [cols / op.filter.taps() * op.groups, out], rec);
    for s in &call.spans {
        let (before, after) = (s.rows(call.channels[0]), s.out_rows(out));
        let (dx, x0) = rec.aligned(&io.outputs[0], before.start, before.len());
        let (dy, y0) = rec.aligned(&io.inputs[0], after.start, after.len());
        let params = call.params(s, before.len(), [x0, y0]);
        rec.dispatch(&INPUT_GRADIENT, &[&dy, &io.inputs[1], &dx], &params, Grid::elements(before.len(), 256))?;
    }
    Ok(())
}

pub(crate) fn weight_gradient(op: &Grids, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((_, out), (_, channels)) = (io.matrix(0), io.matrix(1));
    let call = Call::new(op, [channels, out], rec);
    let weights = out * channels / op.groups * op.filter.taps();
    let parts = |s: &Span| (s.images * s.out_area()).div_ceil(PIECE);
    let total = call.spans.iter().map(parts).sum();
    let partial = rec.scratch((4 * total * weights) as u64);
    let mut first = 0;
    for s in &call.spans {
        let (before, after) = (s.rows(channels), s.out_rows(out));
        let (x, x0) = rec.aligned(&io.inputs[1], before.start, before.len());
        let (dy, y0) = rec.aligned(&io.inputs[0], after.start, after.len());
        let len = parts(s) * weights;
        let params = Params { first: first as u32, ..call.params(s, len, [x0, y0]) };
        rec.dispatch(&WEIGHT_GRADIENT, &[&dy, &x, &partial], &params, Grid::elements(len, 256))?;
        first += parts(s);
    }
    Ok(reduce::column_sum(rec, &partial, &io.outputs[0], total, weights)?)
}
