//! Rows scaled to unit length: `y = x / max(|x|, 1e-12)`.
//!
//! - `x`, `y` `[rows, C]`; second result, for the backward pass: `norm` `[rows]`
//! - `dx = (dy − y·(y·dy)) / |x|`; rows shorter than the bound are scaled by a constant
//!
//! Source: `torch.nn.functional.normalize`.

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::lanes;

use crate::Input::Wave;
use crate::{Case, check};

const EPS: f32 = 1e-12;

/// Scales every row to unit length.
#[derive(Debug)]
pub struct L2Normalize;

impl Op for L2Normalize {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("l2_normalize", inputs, 1)?;
        let (rows, _) = check::matrix("l2_normalize", "x", inputs[0])?;
        Ok(vec![(inputs[0].clone(), DType::F32), (vec![rows], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(L2NormalizeGradient, &[node.outputs[0], node.outputs[1], dy])?)])
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        let (_, cols) = io.matrix(0);
        let [y, norms] = io.outs();
        for ((x, y), norm) in x.chunks(cols).zip(y.chunks_mut(cols)).zip(norms) {
            *norm = (x.iter().map(|&v| v as f64 * v as f64).sum::<f64>() as f32).sqrt().max(EPS);
            for (y, x) in y.iter_mut().zip(x) {
                *y = x / *norm;
            }
        }
    }

    fn fast(&self, io: &mut Io) {
        let x = io.f32(0);
        let (_, cols) = io.matrix(0);
        let [y, norms] = io.outs();
        for ((x, y), norm) in x.chunks(cols).zip(y.chunks_mut(cols)).zip(norms) {
            *norm = lanes::dot(x, x).sqrt().max(EPS);
            lanes::scale(1.0 / *norm, x, y);
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(io, rec)
    }
}

/// Gradient of the normalization, from `y`, `norm` and `dy`.
#[derive(Debug)]
struct L2NormalizeGradient;

impl Op for L2NormalizeGradient {
    fn name(&self) -> &'static str {
        "l2_normalize_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("l2_normalize_dx", inputs, 3)?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (y, norms, dy) = (io.f32(0), io.f32(1), io.f32(2));
        let (_, cols) = io.matrix(0);
        for (r, dx) in io.out().chunks_mut(cols).enumerate() {
            let row = r * cols..(r + 1) * cols;
            let (y, dy) = (&y[row.clone()], &dy[row]);
            // Below the bound the scale is a constant, so only the first term remains.
            let along = if norms[r] > EPS { lanes::dot(y, dy) } else { 0.0 };
            for c in 0..cols {
                dx[c] = (dy[c] - y[c] * along) / norms[r];
            }
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::backward(io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a few rows of odd width", L2Normalize, vec![Wave(vec![5, 19])]),
        Case::new("the bottleneck's width", L2Normalize, vec![Wave(vec![3, 256])]),
        Case::new("more rows than one piece", L2Normalize, vec![Wave(vec![150, 5])]),
    ]
}
