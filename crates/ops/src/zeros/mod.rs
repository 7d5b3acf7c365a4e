//! A matrix of zeros, in place of an operand that an architecture leaves out, such as the bias table of attention without one.

use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{DType, GpuIo, Io, Op, Result, Shape};

use crate::{Case, check};

/// The operator: no operands, a result of this shape.
#[derive(Debug)]
pub struct Zeros(pub Shape);

/// Mirrors `Params` in `fill.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    pad: [u32; 3],
}

static FILL: Kernel = Kernel::new::<Params>("zeros", &[include_str!("fill.wgsl")], "main", 1);

pub(crate) static KERNELS: &[&Kernel] = &[&FILL];

impl Op for Zeros {
    fn name(&self) -> &'static str {
        "zeros"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("zeros", inputs, 0)?;
        Ok(vec![(self.0.clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        io.out().fill(0.0);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        let y = &io.outputs[0];
        for piece in rec.row_pieces((y.bytes() / 4) as usize, 4) {
            let params = Params { len: piece.len() as u32, pad: [0; 3] };
            rec.dispatch(&FILL, &[&y.rows(piece.start, piece.len(), 1)], &params, Grid::elements(piece.len(), 256))?;
        }
        Ok(())
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![Case::new("nothing to read", Zeros(vec![5, 3]), vec![])]
}
