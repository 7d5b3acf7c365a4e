//! Rectifier: `y = max(x, 0)`.
//!
//! - `x`, `y` of any shape; `dx = dy` where `x > 0`, else 0

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::Wave;
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
        Ok(vec![Some(g.apply1(ReluGradient, &[node.inputs[0], dy])?)])
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        for (y, x) in io.out().iter_mut().zip(x) {
            *y = x.max(0.0);
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::record(&io.inputs[0], &io.inputs[0], io, rec)
    }
}

/// `dx` from `x` and `dy`.
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
        let (x, dy) = (io.f32(0), io.f32(1));
        for ((dx, x), dy) in io.out().iter_mut().zip(x).zip(dy) {
            *dx = if *x > 0.0 { *dy } else { 0.0 };
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::record(&io.inputs[0], &io.inputs[1], io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    // Few enough that none lies so near to the kink that finite differences cross it.
    vec![Case::new("both signs", Relu, vec![Wave(vec![5, 7])])]
}
