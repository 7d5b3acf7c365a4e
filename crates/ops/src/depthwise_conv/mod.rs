//! Convolution of every channel with a kernel of its own.
//!
//! `y[o, c] = Σ_{ky, kx} W[c, ky, kx]·x[s·o + (ky, kx) − p, c]`, tokens outside the grid are zero
//!
//! - `x` `[N, C]`; `weight` `[C, k·k]`, PyTorch's `[C, 1, k, k]`; `y` `[N', C]`
//! - the grids of `y` may be larger than the filter gives: then those of `x` count as extended by zeros at the bottom and right
//! - `dx` gathers, for each token, the outputs that looked at it; `dW[c, tap] = Σ_o dy[o, c]·x[…, c]`

mod cpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::Wave;
use crate::grouped_conv::gpu;
use crate::{Case, Filter, Layout, Segment, check};

/// The operator over these tokens.
#[derive(Clone, Debug)]
pub struct DepthwiseConv {
    layout: Layout,
    output: Layout,
    filter: Filter,
}

impl DepthwiseConv {
    /// Over the tokens as they are.
    pub fn new(layout: &Layout, filter: Filter) -> DepthwiseConv {
        DepthwiseConv { layout: layout.clone(), output: filter.output(layout), filter }
    }

    /// The convolution of grids that are extended by zeros, each of `layout` to that of `extended`.
    pub fn extended(layout: &Layout, extended: &Layout, filter: Filter) -> DepthwiseConv {
        DepthwiseConv { layout: layout.clone(), output: filter.output(extended), filter }
    }

    /// Grids of `y`.
    pub fn output(&self) -> &Layout {
        &self.output
    }

    /// On a GPU it is a convolution in groups of one channel.
    fn grids(&self, channels: usize) -> gpu::Grids<'_> {
        gpu::Grids { layout: &self.layout, output: &self.output, filter: self.filter, groups: channels }
    }

    fn check(&self, op: &'static str) -> Result<()> {
        self.filter.check(op, &self.layout)?;
        let pairs = || self.layout.segments().iter().zip(self.output.segments());
        let fits = |(a, b): (&Segment, &Segment)| {
            a.images == b.images && b.height >= self.filter.side(a.height) && b.width >= self.filter.side(a.width)
        };
        if self.layout.segments().len() == self.output.segments().len() && pairs().all(fits) {
            return Ok(());
        }
        Err(Error::Attribute { op, what: "grids can be extended, not cut".into() })
    }
}

impl Op for DepthwiseConv {
    fn name(&self) -> &'static str {
        "depthwise_conv"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("depthwise_conv", inputs, 2)?;
        self.check("depthwise_conv")?;
        let (_, cols) = check::matrix("depthwise_conv", "x", inputs[0])?;
        check::shape("depthwise_conv", "x", inputs[0], &[self.layout.tokens(), cols])?;
        check::shape("depthwise_conv", "weight", inputs[1], &[cols, self.filter.taps()])?;
        Ok(vec![(vec![self.output.tokens(), cols], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 2]) };
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        let dw = if wants[1] { Some(g.apply1(DepthwiseConvWeightGradient(self.clone()), &[dy, x])?) } else { None };
        let dx = if wants[0] { Some(g.apply1(DepthwiseConvInputGradient(self.clone()), &[dy, weight])?) } else { None };
        Ok(vec![dx, dw])
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(self, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::fast(self, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(&self.grids(io.matrix(0).1), io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], _threads: usize) -> usize {
        4 * inputs[1][0] * inputs[1][1]
    }
}

/// `dx` from `dy` and `W`.
#[derive(Debug)]
struct DepthwiseConvInputGradient(DepthwiseConv);

impl Op for DepthwiseConvInputGradient {
    fn name(&self) -> &'static str {
        "depthwise_conv_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("depthwise_conv_dx", inputs, 2)?;
        let (cols, _) = check::matrix("depthwise_conv_dx", "weight", inputs[1])?;
        check::shape("depthwise_conv_dx", "dy", inputs[0], &[self.0.output.tokens(), cols])?;
        Ok(vec![(vec![self.0.layout.tokens(), cols], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::input_gradient_reference(&self.0, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::input_gradient(&self.0, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::input_gradient(&self.0.grids(io.matrix(0).1), io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], _threads: usize) -> usize {
        4 * inputs[1][0] * inputs[1][1]
    }
}

/// `dW` from `dy` and `x`.
#[derive(Debug)]
struct DepthwiseConvWeightGradient(DepthwiseConv);

impl Op for DepthwiseConvWeightGradient {
    fn name(&self) -> &'static str {
        "depthwise_conv_dw"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("depthwise_conv_dw", inputs, 2)?;
        let (_, cols) = check::matrix("depthwise_conv_dw", "dy", inputs[0])?;
        check::shape("depthwise_conv_dw", "dy", inputs[0], &[self.0.output.tokens(), cols])?;
        check::shape("depthwise_conv_dw", "x", inputs[1], &[self.0.layout.tokens(), cols])?;
        Ok(vec![(vec![cols, self.0.filter.taps()], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::weight_gradient_reference(&self.0, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::weight_gradient(&self.0, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::weight_gradient(&self.0.grids(io.matrix(0).1), io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], _threads: usize) -> usize {
        let width = inputs[0][1] * self.0.filter.taps();
        4 * width + crate::column_sums::scratch(inputs[0][0], width)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let layout = |segments: &[(usize, usize, usize)]| {
        Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>())
    };
    let filter = |kernel, stride, padding| Filter { kernel, stride, padding };
    let case = |why, op: DepthwiseConv, cols: usize| {
        let inputs = vec![Wave(vec![op.layout.tokens(), cols]), Wave(vec![cols, op.filter.taps()])];
        Case::new(why, op, inputs)
    };
    vec![
        case("3x3 with padding, two grids", DepthwiseConv::new(&layout(&[(2, 4, 5), (3, 2, 3)]), filter(3, 1, 1)), 6),
        case("stride 2 over odd sides", DepthwiseConv::new(&layout(&[(2, 5, 7)]), filter(3, 2, 1)), 5),
        case("a 5x5 kernel larger than the grid", DepthwiseConv::new(&layout(&[(2, 2, 1)]), filter(5, 1, 2)), 3),
        case(
            "CvT's: grids extended to whole windows before they are convolved",
            DepthwiseConv::extended(&layout(&[(2, 3, 5), (3, 4, 4)]), &layout(&[(2, 6, 6), (3, 4, 4)]), filter(3, 1, 1)),
            7,
        ),
        case("rows of more than one piece", DepthwiseConv::new(&layout(&[(5, 8, 9)]), filter(3, 1, 1)), 17),
    ]
}
