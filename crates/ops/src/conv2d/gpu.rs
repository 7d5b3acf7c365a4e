use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use esvit_gpu::matmul::{GpuOperand, GpuProduct};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::{GpuIo, Result, sum};

use super::Conv2d;
use crate::filter::Span;

/// Mirrors `Params` in `patches.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PatchesParams {
    len: u32,
    cols: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    channels: u32,
    height: u32,
    width: u32,
    out_width: u32,
    out_area: u32,
    row: u32,
    x0: u32,
    y0: u32,
    pad: [u32; 3],
}

/// Mirrors `Params` in `scatter.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ScatterParams {
    len: u32,
    cols: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    channels: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    row: u32,
    rows: u32,
    dx0: u32,
    y0: u32,
    pad: [u32; 2],
}

static PATCHES: Kernel = Kernel::new::<PatchesParams>("conv2d_patches", &[include_str!("patches.wgsl")], "main", 2);
static SCATTER: Kernel = Kernel::new::<ScatterParams>("conv2d_scatter", &[include_str!("scatter.wgsl")], "main", 2);

pub(crate) static KERNELS: &[&Kernel] = &[&PATCHES, &SCATTER];

/// The matrix of patches takes this share of the largest binding at most: 128 MB where a binding holds 2 GB.
const SHARE: usize = 16;

/// Rows of y, cut so that operands and patches can be bound. Pieces begin where a binding can begin.
fn row_pieces(op: &Conv2d, out: usize, patch: usize, rec: &Recorder) -> Vec<Range<usize>> {
    rec.row_pieces(op.output().tokens(), 4 * (SHARE * patch).max(out))
}

/// A segment's share of some rows of y: its images, and the rows counted from the first of them.
fn shares(op: &Conv2d, rows: &Range<usize>) -> Vec<(Span, Range<usize>)> {
    let mut found = Vec::new();
    for s in Span::all(&op.layout, &op.output()) {
        let end = s.out_first + s.images * s.out_area();
        let (from, to) = (rows.start.max(s.out_first), rows.end.min(end));
        if from < to {
            let (from, to) = (from - s.out_first, to - s.out_first);
            let first = from / s.out_area();
            let span = s.part(first..to.div_ceil(s.out_area()));
            found.push((span, from - first * s.out_area()..to - first * s.out_area()));
        }
    }
    found
}

/// Records the patches of these rows of y.
fn patches(op: &Conv2d, x: &View, channels: usize, rows: &Range<usize>, into: &View, rec: &mut Recorder) -> Result<()> {
    let cols = channels * op.filter.taps();
    let mut y0 = 0;
    for (s, part) in shares(op, rows) {
        let elements = s.rows(channels);
        let (x, x0) = rec.aligned(x, elements.start, elements.len());
        let params = PatchesParams {
            len: (part.len() * cols) as u32,
            cols: cols as u32,
            kernel: op.filter.kernel as u32,
            stride: op.filter.stride as u32,
            padding: op.filter.padding as u32,
            channels: channels as u32,
            height: s.height as u32,
            width: s.width as u32,
            out_width: s.out_width as u32,
            out_area: s.out_area() as u32,
            row: part.start as u32,
            x0,
            y0,
            pad: [0; 3],
        };
        rec.dispatch(&PATCHES, &[&x, into], &params, Grid::elements(part.len() * cols, 256))?;
        y0 += params.len;
    }
    Ok(())
}

pub(super) fn forward(op: &Conv2d, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((_, channels), (out, patch)) = (io.matrix(0), io.matrix(1));
    let pieces = row_pieces(op, out, patch, rec);
    let matrix = rec.scratch((4 * pieces[0].len() * patch) as u64);
    for rows in pieces {
        let matrix = matrix.rows(0, rows.len(), patch);
        patches(op, &io.inputs[0], channels, &rows, &matrix, rec)?;
        let y = io.outputs[0].rows(rows.start, rows.len(), out);
        let (a, b) = (GpuOperand::plain(&matrix), GpuOperand::transposed(&io.inputs[1]));
        let product = GpuProduct::new(a, b, &y, [rows.len(), out, patch]).bias(io.inputs.get(2)).half(io.half());
        rec.scoped(|rec| product.record(rec))?;
    }
    Ok(())
}

pub(super) fn input_gradient(op: &Conv2d, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (out, cols) = io.matrix(1);
    let channels = cols / op.filter.taps();
    let pieces = row_pieces(op, out, cols, rec);
    let matrix = rec.scratch((4 * pieces[0].len() * cols) as u64);
    for rows in pieces {
        let matrix = matrix.rows(0, rows.len(), cols);
        let dy = io.inputs[0].rows(rows.start, rows.len(), out);
        let (a, b) = (GpuOperand::plain(&dy), GpuOperand::plain(&io.inputs[1]));
        rec.scoped(|rec| GpuProduct::new(a, b, &matrix, [rows.len(), cols, out]).half(io.half()).record(rec))?;
        let mut y0 = 0;
        for (s, part) in shares(op, &rows) {
            let elements = s.rows(channels);
            let (dx, dx0) = rec.aligned(&io.outputs[0], elements.start, elements.len());
            let params = ScatterParams {
                len: elements.len() as u32,
                cols: cols as u32,
                kernel: op.filter.kernel as u32,
                stride: op.filter.stride as u32,
                padding: op.filter.padding as u32,
                channels: channels as u32,
                height: s.height as u32,
                width: s.width as u32,
                out_height: s.out_height as u32,
                out_width: s.out_width as u32,
                row: part.start as u32,
                rows: part.len() as u32,
                dx0,
                y0,
                pad: [0; 2],
            };
            rec.dispatch(&SCATTER, &[&matrix, &dx], &params, Grid::elements(elements.len(), 256))?;
            y0 += (part.len() * cols) as u32;
        }
    }
    Ok(())
}

pub(super) fn weight_gradient(op: &Conv2d, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((_, out), (_, channels)) = (io.matrix(0), io.matrix(1));
    let patch = channels * op.filter.taps();
    let pieces = row_pieces(op, out, patch, rec);
    let matrix = rec.scratch((4 * pieces[0].len() * patch) as u64);
    let one = pieces.len() == 1;
    let mut parts = Vec::with_capacity(pieces.len());
    for rows in pieces {
        let matrix = matrix.rows(0, rows.len(), patch);
        patches(op, &io.inputs[1], channels, &rows, &matrix, rec)?;
        let part = if one { io.outputs[0].clone() } else { rec.scratch((4 * out * patch) as u64) };
        let dy = io.inputs[0].rows(rows.start, rows.len(), out);
        let (a, b) = (GpuOperand::transposed(&dy), GpuOperand::plain(&matrix));
        rec.scoped(|rec| GpuProduct::new(a, b, &part, [out, patch, rows.len()]).half(io.half()).record(rec))?;
        parts.push(part);
    }
    if one { Ok(()) } else { sum(rec, &parts, &io.outputs[0]) }
}
