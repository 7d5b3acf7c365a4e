//! Operands and results of one application of an operator.

use std::any::Any;

use esvit_gpu::View;
use esvit_simd::Pool;

use crate::{Shape, Slice, SliceMut};

/// Version of an operator that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The plain version: the operator as it is defined, without threads or lanes. The oracle of the tests.
    Reference,
    /// The fast version, which users run.
    Fast,
}

/// Rounding of the operands of matrix products. Sums and reductions are single precision either way, and so is everything that is stored,
/// unless a program keeps values as [words of two bf16](crate::Program::with_bf16x2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// No rounding: the definition of every result.
    #[default]
    F32,
    /// Rounding to half the bits where the device multiplies those faster: bf16 on CPUs, f16 on GPUs. As `F32` elsewhere.
    Mixed,
}

/// Operands, results and resources of one application on a CPU. Inputs and outputs never overlap.
pub struct Io<'a> {
    /// Operands, in order.
    pub inputs: Vec<Slice<'a>>,
    /// Results, in order; contents unspecified at entry.
    pub outputs: Vec<SliceMut<'a>>,
    /// Shapes of the operands.
    pub shapes: Vec<&'a Shape>,
    /// Threads and scratch memory.
    pub pool: &'a Pool,
    /// Rounding of matrix products; the plain version ignores it.
    pub precision: Precision,
    /// Result of [`Op::prepack`](crate::Op::prepack), for the fast version only. Operands that it replaces may be empty.
    pub prepacked: Option<&'a (dyn Any + Send + Sync)>,
}

impl<'a> Io<'a> {
    /// Operand `i` as floats.
    pub fn f32(&self, i: usize) -> &'a [f32] {
        self.inputs[i].f32()
    }

    /// The scalar operand `i`.
    pub fn scalar(&self, i: usize) -> f32 {
        self.inputs[i].f32()[0]
    }

    /// Rows and columns of operand `i`.
    pub fn matrix(&self, i: usize) -> (usize, usize) {
        (self.shapes[i][0], self.shapes[i][1..].iter().product())
    }

    /// Operand `i` in words of two bf16, where [`Program::with_bf16x2`](crate::Program::with_bf16x2) keeps it so.
    pub fn bf16x2(&self, i: usize) -> Option<&'a [u32]> {
        match self.inputs[i] {
            Slice::U32(words) => Some(words),
            _ => None,
        }
    }

    /// The first result, as floats.
    pub fn out(&mut self) -> &mut [f32] {
        self.outputs[0].f32()
    }

    /// The first `N` results as floats, all at once.
    pub fn outs<const N: usize>(&mut self) -> [&mut [f32]; N] {
        let mut rest = self.outputs.iter_mut();
        std::array::from_fn(|_| rest.next().expect("an output each").f32())
    }
}

/// Operands and results of one application that is recorded for a GPU. Inputs and outputs never overlap.
#[derive(Debug)]
pub struct GpuIo<'a> {
    /// Operands, in order; 32-bit values, pixels four to a word.
    pub inputs: Vec<View>,
    /// Results, in order; contents unspecified at run time.
    pub outputs: Vec<View>,
    /// Shapes of the operands.
    pub shapes: Vec<&'a Shape>,
    /// Rounding of matrix products.
    pub precision: Precision,
}

impl GpuIo<'_> {
    /// Whether operands of matrix products are rounded to half precision.
    pub fn half(&self) -> bool {
        self.precision == Precision::Mixed
    }

    /// Rows and columns of operand `i`.
    pub fn matrix(&self, i: usize) -> (usize, usize) {
        (self.shapes[i][0], self.shapes[i][1..].iter().product())
    }
}
