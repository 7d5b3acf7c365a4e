//! Recordings of a step: the operations of a pass and of an update, recorded once and replayed at every step.

use std::ops::Range;

use esvit_gpu::{Gpu, Recorder, Recording, View};
use esvit_graph::{Bindings, GpuArena};
use esvit_ops::region_match::GLOBAL_CROPS;

use super::memory::GpuState;
use super::results::{GpuResults, GpuSums};
use super::update::{self, Update};
use crate::averages::{AverageSource, AverageTarget, MovingAverage};
use crate::executor::schedule::{self, Operations};
use crate::network::CompiledStep;
use crate::spec::{PrecisionSpec, TrainerSpec};
use crate::{Result, Store};

/// Places that recordings refer to.
pub struct Places<'a> {
    pub arena: &'a GpuArena,
    pub leaves: &'a Bindings<View>,
    pub memory: &'a GpuState,
    pub student: &'a Store,
    /// Results of a pass.
    pub of_pass: &'a GpuResults,
    /// Sums over several passes.
    pub sums: Option<&'a GpuSums>,
}

/// Recordings of one step.
#[derive(Debug)]
pub struct StepRecordings {
    /// A pass; where a step is one pass, its update too.
    pub pass: Recording,
    /// The update after several passes.
    pub update: Option<Recording>,
    /// Matrix-product arithmetic of each operator of a pass, in order.
    pub flops: Vec<u64>,
}

/// Records a step.
pub fn record(gpu: &Gpu, spec: &TrainerSpec, step: &CompiledStep, places: &Places) -> Result<StepRecordings> {
    let nodes = step.program.flops_of_nodes();
    let mut ops = RecordedOperations { rec: Recorder::new(gpu), spec, step, places, nodes, flops: Vec::new() };
    schedule::pass(step, spec.accumulate, &mut ops)?;
    if places.sums.is_none() {
        ops.update_and_report()?;
        return Ok(StepRecordings { pass: ops.rec.finish()?, update: None, flops: ops.flops });
    }
    let pass = std::mem::replace(&mut ops.rec, Recorder::new(gpu)).finish()?;
    let flops = std::mem::take(&mut ops.flops);
    ops.update_and_report()?;
    Ok(StepRecordings { pass, update: Some(ops.rec.finish()?), flops })
}

/// Operations of a step, as they are recorded.
struct RecordedOperations<'a> {
    rec: Recorder<'a>,
    spec: &'a TrainerSpec,
    step: &'a CompiledStep,
    places: &'a Places<'a>,
    /// Matrix-product arithmetic of the program's nodes.
    nodes: Vec<u64>,
    /// Matrix-product arithmetic of what was recorded.
    flops: Vec<u64>,
}

impl<'a> RecordedOperations<'a> {
    /// Results that the update reads.
    fn results(&self) -> &'a GpuResults {
        self.places.sums.map_or(self.places.of_pass, |sums| &sums.results)
    }

    fn target(&self) -> Update<'a> {
        Update { student: self.places.student, memory: self.places.memory }
    }

    fn update_and_report(&mut self) -> Result<()> {
        let (results, target) = (self.results(), self.target());
        self.rec.begin("report", "update");
        update::report(&mut self.rec, &target, &results.scalars[0], results.scalars.get(2), &results.scalars[1])?;
        schedule::update(self.step, self.spec.accumulate, self)?;
        self.rec.begin("summary", "update");
        let rows = GLOBAL_CROPS * self.spec.crops.batch * self.spec.accumulate;
        let cols = (results.views.bytes() / 4) as usize / rows;
        update::summary(&mut self.rec, &target.memory.report, &results.views, [rows, cols], target.student.entries().len())
    }
}

impl Operations for RecordedOperations<'_> {
    fn run_nodes(&mut self, nodes: Range<usize>) -> Result<()> {
        self.flops.extend(&self.nodes[nodes.clone()]);
        Ok(self.step.program.record_nodes(nodes, &mut self.rec, self.places.arena, self.places.leaves)?)
    }

    fn is_finite(&self) -> bool {
        true
    }

    fn update(&mut self, entries: &[usize]) -> Result<()> {
        let (results, target, kind) = (self.results(), self.target(), self.spec.optimizer);
        let rec = &mut self.rec;
        rec.begin("optimizer_and_teacher", "update");
        for &i in entries {
            update::norms(rec, &target, i, results.gradients[i].as_ref(), kind)?;
        }
        if self.spec.precision == PrecisionSpec::Mixed {
            update::scaler(rec, &target)?;
        }
        for &i in entries {
            update::entry(rec, &target, i, results.gradients[i].as_ref(), kind)?;
        }
        Ok(())
    }

    fn accumulate(&mut self, entries: &[usize]) -> Result<()> {
        let Some(sums) = self.places.sums else { unreachable!("a step of several passes has sums") };
        self.rec.begin("accumulate", "update");
        self.flops.push(0);
        entries.iter().try_for_each(|&entry| sums.add_gradient(&mut self.rec, self.places.of_pass, entry))
    }

    fn collect(&mut self) -> Result<()> {
        let Some(sums) = self.places.sums else { return Ok(()) };
        self.rec.begin("accumulate", "update");
        sums.add_rest(&mut self.rec, self.places.of_pass)
    }

    fn average(&mut self, averages: &[MovingAverage]) -> Result<()> {
        let (results, target) = (self.results(), self.target());
        self.rec.begin("centers_and_statistics", "update");
        for average in averages {
            let source = match average.source {
                AverageSource::TeacherMean(i) => &results.teacher_means[i],
                AverageSource::BatchMean { pass, norm } => &results.statistics[pass][norm][0],
                AverageSource::BatchVariance { pass, norm } => &results.statistics[pass][norm][1],
                AverageSource::One => &target.memory.one,
            };
            let view = match average.target {
                AverageTarget::Center(i) => &target.memory.centers[i],
                AverageTarget::Student(i) => &target.memory.student[i],
                AverageTarget::Teacher(i) => &target.memory.teacher[i],
            };
            update::average(&mut self.rec, &target, source, view, average.keep, average.share[0] * average.share[1])?;
        }
        Ok(())
    }
}
