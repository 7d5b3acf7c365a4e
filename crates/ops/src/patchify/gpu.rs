use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

use super::{MEAN, Patchify, STD};
use crate::Segment;

/// Mirrors `Params` in `floats.wgsl` and `backward.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    side: u32,
    height: u32,
    width: u32,
    x0: u32,
    y0: u32,
    pad: [u32; 2],
}

/// Mirrors `Params` in `bytes.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BytesParams {
    scale: [f32; 4],
    bias: [f32; 4],
    rest: Params,
}

const PIXEL: &str = include_str!("pixel.wgsl");

static BYTES: Kernel = Kernel::new::<BytesParams>("patchify_bytes", &[include_str!("bytes.wgsl"), PIXEL], "main", 2);
static FLOATS: Kernel = Kernel::new::<Params>("patchify", &[include_str!("floats.wgsl"), PIXEL], "main", 2);
static BACKWARD: Kernel = Kernel::new::<Params>("unpatchify", &[include_str!("backward.wgsl")], "main", 2);

pub(crate) static KERNELS: &[&Kernel] = &[&BYTES, &FLOATS, &BACKWARD];

pub(super) fn forward(op: &Patchify, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    // Pixels lie four to a word, floats one.
    if io.inputs[0].bytes() < 4 * op.volume() as u64 { bytes(op, io, rec) } else { floats(op, io, rec) }
}

fn bytes(op: &Patchify, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    // One fused multiply-add a pixel, as in the fast version.
    let scale = std::array::from_fn(|c| STD.get(c).map_or(0.0, |std| 1.0 / (255.0 * std)));
    let bias = std::array::from_fn(|c| STD.get(c).map_or(0.0, |std| -MEAN[c] / std));
    let (mut byte, mut element) = (0, 0);
    for piece in op.pixels.pieces(rec, image_bytes) {
        let (pixels, len) = sizes(op, &piece);
        // An image need not begin at a word.
        let word = byte / 4;
        let (x, early) = rec.aligned(&io.inputs[0], word, (byte + pixels).div_ceil(4) - word);
        let (y, y0) = rec.aligned(&io.outputs[0], element, len);
        let rest = params(op, &piece, len, 4 * early + (byte % 4) as u32, y0);
        rec.dispatch(&BYTES, &[&x, &y], &BytesParams { scale, bias, rest }, Grid::elements(len, 256))?;
        byte += pixels;
        element += len;
    }
    Ok(())
}

fn floats(op: &Patchify, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (mut pixel, mut element) = (0, 0);
    for piece in op.pixels.pieces(rec, image_bytes) {
        let (pixels, len) = sizes(op, &piece);
        let (x, x0) = rec.aligned(&io.inputs[0], pixel, pixels);
        let (y, y0) = rec.aligned(&io.outputs[0], element, len);
        rec.dispatch(&FLOATS, &[&x, &y], &params(op, &piece, len, x0, y0), Grid::elements(len, 256))?;
        pixel += pixels;
        element += len;
    }
    Ok(())
}

pub(super) fn backward(op: &Patchify, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (mut pixel, mut element) = (0, 0);
    for piece in op.pixels.pieces(rec, image_bytes) {
        let (pixels, len) = sizes(op, &piece);
        let (dy, y0) = rec.aligned(&io.inputs[0], element, len);
        let (dx, x0) = rec.aligned(&io.outputs[0], pixel, pixels);
        rec.dispatch(&BACKWARD, &[&dy, &dx], &params(op, &piece, pixels, x0, y0), Grid::elements(pixels, 256))?;
        pixel += pixels;
        element += len;
    }
    Ok(())
}

/// Float pixels are the largest operand; patches are no more than them.
fn image_bytes(s: &Segment) -> usize {
    4 * 3 * s.tokens_per_image()
}

/// Values of a piece's pixels and of its patches.
fn sizes(op: &Patchify, piece: &Segment) -> (usize, usize) {
    let p = op.patch;
    (3 * piece.tokens(), piece.images * (piece.height / p) * (piece.width / p) * 3 * p * p)
}

fn params(op: &Patchify, piece: &Segment, len: usize, x0: u32, y0: u32) -> Params {
    Params { len: len as u32, side: op.patch as u32, height: piece.height as u32, width: piece.width as u32, x0, y0, pad: [0; 2] }
}
