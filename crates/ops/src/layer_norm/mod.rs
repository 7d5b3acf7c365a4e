//! Layer normalization over the last axis.
//!
//! `y[r, c] = (x[r, c] − mean[r])·rstd[r]·gamma[c] + beta[c]`
//!
//! - `x`, `y` `[rows, C]`; `gamma`, `beta` `[C]`
//! - second result, for the backward pass: `stats` `[rows, 2]`, mean and 1/√(var + eps) of each row
//! - the variance divides by C and is taken about the mean: `E[x²] − E[x]²` cancels when a row sits far from zero
//!
//! Source: Ba, Kiros and Hinton 2016, <https://arxiv.org/abs/1607.06450>, eq. 3.

mod cases;
mod cpu;
pub(crate) mod gpu;

pub use cases::cases;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::{bf16x2, check, column_sums};

/// The operator; `eps` is added to the variance.
#[derive(Debug)]
pub struct LayerNorm {
    /// 1e-6 in Swin, ViL and ViT; 1e-5 in CvT.
    pub eps: f32,
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("layer_norm", inputs, 3)?;
        let (rows, cols) = check::matrix("layer_norm", "x", inputs[0])?;
        check::shape("layer_norm", "gamma", inputs[1], &[cols])?;
        check::shape("layer_norm", "beta", inputs[2], &[cols])?;
        Ok(vec![(vec![rows, cols], DType::F32), (vec![rows, 2], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 3]) };
        let (x, gamma, stats) = (node.inputs[0], node.inputs[1], node.outputs[1]);
        let mut grads = vec![None; 3];
        if wants[0] {
            grads[0] = Some(g.apply1(LayerNormInputGradient, &[x, gamma, stats, dy])?);
        }
        if wants[1] || wants[2] {
            let both = g.apply(LayerNormScaleGradient, &[x, stats, dy])?;
            grads[1] = Some(both[0]);
            grads[2] = Some(both[1]);
        }
        Ok(grads)
    }

    fn recompute_in_backward(&self) -> bool {
        true
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(io, self.eps);
    }

    fn fast(&self, io: &mut Io) {
        cpu::fast(io, self.eps);
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        bf16x2::has_even_rows(inputs[0])
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(io, rec, self.eps)
    }
}

/// Gradient of the operand: `dx = rstd·(h − mean(h) − x̂·mean(h·x̂))` with `h = dy·gamma`.
#[derive(Debug)]
struct LayerNormInputGradient;

impl Op for LayerNormInputGradient {
    fn name(&self) -> &'static str {
        "layer_norm_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("layer_norm_dx", inputs, 4)?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::input_gradient_reference(io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::input_gradient(io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::input_gradient(io, rec)
    }
}

/// Gradients of scale and shift: `dgamma = Σ_rows dy·x̂`, `dbeta = Σ_rows dy`.
#[derive(Debug)]
struct LayerNormScaleGradient;

impl Op for LayerNormScaleGradient {
    fn name(&self) -> &'static str {
        "layer_norm_dscale"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("layer_norm_dscale", inputs, 3)?;
        let cols = inputs[0][1];
        Ok(vec![(vec![cols], DType::F32), (vec![cols], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::scale_gradient_reference(io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::scale_gradient(io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::scale_gradient(io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], _threads: usize) -> usize {
        column_sums::scratch(inputs[0][0], 2 * inputs[0][1]) + 8 * inputs[0][1]
    }
}
