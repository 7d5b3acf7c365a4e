//! Pixels to rows of patches, so that the patch embedding is a linear layer.
//!
//! `y[token, (c, i, j)] = (pixel − mean[c]) / std[c]`, patches of P×P without overlap, in the order of
//! the convolution weight `[C, 3, P, P]` it is multiplied with.
//!
//! - 8-bit pixels `[total]`: images one after the other, each (height, width, channel); normalized with
//!   ImageNet's mean and deviation of values in 0..1
//! - float pixels `[total]`: images one after the other, each (channel, height, width); taken as they are
//! - `y` `[N, 3·P·P]`; rows and columns of pixels beyond the last whole patch are ignored, as a strided convolution does
//! - gradient: floats only (pixels are data)

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Slice, Value};
use rayon::prelude::*;

use crate::Input::{Pixels, Wave};
use crate::{Case, Layout, Segment, check};

/// Mean of ImageNet's channels.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's channels.
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The operator: crops of pixels, cut in patches.
#[derive(Debug, Clone)]
pub struct Patchify {
    /// Images, height and width in pixels.
    pub pixels: Layout,
    /// P: side of a patch.
    pub patch: usize,
}

impl Patchify {
    /// The token grids.
    pub fn tokens(&self) -> Layout {
        self.pixels.map(|h, w| (h / self.patch, w / self.patch))
    }

    fn volume(&self) -> usize {
        3 * self.pixels.tokens()
    }

    /// Calls `f(first pixel of the image, image's height and width, first token, tokens)` in order.
    fn for_each_image(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let (mut pixel, mut token) = (0, 0);
        for s in self.pixels.segments() {
            for _ in 0..s.images {
                f(pixel, s.height, s.width, token);
                pixel += 3 * s.height * s.width;
                token += (s.height / self.patch) * (s.width / self.patch);
            }
        }
    }
}

impl Op for Patchify {
    fn name(&self) -> &'static str {
        "patchify"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("patchify", inputs, 1)?;
        if self.pixels.segments().iter().any(|s| s.height < self.patch || s.width < self.patch) {
            return Err(Error::Attribute {
                op: "patchify",
                what: format!("crops must be at least one patch ({} pixels) wide and high", self.patch),
            });
        }
        check::shape("patchify", "pixels", inputs[0], &[self.volume()])?;
        Ok(vec![(vec![self.tokens().tokens(), 3 * self.patch * self.patch], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, _node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(Unpatchify(self.clone()), &[dy])?)])
    }

    fn reference(&self, io: &mut Io) {
        let (p, pixels) = (self.patch, io.inputs[0]);
        let width = 3 * p * p;
        let y = io.out();
        self.for_each_image(|pixel, height, cols, token| {
            for t in 0..(height / p) * (cols / p) {
                let (row, col) = (t / (cols / p) * p, t % (cols / p) * p);
                for k in 0..width {
                    let (c, i, j) = (k / (p * p), k / p % p, k % p);
                    y[(token + t) * width + k] = match pixels {
                        Slice::U8(u) => (u[pixel + ((row + i) * cols + col + j) * 3 + c] as f32 / 255.0 - MEAN[c]) / STD[c],
                        other => other.f32()[pixel + (c * height + row + i) * cols + col + j],
                    };
                }
            }
        });
    }

    fn fast(&self, io: &mut Io) {
        let Slice::U8(pixels) = io.inputs[0] else { return self.reference(io) };
        let p = self.patch;
        let width = 3 * p * p;
        // One fused multiply-add a pixel, exact to half a unit of the two-step formula.
        let scale: [f32; 3] = std::array::from_fn(|c| 1.0 / (255.0 * STD[c]));
        let offset: [f32; 3] = std::array::from_fn(|c| -MEAN[c] / STD[c]);
        let mut rest = io.out();
        let mut jobs = Vec::new();
        self.for_each_image(|pixel, height, cols, _| {
            let (piece, tail) = std::mem::take(&mut rest).split_at_mut((height / p) * (cols / p) * width);
            jobs.push((pixel, cols, piece));
            rest = tail;
        });
        jobs.into_par_iter().for_each(|(pixel, cols, y)| {
            let per_row = cols / p;
            for (t, y) in y.chunks_mut(width).enumerate() {
                let (row, col) = (t / per_row * p, t % per_row * p);
                for i in 0..p {
                    let line = &pixels[pixel + ((row + i) * cols + col) * 3..][..3 * p];
                    for (j, rgb) in line.chunks_exact(3).enumerate() {
                        for c in 0..3 {
                            y[(c * p + i) * p + j] = rgb[c] as f32 * scale[c] + offset[c];
                        }
                    }
                }
            }
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(self, io, rec)
    }
}

/// The gradient for float pixels: rows of patches back to their place.
#[derive(Debug)]
struct Unpatchify(Patchify);

impl Op for Unpatchify {
    fn name(&self) -> &'static str {
        "unpatchify"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("unpatchify", inputs, 1)?;
        Ok(vec![(vec![self.0.volume()], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (p, dy) = (self.0.patch, io.f32(0));
        let width = 3 * p * p;
        let dx = io.out();
        dx.fill(0.0);
        self.0.for_each_image(|pixel, height, cols, token| {
            for t in 0..(height / p) * (cols / p) {
                let (row, col) = (t / (cols / p) * p, t % (cols / p) * p);
                for k in 0..width {
                    let (c, i, j) = (k / (p * p), k / p % p, k % p);
                    dx[pixel + (c * height + row + i) * cols + col + j] = dy[(token + t) * width + k];
                }
            }
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::backward(&self.0, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let op = |segments: &[(usize, usize, usize)]| Patchify {
        pixels: Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>()),
        patch: 4,
    };
    let two = op(&[(2, 8, 12), (3, 4, 4)]);
    let ragged = op(&[(2, 11, 9)]);
    let (n_two, n_ragged) = (two.volume(), ragged.volume());
    vec![
        Case::new("8-bit pixels of two sizes", two.clone(), vec![Pixels(vec![n_two])]),
        Case::new("8-bit pixels that are no multiple of the patch", ragged.clone(), vec![Pixels(vec![n_ragged])]),
        Case::new("float pixels, with a gradient", two, vec![Wave(vec![n_two])]),
        Case::new("float pixels beyond the last patch have no gradient", ragged, vec![Wave(vec![n_ragged])]),
    ]
}
