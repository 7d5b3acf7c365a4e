//! Absolute position embedding: `y[image, token] = x[image, token] + table[token]`.
//!
//! - `x`, `y` `[N, C]`, `table` `[tokens, C]`; every image has that many tokens
//! - `dx = dy`, `dtable = Σ_images dy`

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::lanes;

use crate::Input::Wave;
use crate::{Case, check};

/// The operator.
#[derive(Debug)]
pub struct AddPosition;

impl Op for AddPosition {
    fn name(&self) -> &'static str {
        "position"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("position", inputs, 2)?;
        let (rows, cols) = check::matrix("position", "x", inputs[0])?;
        let (tokens, _) = check::matrix("position", "table", inputs[1])?;
        check::shape("position", "table", inputs[1], &[tokens, cols])?;
        if tokens == 0 || rows % tokens != 0 {
            check::shape("position", "x", inputs[0], &[tokens, cols])?;
        }
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 2]) };
        let dtable = match wants[1] {
            true => Some(g.apply1(SumImages { tokens: g.shape(node.inputs[1])[0] }, &[dy])?),
            false => None,
        };
        Ok(vec![Some(dy), dtable])
    }

    fn reference(&self, io: &mut Io) {
        let (x, table) = (io.f32(0), io.f32(1));
        for (x, y) in x.chunks(table.len()).zip(io.out().chunks_mut(table.len())) {
            lanes::add_scaled(x, 1.0, table, y);
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(io, rec)
    }
}

/// `y[tokens, C] = Σ_images x`.
#[derive(Debug)]
struct SumImages {
    tokens: usize,
}

impl Op for SumImages {
    fn name(&self) -> &'static str {
        "position_dtable"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("position_dtable", inputs, 1)?;
        Ok(vec![(vec![self.tokens, inputs[0][1]], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        let y = io.out();
        y.fill(0.0);
        for image in x.chunks(y.len()) {
            lanes::accumulate(image, y);
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::sum_images(self.tokens, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("three images share the table", AddPosition, vec![Wave(vec![12, 5]), Wave(vec![4, 5])]),
        Case::new("more than one piece, which begins inside the table", AddPosition, vec![Wave(vec![64, 7]), Wave(vec![16, 7])]),
    ]
}
