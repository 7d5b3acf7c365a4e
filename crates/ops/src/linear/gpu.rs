use esvit_gpu::matmul::{Operand, matmul};
use esvit_gpu::{Recorder, reduce};
use esvit_graph::{GpuIo, Result};

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((rows, width), (out, _)) = (io.matrix(0), io.matrix(1));
    let (x, weight) = (Operand::plain(&io.inputs[0]), Operand::transposed(&io.inputs[1]));
    Ok(matmul(rec, x, weight, io.inputs.get(2), &io.outputs[0], [rows, out, width])?)
}

pub(super) fn input_gradient(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((rows, out), (_, width)) = (io.matrix(0), io.matrix(1));
    let (dy, weight) = (Operand::plain(&io.inputs[0]), Operand::plain(&io.inputs[1]));
    Ok(matmul(rec, dy, weight, None, &io.outputs[0], [rows, width, out])?)
}

pub(super) fn weight_gradient(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((rows, out), (_, width)) = (io.matrix(0), io.matrix(1));
    let (dy, x) = (Operand::transposed(&io.inputs[0]), Operand::plain(&io.inputs[1]));
    Ok(matmul(rec, dy, x, None, &io.outputs[0], [out, width, rows])?)
}

pub(super) fn column_sum(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    Ok(reduce::column_sum(rec, &io.inputs[0], &io.outputs[0], rows, cols)?)
}
