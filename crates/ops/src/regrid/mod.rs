//! Grids cut, extended and put side by side: each segment of the result is a copy of a segment of an operand, from its first row and
//! column on; what lies outside the copied grid is zero.
//!
//! - operands `[N_i, C]`, one for each layout of `from`; `y` `[N, C]`
//! - gradient: each operand's segments get what their copies got, zero where nothing was copied; no segment is copied twice

pub(crate) mod gpu;

use std::sync::Arc;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};
use rayon::prelude::*;

use crate::Input::Wave;
use crate::{Case, Layout, Segment, check};

/// Operand and segment that a segment of the result is copied from; `None` for zeros.
pub type Source = Option<(usize, usize)>;

/// Copies, cuts and extends grids from several matrices into one.
#[derive(Clone, Debug)]
pub struct Regrid {
    from: Arc<[Layout]>,
    to: Layout,
    source: Arc<[Source]>,
}

impl Regrid {
    /// `source` names for each segment of `to` where it is copied from.
    pub fn new(from: Vec<Layout>, to: Layout, source: Vec<Source>) -> Regrid {
        Regrid { from: from.into(), to, source: source.into() }
    }

    /// Some segments of one matrix.
    pub fn select(from: &Layout, segments: &[usize]) -> Regrid {
        let to = Layout::new(segments.iter().map(|&s| from.segments()[s]).collect::<Vec<_>>());
        Regrid::new(vec![from.clone()], to, segments.iter().map(|&s| Some((0, s))).collect())
    }

    /// First token of each segment.
    fn firsts(layout: &Layout) -> Vec<usize> {
        let mut next = 0;
        let first = |s: &Segment| {
            next += s.tokens();
            next - s.tokens()
        };
        layout.segments().iter().map(first).collect()
    }

    /// Calls `f(segment of y, its first token, segment and first token of the operand, and the operand)`.
    fn for_segments(&self, mut f: impl FnMut(Segment, usize, Option<(Segment, usize, usize)>) -> Result<()>) -> Result<()> {
        for ((&to, first), source) in self.to.segments().iter().zip(Regrid::firsts(&self.to)).zip(self.source.iter()) {
            let from = source.map(|(operand, s)| {
                let layout = &self.from[operand];
                (layout.segments()[s], Regrid::firsts(layout)[s], operand)
            });
            f(to, first, from)?;
        }
        Ok(())
    }
}

impl Op for Regrid {
    fn name(&self) -> &'static str {
        "regrid"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("regrid", inputs, self.from.len().max(1))?;
        let (_, cols) = check::matrix("regrid", "x", inputs[0])?;
        for (layout, shape) in self.from.iter().zip(inputs) {
            check::shape("regrid", "x", shape, &[layout.tokens(), cols])?;
        }
        if self.source.len() != self.to.segments().len() {
            return Err(Error::Attribute { op: "regrid", what: "every segment of the result needs a source".into() });
        }
        for (to, source) in self.to.segments().iter().zip(self.source.iter()) {
            let Some((operand, s)) = *source else { continue };
            let from = self.from.get(operand).and_then(|layout| layout.segments().get(s));
            if from.is_none_or(|from| from.images != to.images) {
                return Err(Error::Attribute {
                    op: "regrid",
                    what: format!("no segment {s} of {} images in operand {operand}", to.images),
                });
            }
        }
        Ok(vec![(vec![self.to.tokens(), cols], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; node.inputs.len()]) };
        let mut grads = vec![None; node.inputs.len()];
        for (operand, layout) in self.from.iter().enumerate().filter(|(operand, _)| wants[*operand]) {
            let back = |s| self.source.iter().position(|source| *source == Some((operand, s))).map(|at| (0, at));
            let source = (0..layout.segments().len()).map(back).collect();
            grads[operand] = Some(g.apply1(Regrid::new(vec![self.to.clone()], layout.clone(), source), &[dy])?);
        }
        Ok(grads)
    }

    fn reference(&self, io: &mut Io) {
        let (_, cols) = io.matrix(0);
        let inputs = io.inputs.clone();
        let y = io.out();
        let copied = self.for_segments(|to, first, from| {
            let y = &mut y[first * cols..(first + to.tokens()) * cols];
            let Some((from, from_first, operand)) = from else {
                y.fill(0.0);
                return Ok(());
            };
            let x = &inputs[operand].f32()[from_first * cols..];
            y.par_chunks_mut(to.tokens_per_image() * cols).enumerate().for_each(|(image, y)| {
                let x = &x[image * from.tokens_per_image() * cols..];
                let width = from.width.min(to.width) * cols;
                for (row, y) in y.chunks_mut(to.width * cols).enumerate() {
                    let copied = if row < from.height { width } else { 0 };
                    y[..copied].copy_from_slice(&x[row.min(from.height - 1) * from.width * cols..][..copied]);
                    y[copied..].fill(0.0);
                }
            });
            Ok(())
        });
        debug_assert!(copied.is_ok());
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(self, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let layout = |segments: &[(usize, usize, usize)]| {
        Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>())
    };
    let two = layout(&[(2, 3, 4), (3, 2, 2)]);
    let tokens = two.tokens();
    let larger = layout(&[(2, 4, 4), (3, 4, 2)]);
    let one = layout(&[(2, 5, 3)]);
    vec![
        Case::new(
            "extended by zeros",
            Regrid::new(vec![two.clone()], larger, vec![Some((0, 0)), Some((0, 1))]),
            vec![Wave(vec![tokens, 5])],
        ),
        Case::new("a segment alone: the others get no gradient", Regrid::select(&two, &[1]), vec![Wave(vec![tokens, 3])]),
        Case::new(
            "joined in another order and cut, with a segment of zeros",
            Regrid::new(vec![one.clone(), two.clone()], layout(&[(3, 2, 1), (1, 2, 2), (2, 4, 2)]), vec![Some((1, 1)), None, Some((0, 0))]),
            vec![Wave(vec![one.tokens(), 6]), Wave(vec![tokens, 6])],
        ),
    ]
}
