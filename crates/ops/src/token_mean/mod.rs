//! Mean over the tokens of each image: the view feature.
//!
//! - `x` `[N, C]`, `y` `[images, C]`; `dx` of a token is its image's `dy` divided by the image's tokens

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::lanes;

use crate::Input::Wave;
use crate::{Case, Layout, Segment, check};

/// Mean over the tokens of each image.
#[derive(Debug, Clone)]
pub struct TokenMean {
    /// Which rows belong to which image.
    pub layout: Layout,
}

impl Op for TokenMean {
    fn name(&self) -> &'static str {
        "token_mean"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("token_mean", inputs, 1)?;
        let (_, cols) = check::matrix("token_mean", "x", inputs[0])?;
        check::shape("token_mean", "x", inputs[0], &[self.layout.tokens(), cols])?;
        Ok(vec![(vec![self.layout.images(), cols], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, _node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(Spread(self.clone()), &[dy])?)])
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        let (_, cols) = io.matrix(0);
        let y = io.out();
        for (image, tokens) in self.layout.image_ranges().enumerate() {
            for c in 0..cols {
                y[image * cols + c] = tokens.clone().map(|t| x[t * cols + c] as f64).sum::<f64>() as f32 / tokens.len() as f32;
            }
        }
    }

    fn fast(&self, io: &mut Io) {
        let x = io.f32(0);
        let (_, cols) = io.matrix(0);
        for (tokens, y) in self.layout.image_ranges().zip(io.out().chunks_mut(cols)) {
            y.fill(0.0);
            for token in x[tokens.start * cols..tokens.end * cols].chunks(cols) {
                lanes::accumulate(token, y);
            }
            let scale = 1.0 / tokens.len() as f32;
            y.iter_mut().for_each(|v| *v *= scale);
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(&self.layout, io, rec)
    }
}

/// Gradient of the mean: each image's row to all its tokens.
#[derive(Debug)]
struct Spread(TokenMean);

impl Op for Spread {
    fn name(&self) -> &'static str {
        "token_mean_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("token_mean_dx", inputs, 1)?;
        Ok(vec![(vec![self.0.layout.tokens(), inputs[0][1]], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let dy = io.f32(0);
        let (_, cols) = io.matrix(0);
        let dx = io.out();
        for (image, tokens) in self.0.layout.image_ranges().enumerate() {
            let scale = 1.0 / tokens.len() as f32;
            for token in dx[tokens.start * cols..tokens.end * cols].chunks_mut(cols) {
                lanes::scale(scale, &dy[image * cols..][..cols], token);
            }
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::spread(&self.0.layout, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, segments: &[(usize, usize, usize)], cols| {
        let layout = Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>());
        let tokens = layout.tokens();
        Case::new(why, TokenMean { layout }, vec![Wave(vec![tokens, cols])])
    };
    vec![case("two grids, one of a single token", &[(2, 3, 4), (3, 1, 1)], 5), case("more columns than a kernel's tile", &[(3, 2, 3)], 70)]
}
