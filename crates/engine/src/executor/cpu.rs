//! The step on the CPU.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Instant;

use esvit_graph::{Arena, Bindings, Leaf, NodeTime, Slice, Value, Variant};
use esvit_ops::region_match::GLOBAL_CROPS;
use esvit_simd::{Pool, lanes};

use super::contract::{Executor, StepContext};
use super::schedule::{self, Operations};
use crate::averages::{AverageSource, AverageTarget, MovingAverage};
use crate::monitor::feature_deviation;
use crate::network::CompiledStep;
use crate::spec::TrainerSpec;
use crate::state::TrainingState;
use crate::{Result, StepStats};

/// Elements of one piece of parallel work.
const PIECE: usize = 16384;

/// Compute threads, and memory of the program.
#[derive(Debug)]
pub(super) struct CpuExecutor {
    pool: Pool,
    /// Allocated at the first step, so that a plan costs no memory.
    arena: Option<Arena>,
    /// With accumulation: the gradient of each entry over the passes so far.
    sums: Vec<Vec<f32>>,
    results: CpuResults,
}

/// Results of a step's passes besides gradients.
#[derive(Debug, Default)]
struct CpuResults {
    view_loss: f64,
    region_loss: f64,
    entropy: f64,
    /// Teacher's view features of all passes, `[passes·2·B, C]`.
    views: Vec<f32>,
    /// For each center the sum of the passes' mean logits, `[K]`.
    teacher_means: Vec<Vec<f32>>,
    /// Pass by pass, mean and variance of every batch norm.
    statistics: Vec<Vec<[Vec<f32>; 2]>>,
    /// Squared norm of each entry's gradient.
    squares: Vec<f64>,
}

impl CpuExecutor {
    pub fn new(spec: &TrainerSpec) -> Result<CpuExecutor> {
        Ok(CpuExecutor { pool: Pool::new(spec.threads)?, arena: None, sums: Vec::new(), results: CpuResults::default() })
    }

    fn output(&self, step: &CompiledStep, value: Value) -> Slice<'_> {
        let arena = self.arena.as_ref().expect("the program has run in its arena");
        step.program.output(arena, value)
    }
}

impl Executor for CpuExecutor {
    fn begin(&mut self, context: &StepContext, _: &TrainingState) {
        self.results = CpuResults { squares: vec![0.0; context.step.gradients.len()], ..CpuResults::default() };
    }

    fn run_pass(
        &mut self,
        context: &StepContext,
        state: &mut TrainingState,
        pass: usize,
        leaves: &[(Leaf, Slice)],
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<bool> {
        let mut ops = CpuOperations { executor: self, context, state, pass, leaves, times };
        schedule::pass(context.step, context.spec.accumulate, &mut ops)?;
        Ok((self.results.view_loss + self.results.region_loss).is_finite())
    }

    fn finish(&mut self, context: &StepContext, state: &mut TrainingState, times: Option<&mut Vec<NodeTime>>) -> Result<StepStats> {
        let started = Instant::now();
        let passes = context.spec.accumulate;
        let CpuResults { view_loss, region_loss, entropy, .. } = self.results;
        let (view_loss, region_loss) = (view_loss / passes as f64, region_loss / passes as f64);
        let rows = GLOBAL_CROPS * context.spec.crops.batch;
        let width = self.output(context.step, context.step.teacher_views).len() / rows;
        let mut stats = StepStats {
            loss: view_loss + region_loss,
            view_loss,
            region_loss,
            teacher_entropy: entropy / passes as f64,
            feature_deviation: feature_deviation(&self.results.views, width),
            gradient_norm: 0.0,
            finite: (view_loss + region_loss).is_finite(),
            skipped: false,
            loss_scale: 1.0,
        };
        if stats.finite {
            let mut ops = CpuOperations { executor: self, context, state, pass: passes, leaves: &[], times: None };
            schedule::update(context.step, passes, &mut ops)?;
            stats.gradient_norm = self.results.squares.iter().sum::<f64>().sqrt();
        }
        if let Some(times) = times {
            times.push(NodeTime { op: "optimizer_and_teacher", phase: "update", time: started.elapsed(), flops: 0 });
        }
        Ok(stats)
    }

    fn upload(&mut self, _: &TrainingState) {}

    fn download(&self, _: &mut TrainingState) -> Result<()> {
        Ok(())
    }

    fn gradient(&self, step: &CompiledStep, entry: usize) -> Result<Option<Cow<'_, [f32]>>> {
        let (Some(arena), Some(value)) = (&self.arena, step.gradients[entry]) else { return Ok(None) };
        Ok(Some(Cow::Borrowed(match self.sums.get(entry) {
            Some(sum) => sum,
            None => step.program.output(arena, value).f32(),
        })))
    }

    fn matches(&self, step: &CompiledStep) -> Result<Option<Cow<'_, [u32]>>> {
        let (Some(arena), Some(value)) = (&self.arena, step.matches) else { return Ok(None) };
        Ok(Some(Cow::Borrowed(step.program.output(arena, value).u32())))
    }

    fn reset_program(&mut self) {
        self.arena = None;
    }
}

/// Operations of a step, carried out at once.
struct CpuOperations<'a> {
    executor: &'a mut CpuExecutor,
    context: &'a StepContext<'a>,
    state: &'a mut TrainingState,
    pass: usize,
    leaves: &'a [(Leaf, Slice<'a>)],
    times: Option<&'a mut Vec<NodeTime>>,
}

