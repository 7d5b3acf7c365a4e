//! The peak that shares refer to: the best matrix product of the machine.

use esvit_engine::Result;
use esvit_engine::peak::gemm_gflops;
use esvit_engine::spec::PrecisionSpec;
use esvit_graph::{DType, Graph};
use esvit_ops::linear::Linear;

use crate::Machine;
use crate::workload::{Data, Workload};

/// Rate of a large square product at this precision, in GFLOP/s: the best of a few.
///
/// # Errors
/// When the GPU is lost, or has no room for the matrices.
pub fn peak_gflops(machine: &Machine, precision: PrecisionSpec) -> Result<f64> {
    let n: usize = match machine.gpu() {
        None if precision == PrecisionSpec::F32 => return Ok(gemm_gflops(machine.pool())),
        None => 1024,
        Some(_) if machine.is_software_gpu() => 128,
        Some(_) => 4096,
    };
    let mut g = Graph::new();
    let operands = [g.leaf("x", &[n, n], DType::F32)?, g.leaf("weight", &[n, n], DType::F32)?];
    let y = g.apply1(Linear, &operands)?;
    let workload = Workload::new(&g, &[y], precision.into(), |_, i, shape, dtype| Data::plain(i, shape, dtype));
    let mut ready = workload.on(machine)?;
    let mut best = f64::INFINITY;
    let mut spent = 0.0;
    while spent < 500.0 {
        let ms = ready.run(1)?;
        spent += ms.max(1.0);
        best = best.min(ms);
    }
    Ok(2.0 * (n as f64).powi(3) / best / 1e6)
}
