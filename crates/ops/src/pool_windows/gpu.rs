use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::{GpuIo, Result};

use super::PoolWindows;

/// Mirrors `Params` in both files.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    images: u32,
    globals: u32,
    height: u32,
    width: u32,
    window: u32,
    heads: u32,
    cols: u32,
    is_learned: u32,
    kv0: u32,
    y0: u32,
    out0: u32,
    what: u32,
    len: u32,
    accumulate: u32,
    pad: [u32; 2],
}

const WINDOWS: &str = include_str!("windows.wgsl");

static FORWARD: Kernel = Kernel::new::<Params>("pool_windows", &[include_str!("forward.wgsl"), WINDOWS], "main", 6);
static DKV: Kernel = Kernel::new::<Params>("pool_windows_dkv", &[include_str!("backward.wgsl"), WINDOWS], "dkv", 7);
static SUMS: Kernel = Kernel::new::<Params>("pool_windows_sums", &[include_str!("backward.wgsl"), WINDOWS], "sums", 7);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &DKV, &SUMS];

/// Some images of one segment: their rows before and after, and their parameters.
fn pieces(op: &PoolWindows, cols: usize, is_learned: bool, rec: &Recorder) -> Vec<([usize; 2], [usize; 2], Params)> {
    let (mut from, mut to) = (0, 0);
    let mut pieces = Vec::new();
    for s in op.layout.segments() {
        let rows = op.globals + s.tokens_per_image();
        let all = rows + op.windows(s);
        for images in rec.image_pieces(s.images, 4 * all * cols) {
            let params = Params {
                images: images.len() as u32,
                globals: op.globals as u32,
                height: s.height as u32,
                width: s.width as u32,
                window: op.window as u32,
                heads: op.heads as u32,
                cols: cols as u32,
                is_learned: is_learned.into(),
                ..Params::zeroed()
            };
            pieces.push(([from + images.start * rows, images.len() * rows], [to + images.start * all, images.len() * all], params));
        }
        from += s.images * rows;
        to += s.images * all;
    }
    pieces
}

pub(super) fn forward(op: &PoolWindows, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let cols = io.matrix(0).1;
    let is_learned = io.inputs.len() == 5;
    let scale = &io.inputs[1];
    for (before, after, params) in pieces(op, cols, is_learned, rec) {
        let (kv, kv0) = rec.aligned(&io.inputs[0], before[0] * cols, before[1] * cols);
        let (y, y0) = rec.aligned(&io.outputs[0], after[0] * cols, after[1] * cols);
        let params = Params { kv0, y0, len: (after[1] * cols) as u32, ..params };
        // Without learned weights nothing is read there.
        let [weight, bias] = [3, 4].map(|i| io.inputs.get(i).unwrap_or(scale));
        rec.dispatch(&FORWARD, &[&kv, scale, &io.inputs[2], weight, bias, &y], &params, Grid::elements(after[1] * cols, 256))?;
    }
    Ok(())
}

pub(super) fn gradient(op: &PoolWindows, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let cols = io.matrix(0).1;
    let is_learned = io.inputs.len() == 6;
    let dy = &io.inputs[io.inputs.len() - 1];
    let scale = &io.inputs[1];
    let [weight, bias] = [3, 4].map(|i| if is_learned { &io.inputs[i] } else { scale });
    for (n, (before, after, params)) in pieces(op, cols, is_learned, rec).into_iter().enumerate() {
        let (kv, kv0) = rec.aligned(&io.inputs[0], before[0] * cols, before[1] * cols);
        let (dy, y0) = rec.aligned(dy, after[0] * cols, after[1] * cols);
        let (dkv, out0) = rec.aligned(&io.outputs[0], before[0] * cols, before[1] * cols);
        let len = before[1] * cols;
        let params = Params { kv0, y0, out0, len: len as u32, ..params };
        rec.dispatch(&DKV, &[&kv, scale, &io.inputs[2], weight, bias, &dy, &dkv], &params, Grid::elements(len, 256))?;
        // Scales, then weights and bias: a workgroup for each number.
        for (what, out) in io.outputs.iter().enumerate().skip(1) {
            let len = (View::bytes(out) / 4) as u32;
            let params = Params { out0: 0, what: what as u32, len, accumulate: u32::from(n > 0), ..params };
            rec.dispatch(&SUMS, &[&kv, scale, &io.inputs[2], weight, bias, &dy, out], &params, Grid::fold(len as usize))?;
        }
    }
    Ok(())
}
