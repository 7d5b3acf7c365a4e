//! The passes of a step on the CPU, and the update after them.

use std::ops::Range;
use std::time::Instant;

use esvit_graph::{Bindings, NodeTime, Slice, Variant};
use esvit_nn::RunningStatistics;
use esvit_ops::batch_norm::MOMENTUM;
use esvit_ops::region_match::GLOBAL_CROPS;
use esvit_simd::lanes;

use super::{StepInputs, Trainer, leaves};
use crate::monitor::feature_deviation;
use crate::staging::Pixels;
use crate::step::{StepParameters, StepStats};
use crate::{Result, Store};

/// What the passes of a step leave besides gradients, until all of them have run.
#[derive(Debug, Default)]
struct Passes {
    view_loss: f64,
    region_loss: f64,
    entropy: f64,
    /// Teacher's view features of all passes, `[2·B, C]`.
    views: Vec<f32>,
    /// For each center the sum of the passes' mean logits, `[K]`.
    teacher_means: Vec<Vec<f32>>,
    /// Mean and variance of every batch norm, student's then teacher's, pass by pass.
    statistics: Vec<Vec<[Vec<f32>; 2]>>,
    /// For each entry the square of its gradient's norm.
    squares: Vec<f64>,
    /// Entries that were updated while the program ran.
    updated: Vec<bool>,
}

/// Elements of one piece of parallel work.
const PIECE: usize = 16384;

impl Trainer {
    /// All passes of a step, and its update.
    pub(super) fn run_on_cpu(
        &mut self,
        pixels: Pixels,
        mixup: Option<&[f32]>,
        inputs: &StepInputs,
        parameters: &StepParameters,
        mut times: Option<&mut Vec<NodeTime>>,
    ) -> Result<StepStats> {
        let entries = self.student.entries().len();
        let mut passes = Passes { squares: vec![0.0; entries], updated: vec![false; entries], ..Passes::default() };
        for pass in 0..self.spec.accumulate {
            self.pixels.stage(&self.spec, self.step.pixels, &pixels, mixup, pass);
            let inputs = inputs.of_pass(&self.spec, pass);
            // From stop to stop: what is complete there is used up, and its memory serves the next nodes.
            let (mut done, mut finite) = (0, true);
            for stop in 0..self.step.program.stops().len() {
                let after = self.step.program.stops()[stop].after;
                self.run_nodes(done..after, &inputs, times.as_deref_mut())?;
                done = after;
                finite = self.losses().iter().sum::<f64>().is_finite();
                if !finite {
                    break;
                }
                let started = Instant::now();
                let op = match self.spec.accumulate {
                    1 => {
                        self.update_at(stop, &mut passes, parameters);
                        "optimizer_and_teacher"
                    }
                    _ => {
                        self.add_gradients(stop, pass == 0);
                        "accumulate"
                    }
                };
                if let Some(times) = times.as_deref_mut() {
                    times.push(NodeTime { op, phase: "update", time: started.elapsed(), flops: 0 });
                }
            }
            if finite {
                self.run_nodes(done..self.step.program.nodes().len(), &inputs, times.as_deref_mut())?;
            }
            self.keep(&mut passes);
            if !(passes.view_loss + passes.region_loss).is_finite() {
                break; // nothing of this step will count
            }
        }

        let started = Instant::now();
        let stats = self.finish(passes, parameters);
        if let Some(times) = times {
            times.push(NodeTime { op: "optimizer_and_teacher", phase: "update", time: started.elapsed(), flops: 0 });
        }
        Ok(stats)
    }

    /// Runs some nodes of the program on the staged pixels.
    fn run_nodes(&mut self, range: Range<usize>, inputs: &StepInputs, times: Option<&mut Vec<NodeTime>>) -> Result<()> {
        let share = [1.0 / self.spec.accumulate as f32];
        let mut bindings = Bindings::new();
        self.student.bind(&mut bindings);
        self.teacher.bind(&mut bindings);
        for (name, values) in leaves(&self.step, &self.pixels, inputs) {
            bindings.bind(name, values);
        }
        bindings.bind("loss_share", Slice::F32(&share));
        bindings.bind("view_pairs.teacher", Slice::U32(&self.step.view_pairs.teacher));
        bindings.bind("region_pairs.weight", Slice::F32(&self.step.region_weights));
        for (name, center) in &self.centers {
            bindings.bind(name, Slice::F32(center));
        }
        let (program, pool) = (&self.step.program, &self.pool);
        let arena = self.arena.get_or_insert_with(|| program.arena());
        Ok(pool.install(|| program.run_nodes(range, arena, &bindings, pool, Variant::Fast, times))?)
    }

    /// View and region term of the pass under way.
    fn losses(&self) -> [f64; 2] {
        let Trainer { step, arena: Some(arena), .. } = self else { unreachable!("the program has run in its arena") };
        let scalar = |value| f64::from(step.program.output(arena, value).f32()[0]);
        [scalar(step.view.loss), step.region.map_or(0.0, |term| scalar(term.loss))]
    }

    /// Updates the entries whose gradients are complete at a stop of the program.
    fn update_at(&mut self, stop: usize, passes: &mut Passes, parameters: &StepParameters) {
        let Trainer { spec, pool, step, arena: Some(arena), student, teacher, optimizer, .. } = self else {
            unreachable!("the program has run in its arena");
        };
        let entries = step.entries_at(stop);
        let gradient = |i: usize| step.gradients[i].map(|value| step.program.output(arena, value).f32());
        for i in entries.clone() {
            passes.updated[i] = true;
        }
        pool.install(|| optimizer.update(entries, &mut passes.squares, pool, student, teacher, parameters, spec.clip_grad, gradient));
    }

