//! Attention inside (shifted) windows with a learned bias for every relative position.
//!
//! For the tokens i, j of a window and each head, `P = softmax_j(q_i·k_j/√D + bias[i, j] + mask[i, j])`, `y_i = Σ_j P_ij·v_j`.
//!
//! - `qkv` `[N, 3·C]`: q, k, v of all heads side by side, head h in columns h·D..(h+1)·D of each third
//! - `table` `[(2w−1)², H]`: bias of the offset (Δrow, Δcolumn) at row `(Δrow + w − 1)·(2w − 1) + Δcolumn + w − 1`
//! - `qkv_bias` `[3·C]` (optional): row of padding tokens, since they are zeros before the projection; zeros without
//! - `y` `[N, C]`; nothing is saved: the backward pass recomputes the scores, which never leave the cache
//!
//! Grids are padded at the bottom and right to multiples of the window *before* the cyclic shift; padding takes part as
//! keys, unmasked. In a shifted block, pairs from different regions of the padded grid get −100, as microsoft/esvit adds
//! (not −∞). In mixed precision q, k, v, dy, P and dS are rounded for the products. [`WindowAttention::in_place`] is CvT's variant: another
//! factor than 1/√D, and a mask without a shift. No matrix of windows exists: rows are gathered by index into tiles.
//!
//! Source: Liu et al. 2021, <https://arxiv.org/abs/2103.14030>, eq. 4 and section 3.2.

mod bias;
mod cases;
mod cpu;
mod fast;
mod gather;
mod geometry;
pub(crate) mod gpu;
#[cfg(target_arch = "x86_64")]
mod mixed;
mod operands;
mod single;
mod softmax;
mod tiles;

pub use cases::cases;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Precision, Prepacked, Result, Shape, Slice, Value};

use crate::{Layout, check};
use geometry::WindowGeometry;

/// Attention inside windows, the operator: heads, window and shift, and the tokens they work on.
#[derive(Clone, Debug)]
pub struct WindowAttention {
    heads: usize,
    geometry: std::sync::Arc<WindowGeometry>,
}

impl WindowAttention {
    /// Attention with `heads` heads in windows of `window × window`, shifted by `shift` (0 for none).
    pub fn new(layout: &Layout, heads: usize, window: usize, shift: usize) -> WindowAttention {
        WindowAttention { heads, geometry: WindowGeometry::new(layout, window, shift, shift, window).into() }
    }

    /// CvT's attention: scores are multiplied by `scale`; where the grid is cut at `−window` and `−cut`, pairs of different
    /// regions are masked although nothing moves (0 for no mask); the bias table is that of windows of `table_window`, which
    /// may be larger than `window`.
    pub fn in_place(layout: &Layout, heads: usize, window: usize, cut: usize, table_window: usize, scale: f32) -> WindowAttention {
        let geometry = WindowGeometry::new(layout, window, cut, 0, table_window.max(window));
        WindowAttention { heads, geometry: WindowGeometry { scale: Some(scale), ..geometry }.into() }
    }

    /// Whether heads are whole words of two channels.
    fn even(&self, inputs: &[&Shape]) -> bool {
        inputs[0][1].is_multiple_of(6 * self.heads)
    }

    fn check(&self, op: &'static str, inputs: &[&Shape], has_bias: bool) -> Result<(usize, usize)> {
        let (rows, three_c) = check::matrix(op, "qkv", inputs[0])?;
        check::shape(op, "qkv", inputs[0], &[self.geometry.tokens, three_c])?;
        if self.heads == 0 || three_c % (3 * self.heads) != 0 {
            return Err(Error::Attribute { op, what: format!("{} channels cannot be split into {} heads", three_c / 3, self.heads) });
        }
        check::shape(op, "table", inputs[1], &[self.geometry.table_rows(), self.heads])?;
        if has_bias {
            check::shape(op, "qkv_bias", inputs[2], &[three_c])?;
        }
        Ok((rows, three_c))
    }
}

impl Op for WindowAttention {
    fn name(&self) -> &'static str {
        "window_attention"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if inputs.len() != 2 {
            check::arity("window_attention", inputs, 3)?;
        }
        let (rows, three_c) = self.check("window_attention", inputs, inputs.len() == 3)?;
        Ok(vec![(vec![rows, three_c / 3], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; node.inputs.len()]) };
        let mut inputs = node.inputs.clone();
        inputs.push(dy);
        let grads = g.apply(WindowAttentionGradient(self.clone()), &inputs)?;
        Ok(grads.into_iter().map(Some).collect())
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(&self.geometry, self.heads, io);
    }

    fn fast(&self, io: &mut Io) {
        fast::forward(&self.geometry, self.heads, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(&self.geometry, self.heads, io, rec)
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        operand == 0 && self.even(inputs)
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        self.even(inputs)
    }

    fn prepack(&self, operands: &[Option<Slice>], shapes: &[&Shape], precision: Precision) -> Option<Prepacked> {
        fast::prepack(&self.geometry, self.heads, shapes[0][1] / 3 / self.heads, operands[1], precision)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        fast::scratch(&self.geometry, self.heads, inputs[0][1], threads, false)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        4 * self.geometry.pairs() * (inputs[0][1] / 3) as u64
    }
}

/// Attention maps, to look at: `P` of every window and head, from the operands of [`WindowAttention`].
///
/// - result `[windows, H, T, T]`: windows image by image, then row by row of the padded, shifted grid; padding tokens
///   are rows and columns like the others
/// - no gradient, and no fast version: nothing is trained through it
#[derive(Debug, Clone)]
pub struct AttentionMap(pub WindowAttention);

impl Op for AttentionMap {
    fn name(&self) -> &'static str {
        "attention_map"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        self.0.infer(inputs)?;
        let area = self.0.geometry.area;
        Ok(vec![(vec![self.0.geometry.windows(), self.0.heads, area, area], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::maps(&self.0.geometry, self.0.heads, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::maps(&self.0.geometry, self.0.heads, io, rec)
    }
}

/// Gradient of attention inside windows: `dqkv`, `dtable` and, with a bias, `dqkv_bias` from the operands and `dy`.
#[derive(Debug)]
struct WindowAttentionGradient(WindowAttention);

impl Op for WindowAttentionGradient {
    fn name(&self) -> &'static str {
        "window_attention_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if inputs.len() != 3 {
            check::arity("window_attention_dx", inputs, 4)?;
        }
        self.0.check("window_attention_dx", inputs, inputs.len() == 4)?;
        Ok(inputs[..inputs.len() - 1].iter().map(|s| ((*s).clone(), DType::F32)).collect())
    }

    fn reference(&self, io: &mut Io) {
        cpu::gradient_reference(&self.0.geometry, self.0.heads, io);
    }

    fn fast(&self, io: &mut Io) {
        fast::gradient(&self.0.geometry, self.0.heads, io);
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        (operand == 0 || operand + 1 == inputs.len()) && self.0.even(inputs)
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        self.0.even(inputs)
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::gradient(&self.0.geometry, self.0.heads, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        fast::scratch(&self.0.geometry, self.0.heads, inputs[0][1], threads, true)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        10 * self.0.geometry.pairs() * (inputs[0][1] / 3) as u64
    }
}
