//! Last layer, teacher softmax, student log-softmax and cross entropy in one operator: no `[rows, K]` matrix is ever stored.
//!
//! With prototypes `W_k = g_k·v_k/|v_k|` ([weight norm](crate::weight_norm)) of the student and `U` of the teacher, logits `s = z·Wᵀ` and
//! `t = ζ·Uᵀ`, and pairs p = (student row i, teacher row j, weight w):
//!
//! `loss = Σ_p w_p·CE(q_j, softmax(s_i/τ))`, `q_j = softmax((t_j − center)/T)`, `CE = logsumexp(s_i/τ) − Σ_k q_jk·s_ik/τ` since Σq = 1
//!
//! - operands: `z` `[Ns, D]`, `v` `[K, D]`, `g` `[K, 1]`, `ζ` `[Nt, D]`, the teacher's `v` and `g`, `center` `[K]`, `T` `[1]`,
//!   `pair_teacher` `[P]` (teacher rows), `pair_weight` `[P]`; the pairs of student row i are `offsets[i]..offsets[i + 1]`
//! - results: `loss` `[1]`; `lse_s` `[Ns]` and `lse_t` `[Nt]` for the backward pass; `teacher_mean` `[K]`, the mean teacher
//!   logit, for the center; `entropy` `[1]`, the mean entropy of q in nats
//! - gradient: `G_ik = (w_i·softmax(s_i/τ)_k − Σ_p w_p·q_jk)/τ`, `dz = G·W`, `dW = Gᵀ·z`, and from it `dv` and `dg`; w_i sums the
//!   weights of row i's pairs. Teacher, center, pairs and weights carry none
//!
//! - in mixed precision z, ζ, W, U and G are rounded for the products; softmax, sums and results are not
//!
//! K is streamed in tiles; the prototypes of a tile are normalized as they are packed for its products, in both passes, and `dW` of a tile
//! becomes `dv` before the next: no matrix of prototypes is stored beside the parameters and their gradient. The forward pass keeps running
//! maxima and sums; a pair's `Σ q·s` is rescaled as its teacher row's maximum grows. The backward pass recomputes each tile's logits, but
//! for the tiles whose logits fit into `keep` bytes: those the forward pass leaves behind, as f32 or, in mixed precision, as f16. Work is
//! cut into fixed ranges of K, added up in order, so the result does not depend on the threads. Derivation:
//! docs/derivations/prototype-loss.md.
//!
//! Source: Caron et al. 2021 (DINO), <https://arxiv.org/abs/2104.14294>, eq. 3; Li et al. 2022 (EsViT), eq. 1-2. The view term, the
//! region term and mixup's soft targets differ only in their lists of pairs.

mod cases;
mod cpu;
pub(crate) mod gpu;
mod reference;

use std::sync::Arc;

pub use cases::cases;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::check;

/// Operands of the forward pass; the gradient has `lse_s`, `lse_t`, `dloss` and kept logits behind them.
const OPERANDS: usize = 10;

/// The operator.
#[derive(Debug, Clone)]
pub struct PrototypeLoss {
    /// τ, the student's temperature.
    pub student_temperature: f32,
    /// First pair of each student row, and the number of pairs at the end.
    pub offsets: Arc<[u32]>,
    /// Bytes of logits that may be kept from the forward to the backward pass. For CPUs: GPUs recompute them all.
    pub keep: usize,
}

impl PrototypeLoss {
    fn check(&self, op: &'static str, inputs: &[&Shape]) -> Result<[usize; 4]> {
        let (student, d) = check::matrix(op, "z", inputs[0])?;
        let (k, _) = check::matrix(op, "v", inputs[1])?;
        let (teacher, _) = check::matrix(op, "teacher z", inputs[3])?;
        check::shape(op, "v", inputs[1], &[k, d])?;
        check::shape(op, "g", inputs[2], &[k, 1])?;
        check::shape(op, "teacher z", inputs[3], &[teacher, d])?;
        check::shape(op, "teacher v", inputs[4], &[k, d])?;
        check::shape(op, "teacher g", inputs[5], &[k, 1])?;
        check::shape(op, "center", inputs[6], &[k])?;
        check::shape(op, "teacher temperature", inputs[7], &[1])?;
        let pairs = self.offsets.last().copied().unwrap_or(0) as usize;
        check::shape(op, "pair_teacher", inputs[8], &[pairs])?;
        check::shape(op, "pair_weight", inputs[9], &[pairs])?;
        if self.offsets.len() != student + 1 {
            return Err(Error::Attribute { op, what: format!("{} offsets for {student} student rows", self.offsets.len()) });
        }
        Ok([student, teacher, k, d])
    }

    /// Pairs of a student row.
    fn pairs(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }
}

impl Op for PrototypeLoss {
    fn name(&self) -> &'static str {
        "prototype_loss"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("prototype_loss", inputs, OPERANDS)?;
        let [student, teacher, k, _] = self.check("prototype_loss", inputs)?;
        let kept = cpu::kept_words(self.keep, student, teacher, k);
        let lengths = [1, student, teacher, k, 1].into_iter().chain((kept > 0).then_some(kept));
        Ok(lengths.map(|n| (vec![n], DType::F32)).collect())
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        if dys[1..].iter().any(Option::is_some) {
            return Err(Error::NoGradient { op: "prototype_loss (through anything but the loss)" });
        }
        let Some(dloss) = dys[0] else { return Ok(vec![None; OPERANDS]) };
        let mut inputs = node.inputs.clone();
        inputs.extend([node.outputs[1], node.outputs[2], dloss]);
        inputs.extend(node.outputs.get(5));
        let grads = g.apply(PrototypeLossGradient(self.clone()), &inputs)?;
        let mut all: Vec<Option<Value>> = grads.into_iter().map(Some).collect();
        all.resize(OPERANDS, None);
        Ok(all)
    }

    fn reference(&self, io: &mut Io) {
        reference::forward(self, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::forward(self, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(self, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        cpu::scratch(inputs, threads, false)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        2 * ((inputs[0][0] + inputs[3][0]) * inputs[1][0] * inputs[1][1]) as u64
    }
}

/// The gradient: `dz`, `dv` and `dg` from the operands, both log-sum-exps, `dloss` and, where there are any, the kept logits.
#[derive(Debug)]
struct PrototypeLossGradient(PrototypeLoss);

impl Op for PrototypeLossGradient {
    fn name(&self) -> &'static str {
        "prototype_loss_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if inputs.len() != OPERANDS + 4 {
            check::arity("prototype_loss_dx", inputs, OPERANDS + 3)?;
        }
        self.0.check("prototype_loss_dx", inputs)?;
        Ok(inputs[..3].iter().map(|&shape| (shape.clone(), DType::F32)).collect())
    }

    fn reference(&self, io: &mut Io) {
        reference::backward(&self.0, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::backward(&self.0, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::backward(&self.0, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        cpu::scratch(inputs, threads, true)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        // Recomputed logits do not count: a share of the peak must not depend on how many were kept.
        4 * (inputs[0][0] * inputs[1][0] * inputs[1][1]) as u64
    }
}
