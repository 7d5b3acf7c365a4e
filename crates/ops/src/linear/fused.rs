//! A linear layer and what follows it, while the product is in the cache: `y = gelu(x·Wᵀ + b)`, or `y = r + s[image]·(x·Wᵀ + b)`; and a layer's gradient
//! with the one of the GELU in front of it, `dh = (dy·W)·gelu'(h)`.
//!
//! - `x` `[N, I]`, `weight` `[O, I]`, `bias` `[O]` (optional), then the residual's `r` `[N, O]` and `s` `[images]` (optional); `y` `[N, O]`
//! - `dy` `[N, O]`, `weight` `[O, I]`, `h`, `dh` `[N, I]`
//! - no gradient, and nothing for a GPU: [`esvit_graph::Graph::fuse`] makes it of two operators that have both

use std::any::Any;
use std::sync::Arc;

use esvit_graph::{DType, Io, Op, Precision, Prepared, Result, Shape, Slice};
use esvit_simd::gemm::After;

use super::{InputGradient, Linear, cpu};
use crate::gelu::{Gelu, GeluGradient};
use crate::residual::Residual;
use crate::{Layout, check};

/// A layer and what follows it.
#[derive(Debug)]
pub struct Fused {
    bias: bool,
    then: Then,
}

/// What follows.
#[derive(Clone, Debug)]
enum Then {
    Gelu,
    Residual,
    /// With a factor for each image of the tokens.
    ScaledResidual(Layout),
}

/// The operator that does `next` too, whose operand number `operand` of `operands` the layer gives.
pub(super) fn absorb(bias: bool, next: &dyn Op, operands: usize, operand: usize) -> Option<Arc<dyn Op>> {
    let next: &dyn Any = next;
    let then = match next.downcast_ref::<Residual>() {
        Some(_) if operand != 1 => return None,
        Some(_) if operands == 2 => Then::Residual,
        Some(residual) => Then::ScaledResidual(residual.layout.clone()),
        None if next.is::<Gelu>() => Then::Gelu,
        None => return None,
    };
    Some(Arc::new(Fused { bias, then }))
}

impl Fused {
    /// Operands of the layer itself.
    fn layer(&self) -> usize {
        if self.bias { 3 } else { 2 }
    }

    /// Rows that have a factor each.
    fn factors(&self) -> usize {
        match &self.then {
            Then::ScaledResidual(layout) => layout.tokens(),
            Then::Gelu | Then::Residual => 0,
        }
    }
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        match self.then {
            Then::Gelu => "linear_gelu",
            Then::Residual | Then::ScaledResidual(_) => "linear_residual",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        let others = match self.then {
            Then::Gelu => 0,
            Then::Residual => 1,
            Then::ScaledResidual(_) => 2,
        };
        check::arity(self.name(), inputs, self.layer() + others)?;
        let (layer, others) = inputs.split_at(self.layer());
        let results = Linear.infer(layer)?;
        if let Some(r) = others.first() {
            check::shape(self.name(), "r", r, &results[0].0)?;
        }
        if let (Some(scale), Then::ScaledResidual(layout)) = (others.get(1), &self.then) {
            check::shape(self.name(), "s", scale, &[layout.images()])?;
        }
        Ok(results)
    }

    fn reference(&self, io: &mut Io) {
        let rest = io.inputs.split_off(self.layer());
        cpu::reference(io);
        let cols = io.shapes[1][0];
        let y = io.out();
        match &self.then {
            Then::Gelu => y.iter_mut().for_each(|y| *y = crate::gelu::plain(*y)),
            Then::Residual => y.iter_mut().zip(rest[0].f32()).for_each(|(y, r)| *y += r),
            Then::ScaledResidual(layout) => {
                for (tokens, scale) in layout.image_ranges().zip(rest[1].f32()) {
                    let range = tokens.start * cols..tokens.end * cols;
                    y[range.clone()].iter_mut().zip(&rest[0].f32()[range]).for_each(|(y, r)| *y = r + scale * *y);
                }
            }
        }
    }

    fn fast(&self, io: &mut Io) {
        let bias = self.bias.then(|| io.f32(2));
        let pool = io.pool;
        let mut factors = pool.scratch(self.factors());
        let after = match &self.then {
            Then::Gelu => After::Gelu,
            Then::Residual => After::Add(io.f32(self.layer())),
            Then::ScaledResidual(layout) => {
                for (tokens, &scale) in layout.image_ranges().zip(io.f32(self.layer() + 1)) {
                    factors[tokens].fill(scale);
                }
                After::Residual { x: io.f32(self.layer()), scale: &factors }
            }
        };
        cpu::fast(io, bias, after);
    }

    fn takes_pairs(&self, operand: usize, inputs: &[&Shape]) -> bool {
        Linear.takes_pairs(operand, &inputs[..self.layer()])
    }

    fn prepare(&self, operands: &[Option<Slice>], shapes: &[&Shape], precision: Precision) -> Option<Prepared> {
        cpu::prepare(operands[1], shapes[1], precision)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        Linear.scratch(inputs, threads) + 4 * self.factors()
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        Linear.flops(inputs)
    }
}

/// A layer's gradient and that of the GELU in front of it.
#[derive(Debug)]
struct FusedGradient;

/// The operator that does `next` too, to which the gradient is operand number `operand`.
pub(super) fn absorb_gradient(next: &dyn Op, operand: usize) -> Option<Arc<dyn Op>> {
    let next: &dyn Any = next;
    (next.is::<GeluGradient>() && operand == GeluGradient::DY).then(|| Arc::new(FusedGradient) as Arc<dyn Op>)
}

impl Op for FusedGradient {
    fn name(&self) -> &'static str {
        "linear_gelu_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity(self.name(), inputs, 3)?;
        let results = InputGradient.infer(&inputs[..2])?;
        check::shape(self.name(), "h", inputs[2], &results[0].0)?;
        Ok(results)
    }

    fn reference(&self, io: &mut Io) {
        cpu::input_gradient_reference(io);
        let h = io.f32(2);
        io.out().iter_mut().zip(h).for_each(|(dh, &h)| *dh *= crate::gelu::plain_slope(h));
    }

    fn fast(&self, io: &mut Io) {
        cpu::input_gradient(io, After::GeluSlope(io.f32(2)));
    }

    fn takes_pairs(&self, operand: usize, inputs: &[&Shape]) -> bool {
        InputGradient.takes_pairs(operand, &inputs[..2])
    }

    fn gives_pairs(&self, inputs: &[&Shape]) -> bool {
        InputGradient.gives_pairs(&inputs[..2])
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        InputGradient.scratch(inputs, threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        InputGradient.flops(inputs)
    }
}
