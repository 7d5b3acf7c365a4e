//! Elementwise operators of one operand, `y = f(x)` with `dx = dy·f'`: everything about an activation but its formulas.
//!
//! - `x`, `y`, `dy`, `dx` any shape, the same for all four
//! - an activation is a constant of type [`Unary`]: its folder holds the formulas, plain, fast and for a GPU, and its cases

mod gpu;

use std::fmt;

use esvit_gpu::{Kernel, Recorder};
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::epilogue::EpilogueKind;
use crate::{bf16x2, check};

pub(crate) use gpu::{Params, unary_kernels};

/// An elementwise operator, as its folder describes it.
#[derive(Clone, Copy)]
pub struct Unary {
    /// Name of the operator.
    pub(crate) name: &'static str,
    /// Name of its gradient.
    pub(crate) gradient_name: &'static str,
    /// Value that the gradient is computed from. An operator whose gradient reads the operand is recomputed in the backward pass.
    pub(crate) saved: Saved,
    /// Plain version: one element.
    pub(crate) value: fn(f32) -> f32,
    /// Plain version of the gradient: one element of `dx` from the saved value and `dy`.
    pub(crate) gradient: fn(f32, f32) -> f32,
    /// Fast version: `y` from `x`.
    pub(crate) fast: fn(&[f32], &mut [f32]),
    /// Fast version of the gradient: `dx` from the saved value and `dy`.
    pub(crate) fast_gradient: fn(&[f32], &[f32], &mut [f32]),
    /// Whether the result can be written in words of two bf16.
    pub(crate) writes_bf16x2: bool,
    /// The operator and its gradient as epilogues of the product whose result they read.
    pub(crate) epilogues: Option<&'static [EpilogueKind; 2]>,
    /// Kernels of the operator and of its gradient, by [`unary_kernels`].
    pub(crate) kernels: &'static [&'static Kernel; 2],
}

/// Value of the forward pass that a gradient reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// The operand `x`.
    Operand,
    /// The result `y`.
    Result,
}

/// Elements of one piece of parallel work.
const PIECE: usize = 8192;

impl fmt::Debug for Unary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unary({})", self.name)
    }
}

impl Op for Unary {
    fn name(&self) -> &'static str {
        self.name
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity(self.name, inputs, 1)?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        let saved = match self.saved {
            Saved::Operand => node.inputs[0],
            Saved::Result => node.outputs[0],
        };
        Ok(vec![Some(g.apply1(UnaryGradient(*self), &[saved, dy])?)])
    }

    fn recompute_in_backward(&self) -> bool {
        self.saved == Saved::Operand
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        for (y, &x) in io.out().iter_mut().zip(x) {
            *y = (self.value)(x);
        }
    }

    fn fast(&self, io: &mut Io) {
        let x = io.f32(0);
        let pool = io.pool;
        bf16x2::for_rows(pool, &mut io.outputs[0], 1, PIECE, |first, y| (self.fast)(&x[first..first + y.len()], y));
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        self.writes_bf16x2 && bf16x2::has_even_rows(inputs[0])
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::record(rec, self.kernels[0], &[&io.inputs[0], &io.outputs[0]])
    }
}

/// Gradient of an elementwise operator: `dx` from the saved value and `dy`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnaryGradient(pub(crate) Unary);

impl Op for UnaryGradient {
    fn name(&self) -> &'static str {
        let Unary { gradient_name, .. } = self.0;
        gradient_name
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity(self.name(), inputs, 2)?;
        check::shape(self.name(), "dy", inputs[1], inputs[0])?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (saved, dy) = (io.f32(0), io.f32(1));
        for ((dx, &saved), &dy) in io.out().iter_mut().zip(saved).zip(dy) {
            *dx = (self.0.gradient)(saved, dy);
        }
    }

    fn fast(&self, io: &mut Io) {
        let (saved, dy) = (io.f32(0), io.f32(1));
        let pool = io.pool;
        pool.for_rows(io.out(), 1, PIECE, |first, dx| {
            let range = first..first + dx.len();
            (self.0.fast_gradient)(&saved[range.clone()], &dy[range], dx);
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::record(rec, self.0.kernels[1], &[&io.inputs[0], &io.inputs[1], &io.outputs[0]])
    }
}
