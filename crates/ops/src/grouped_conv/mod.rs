//! Convolution in groups: each group of output channels looks at its own group of input channels.
//!
//! `y[o, c'] = Σ_{j, ky, kx} W[c', j, ky, kx]·x[s·o + (ky, kx) − p, ⌊c'·G/O⌋·I/G + j]`, tokens outside the grid are zero
//!
//! - `x` `[N, I]`, tokens of all crops; `weight` `[O, I/G·k·k]`, PyTorch's `[O, I/G, k, k]`; `y` `[N', O]`
//! - each grid of side n becomes one of side ⌊(n + 2p − k)/s⌋ + 1
//! - `dx` sends each output's gradient back through its taps, `dW` adds up `dy·x` over the tokens
//!
//! Between [`crate::conv2d`], which is one group, and [`crate::depthwise_conv`], which is one group for each channel.
//!
//! Source: Xie et al. 2017, <https://arxiv.org/abs/1611.05431>; `torch.nn.Conv2d` with `groups`.

mod cases;
mod cpu;
pub(crate) mod gpu;

pub use cases::cases;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::{Filter, Layout, check};

/// Convolution in groups of channels over the grids of a layout.
#[derive(Clone, Debug)]
pub struct GroupedConv {
    /// Grids of `x`.
    pub layout: Layout,
    /// Kernel, stride and padding.
    pub filter: Filter,
    /// Number of groups G.
    pub groups: usize,
}

impl GroupedConv {
    /// Grids of `y`.
    pub fn output(&self) -> Layout {
        self.filter.output(&self.layout)
    }

    /// G divides both numbers of channels, and the filter fits.
    fn check(&self, op: &'static str, channels: usize, out: usize) -> Result<()> {
        if self.groups == 0 || !channels.is_multiple_of(self.groups) || !out.is_multiple_of(self.groups) {
            let what = format!("{} groups do not divide {channels} channels before and {out} after", self.groups);
            return Err(Error::Attribute { op, what });
        }
        self.filter.check(op, &self.layout)
    }

    fn on_gpu<T>(&self, call: impl FnOnce(&gpu::Grids) -> T) -> T {
        call(&gpu::Grids { layout: &self.layout, output: &self.output(), filter: self.filter, groups: self.groups })
    }

    /// `weight` is `[out, cols]`.
    fn flops_of(&self, out: usize, cols: usize) -> u64 {
        2 * (self.output().tokens() * out * cols) as u64
    }
}

impl Op for GroupedConv {
    fn name(&self) -> &'static str {
        "grouped_conv"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("grouped_conv", inputs, 2)?;
        let (_, channels) = check::matrix("grouped_conv", "x", inputs[0])?;
        let (out, _) = check::matrix("grouped_conv", "weight", inputs[1])?;
        self.check("grouped_conv", channels, out)?;
        check::shape("grouped_conv", "x", inputs[0], &[self.layout.tokens(), channels])?;
        check::shape("grouped_conv", "weight", inputs[1], &[out, channels / self.groups * self.filter.taps()])?;
        Ok(vec![(vec![self.output().tokens(), out], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 2]) };
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        let dw = if wants[1] { Some(g.apply1(GroupedConvWeightGradient(self.clone()), &[dy, x])?) } else { None };
        let dx = if wants[0] { Some(g.apply1(GroupedConvInputGradient(self.clone()), &[dy, weight])?) } else { None };
        Ok(vec![dx, dw])
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(self, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::fast(self, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        self.on_gpu(|grids| gpu::forward(grids, io, rec))
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        cpu::scratch(self, inputs[0][1], inputs[1][0], threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        self.flops_of(inputs[1][0], inputs[1][1])
    }
}

/// `dx` from `dy` and `W`.
#[derive(Debug)]
struct GroupedConvInputGradient(GroupedConv);

impl GroupedConvInputGradient {
    /// I from the shape of `weight`.
    fn channels(&self, weight: &Shape) -> usize {
        weight[1] / self.0.filter.taps() * self.0.groups
    }
}

impl Op for GroupedConvInputGradient {
    fn name(&self) -> &'static str {
        "grouped_conv_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("grouped_conv_dx", inputs, 2)?;
        let (out, _) = check::matrix("grouped_conv_dx", "weight", inputs[1])?;
        self.0.check("grouped_conv_dx", self.channels(inputs[1]), out)?;
        check::shape("grouped_conv_dx", "dy", inputs[0], &[self.0.output().tokens(), out])?;
        Ok(vec![(vec![self.0.layout.tokens(), self.channels(inputs[1])], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::input_gradient_reference(&self.0, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::input_gradient(&self.0, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        self.0.on_gpu(|grids| gpu::input_gradient(grids, io, rec))
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        cpu::scratch(&self.0, self.channels(inputs[1]), inputs[1][0], threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        self.0.flops_of(inputs[1][0], inputs[1][1])
    }
}

/// `dW` from `dy` and `x`.
#[derive(Debug)]
struct GroupedConvWeightGradient(GroupedConv);

impl Op for GroupedConvWeightGradient {
    fn name(&self) -> &'static str {
        "grouped_conv_dw"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("grouped_conv_dw", inputs, 2)?;
        let (_, out) = check::matrix("grouped_conv_dw", "dy", inputs[0])?;
        let (_, channels) = check::matrix("grouped_conv_dw", "x", inputs[1])?;
        self.0.check("grouped_conv_dw", channels, out)?;
        check::shape("grouped_conv_dw", "dy", inputs[0], &[self.0.output().tokens(), out])?;
        check::shape("grouped_conv_dw", "x", inputs[1], &[self.0.layout.tokens(), channels])?;
        Ok(vec![(vec![out, channels / self.0.groups * self.0.filter.taps()], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::weight_gradient_reference(&self.0, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::weight_gradient(&self.0, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        self.0.on_gpu(|grids| gpu::weight_gradient(grids, io, rec))
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        cpu::scratch(&self.0, inputs[1][1], inputs[0][1], threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        self.0.flops_of(inputs[0][1], inputs[1][1] / self.0.groups * self.0.filter.taps())
    }
}
