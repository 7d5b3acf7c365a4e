//! Batch normalisation over the rows.
//!
//! `y[r, c] = (x[r, c] − mean[c])·rstd[c]·gamma[c] + beta[c]`, rstd = 1/√(var + 1e-5)
//!
//! - `x`, `y` `[rows, C]`; `gamma`, `beta` `[C]`
//! - training ([`BatchNorm`]): mean and biased variance of these rows, returned as the second and third result
//!   (`[C]` each); the running statistics are the engine's to update, with momentum 0.1 and the unbiased variance
//! - evaluation ([`BatchNormEval`]): the running mean and variance are two more operands, constants of the gradient
//!
//! Source: Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>; constants as `torch.nn.BatchNorm1d`.

mod cpu;
pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::{Positive, Wave};
use crate::{Case, check};

/// Added to the variance.
pub const EPS: f32 = 1e-5;
/// Weight of the newest batch in the running statistics.
pub const MOMENTUM: f32 = 0.1;

/// With the statistics of the batch.
#[derive(Debug)]
pub struct BatchNorm;

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("batch_norm", inputs, 3)?;
        let (_, cols) = check::matrix("batch_norm", "x", inputs[0])?;
        check::shape("batch_norm", "gamma", inputs[1], &[cols])?;
        check::shape("batch_norm", "beta", inputs[2], &[cols])?;
        Ok(vec![(inputs[0].clone(), DType::F32), (vec![cols], DType::F32), (vec![cols], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 3]) };
        let grads = g.apply(BatchNormGradient { batch: true }, &[node.inputs[0], node.inputs[1], node.outputs[1], node.outputs[2], dy])?;
        Ok(grads.into_iter().map(Some).collect())
    }

    fn reference(&self, io: &mut Io) {
        cpu::batch(io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::batch(io, rec)
    }
}

/// With given statistics: operands `x, gamma, beta, running_mean, running_var`.
#[derive(Debug)]
pub struct BatchNormEval;

impl Op for BatchNormEval {
    fn name(&self) -> &'static str {
        "batch_norm_eval"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("batch_norm_eval", inputs, 5)?;
        let (_, cols) = check::matrix("batch_norm_eval", "x", inputs[0])?;
        for (operand, shape) in ["gamma", "beta", "running_mean", "running_var"].into_iter().zip(&inputs[1..]) {
            check::shape("batch_norm_eval", operand, shape, &[cols])?;
        }
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 5]) };
        let grads = g.apply(BatchNormGradient { batch: false }, &[node.inputs[0], node.inputs[1], node.inputs[3], node.inputs[4], dy])?;
        Ok(vec![Some(grads[0]), Some(grads[1]), Some(grads[2]), None, None])
    }

    fn reference(&self, io: &mut Io) {
        cpu::eval(io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::eval(io, rec)
    }
}

/// `dx`, `dgamma`, `dbeta` from `x`, `gamma`, the statistics and `dy`; through the statistics where they are the batch's.
#[derive(Debug)]
struct BatchNormGradient {
    batch: bool,
}

impl Op for BatchNormGradient {
    fn name(&self) -> &'static str {
        "batch_norm_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("batch_norm_dx", inputs, 5)?;
        Ok(vec![(inputs[0].clone(), DType::F32), (inputs[1].clone(), DType::F32), (inputs[1].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::gradient(io, self.batch);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::gradient(io, rec, self.batch)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let vector = || Wave(vec![6]);
    vec![
        Case::new("statistics of the batch", BatchNorm, vec![Wave(vec![9, 6]), vector(), vector()]),
        Case::new("rows of more than one piece", BatchNorm, vec![Wave(vec![150, 6]), vector(), vector()]),
        Case::new("given statistics", BatchNormEval, vec![Wave(vec![9, 6]), vector(), vector(), vector(), Positive(vec![6])])
            .differentiate(&[0, 1, 2]),
    ]
}
