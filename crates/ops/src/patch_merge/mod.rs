//! Gathers 2×2 neighbors into one token of four times the channels; Swin's downsampling is this, a
//! layer norm and a linear layer.
//!
//! - `x` `[N, C]`, `y` `[N', 4·C]` with grids of ⌈H/2⌉ × ⌈W/2⌉
//! - order of the quarters, as (row, column) offsets: (0,0), (1,0), (0,1), (1,1)
//! - odd sides are padded with one row or column of zeros
//!
//! Source: Liu et al. 2021, section 3.1; the order is the reference's `PatchMerging`.

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::Wave;
use crate::{Case, Layout, Segment, check};

const OFFSETS: [(usize, usize); 4] = [(0, 0), (1, 0), (0, 1), (1, 1)];

/// Merges 2×2 tokens into one.
#[derive(Debug, Clone)]
pub struct PatchMerge {
    /// Grids before merging.
    pub layout: Layout,
}

impl PatchMerge {
    /// Grids after merging.
    pub fn merged(&self) -> Layout {
        self.layout.map(|h, w| (h.div_ceil(2), w.div_ceil(2)))
    }

    /// Calls `f(quarter, from, to)` for every pair of a token and its quarter of a merged token; `from` is
    /// `None` in the padding.
    fn for_each_quarter(&self, mut f: impl FnMut(usize, Option<usize>, usize)) {
        let (mut from, mut to) = (0, 0);
        for s in self.layout.segments() {
            let (height, width) = (s.height.div_ceil(2), s.width.div_ceil(2));
            for _ in 0..s.images {
                for t in 0..height * width {
                    let (row, col) = (t / width * 2, t % width * 2);
                    for (quarter, (i, j)) in OFFSETS.iter().enumerate() {
                        let inside = row + i < s.height && col + j < s.width;
                        f(quarter, inside.then_some(from + (row + i) * s.width + col + j), to + t);
                    }
                }
                from += s.tokens_per_image();
                to += height * width;
            }
        }
    }
}

impl Op for PatchMerge {
    fn name(&self) -> &'static str {
        "patch_merge"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("patch_merge", inputs, 1)?;
        let (_, cols) = check::matrix("patch_merge", "x", inputs[0])?;
        check::shape("patch_merge", "x", inputs[0], &[self.layout.tokens(), cols])?;
        Ok(vec![(vec![self.merged().tokens(), 4 * cols], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, _node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(PatchSplit(self.clone()), &[dy])?)])
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        let (_, cols) = io.matrix(0);
        let y = io.out();
        self.for_each_quarter(|quarter, from, to| {
            let y = &mut y[(to * 4 + quarter) * cols..][..cols];
            match from {
                Some(from) => y.copy_from_slice(&x[from * cols..][..cols]),
                None => y.fill(0.0),
            }
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::merge(&self.layout, io, rec)
    }
}

/// Gradient of patch merging: every quarter back to its token.
#[derive(Debug)]
struct PatchSplit(PatchMerge);

impl Op for PatchSplit {
    fn name(&self) -> &'static str {
        "patch_split"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("patch_split", inputs, 1)?;
        Ok(vec![(vec![self.0.layout.tokens(), inputs[0][1] / 4], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let dy = io.f32(0);
        let cols = io.matrix(0).1 / 4;
        let dx = io.out();
        self.0.for_each_quarter(|quarter, from, to| {
            if let Some(from) = from {
                dx[from * cols..][..cols].copy_from_slice(&dy[(to * 4 + quarter) * cols..][..cols]);
            }
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::split(&self.0.layout, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, segments: &[(usize, usize, usize)]| {
        let layout = Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>());
        let tokens = layout.tokens();
        Case::new(why, PatchMerge { layout }, vec![Wave(vec![tokens, 9])])
    };
    vec![case("even grids of two sizes", &[(2, 4, 6), (1, 2, 2)]), case("odd sides: zeros take part", &[(2, 3, 5), (2, 1, 1)])]
}
