//! Batch normalization over groups of rows.
//!
//! `y[r, c] = (x[r, c] − mean[g, c])·rstd[g, c]·gamma[c] + beta[c]`, rstd = 1/√(var + 1e-5), g the group of row r
//!
//! - `x`, `y` `[rows, C]`; `gamma`, `beta` `[C]`
//! - training ([`BatchNorm`]): each group of rows has its own mean and biased variance, returned after `y`, group by group (`[C]`
//!   each): crops of one size are a group, since the original passes each size through the network by itself. The running statistics
//!   are the engine's to update, group by group, with momentum 0.1 and the unbiased variance
//! - evaluation ([`BatchNormEval`]): the running mean and variance are two more operands, constants of the gradient
//!
//! Source: Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>; constants as `torch.nn.BatchNorm2d`.

use std::ops::Range;
use std::sync::Arc;

mod cpu;
pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::{Positive, Wave};
use crate::{Case, Layout, check};

/// Added to the variance.
pub const EPS: f32 = 1e-5;
/// Weight of the newest batch in the running statistics.
pub const MOMENTUM: f32 = 0.1;

/// Batch normalization with the statistics of the batch.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// Rows of each group, in order.
    groups: Arc<[usize]>,
}

impl BatchNorm {
    /// All rows are one group.
    pub fn whole(rows: usize) -> BatchNorm {
        BatchNorm { groups: [rows].into() }
    }

    /// Each segment is a group.
    pub fn by_segment(layout: &Layout) -> BatchNorm {
        BatchNorm { groups: layout.segments().iter().map(|s| s.tokens()).collect() }
    }

    /// Rows of each group.
    pub fn groups(&self) -> &[usize] {
        &self.groups
    }
}

/// The rows of groups of these sizes.
fn ranges(groups: &[usize]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut next = 0;
    groups.iter().map(move |&rows| {
        next += rows;
        next - rows..next
    })
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("batch_norm", inputs, 3)?;
        let (_, cols) = check::matrix("batch_norm", "x", inputs[0])?;
        check::shape("batch_norm", "x", inputs[0], &[self.groups.iter().sum(), cols])?;
        check::shape("batch_norm", "gamma", inputs[1], &[cols])?;
        check::shape("batch_norm", "beta", inputs[2], &[cols])?;
        let statistics = (0..2 * self.groups.len()).map(|_| (vec![cols], DType::F32));
        Ok(std::iter::once((inputs[0].clone(), DType::F32)).chain(statistics).collect())
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 3]) };
        let mut inputs = vec![node.inputs[0], node.inputs[1], dy];
        inputs.extend(&node.outputs[1..]);
        let grads = g.apply(BatchNormGradient { groups: Arc::clone(&self.groups), batch: true }, &inputs)?;
        Ok(grads.into_iter().map(Some).collect())
    }

    fn reference(&self, io: &mut Io) {
        cpu::batch_reference(&self.groups, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::batch(&self.groups, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::batch(&self.groups, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], _threads: usize) -> usize {
        cpu::scratch(&self.groups, inputs[0][1])
    }
}

/// Batch normalization with given statistics: operands `x, gamma, beta, running_mean, running_var`.
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
        let rows = g.matrix(node.inputs[0]).0;
        let op = BatchNormGradient { groups: [rows].into(), batch: false };
        let grads = g.apply(op, &[node.inputs[0], node.inputs[1], dy, node.inputs[3], node.inputs[4]])?;
        Ok(vec![Some(grads[0]), Some(grads[1]), Some(grads[2]), None, None])
    }

    fn reference(&self, io: &mut Io) {
        cpu::eval_reference(io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::eval(io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::eval(io, rec)
    }
}

/// `dx`, `dgamma`, `dbeta` from `x`, `gamma`, `dy` and each group's mean and variance; through the statistics where they are the batch's.
#[derive(Debug)]
struct BatchNormGradient {
    groups: Arc<[usize]>,
    batch: bool,
}

impl Op for BatchNormGradient {
    fn name(&self) -> &'static str {
        "batch_norm_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("batch_norm_dx", inputs, 3 + 2 * self.groups.len())?;
        Ok(vec![(inputs[0].clone(), DType::F32), (inputs[1].clone(), DType::F32), (inputs[1].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::gradient_reference(&self.groups, io, self.batch);
    }

    fn fast(&self, io: &mut Io) {
        cpu::gradient(&self.groups, io, self.batch);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::gradient(&self.groups, io, rec, self.batch)
    }

    fn scratch(&self, inputs: &[&Shape], _threads: usize) -> usize {
        cpu::scratch(&self.groups, inputs[0][1])
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let vector = |cols| Wave(vec![cols]);
    let case = |why, groups: &[usize], cols| {
        let inputs = vec![Wave(vec![groups.iter().sum(), cols]), vector(cols), vector(cols)];
        Case::new(why, BatchNorm { groups: groups.into() }, inputs)
    };
    vec![
        case("statistics of the batch", &[9], 6),
        case("rows of more than one piece", &[150], 6),
        case("two groups, the second begins where no binding can", &[37, 301], 5),
        Case::new("given statistics", BatchNormEval, vec![Wave(vec![9, 6]), vector(6), vector(6), vector(6), Positive(vec![6])])
            .differentiate(&[0, 1, 2]),
        Case::new(
            "given statistics, many rows",
            BatchNormEval,
            vec![Wave(vec![700, 20]), vector(20), vector(20), vector(20), Positive(vec![20])],
        )
        .differentiate(&[0, 1, 2]),
    ]
}
