//! Every operator of a training step, alone: the list, the shapes and the number of applications are those of the step's own program, so
//! that nothing can be forgotten, and no shape is timed that training does not have.

use std::collections::{BTreeMap, HashMap};

use esvit_engine::spec::TrainerSpec;
use esvit_engine::{Result, step_program};
use esvit_graph::{DType, Graph, Node, Shape, volume};
use serde::Serialize;

use crate::Machine;
use crate::measurement::spread;
use crate::workload::{Data, Workload, indices};

/// Time of an operator at one set of shapes.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct OperatorRow {
    /// Name of the operator.
    pub operator: &'static str,
    /// Shapes of its operands.
    pub operands: Vec<Shape>,
    /// Applications in a step.
    pub calls: usize,
    /// Median of one application, in milliseconds.
    pub ms: f64,
    /// Fastest application.
    pub min_ms: f64,
    /// Slowest application.
    pub max_ms: f64,
    /// Matrix products of one application, 10⁹ operations; 0 for operators without.
    pub gflop: f64,
    /// Rate of the matrix products, 10⁹ operations a second.
    pub gflops: f64,
    /// Bytes of operands and results over the time, in 10⁹ a second: what a kernel reaches that reads and writes everything once.
    pub gigabytes_per_second: f64,
}

/// Below this the clock and a submission cost more than the operator, so it is run several times in a row. Milliseconds.
const SHORT: f64 = 3.0;
/// A run that takes longer is not repeated.
const LONG: f64 = 1000.0;

/// Times the operators of a step, `runs` times each, those that cost a step the most first. `only` picks some by name; the operators of the
/// backward pass carry their operator's name and an ending.
///
/// # Errors
/// When the specification cannot be built, an operator has no kernel, or the GPU is lost.
pub fn operators(spec: &TrainerSpec, machine: &Machine, runs: usize, only: Option<&str>) -> Result<Vec<OperatorRow>> {
    let program = step_program(spec, machine.target())?;
    // Of equal shapes the last is timed: a shifted window costs more than one that is not.
    let mut groups: BTreeMap<(&str, Vec<Shape>), (&Node, usize)> = BTreeMap::new();
    for node in program.nodes() {
        let name = node.op.name();
        if only.is_some_and(|only| !name.starts_with(only)) {
            continue;
        }
        let shapes = program.operands(node).into_iter().map(|(shape, _)| shape.clone()).collect();
        let group = groups.entry((name, shapes)).or_insert((node, 0));
        *group = (node, group.1 + 1);
    }
    let mut rows = Vec::new();
    for ((_, shapes), (node, calls)) in groups {
        let types = program.operands(node).into_iter().map(|(_, dtype)| dtype).collect::<Vec<_>>();
        let indices = indices(&program, node, machine.pool())?;
        rows.push(time(spec, machine, runs, node, shapes, &types, &indices, calls)?);
    }
    rows.sort_by(|a, b| (b.ms * b.calls as f64).total_cmp(&(a.ms * a.calls as f64)));
    Ok(rows)
}

fn time(
    spec: &TrainerSpec,
    machine: &Machine,
    runs: usize,
    node: &Node,
    shapes: Vec<Shape>,
    types: &[DType],
    indices: &HashMap<usize, Vec<u32>>,
    calls: usize,
) -> Result<OperatorRow> {
    let mut g = Graph::new();
    let operand = |(i, (shape, dtype)): (usize, (&Shape, &DType))| g.leaf(&format!("operand {i}"), shape, *dtype);
    let operands = shapes.iter().zip(types).enumerate().map(operand).collect::<std::result::Result<Vec<_>, _>>()?;
    let results = g.apply_shared(node.op.clone(), &operands)?;
    let workload = Workload::new(&g, &results, spec.precision.into(), |_, i, shape, dtype| {
        indices.get(&i).map_or_else(|| Data::plain(i, shape, dtype), |given| Data::U32(given.clone()))
    });
    let mut ready = workload.on(machine)?;

    let mut times = vec![ready.run(1)?];
    // A GPU in software takes seconds for what others do in milliseconds: its first run counts.
    if times[0] < LONG && !machine.is_software_gpu() {
        let once = ready.run(1)?;
        let repeats = (SHORT / once.max(1e-4)).clamp(1.0, 200.0) as usize;
        if repeats > 1 {
            ready.run(repeats)?;
        }
        times.clear();
        for _ in 0..runs.max(1) {
            times.push(ready.run(repeats)?);
        }
    }
    let [min_ms, ms, max_ms] = spread(&times);
    let by_reference: Vec<&Shape> = shapes.iter().collect();
    let gflop = node.op.flops(&by_reference) as f64 / 1e9;
    let size = |shape: &[usize], dtype: DType| volume(shape) * dtype.size();
    let results = node.op.infer(&by_reference)?;
    let read: usize = shapes.iter().zip(types).map(|(shape, dtype)| size(shape, *dtype)).sum();
    let written: usize = results.iter().map(|(shape, dtype)| size(shape, *dtype)).sum();
    Ok(OperatorRow {
        operator: node.op.name(),
        operands: shapes,
        calls,
        ms,
        min_ms,
        max_ms,
        gflop,
        gflops: gflop / ms * 1e3,
        gigabytes_per_second: (read + written) as f64 / ms / 1e6,
    })
}
