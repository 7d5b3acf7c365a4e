//! Linear layer over the last axis: `y = x·Wᵀ + b`.
//!
//! - `x` `[N, I]`, `weight` `[O, I]` (PyTorch's layout), `bias` `[O]` (optional), `y` `[N, O]`
//! - `dx = dy·W`, `dW = dyᵀ·x`, `db = Σ_rows dy`
//! - in mixed precision x, W and dy are rounded for the products; the bias, its gradient and all sums are not. On a CPU x, y, dy and dx may
//!   be kept as words of two bf16 where every reader rounds them ([`esvit_graph::Program::with_bf16x2`]); db is then the sum of rounded
//!   values

mod cases;
mod cpu;
mod gpu;

pub use cases::cases;
pub(crate) use cpu::input_gradient;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Precision, Prepacked, Result, Shape, Slice, Value};

use esvit_simd::gemm::Epilogue;

use crate::bf16x2::has_even_rows;
use crate::{check, column_sums};

/// The layer; with two operands there is no bias.
#[derive(Debug)]
pub struct Linear;

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if inputs.len() != 2 {
            check::arity("linear", inputs, 3)?;
        }
        let (rows, width) = check::matrix("linear", "x", inputs[0])?;
        let (out, _) = check::matrix("linear", "weight", inputs[1])?;
        check::shape("linear", "weight", inputs[1], &[out, width])?;
        if let Some(bias) = inputs.get(2) {
            check::shape("linear", "bias", bias, &[out])?;
        }
        Ok(vec![(vec![rows, out], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; node.inputs.len()]) };
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        let mut grads = vec![None; node.inputs.len()];
        match (wants[1], wants.get(2) == Some(&true)) {
            (true, bias) => {
                let results = g.apply(LinearWeightGradient { bias }, &[dy, x])?;
                grads[1] = Some(results[0]);
                if bias {
                    grads[2] = Some(results[1]);
                }
            }
            (false, true) => grads[2] = Some(g.apply1(ColumnSum, &[dy])?),
            (false, false) => {}
        }
        if wants[0] {
            grads[0] = Some(g.apply1(LinearInputGradient, &[dy, weight])?);
        }
        Ok(grads)
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(io);
    }

    fn fast(&self, io: &mut Io) {
        let bias = io.inputs.get(2).map(|b| b.f32());
        cpu::fast(io, bias);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(io, rec)
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        operand == 0 && has_even_rows(inputs[0])
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        inputs[1][0].is_multiple_of(2) && esvit_simd::gemm::writes_bf16x2(inputs[1][1])
    }

    fn prepack(&self, operands: &[Option<Slice>], shapes: &[&Shape], precision: Precision) -> Option<Prepacked> {
        cpu::prepack(operands[1], shapes[1], precision)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        esvit_simd::gemm::scratch(inputs[0][0], inputs[1][0], inputs[1][1], threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        2 * (inputs[0][0] * inputs[1][0] * inputs[1][1]) as u64
    }
}

/// Gradient of the operand: `dx[N, I] = dy[N, O]·W[O, I]`.
#[derive(Debug)]
pub(crate) struct LinearInputGradient;

impl Op for LinearInputGradient {
    fn name(&self) -> &'static str {
        "linear_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("linear_dx", inputs, 2)?;
        let (rows, out) = check::matrix("linear_dx", "dy", inputs[0])?;
        let (_, width) = check::matrix("linear_dx", "weight", inputs[1])?;
        check::shape("linear_dx", "weight", inputs[1], &[out, width])?;
        Ok(vec![(vec![rows, width], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::input_gradient_reference(io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::input_gradient(io, Epilogue::Identity);
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        operand == 0 && has_even_rows(inputs[0])
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        has_even_rows(inputs[1]) && esvit_simd::gemm::writes_bf16x2(inputs[1][0])
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::input_gradient(io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        esvit_simd::gemm::scratch(inputs[0][0], inputs[1][1], inputs[1][0], threads)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        2 * (inputs[0][0] * inputs[1][0] * inputs[1][1]) as u64
    }
}

/// Gradients of the weight and, where there is one, the bias: `dW[O, I] = dy[N, O]ᵀ·x[N, I]` and `db[O] = Σ_rows dy` in one pass over dy.
#[derive(Debug)]
struct LinearWeightGradient {
    bias: bool,
}

impl Op for LinearWeightGradient {
    fn name(&self) -> &'static str {
        "linear_dw"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("linear_dw", inputs, 2)?;
        let (rows, out) = check::matrix("linear_dw", "dy", inputs[0])?;
        let (_, width) = check::matrix("linear_dw", "x", inputs[1])?;
        check::shape("linear_dw", "x", inputs[1], &[rows, width])?;
        let mut results = vec![(vec![out, width], DType::F32)];
        if self.bias {
            results.push((vec![out], DType::F32));
        }
        Ok(results)
    }

    fn reference(&self, io: &mut Io) {
        cpu::weight_gradient_reference(io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::weight_gradient(io);
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        has_even_rows(inputs[operand])
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::weight_gradient(io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        let (rows, out) = (inputs[0][0], inputs[0][1]);
        let sums = esvit_simd::gemm::row_sums_scratch(out, rows).max(column_sums::scratch(rows, out));
        esvit_simd::gemm::scratch(out, inputs[1][1], rows, threads) + if self.bias { sums } else { 0 }
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        2 * (inputs[0][0] * inputs[0][1] * inputs[1][1]) as u64
    }
}

/// Gradient of a bias: `y[C] = Σ_rows x[rows, C]`.
#[derive(Debug)]
pub struct ColumnSum;

impl Op for ColumnSum {
    fn name(&self) -> &'static str {
        "column_sum"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("column_sum", inputs, 1)?;
        let (_, cols) = check::matrix("column_sum", "x", inputs[0])?;
        Ok(vec![(vec![cols], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::column_sum_reference(io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::column_sum(io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::column_sum(io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], _threads: usize) -> usize {
        column_sums::scratch(inputs[0][0], inputs[0][1])
    }
}
