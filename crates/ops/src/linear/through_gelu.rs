//! A layer's gradient with the one of the GELU in front of it, `dh = (dy·W)·gelu'(h)`, while the product is in the cache.
//!
//! - `dy` `[N, O]`, `weight` `[O, I]`, `h`, `dh` `[N, I]`
//! - nothing for a GPU: [`esvit_graph::Graph::fuse`] makes it of two operators that have that

use std::any::Any;
use std::sync::Arc;

use esvit_graph::{DType, Io, Next, Op, Result, Shape};
use esvit_simd::gemm::Epilogue;

use super::{InputGradient, cpu};
use crate::check;
use crate::gelu::GeluGradient;

/// A layer's gradient and that of the GELU in front of it.
#[derive(Debug)]
struct GradientThroughGelu;

/// The operator that does `next` too, if that is such a GELU's.
pub(super) fn absorb(next: &Next) -> Option<Arc<dyn Op>> {
    let is_gelu = (next.op as &dyn Any).is::<GeluGradient>() && next.operand == GeluGradient::DY;
    is_gelu.then(|| Arc::new(GradientThroughGelu) as Arc<dyn Op>)
}

impl Op for GradientThroughGelu {
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
        io.out().iter_mut().zip(h).for_each(|(dh, &h)| *dh *= crate::gelu::plain_derivative(h));
    }

    fn fast(&self, io: &mut Io) {
        cpu::input_gradient(io, Epilogue::GeluDerivative(io.f32(2)));
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        InputGradient.reads_bf16x2(operand, &inputs[..2])
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        InputGradient.writes_bf16x2(&inputs[..2])
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        InputGradient.scratch(inputs, threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        InputGradient.flops(inputs)
    }
}