impl CpuOperations<'_> {
    /// View and region term of the current pass.
    fn losses(&self) -> [f64; 2] {
        let step = self.context.step;
        let scalar = |value| f64::from(self.executor.output(step, value).f32()[0]);
        [scalar(step.view.loss), step.region.map_or(0.0, |term| scalar(term.loss))]
    }

    fn note(&mut self, op: &'static str, started: Instant) {
        if let Some(times) = self.times.as_deref_mut() {
            times.push(NodeTime { op, phase: "update", time: started.elapsed(), flops: 0 });
        }
    }
}

impl Operations for CpuOperations<'_> {
    fn run_nodes(&mut self, nodes: Range<usize>) -> Result<()> {
        let StepContext { spec, step, .. } = *self.context;
        let share = [1.0 / spec.accumulate as f32];
        let mut bindings = Bindings::new();
        let constants = [
            (step.leaves.loss_share, Slice::F32(&share)),
            (step.leaves.view_teacher, Slice::U32(&step.view_pairs.teacher)),
            (step.leaves.region_weights, Slice::F32(&step.region_weights)),
        ];
        let constants = constants.into_iter().filter_map(|(leaf, slice)| Some((leaf?, slice)));
        let state = self.state.slices(step).map(|(leaf, values)| (leaf, Slice::F32(values)));
        for (leaf, slice) in state.chain(constants).chain(self.leaves.iter().copied()) {
            bindings.bind(leaf, slice);
        }
        let CpuExecutor { pool, arena, .. } = &mut *self.executor;
        let arena = arena.get_or_insert_with(|| step.program.arena());
        let times = self.times.as_deref_mut();
        Ok(pool.install(|| step.program.run_nodes(nodes, arena, &bindings, pool, Variant::Fast, times))?)
    }

    fn is_finite(&self) -> bool {
        self.losses().iter().sum::<f64>().is_finite()
    }

    fn update(&mut self, entries: &[usize]) -> Result<()> {
        let started = Instant::now();
        let StepContext { spec, step, parameters } = *self.context;
        let CpuExecutor { pool, arena: Some(arena), sums, results } = &mut *self.executor else {
            unreachable!("the program has run in its arena");
        };
        let TrainingState { student, teacher, optimizer, .. } = &mut *self.state;
        let gradient = |i: usize| match sums.get(i) {
            Some(sum) => step.gradients[i].map(|_| sum.as_slice()),
            None => step.gradients[i].map(|value| step.program.output(arena, value).f32()),
        };
        pool.install(|| optimizer.update(entries, &mut results.squares, pool, student, teacher, parameters, spec.clip_grad, gradient));
        self.note("optimizer_and_teacher", started);
        Ok(())
    }

    fn accumulate(&mut self, entries: &[usize]) -> Result<()> {
        let started = Instant::now();
        let step = self.context.step;
        let CpuExecutor { pool, arena: Some(arena), sums, .. } = &mut *self.executor else {
            unreachable!("the program has run in its arena");
        };
        if sums.is_empty() {
            let len = |(i, gradient): (usize, &Option<_>)| if gradient.is_some() { self.state.student.values(i).len() } else { 0 };
            *sums = step.gradients.iter().enumerate().map(|entry| vec![0.0; len(entry)]).collect();
        }
        for &i in entries {
            let Some(gradient) = step.gradients[i].map(|value| step.program.output(arena, value).f32()) else { continue };
            pool.install(|| {
                pool.for_rows(&mut sums[i], 1, PIECE, |from, sum| {
                    let gradient = &gradient[from..from + sum.len()];
                    if self.pass == 0 { sum.copy_from_slice(gradient) } else { lanes::accumulate(gradient, sum) }
                });
            });
        }
        self.note("accumulate", started);
        Ok(())
    }

    fn collect(&mut self) -> Result<()> {
        let [view_loss, region_loss] = self.losses();
        let step = self.context.step;
        let CpuExecutor { arena: Some(arena), results, .. } = &mut *self.executor else {
            unreachable!("the program has run in its arena");
        };
        let output = |value| step.program.output(arena, value).f32();
        results.view_loss += view_loss;
        results.region_loss += region_loss;
        results.entropy += f64::from(output(step.view.entropy)[0]);
        results.views.extend_from_slice(output(step.teacher_views));
        for (i, term) in step.terms().enumerate() {
            let mean = output(term.teacher_mean);
            match results.teacher_means.get_mut(i) {
                Some(sum) => lanes::accumulate(mean, sum),
                None => results.teacher_means.push(mean.to_vec()),
            }
        }
        results.statistics.push(step.statistics.iter().map(|s| [output(s.mean).to_vec(), output(s.var).to_vec()]).collect());
        Ok(())
    }

    fn average(&mut self, averages: &[MovingAverage]) -> Result<()> {
        let results = &mut self.executor.results;
        let pass_share = 1.0 / self.context.spec.accumulate as f32;
        results.teacher_means.iter_mut().flatten().for_each(|mean| *mean *= pass_share);
        for average in averages {
            let source: &[f32] = match average.source {
                AverageSource::TeacherMean(i) => &results.teacher_means[i],
                AverageSource::BatchMean { pass, norm } => &results.statistics[pass][norm][0],
                AverageSource::BatchVariance { pass, norm } => &results.statistics[pass][norm][1],
                AverageSource::One => &[1.0],
            };
            let target = match average.target {
                AverageTarget::Center(i) => &mut self.state.centers[i].1,
                AverageTarget::Student(i) => self.state.student.values_mut(i),
                AverageTarget::Teacher(i) => self.state.teacher.values_mut(i),
            };
            let [first, second] = average.share;
            for (y, x) in target.iter_mut().zip(source) {
                *y = average.keep * *y + x * first * second;
            }
        }
        Ok(())
    }
}
