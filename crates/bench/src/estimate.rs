//! Estimate of a step's time, before a trainer is built.

use std::collections::BTreeMap;

use esvit_engine::spec::{CropSpec, TrainerSpec};
use esvit_engine::{Result, TrainerPlan, step_program};
use esvit_graph::{DType, Graph, Node, Program, Shape, volume};
use esvit_ops::residual::Residual;
use esvit_ops::{Layout, Segment};

use crate::Machine;
use crate::workload::{Data, Workload, indices};

/// Milliseconds for which an operator runs at least, repeatedly where one run is shorter.
const SHORT: f64 = 1.0;
/// Elements of the values that memory bandwidth is measured with: more than caches hold.
const STREAM: usize = 8 << 20;

/// Milliseconds of a step: each operator of its program is timed alone, at the shapes of one image, and taken in proportion to its arithmetic or, where
/// it has none, its bytes. On a GPU, which one image does not keep busy, at the shapes of the step.
///
/// `None` on a GPU in software, where this would take minutes.
///
/// # Errors
/// When the specification cannot be built, or the GPU is lost.
pub fn estimate(spec: &TrainerSpec, machine: &Machine) -> Result<Option<f64>> {
    if machine.is_software_gpu() {
        return Ok(None);
    }
    let images = if machine.gpu().is_some() { spec.crops.batch } else { 1 };
    timed(spec, machine, images).map(Some)
}

/// Milliseconds of a step, from operators timed at the shapes of `images` images.
pub(crate) fn timed(spec: &TrainerSpec, machine: &Machine, images: usize) -> Result<f64> {
    let sample = TrainerSpec { crops: CropSpec { batch: images, ..spec.crops.clone() }, ..spec.clone() };
    let (sample, whole) = (step_program(&sample, machine.target())?, step_program(spec, machine.target())?);
    let mut known: BTreeMap<(&str, Vec<Shape>), f64> = BTreeMap::new();
    let mut pass = 0.0;
    for (small, large) in sample.nodes().iter().zip(whole.nodes()) {
        let operands = shapes(&sample, small);
        let key = (small.op.name(), operands.into_iter().map(|(shape, _)| shape).collect());
        let ms = match known.get(&key) {
            Some(&ms) => ms,
            None => {
                let ms = time(spec, machine, &sample, small)?;
                known.insert(key, ms);
                ms
            }
        };
        pass += ms * work(&whole, large) / work(&sample, small).max(1.0);
    }
    // The update reads and writes parameters, moments and teacher, and reads gradients twice; a sum reads it and the gradient, and writes it.
    let plan = TrainerPlan::new(spec, machine.target())?;
    let (held, values) = (plan.memory.parameters as f64, 4.0 * plan.parameter_count as f64);
    let sums = if spec.accumulate > 1 { 3.0 * values * spec.accumulate as f64 } else { 0.0 };
    let update = (2.0 * held + 2.0 * values + sums) * stream(spec, machine)?;
    Ok(spec.accumulate as f64 * pass + update)
}

fn shapes(program: &Program, node: &Node) -> Vec<(Shape, DType)> {
    program.operands(node).into_iter().map(|(shape, dtype)| (shape.clone(), dtype)).collect()
}

/// Arithmetic of a node, or the elements it reads.
fn work(program: &Program, node: &Node) -> f64 {
    let operands = program.operands(node);
    let by_reference: Vec<&Shape> = operands.iter().map(|(shape, _)| *shape).collect();
    match node.op.flops(&by_reference) {
        0 => by_reference.iter().map(|shape| volume(shape) as f64).sum(),
        flops => flops as f64,
    }
}

/// Milliseconds of a node.
fn time(spec: &TrainerSpec, machine: &Machine, program: &Program, node: &Node) -> Result<f64> {
    let mut g = Graph::new();
    let operand = |(i, (shape, dtype)): (usize, (Shape, DType))| g.leaf(&format!("operand {i}"), &shape, dtype);
    let operands = shapes(program, node).into_iter().enumerate().map(operand).collect::<std::result::Result<Vec<_>, _>>()?;
    let results = g.apply_shared(node.op.clone(), &operands)?;
    let indices = indices(program, node, machine.pool())?;
    let workload = Workload::new(&g, &results, spec.precision.into(), |_, i, shape, dtype| {
        indices.get(&i).map_or_else(|| Data::rough(shape, dtype), |given| Data::U32(given.clone()))
    });
    run(workload, machine)
}

/// Milliseconds a byte of values that are read or written one after the other.
fn stream(spec: &TrainerSpec, machine: &Machine) -> Result<f64> {
    let mut g = Graph::new();
    let layout = Layout::new(vec![Segment { images: 1, height: STREAM / 64, width: 1 }]);
    let operands = ["x", "branch"].map(|name| g.leaf(name, &[STREAM / 64, 64], DType::F32));
    let [x, branch] = operands;
    let y = g.apply1(Residual { layout }, &[x?, branch?])?;
    let workload = Workload::new(&g, &[y], spec.precision.into(), |_, _, shape, dtype| Data::rough(shape, dtype));
    Ok(run(workload, machine)? / (3 * 4 * STREAM) as f64)
}

/// The second run: the first touches memory that is new, and compiles kernels.
fn run(workload: Workload, machine: &Machine) -> Result<f64> {
    let mut ready = workload.on(machine)?;
    ready.run(1)?;
    let once = ready.run(1)?;
    let repeats = (SHORT / once.max(1e-4)).clamp(1.0, 100.0) as usize;
    if repeats > 1 { ready.run(repeats) } else { Ok(once) }
}

#[cfg(test)]
mod tests {
    use esvit_engine::device::Gpu;
    use esvit_engine::spec::PrecisionSpec;
    use esvit_nn::spec::BackboneSpec;

    use super::*;

    #[test]
    fn every_operator_of_a_step_is_timed_on_both_devices() -> Result<()> {
        let mut spec = crate::models::training("swin_tiny", 4).expect("a known model");
        if let BackboneSpec::Swin(swin) = &mut spec.backbone {
            (swin.image_size, swin.dim, swin.depths, swin.heads) = (32, 16, vec![1, 1], vec![1, 2]);
        }
        (spec.head.out_dim, spec.head.hidden_dim) = (512, 32);
        spec.crops = CropSpec { batch: 4, global_size: 32, local_size: 16, local_count: 2 };
        (spec.accumulate, spec.precision) = (2, PrecisionSpec::Mixed);
        let cpu = Machine::cpu(1)?;
        let ms = estimate(&spec, &cpu)?.expect("a CPU is always timed");
        assert!(ms.is_finite() && ms > 0.0, "{ms}");
        if let Ok(gpu) = Gpu::open() {
            let ms = timed(&spec, &Machine::with_gpu(gpu)?, 4)?;
            assert!(ms.is_finite() && ms > 0.0, "{ms}");
        }
        Ok(())
    }
}
