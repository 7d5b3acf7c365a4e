//! `y = max(x, 0)`.
//!
//! - `x`, `y` any shape; `dx = dy` where `y > 0`, else 0: the result is kept for the backward pass, not the operand

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::multiversion;

use crate::Input::Apart;
use crate::{Case, check};

/// The operator.
#[derive(Debug, Clone, Copy)]
pub struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("relu", inputs, 1)?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(ReluGradient, &[node.outputs[0], dy])?)])
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        io.out().iter_mut().zip(x).for_each(|(y, &x)| *y = if x > 0.0 { x } else { 0.0 });
    }

    fn fast(&self, io: &mut Io) {
        let x = io.f32(0);
        let pool = io.pool;
        pool.for_rows(io.out(), 1, PIECE, |first, y| forward(&x[first..first + y.len()], y));
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(io, rec)
    }
}

/// The gradient: `dx` from `y` and `dy`.
#[derive(Debug)]
struct ReluGradient;

impl Op for ReluGradient {
    fn name(&self) -> &'static str {
        "relu_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("relu_dx", inputs, 2)?;
        check::shape("relu_dx", "dy", inputs[1], inputs[0])?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (y, dy) = (io.f32(0), io.f32(1));
        for ((dx, &y), &dy) in io.out().iter_mut().zip(y).zip(dy) {
            *dx = if y > 0.0 { dy } else { 0.0 };
        }
    }

    fn fast(&self, io: &mut Io) {
        let (y, dy) = (io.f32(0), io.f32(1));
        let pool = io.pool;
        pool.for_rows(io.out(), 1, PIECE, |first, dx| {
            let range = first..first + dx.len();
            backward(&y[range.clone()], &dy[range], dx);
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::backward(io, rec)
    }
}

/// Elements of one piece of parallel work.
const PIECE: usize = 16384;

multiversion! {
    fn forward(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = if x > 0.0 { x } else { 0.0 }; }
    }
}

multiversion! {
    fn backward(y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) { *dx = if y > 0.0 { dy } else { 0.0 }; }
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![Case::new("both sides of zero", Relu, vec![Apart(vec![5, 7])]), Case::new("more than one piece", Relu, vec![Apart(vec![200, 96])])]
}
