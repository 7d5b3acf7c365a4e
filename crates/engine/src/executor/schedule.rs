//! The order of a step's operations, the same on every device.

use std::ops::Range;

use crate::Result;
use crate::averages::MovingAverage;
use crate::network::CompiledStep;

/// Operations of a step on a device. A CPU carries them out; for a GPU they are recorded once.
pub(crate) trait Operations {
    /// Runs some nodes of the program.
    fn run_nodes(&mut self, nodes: Range<usize>) -> Result<()>;

    /// Whether the losses of the pass are finite. Kernels of a GPU look themselves, so that a recording assumes it.
    fn is_finite(&self) -> bool;

    /// Clips the gradients of these entries and updates student and teacher.
    fn update(&mut self, entries: &[usize]) -> Result<()>;

    /// Adds the gradients of these entries to their sums over the passes.
    fn accumulate(&mut self, entries: &[usize]) -> Result<()>;

    /// Adds what the update and the report read besides gradients to that of the passes before.
    fn collect(&mut self) -> Result<()>;

    /// Moves averages, in order.
    fn average(&mut self, averages: &[MovingAverage]) -> Result<()>;
}

/// One pass. Gradients are consumed where they are ready, so that their memory serves the next nodes: a single pass updates their entries,
/// one of several adds them up.
pub(crate) fn pass(step: &CompiledStep, passes: usize, ops: &mut impl Operations) -> Result<()> {
    let mut done = 0;
    for (i, point) in step.program.ready_points().iter().enumerate() {
        ops.run_nodes(done..point.node)?;
        done = point.node;
        if !ops.is_finite() {
            return ops.collect();
        }
        let entries = step.entries_at(i);
        if passes == 1 { ops.update(&entries)? } else { ops.accumulate(&entries)? }
    }
    ops.run_nodes(done..step.program.nodes().len())?;
    ops.collect()
}

/// Operations that follow the passes.
pub(crate) fn update(step: &CompiledStep, passes: usize, ops: &mut impl Operations) -> Result<()> {
    let entries = if passes == 1 { step.entries_behind() } else { (0..step.student.entries.len()).collect() };
    ops.update(&entries)?;
    ops.average(&step.averages)
}
