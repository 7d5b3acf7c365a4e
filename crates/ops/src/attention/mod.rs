//! Attention among the tokens of an image: all of them, or sliding windows with global tokens.
//!
//! For each head, `P = softmax_j(q_i·k_j/√D + bias[slot(i, j)])` over the keys j that query i sees, `y_i = Σ_j P_ij·v_j`. The visible keys
//! of a query, and the row of the bias for a pair, are fixed when the program is built ([`Attention::full`], [`Attention::sliding`]).
//!
//! - either `qkv` `[N, 3·C]`: q, k, v of all heads side by side, head h in columns h·D..(h+1)·D of each third; or `q` `[N, C]` and `kv`
//!   `[M, 2·C]`, where an image may have more rows of keys than of queries
//! - `bias` `[R, H]` (optional): a value for every slot
//! - `draws` `[segments]`, u32 (only for neighbors drawn at run time): 0 for all neighbors, 1 to 8 for one of them
//! - `y` `[N, C]`, zero where a query has no visible keys; `stats` `[N, H]`: logarithm of each query's sum, kept for the backward pass
//!
//! Scores live in blocks of 64 queries, never as a whole; the backward pass recomputes them. In mixed precision q, k, v, dy, P and dS are
//! rounded for the products.
//!
//! Sources: Vaswani et al. 2017, eq. 1; Zhang et al. 2021, <https://arxiv.org/abs/2103.15358>; Dao et al. 2022 for recomputing.

mod block;
mod cases;
mod cpu;
mod fast;
mod geometry;
pub(crate) mod gpu;
#[cfg(target_arch = "x86_64")]
mod mixed;
mod operands;
mod single;
mod sliding;

pub use cases::cases;
pub use sliding::{Border, Neighbors, SlidingWindows};

use std::sync::Arc;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Slice, Value};

use crate::{Layout, check};
use geometry::AttentionGeometry;
use operands::AttentionOperands;

/// Attention among the tokens of an image, the operator.
#[derive(Clone, Debug)]
pub struct Attention {
    heads: usize,
    /// Whether q, k and v are one operand, or two.
    fused: bool,
    geometry: Arc<AttentionGeometry>,
}

impl Attention {
    /// Full attention: every token of an image sees every one, of one operand `qkv`. With `bias` the slot of pair (i, j) in an image of T
    /// tokens is `i·T + j`, behind those of the segments before.
    pub fn full(layout: &Layout, heads: usize, bias: bool) -> Attention {
        Attention { heads, fused: true, geometry: AttentionGeometry::full(layout, bias).into() }
    }

    /// Attention in sliding windows, of two operands.
    pub fn sliding(windows: &SlidingWindows, heads: usize, bias: bool) -> Attention {
        Attention { heads, fused: false, geometry: windows.geometry(bias).into() }
    }

    /// Number of operands, without those of the gradient.
    fn arity(&self) -> usize {
        1 + usize::from(!self.fused) + usize::from(self.geometry.bias_rows > 0) + usize::from(self.geometry.is_drawn())
    }

    fn check(&self, op: &'static str, inputs: &[&Shape]) -> Result<usize> {
        let parts = if self.fused { 3 } else { 1 };
        let (_, width) = check::matrix(op, "q", inputs[0])?;
        let c = width / parts;
        check::shape(op, "q", inputs[0], &[self.geometry.queries(), parts * c])?;
        if self.heads == 0 || !c.is_multiple_of(self.heads) {
            return Err(Error::Attribute { op, what: format!("{c} channels cannot be split into {} heads", self.heads) });
        }
        let mut next = 1;
        if !self.fused {
            check::shape(op, "kv", inputs[1], &[self.geometry.keys(), 2 * c])?;
            next = 2;
        }
        if self.geometry.bias_rows > 0 {
            check::shape(op, "bias", inputs[next], &[self.geometry.bias_rows, self.heads])?;
            next += 1;
        }
        if self.geometry.is_drawn() {
            check::shape(op, "draws", inputs[next], &[self.geometry.grids.len()])?;
        }
        Ok(c)
    }

