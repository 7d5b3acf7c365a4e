//! Rows of every image rearranged: tokens chosen, room made for global tokens, neighbors put side by side.
//!
//! `y[image, r] = x[image, index[r]]`, or zeros where there is none; the indices are constants, and no row of `x` is taken twice.
//!
//! - `x` `[rows, together·C]` and `y` `[rows', together'·C]`: `together` of the gathered rows side by side make one row of the matrix
//! - the gradient is the same operator with the inverse index

pub(crate) mod gpu;

use std::sync::Arc;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::Wave;
use crate::{Case, Layout, Segment, check};

/// The index of a row of zeros.
pub const NONE: u32 = u32::MAX;

/// The images of one segment and the rows they give.
#[derive(Clone, Debug)]
pub(crate) struct GatherSegment {
    pub images: usize,
    /// Rows of an image of `x`.
    pub rows: usize,
    /// Row of `x` for each row of an image of `y`.
    pub index: Vec<u32>,
}

/// The operator.
#[derive(Clone, Debug)]
pub struct GatherRows {
    parts: Arc<[GatherSegment]>,
    /// Gathered rows in a row of `x`, and in a row of `y`.
    together: [usize; 2],
}

impl GatherRows {
    /// `index(segment)` gives the rows of its images.
    fn new(layout: &Layout, together: [usize; 2], index: impl Fn(&Segment) -> Vec<u32>) -> GatherRows {
        let part = |s: &Segment| GatherSegment { images: s.images, rows: s.tokens_per_image(), index: index(s) };
        GatherRows { parts: layout.segments().iter().map(part).collect(), together }
    }

    /// The first `count` tokens of every image.
    pub fn head(layout: &Layout, count: usize) -> GatherRows {
        GatherRows::new(layout, [1, 1], |_| (0..count as u32).collect())
    }

    /// All but the first `count` tokens of every image.
    pub fn tail(layout: &Layout, count: usize) -> GatherRows {
        GatherRows::new(layout, [1, 1], |s| (count as u32..s.tokens_per_image() as u32).collect())
    }

    /// `before` and `after` rows of zeros around every image's tokens.
    pub fn padded(layout: &Layout, before: usize, after: usize) -> GatherRows {
        GatherRows::surrounded(layout, before, &vec![after; layout.segments().len()])
    }

    /// `before` rows of zeros in front of every image's tokens, and as many behind them as `after` says for the segment.
    pub fn surrounded(layout: &Layout, before: usize, after: &[usize]) -> GatherRows {
        let none = |n| std::iter::repeat_n(NONE, n);
        let part = |(s, &after): (&Segment, &usize)| {
            let index = none(before).chain(0..s.tokens_per_image() as u32).chain(none(after)).collect();
            GatherSegment { images: s.images, rows: s.tokens_per_image(), index }
        };
        GatherRows { parts: layout.segments().iter().zip(after).map(part).collect(), together: [1, 1] }
    }

    /// Patches of `side × side` tokens without overlap, their tokens side by side, row by row: `[N', side²·C]`. What is beyond the last
    /// whole patch is left out, as a strided convolution does.
    pub fn patches(layout: &Layout, side: usize) -> GatherRows {
        GatherRows::new(layout, [1, side * side], |s| {
            let token = |t: usize| {
                let wide = s.width / side;
                let (patch, k) = (t / (side * side), t % (side * side));
                ((patch / wide * side + k / side) * s.width + patch % wide * side + k % side) as u32
            };
            (0..s.height / side * (s.width / side) * side * side).map(token).collect()
        })
    }

    fn inverse(&self) -> GatherRows {
        let part = |p: &GatherSegment| {
            let mut index = vec![NONE; p.rows];
            for (r, &from) in p.index.iter().enumerate().filter(|(_, from)| **from != NONE) {
                index[from as usize] = r as u32;
            }
            GatherSegment { images: p.images, rows: p.index.len(), index }
        };
        GatherRows { parts: self.parts.iter().map(part).collect(), together: [self.together[1], self.together[0]] }
    }

    fn total(&self, rows: impl Fn(&GatherSegment) -> usize) -> usize {
        self.parts.iter().map(|p| p.images * rows(p)).sum()
    }
}

impl Op for GatherRows {
    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("gather_rows", inputs, 1)?;
        let (_, cols) = check::matrix("gather_rows", "x", inputs[0])?;
        let [from, to] = self.together;
        check::shape("gather_rows", "x", inputs[0], &[self.total(|p| p.rows) / from, cols])?;
        let rows = self.total(|p| p.index.len());
        if rows == 0 || cols % from != 0 || !rows.is_multiple_of(to) {
            return Err(Error::Attribute { op: "gather_rows", what: format!("{rows} rows of {cols} cannot be laid {to} side by side") });
        }
        Ok(vec![(vec![rows / to, cols / from * to], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, _node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(self.inverse(), &[dy])?)])
    }

    fn reference(&self, io: &mut Io) {
        let x = io.f32(0);
        let width = io.matrix(0).1 / self.together[0];
        let (mut x, mut y) = (x, io.out());
        for part in self.parts.iter() {
            for _ in 0..part.images {
                let (from, rest) = x.split_at(part.rows * width);
                let (to, rest_y) = std::mem::take(&mut y).split_at_mut(part.index.len() * width);
                for (to, &row) in to.chunks_exact_mut(width).zip(&part.index) {
                    match row {
                        NONE => to.fill(0.0),
                        row => to.copy_from_slice(&from[row as usize * width..][..width]),
                    }
                }
                (x, y) = (rest, rest_y);
            }
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::record(&self.parts, io.matrix(0).1 / self.together[0], io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let layout = Layout::new(vec![Segment { images: 2, height: 4, width: 5 }, Segment { images: 3, height: 2, width: 2 }]);
    let case = |why, op: GatherRows, cols: usize| Case::new(why, op, vec![Wave(vec![layout.tokens(), cols])]);
    vec![
        case("the first tokens of every image", GatherRows::head(&layout, 2), 7),
        case("all but the first", GatherRows::tail(&layout, 1), 7),
        case("room before and behind", GatherRows::padded(&layout, 1, 2), 7),
        case("patches; a column of tokens belongs to none", GatherRows::patches(&layout, 2), 3),
    ]
}
