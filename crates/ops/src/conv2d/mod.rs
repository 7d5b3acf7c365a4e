//! Convolution over token grids.
//!
//! `y[o, c'] = b[c'] + Σ_{i, ky, kx} W[c', i, ky, kx]·x[s·o + (ky, kx) − p, i]`, tokens outside the grid are zero
//!
//! - `x` `[N, I]`, tokens of all crops; `weight` `[O, I·k·k]`, PyTorch's `[O, I, k, k]`; `bias` `[O]` (optional); `y` `[N', O]`
//! - each grid of side n becomes one of side ⌊(n + 2p − k)/s⌋ + 1
//! - `dx` sends each output's gradient back through its taps, `dW = dyᵀ·(patches of x)`, `db = Σ_rows dy`
//!
//! A 1x1 convolution of stride 1 is [`crate::linear`].

mod cases;
pub(crate) mod cpu;
pub(crate) mod gpu;

pub use cases::cases;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Precision, Prepacked, Result, Shape, Slice, Value};

use crate::linear::ColumnSum;
use crate::{Filter, Layout, check};

/// The operator over these tokens; with two operands there is no bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// Grids of `x`.
    pub layout: Layout,
    /// Kernel, stride and padding.
    pub filter: Filter,
}

impl Conv2d {
    /// Grids of `y`.
    pub fn output(&self) -> Layout {
        self.filter.output(&self.layout)
    }

    /// `[rows, patch]` of the matrix of patches, for the arithmetic.
    fn flops_of(&self, patch: usize, out: usize) -> u64 {
        2 * (self.output().tokens() * patch * out) as u64
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if inputs.len() != 2 {
            check::arity("conv2d", inputs, 3)?;
        }
        self.filter.check("conv2d", &self.layout)?;
        let (_, channels) = check::matrix("conv2d", "x", inputs[0])?;
        check::shape("conv2d", "x", inputs[0], &[self.layout.tokens(), channels])?;
        let (out, _) = check::matrix("conv2d", "weight", inputs[1])?;
        check::shape("conv2d", "weight", inputs[1], &[out, channels * self.filter.taps()])?;
        if let Some(bias) = inputs.get(2) {
            check::shape("conv2d", "bias", bias, &[out])?;
        }
        Ok(vec![(vec![self.output().tokens(), out], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; node.inputs.len()]) };
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        let mut grads = vec![None; node.inputs.len()];
        if wants[1] {
            grads[1] = Some(g.apply1(Conv2dWeightGradient(self.clone()), &[dy, x])?);
        }
        if wants.get(2) == Some(&true) {
            grads[2] = Some(g.apply1(ColumnSum, &[dy])?);
        }
        if wants[0] {
            grads[0] = Some(g.apply1(Conv2dInputGradient(self.clone()), &[dy, weight])?);
        }
        Ok(grads)
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(self, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::fast(self, io);
    }

    fn prepack(&self, operands: &[Option<Slice>], shapes: &[&Shape], precision: Precision) -> Option<Prepacked> {
        cpu::prepack(self, operands[1], shapes[1], precision)
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(self, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        cpu::scratch(self, inputs[1][0], inputs[1][1], threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        self.flops_of(inputs[1][1], inputs[1][0])
    }
}

/// Gradient of the operand: `dx` from `dy` and `W`.
#[derive(Debug)]
struct Conv2dInputGradient(Conv2d);

impl Op for Conv2dInputGradient {
    fn name(&self) -> &'static str {
        "conv2d_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("conv2d_dx", inputs, 2)?;
        let (out, patch) = check::matrix("conv2d_dx", "weight", inputs[1])?;
        check::shape("conv2d_dx", "dy", inputs[0], &[self.0.output().tokens(), out])?;
        Ok(vec![(vec![self.0.layout.tokens(), patch / self.0.filter.taps()], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::input_gradient_reference(&self.0, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::input_gradient(&self.0, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::input_gradient(&self.0, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        cpu::scratch(&self.0, inputs[1][0], inputs[1][1], threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        self.0.flops_of(inputs[1][1], inputs[1][0])
    }
}

/// Gradient of the weight: `dW` from `dy` and `x`.
#[derive(Debug)]
struct Conv2dWeightGradient(Conv2d);

impl Op for Conv2dWeightGradient {
    fn name(&self) -> &'static str {
        "conv2d_dw"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("conv2d_dw", inputs, 2)?;
        let (_, out) = check::matrix("conv2d_dw", "dy", inputs[0])?;
        let (_, channels) = check::matrix("conv2d_dw", "x", inputs[1])?;
        check::shape("conv2d_dw", "dy", inputs[0], &[self.0.output().tokens(), out])?;
        check::shape("conv2d_dw", "x", inputs[1], &[self.0.layout.tokens(), channels])?;
        Ok(vec![(vec![out, channels * self.0.filter.taps()], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::weight_gradient_reference(&self.0, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::weight_gradient(&self.0, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::weight_gradient(&self.0, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        cpu::scratch(&self.0, inputs[0][1], inputs[1][1] * self.0.filter.taps(), threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        self.0.flops_of(inputs[1][1] * self.0.filter.taps(), inputs[0][1])
    }
}
