//! Absolute position embedding: `y[image, token] = x[image, token] + table[token]`.
//!
//! - `x`, `y` `[N, C]`, `table` `[tokens, C]`; every image has that many tokens
//! - `dx = dy`, `dtable = Σ_images dy`
//!
//! [`AddPositions`] adds another table to each segment, one below the other: crops of several sizes.

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use esvit_simd::lanes;

use crate::Input::Wave;
use crate::{Case, Layout, Segment, check};

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

/// `y[image, token] = x[image, token] + table[segment, token]`; the table is `[Σ tokens of an image of each segment, C]`.
#[derive(Debug, Clone)]
pub struct AddPositions {
    /// Which rows belong to which image.
    pub layout: Layout,
}

impl AddPositions {
    /// Rows of the table.
    fn rows(&self) -> usize {
        self.layout.segments().iter().map(Segment::tokens_per_image).sum()
    }

    /// Elements of each segment's part of the table, and of its images.
    fn parts(&self, cols: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.layout.segments().iter().map(move |s| (s.tokens_per_image() * cols, s.tokens() * cols))
    }
}

impl Op for AddPositions {
    fn name(&self) -> &'static str {
        "positions"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("positions", inputs, 2)?;
        let (_, cols) = check::matrix("positions", "x", inputs[0])?;
        check::shape("positions", "x", inputs[0], &[self.layout.tokens(), cols])?;
        check::shape("positions", "table", inputs[1], &[self.rows(), cols])?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, _node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 2]) };
        let dtable = if wants[1] { Some(g.apply1(SumSegments(self.clone()), &[dy])?) } else { None };
        Ok(vec![Some(dy), dtable])
    }

    fn reference(&self, io: &mut Io) {
        let (_, cols) = io.matrix(0);
        let (mut x, mut table, mut y) = (io.f32(0), io.f32(1), io.out());
        for (tokens, all) in self.parts(cols) {
            let (part, rest) = table.split_at(tokens);
            let (from, rest_x) = x.split_at(all);
            let (to, rest_y) = std::mem::take(&mut y).split_at_mut(all);
            for (from, to) in from.chunks(tokens).zip(to.chunks_mut(tokens)) {
                lanes::add_scaled(from, 1.0, part, to);
            }
            (table, x, y) = (rest, rest_x, rest_y);
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward_each(self, io, rec)
    }
}

/// `y[segment, token] = Σ_images x[image, token]`.
#[derive(Debug)]
struct SumSegments(AddPositions);

impl Op for SumSegments {
    fn name(&self) -> &'static str {
        "positions_dtable"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("positions_dtable", inputs, 1)?;
        Ok(vec![(vec![self.0.rows(), inputs[0][1]], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (_, cols) = io.matrix(0);
        let (mut x, mut y) = (io.f32(0), io.out());
        for (tokens, all) in self.0.parts(cols) {
            let (from, rest_x) = x.split_at(all);
            let (to, rest_y) = std::mem::take(&mut y).split_at_mut(tokens);
            to.fill(0.0);
            for image in from.chunks(tokens) {
                lanes::accumulate(image, to);
            }
            (x, y) = (rest_x, rest_y);
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::sum_segments(&self.0, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let layout = Layout::new(vec![Segment { images: 3, height: 1, width: 5 }, Segment { images: 2, height: 2, width: 1 }]);
    vec![
        Case::new("a table for each of two sizes", AddPositions { layout }, vec![Wave(vec![19, 6]), Wave(vec![7, 6])]),
        Case::new("three images share the table", AddPosition, vec![Wave(vec![12, 5]), Wave(vec![4, 5])]),
        Case::new("more than one piece, which begins inside the table", AddPosition, vec![Wave(vec![64, 7]), Wave(vec![16, 7])]),
    ]
}