    fn operands<'a>(&self, io: &Io<'a>) -> AttentionOperands<'a> {
        let q_width = io.matrix(0).1;
        let (kv, c) = if self.fused { (0, q_width / 3) } else { (1, q_width) };
        let (key_column, value_column) = if self.fused { (c, 2 * c) } else { (0, c) };
        let bias = (self.geometry.bias_rows > 0).then(|| io.f32(kv + 1));
        let draws = self.geometry.is_drawn().then(|| io.inputs[self.arity() - 1]).map(Slice::u32);
        AttentionOperands {
            q: io.f32(0),
            kv: io.f32(kv),
            q_width,
            kv_width: io.matrix(kv).1,
            key_column,
            value_column,
            c,
            heads: self.heads,
            bias,
            draws,
        }
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("attention", inputs, self.arity())?;
        let c = self.check("attention", inputs)?;
        let queries = self.geometry.queries();
        Ok(vec![(vec![queries, c], DType::F32), (vec![queries, self.heads], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; node.inputs.len()]) };
        let mut inputs = node.inputs.clone();
        inputs.extend([node.outputs[0], node.outputs[1], dy]);
        let grads = g.apply(AttentionGradient(self.clone()), &inputs)?;
        let mut grads: Vec<_> = grads.into_iter().map(Some).collect();
        grads.resize(node.inputs.len(), None);
        Ok(grads)
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(&self.geometry, self.operands(io), io);
    }

    fn fast(&self, io: &mut Io) {
        fast::forward(&self.geometry, self.operands(io), io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(self, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        fast::scratch(&self.geometry, self.heads, inputs[0][1] / if self.fused { 3 } else { 1 }, threads, false)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        4 * self.geometry.pairs() * (inputs[0][1] / if self.fused { 3 } else { 1 }) as u64
    }
}

/// Attention maps, to look at: P of every image and head, from the operands of [`Attention`].
///
/// - result `[images, H, T, T']` where all images have the same rows, one after the other in a vector where not; zeros between tokens that
///   do not see each other
/// - no gradient, and no fast version: nothing is trained through it
#[derive(Debug, Clone)]
pub struct ImageAttentionMap(pub Attention);

impl Op for ImageAttentionMap {
    fn name(&self) -> &'static str {
        "image_attention_map"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        self.0.infer(inputs)?;
        let grids = &self.0.geometry.grids;
        let rows: Vec<_> = grids.iter().map(|g| (g.query_rows, g.key_rows)).collect();
        let shape = match rows.iter().all(|r| *r == rows[0]) {
            true => vec![self.0.geometry.images(), self.0.heads, rows[0].0, rows[0].1],
            false => vec![grids.iter().map(|g| g.images * self.0.heads * g.query_rows * g.key_rows).sum()],
        };
        Ok(vec![(shape, DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::maps(&self.0.geometry, self.0.operands(io), io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::maps(&self.0, io, rec)
    }
}

/// Gradient of attention: that of every float operand, from the operands, `y`, `stats` and `dy`.
#[derive(Debug)]
struct AttentionGradient(Attention);

impl Op for AttentionGradient {
    fn name(&self) -> &'static str {
        "attention_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("attention_dx", inputs, self.0.arity() + 3)?;
        self.0.check("attention_dx", inputs)?;
        let floats = self.0.arity() - usize::from(self.0.geometry.is_drawn());
        Ok(inputs[..floats].iter().map(|s| ((*s).clone(), DType::F32)).collect())
    }

    fn reference(&self, io: &mut Io) {
        cpu::gradient_reference(&self.0.geometry, self.0.operands(io), io);
    }

    fn fast(&self, io: &mut Io) {
        fast::gradient(&self.0.geometry, self.0.operands(io), io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::gradient(&self.0, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        fast::scratch(&self.0.geometry, self.0.heads, inputs[0][1] / if self.0.fused { 3 } else { 1 }, threads, true)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        10 * self.0.geometry.pairs() * (inputs[0][1] / if self.0.fused { 3 } else { 1 }) as u64
    }
}