    /// Adds the gradients that are complete at a stop of the program to their sums; the first pass sets them.
    fn add_gradients(&mut self, stop: usize, first: bool) {
        let Trainer { step, arena: Some(arena), sums, pool, student, .. } = self else { unreachable!("the program has run in its arena") };
        if sums.is_empty() {
            let len = |(i, gradient): (usize, &Option<_>)| if gradient.is_some() { student.values(i).len() } else { 0 };
            *sums = step.gradients.iter().enumerate().map(|entry| vec![0.0; len(entry)]).collect();
        }
        for i in step.entries_at(stop) {
            let Some(gradient) = step.gradients[i].map(|value| step.program.output(arena, value).f32()) else { continue };
            pool.install(|| {
                pool.for_rows(&mut sums[i], 1, PIECE, |from, sum| {
                    let gradient = &gradient[from..from + sum.len()];
                    if first { sum.copy_from_slice(gradient) } else { lanes::accumulate(gradient, sum) }
                });
            });
        }
    }

    /// Adds the results of the pass that has just run.
    fn keep(&self, passes: &mut Passes) {
        let [view_loss, region_loss] = self.losses();
        let Trainer { step, arena: Some(arena), .. } = self else { unreachable!("the program has run in its arena") };
        let output = |value| step.program.output(arena, value).f32();
        let scalar = |value| f64::from(output(value)[0]);
        passes.view_loss += view_loss;
        passes.region_loss += region_loss;
        passes.entropy += scalar(step.view.entropy);
        passes.views.extend_from_slice(output(step.teacher_views));
        for (i, term) in step.terms().enumerate() {
            let mean = output(term.teacher_mean);
            match passes.teacher_means.get_mut(i) {
                Some(sum) => lanes::accumulate(mean, sum),
                None => passes.teacher_means.push(mean.to_vec()),
            }
        }
        let statistics = step.student_statistics.iter().chain(&step.teacher_statistics);
        passes.statistics.push(statistics.map(|s| [output(s.mean).to_vec(), output(s.var).to_vec()]).collect());
    }

    /// After all passes: statistics, optimizer, teacher, centers. Nothing of it when the loss is not finite.
    fn finish(&mut self, mut passes: Passes, parameters: &StepParameters) -> StepStats {
        let Trainer { spec, pool, step, arena: Some(arena), student, teacher, optimizer, centers, sums, .. } = self else {
            unreachable!("the program has run in its arena");
        };
        let n = spec.accumulate as f64;
        let (view_loss, region_loss) = (passes.view_loss / n, passes.region_loss / n);
        let mut stats = StepStats {
            loss: view_loss + region_loss,
            view_loss,
            region_loss,
            teacher_entropy: passes.entropy / n,
            feature_deviation: feature_deviation(
                &passes.views,
                step.program.output(arena, step.teacher_views).len() / (GLOBAL_CROPS * spec.crops.batch),
            ),
            gradient_norm: 0.0,
            finite: (view_loss + region_loss).is_finite(),
            skipped: false,
            loss_scale: 1.0,
        };
        if !stats.finite {
            return stats;
        }
        let gradient = |i: usize| match sums.is_empty() {
            true => step.gradients[i].map(|value| step.program.output(arena, value).f32()),
            false => step.gradients[i].map(|_| sums[i].as_slice()),
        };
        let Passes { squares, updated, .. } = &mut passes;
        let rest = (0..updated.len()).filter(|&i| !updated[i]);
        pool.install(|| optimizer.update(rest, squares, pool, student, teacher, parameters, spec.clip_grad, gradient));
        stats.gradient_norm = squares.iter().sum::<f64>().sqrt();

        let (momentum, share) = (spec.loss.center_momentum, 1.0 / spec.accumulate as f32);
        for ((_, center), mean) in centers.iter_mut().zip(&passes.teacher_means) {
            for (c, mean) in center.iter_mut().zip(mean) {
                *c = *c * momentum + mean * share * (1.0 - momentum);
            }
        }
        for of_pass in &passes.statistics {
            let mut values = of_pass.iter();
            for (store, statistics) in [(&mut *student, &step.student_statistics), (&mut *teacher, &step.teacher_statistics)] {
                for (s, [mean, var]) in statistics.iter().zip(values.by_ref()) {
                    update_running(store, s, mean, var);
                }
            }
        }
        stats
    }
}

/// Running averages with momentum 0.1; the variance is the unbiased one.
fn update_running(store: &mut Store, s: &RunningStatistics, mean: &[f32], var: &[f32]) {
    let unbiased = s.rows as f32 / (s.rows as f32 - 1.0).max(1.0);
    for (buffer, new, factor) in [("running_mean", mean, 1.0), ("running_var", var, unbiased)] {
        if let Some(i) = store.position(&format!("{}.{buffer}", s.path)) {
            for (running, new) in store.values_mut(i).iter_mut().zip(new) {
                *running = (1.0 - MOMENTUM) * *running + MOMENTUM * new * factor;
            }
        }
    }
    if let Some(i) = store.position(&format!("{}.num_batches_tracked", s.path)) {
        store.values_mut(i)[0] += 1.0;
    }
}
