//! Residual connection with stochastic depth: `y = x + s[image]·f`.
//!
//! - `x`, `f`, `y` `[N, C]`; `scale` `[images]` (optional): 0 where an image skips the branch, 1/keep where it takes it
//! - `dx = dy` (the same value, no copy), `df = s·dy`; the scale is drawn, not learned
//!
//! Source: Huang et al. 2016, <https://arxiv.org/abs/1603.09382>.

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::lanes;
use rayon::prelude::*;

use crate::Input::{Positive, Wave};
use crate::epilogue::EpilogueKind;
use crate::{Case, Layout, Segment, bf16x2, check};

/// The operator over these tokens.
#[derive(Debug)]
pub struct Residual {
    /// Which rows belong to which image.
    pub layout: Layout,
}

impl Residual {
    /// Residual of so many operands as the epilogue of the product that gives `f`.
    pub(crate) fn epilogue(&self, operands: usize) -> EpilogueKind {
        EpilogueKind::Residual((operands == 3).then(|| self.layout.clone()))
    }
}

impl Op for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if inputs.len() != 2 {
            check::arity("residual", inputs, 3)?;
        }
        let (_, cols) = check::matrix("residual", "x", inputs[0])?;
        check::shape("residual", "x", inputs[0], &[self.layout.tokens(), cols])?;
        check::shape("residual", "f", inputs[1], inputs[0])?;
        if let Some(scale) = inputs.get(2) {
            check::shape("residual", "scale", scale, &[self.layout.images()])?;
        }
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; node.inputs.len()]) };
        let mut grads = vec![None; node.inputs.len()];
        grads[0] = Some(dy);
        if wants[1] {
            grads[1] = Some(match node.inputs.get(2) {
                None => dy,
                Some(&scale) => g.apply1(ScaleImages { layout: self.layout.clone() }, &[dy, scale])?,
            });
        }
        Ok(grads)
    }

    fn reference(&self, io: &mut Io) {
        let (x, f) = (io.f32(0), io.f32(1));
        let scale = io.inputs.get(2).map(|s| s.f32());
        let (_, cols) = io.matrix(0);
        let y = io.out();
        for (image, tokens) in self.layout.image_ranges().enumerate() {
            let s = scale.map_or(1.0, |s| s[image]);
            for i in tokens.start * cols..tokens.end * cols {
                y[i] = x[i] + s * f[i];
            }
        }
    }

    fn fast(&self, io: &mut Io) {
        let (x, f) = (io.f32(0), io.f32(1));
        let scale = io.inputs.get(2).map(|s| s.f32());
        let (_, cols) = io.matrix(0);
        for_images(&self.layout, cols, io.out(), |image, range, y| {
            lanes::add_scaled(&x[range.clone()], scale.map_or(1.0, |s| s[image]), &f[range], y);
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(&self.layout, io, rec)
    }
}

/// `y = s[image]·x`.
#[derive(Debug)]
struct ScaleImages {
    layout: Layout,
}

impl Op for ScaleImages {
    fn name(&self) -> &'static str {
        "scale_images"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("scale_images", inputs, 2)?;
        check::shape("scale_images", "scale", inputs[1], &[self.layout.images()])?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (x, scale) = (io.f32(0), io.f32(1));
        let (_, cols) = io.matrix(0);
        let y = io.out();
        for (image, tokens) in self.layout.image_ranges().enumerate() {
            for i in tokens.start * cols..tokens.end * cols {
                y[i] = scale[image] * x[i];
            }
        }
    }

    fn fast(&self, io: &mut Io) {
        let (x, scale) = (io.f32(0), io.f32(1));
        let (rows, cols) = io.matrix(0);
        let mut of_rows = io.pool.scratch(rows);
        self.layout.spread(scale, &mut of_rows);
        let of_rows = &*of_rows;
        bf16x2::for_rows(io.pool, &mut io.outputs[0], cols, (PIECE / cols).max(1), |first, y| {
            for (i, y) in y.chunks_mut(cols).enumerate() {
                lanes::scale(of_rows[first + i], &x[(first + i) * cols..][..cols], y);
            }
        });
    }

    fn scratch(&self, _inputs: &[&Shape], _threads: usize) -> usize {
        4 * self.layout.tokens()
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        bf16x2::has_even_rows(inputs[0])
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::scale_images(&self.layout, io, rec)
    }
}

/// Elements of one piece of parallel work, about.
const PIECE: usize = 8192;

/// Calls `f(image, elements, y)` for every image's rows of `y`, in parallel.
fn for_images(layout: &Layout, cols: usize, mut y: &mut [f32], f: impl Fn(usize, std::ops::Range<usize>, &mut [f32]) + Sync) {
    let mut pieces = Vec::with_capacity(layout.images());
    for (image, tokens) in layout.image_ranges().enumerate() {
        let (piece, rest) = y.split_at_mut(tokens.len() * cols);
        pieces.push((image, tokens.start * cols..tokens.end * cols, piece));
        y = rest;
    }
    pieces.into_par_iter().for_each(|(image, range, piece)| f(image, range, piece));
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let layout = Layout::new(vec![Segment { images: 2, height: 3, width: 2 }, Segment { images: 3, height: 1, width: 2 }]);
    let tokens = layout.tokens();
    let op = || Residual { layout: layout.clone() };
    vec![
        Case::new("no stochastic depth", op(), vec![Wave(vec![tokens, 5]), Wave(vec![tokens, 5])]),
        Case::new("a factor for each image, two grids", op(), vec![Wave(vec![tokens, 37]), Wave(vec![tokens, 37]), Positive(vec![5])])
            .differentiate(&[0, 1]),
    ]
}
