//! The input gradient of a linear layer with the derivative of the GELU in front of it as its epilogue: `dh = (dy·W)·gelu'(h)`.
//!
//! - `dy` `[N, O]`, `weight` `[O, I]`, `h`, `dh` `[N, I]`

use esvit_graph::{DType, Io, Op, Result, Shape};

use super::plain;
use crate::check;
use crate::epilogue::EpilogueKind;
use crate::linear::{self, LinearInputGradient};

/// Epilogue of the product.
const EPILOGUE: EpilogueKind = EpilogueKind::GeluDerivative;

/// The input gradient of a linear layer and the gradient of the GELU in front of it.
#[derive(Debug)]
pub(super) struct FusedInputGradient;

impl Op for FusedInputGradient {
    fn name(&self) -> &'static str {
        "linear_gelu_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity(self.name(), inputs, 2 + EPILOGUE.operands())?;
        let results = LinearInputGradient.infer(&inputs[..2])?;
        check::shape(self.name(), "h", inputs[2], &results[0].0)?;
        Ok(results)
    }

    fn reference(&self, io: &mut Io) {
        LinearInputGradient.reference(io);
        let h = io.f32(2);
        plain::apply(&EPILOGUE, io.out(), &[h]);
    }

    fn fast(&self, io: &mut Io) {
        let h = io.f32(2);
        linear::input_gradient(io, EPILOGUE.bind(&[h], &mut []));
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        LinearInputGradient.reads_bf16x2(operand, &inputs[..2])
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        LinearInputGradient.writes_bf16x2(&inputs[..2])
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        LinearInputGradient.scratch(inputs, threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        LinearInputGradient.flops(inputs)
    }
}
