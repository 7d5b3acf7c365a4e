//! A linear layer and what follows it, in evaluation: `y = gelu(x·Wᵀ + b)`, or `y = r + x·Wᵀ + b`, while the product is in the cache.
//!
//! - `x` `[N, I]`, `weight` `[O, I]`, `bias` `[O]` (optional), then the residual's `r` `[N, O]`; `y` `[N, O]`
//! - no gradient, and nothing for a GPU: [`esvit_graph::Graph::fuse`] makes it of two operators that have both

use std::any::Any;
use std::sync::Arc;

use esvit_graph::{DType, Io, Op, Precision, Prepared, Result, Shape, Slice};
use esvit_simd::gemm::After;

use super::{Linear, cpu};
use crate::check;
use crate::gelu::Gelu;
use crate::residual::Residual;

/// The fused operator.
#[derive(Debug)]
pub struct Fused {
    bias: bool,
    then: Then,
}

/// What follows.
#[derive(Clone, Copy, Debug)]
enum Then {
    Gelu,
    Residual,
}

/// The operator that does `next` too, whose operand number `operand` of `operands` the layer gives.
pub(super) fn absorb(bias: bool, next: &dyn Op, operands: usize, operand: usize) -> Option<Arc<dyn Op>> {
    let next: &dyn Any = next;
    let then = if next.is::<Gelu>() {
        Then::Gelu
    } else if next.is::<Residual>() && operands == 2 && operand == 1 {
        Then::Residual
    } else {
        return None;
    };
    Some(Arc::new(Fused { bias, then }))
}

impl Fused {
    /// Operands of the layer itself.
    fn layer(&self) -> usize {
        if self.bias { 3 } else { 2 }
    }
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        match self.then {
            Then::Gelu => "linear_gelu",
            Then::Residual => "linear_residual",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity(self.name(), inputs, self.layer() + usize::from(matches!(self.then, Then::Residual)))?;
        let results = Linear.infer(&inputs[..self.layer()])?;
        if let Then::Residual = self.then {
            check::shape(self.name(), "r", inputs[self.layer()], &results[0].0)?;
        }
        Ok(results)
    }

    fn reference(&self, io: &mut Io) {
        let rest = io.inputs.split_off(self.layer());
        cpu::reference(io);
        match self.then {
            Then::Gelu => io.out().iter_mut().for_each(|y| *y = crate::gelu::plain(*y)),
            Then::Residual => io.out().iter_mut().zip(rest[0].f32()).for_each(|(y, r)| *y += r),
        }
    }

    fn fast(&self, io: &mut Io) {
        let bias = self.bias.then(|| io.f32(2));
        let after = match self.then {
            Then::Gelu => After::Gelu,
            Then::Residual => After::Add(io.f32(self.layer())),
        };
        cpu::fast(io, bias, after);
    }

    fn prepare(&self, operands: &[Option<Slice>], shapes: &[&Shape], precision: Precision) -> Option<Prepared> {
        cpu::prepare(operands[1], shapes[1], precision)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        Linear.scratch(inputs, threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        Linear.flops(inputs)
    }
}
