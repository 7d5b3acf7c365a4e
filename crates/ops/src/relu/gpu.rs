use esvit_gpu::{Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

use crate::elementwise::{Params, elementwise};

static FORWARD: Kernel = Kernel::new::<Params>("relu", &[include_str!("forward.wgsl")], "main", 2);
static BACKWARD: Kernel = Kernel::new::<Params>("relu_dx", &[include_str!("backward.wgsl")], "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];

pub(super) fn forward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    elementwise(rec, &FORWARD, &[&io.inputs[0], &io.outputs[0]])
}

pub(super) fn backward(io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    elementwise(rec, &BACKWARD, &[&io.inputs[0], &io.inputs[1], &io.outputs[0]])
}
