use esvit_gpu::matmul::{GpuOperand, GpuProduct};
use esvit_gpu::{Recorder, reduce};
use esvit_graph::{GpuIo, Result};

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((rows, width), (out, _)) = (io.matrix(0), io.matrix(1));
    let (x, weight) = (GpuOperand::plain(&io.inputs[0]), GpuOperand::transposed(&io.inputs[1]));
    Ok(GpuProduct::new(x, weight, &io.outputs[0], [rows, out, width]).bias(io.inputs.get(2)).half(io.half()).record(rec)?)
}

pub(super) fn input_gradient(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((rows, out), (_, width)) = (io.matrix(0), io.matrix(1));
    let (dy, weight) = (GpuOperand::plain(&io.inputs[0]), GpuOperand::plain(&io.inputs[1]));
    Ok(GpuProduct::new(dy, weight, &io.outputs[0], [rows, width, out]).half(io.half()).record(rec)?)
}

pub(super) fn weight_gradient(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let ((rows, out), (_, width)) = (io.matrix(0), io.matrix(1));
    let (dy, x) = (GpuOperand::transposed(&io.inputs[0]), GpuOperand::plain(&io.inputs[1]));
    GpuProduct::new(dy, x, &io.outputs[0], [out, width, rows]).half(io.half()).record(rec)?;
    match io.outputs.get(1) {
        Some(db) => Ok(reduce::column_sum(rec, &io.inputs[0], db, rows, out)?),
        None => Ok(()),
    }
}

pub(super) fn column_sum(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (rows, cols) = io.matrix(0);
    Ok(reduce::column_sum(rec, &io.inputs[0], &io.outputs[0], rows, cols)?)
}
