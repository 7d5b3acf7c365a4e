//! Weight normalization of each row: `w[k] = g[k]·v[k]/|v[k]|`.
//!
//! - `v`, `w` `[K, D]`, `g` `[K, 1]`
//! - with u = v/|v| : `dg = dw·u`, `dv = (g/|v|)·(dw − u·(dw·u))`
//!
//! Source: Salimans and Kingma 2016, <https://arxiv.org/abs/1602.07868>, eq. 2-3.

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::lanes;
use rayon::prelude::*;

use crate::Input::{Positive, Wave};
use crate::{Case, check};

/// Weight normalization: rows of `v` to magnitudes `g`.
#[derive(Debug)]
pub struct WeightNorm;

impl Op for WeightNorm {
    fn name(&self) -> &'static str {
        "weight_norm"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("weight_norm", inputs, 2)?;
        let (rows, _) = check::matrix("weight_norm", "v", inputs[0])?;
        check::shape("weight_norm", "g", inputs[1], &[rows, 1])?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dw) = dys[0] else { return Ok(vec![None; 2]) };
        let grads = g.apply(WeightNormGradient, &[node.inputs[0], node.inputs[1], dw])?;
        Ok(grads.into_iter().map(Some).collect())
    }

    fn reference(&self, io: &mut Io) {
        let (v, g) = (io.f32(0), io.f32(1));
        let (_, cols) = io.matrix(0);
        for ((v, w), g) in v.chunks(cols).zip(io.out().chunks_mut(cols)).zip(g) {
            let norm = (v.iter().map(|&x| x as f64 * x as f64).sum::<f64>() as f32).sqrt();
            for (w, v) in w.iter_mut().zip(v) {
                *w = g * v / norm;
            }
        }
    }

    fn fast(&self, io: &mut Io) {
        let (v, g) = (io.f32(0), io.f32(1));
        let (_, cols) = io.matrix(0);
        io.pool.for_rows(io.outputs[0].f32(), cols, 128, |first, piece| {
            for (i, w) in piece.chunks_mut(cols).enumerate() {
                row(&v[(first + i) * cols..][..cols], g[first + i], w);
            }
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(io, rec)
    }
}

/// Gradients of weight normalization: `dv` and `dg` from `v`, `g` and `dw`.
#[derive(Debug)]
struct WeightNormGradient;

impl Op for WeightNormGradient {
    fn name(&self) -> &'static str {
        "weight_norm_dv"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("weight_norm_dv", inputs, 3)?;
        check::shape("weight_norm_dv", "dw", inputs[2], inputs[0])?;
        Ok(vec![(inputs[0].clone(), DType::F32), (inputs[1].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (v, g, dw) = (io.f32(0), io.f32(1), io.f32(2));
        let (_, cols) = io.matrix(0);
        let [dv, dg] = io.outs();
        for (k, dv) in dv.chunks_mut(cols).enumerate() {
            let row = k * cols..(k + 1) * cols;
            dv.copy_from_slice(&dw[row.clone()]);
            dg[k] = gradient_row(&v[row], g[k], dv);
        }
    }

    fn fast(&self, io: &mut Io) {
        let (v, g, dw) = (io.f32(0), io.f32(1), io.f32(2));
        let (_, cols) = io.matrix(0);
        let [dv, dg] = io.outs();
        dv.par_chunks_mut(cols).zip(dg).enumerate().with_min_len(128).for_each(|(k, (dv, dg))| {
            let row = k * cols..(k + 1) * cols;
            dv.copy_from_slice(&dw[row.clone()]);
            *dg = gradient_row(&v[row], g[k], dv);
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::backward(io, rec)
    }
}

/// One row: `w = g·v/|v|`.
fn row(v: &[f32], g: f32, w: &mut [f32]) {
    lanes::scale(g / lanes::dot(v, v).sqrt(), v, w);
}

/// Makes the gradient of a row of `w` that of `v`, and returns that of `g`.
fn gradient_row(v: &[f32], g: f32, dw: &mut [f32]) -> f32 {
    let norm2 = lanes::dot(v, v);
    let norm = norm2.sqrt();
    let along = lanes::dot(dw, v);
    for (dw, v) in dw.iter_mut().zip(v) {
        *dw = g / norm * (*dw - v * (along / norm2));
    }
    along / norm
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a few rows", WeightNorm, vec![Wave(vec![6, 5]), Positive(vec![6, 1])]),
        Case::new("more rows than one piece", WeightNorm, vec![Wave(vec![300, 16]), Positive(vec![300, 1])]),
    ]
}
