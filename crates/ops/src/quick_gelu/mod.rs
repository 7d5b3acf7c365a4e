//! QuickGELU, CvT's activation: `y = x·σ(1.702·x)`, σ(t) = 1/(1 + e^−t).
//!
//! - `x`, `y` any shape; `dx = dy·(σ + 1.702·x·σ·(1 − σ))`

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::cpu::madd;
use esvit_simd::{math, multiversion};

use crate::Input::Wave;
use crate::{Case, check};

/// The operator.
#[derive(Debug)]
pub struct QuickGelu;

impl Op for QuickGelu {
    fn name(&self) -> &'static str {
        "quick_gelu"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("quick_gelu", inputs, 1)?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(QuickGeluGradient, &[node.inputs[0], dy])?)])
    }

    fn recompute_in_backward(&self) -> bool {
        true
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        io.out().iter_mut().zip(x).for_each(|(y, &x)| *y = (f64::from(x) * sigma(x)) as f32);
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

/// The gradient: `dx` from `x` and `dy`.
#[derive(Debug)]
struct QuickGeluGradient;

impl Op for QuickGeluGradient {
    fn name(&self) -> &'static str {
        "quick_gelu_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("quick_gelu_dx", inputs, 2)?;
        check::shape("quick_gelu_dx", "dy", inputs[1], inputs[0])?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (x, dy) = (io.f32(0), io.f32(1));
        for ((dx, &x), &dy) in io.out().iter_mut().zip(x).zip(dy) {
            let s = sigma(x);
            *dx = dy * (s + f64::from(SLOPE) * f64::from(x) * s * (1.0 - s)) as f32;
        }
    }

    fn fast(&self, io: &mut Io) {
        let (x, dy) = (io.f32(0), io.f32(1));
        let pool = io.pool;
        pool.for_rows(io.out(), 1, PIECE, |first, dx| {
            let range = first..first + dx.len();
            backward(&x[range.clone()], &dy[range], dx);
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::backward(io, rec)
    }
}

/// Elements of one piece of parallel work.
const PIECE: usize = 8192;
/// Factor inside σ.
const SLOPE: f32 = 1.702;

fn sigma(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(SLOPE) * f64::from(x)).exp())
}

multiversion! {
    fn forward(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = x / (1.0 + math::exp::<FMA>(-SLOPE * x)); }
    }
}

multiversion! {
    fn backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            let s = 1.0 / (1.0 + math::exp::<FMA>(-SLOPE * x));
            *dx = dy * madd::<FMA>(SLOPE * x * s, 1.0 - s, s);
        }
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("both sides of zero", QuickGelu, vec![Wave(vec![5, 7])]),
        Case::new("more than one piece", QuickGelu, vec![Wave(vec![200, 96])]),
    ]
}
