//! GELU in its exact form: `y = x·Φ(x)`, Φ the normal distribution function by erf.
//!
//! - `x`, `y` any shape; `dx = dy·(Φ(x) + x·φ(x))`
//!
//! Source: Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>.

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::gelu;

use crate::Input::Wave;
use crate::{Case, check, rounded};

/// The operator.
#[derive(Debug)]
pub struct Gelu;

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("gelu", inputs, 1)?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(GeluGradient, &[node.inputs[0], dy])?)])
    }

    fn recompute_in_backward(&self) -> bool {
        true
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        for (y, &x) in io.out().iter_mut().zip(x) {
            *y = plain(x);
        }
    }

    fn fast(&self, io: &mut Io) {
        let x = io.f32(0);
        let pool = io.pool;
        rounded::for_rows(pool, &mut io.outputs[0], 1, PIECE, |first, y| gelu::gelu(&x[first..first + y.len()], y));
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        rounded::even(inputs[0])
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(io, rec)
    }
}

/// The gradient: `dx` from `x` and `dy`.
#[derive(Debug)]
pub(crate) struct GeluGradient;

impl GeluGradient {
    /// The number of the operand `dy`.
    pub const DY: usize = 1;
}

impl Op for GeluGradient {
    fn name(&self) -> &'static str {
        "gelu_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("gelu_dx", inputs, 2)?;
        check::shape("gelu_dx", "dy", inputs[1], inputs[0])?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (x, dy) = (io.f32(0), io.f32(1));
        for ((dx, &x), &dy) in io.out().iter_mut().zip(x).zip(dy) {
            *dx = dy * plain_derivative(x);
        }
    }

    fn fast(&self, io: &mut Io) {
        let (x, dy) = (io.f32(0), io.f32(1));
        let pool = io.pool;
        pool.for_rows(io.out(), 1, PIECE, |first, dx| {
            let range = first..first + dx.len();
            gelu::gelu_backward(&x[range.clone()], &dy[range], dx);
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::backward(io, rec)
    }
}

/// One element, as it is defined.
pub(crate) fn plain(x: f32) -> f32 {
    (x as f64 * normal_cdf(x as f64)) as f32
}

/// The slope at one element.
pub(crate) fn plain_derivative(x: f32) -> f32 {
    let x = x as f64;
    let pdf = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (normal_cdf(x) + x * pdf) as f32
}

/// Elements of one piece of parallel work.
const PIECE: usize = 8192;

/// Φ(x) by the power series of erf, summed in f64; ±6 is 0 or 1 to f32.
fn normal_cdf(x: f64) -> f64 {
    let t = (x / std::f64::consts::SQRT_2).clamp(-5.0, 5.0);
    let (mut term, mut sum) = (t, t);
    for n in 1..200 {
        term *= -t * t / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    0.5 * (1.0 + sum * 2.0 / std::f64::consts::PI.sqrt())
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("around zero, where the slope changes", Gelu, vec![Wave(vec![7, 9])]),
        Case::new("more than one piece", Gelu, vec![Wave(vec![100, 96])]),
    ]
}
