//! The training step and everything that changes from step to step.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use esvit_gpu::Gpu;
use esvit_graph::{Arena, Bindings, DType, NodeTime, Slice, Variant};
use esvit_nn::RunningStatistics;
use esvit_ops::batch_norm::MOMENTUM;
use esvit_ops::region_match::GLOBAL_CROPS;
use esvit_simd::{Pool, lanes};

use crate::gpu::{GpuRun, StepInputs, fits};
use crate::monitor::feature_deviation;
use crate::network::{self, STUDENT, Step, TEACHER};
use crate::optimizer::Optimizer;
use crate::plan::{Plan, pixel_type};
use crate::random::Stream;
use crate::spec::{Precision, TrainerSpec};
use crate::staging::{Pixels, Staging};
use crate::{Error, LoadReport, LossScaler, Result, Store, Tensor, TensorValues, TrainerState};

/// Values of the schedules for one step.
#[derive(Clone, Copy, Debug)]
pub struct Knobs {
    /// Global step, from 0: keys stochastic depth and drawn neighbours.
    pub step: u64,
    /// Share of the training that is done: decides when neighbours are no longer drawn.
    pub progress: f64,
    /// Of all parameters.
    pub learning_rate: f64,
    /// Of the parameters that decay.
    pub weight_decay: f64,
    /// Of the teacher's moving average.
    pub momentum: f64,
    /// T.
    pub teacher_temperature: f64,
    /// While true, prototypes and their gains are not updated.
    pub freeze_last_layer: bool,
}

/// What a step tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// View and region term.
    pub loss: f64,
    /// The view term, weighted.
    pub view_loss: f64,
    /// The region term, weighted; 0 without it.
    pub region_loss: f64,
    /// Mean entropy of the teacher's view distribution, in nats.
    pub teacher_entropy: f64,
    /// Spread of the teacher's view features: 0 is collapse.
    pub feature_deviation: f64,
    /// Norm over all gradients before clipping.
    pub gradient_norm: f64,
    /// Whether the loss is finite; if not, nothing was changed.
    pub finite: bool,
    /// Whether the optimiser passed over this step, because scaled gradients overflowed ([`LossScaler`]).
    pub skipped: bool,
    /// What the loss was scaled with; 1 in single precision and on a CPU.
    pub loss_scale: f64,
}

/// Time and arithmetic of one operator in one part of the step.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// Part of the step.
    pub phase: &'static str,
    /// Operator.
    pub operator: &'static str,
    /// Applications.
    pub calls: u32,
    /// Wall time.
    pub time: Duration,
    /// Matrix-product arithmetic.
    pub flops: u64,
}

/// What the passes of a step leave beside gradients, until all of them have run.
#[derive(Debug, Default)]
struct Passes {
    view_loss: f64,
    region_loss: f64,
    entropy: f64,
    /// Teacher's view features of all passes, `[2·B, C]`.
    views: Vec<f32>,
    /// For each centre the sum of the passes' mean logits, `[K]`.
    teacher_means: Vec<Vec<f32>>,
    /// Mean and variance of every batch norm, student's then teacher's, pass by pass.
    statistics: Vec<Vec<[Vec<f32>; 2]>>,
    /// For each entry the square of its gradient's norm.
    squares: Vec<f64>,
    /// Entries that were updated while the program ran.
    updated: Vec<bool>,
}

/// What a pass reads besides parameters and pixels.
struct PassInputs<'a> {
    /// Of each residual branch.
    factors: &'a [Vec<f32>],
    /// Neighbours of each layer that draws them: those of the step.
    draws: &'a [Vec<u32>],
    temperature: &'a [f32],
    /// Weights of the view's pairs, where mixup changes them.
    view_weights: Option<&'a [f32]>,
}

/// Name and values of a centre.
pub(crate) type Center = (&'static str, Vec<f32>);

/// A training run's engine.
///
/// On a GPU the stores, the optimiser and the centres are what was last loaded or downloaded; [`Trainer::state`] brings them up to date.
#[derive(Debug)]
pub struct Trainer {
    spec: TrainerSpec,
    pool: Pool,
    plan: Plan,
    step: Step,
    /// Taken at the first step, so that a plan costs no memory.
    arena: Option<Arena>,
    student: Store,
    teacher: Store,
    optimizer: Optimizer,
    /// `center` and `center_grid`, `[K]` each.
    centers: Vec<Center>,
    pixels: Staging,
    /// With accumulation: the gradient of each entry over the passes so far.
    sums: Vec<Vec<f32>>,
    /// Neighbours of the next step, where they are not to be drawn.
    next_draws: Option<Vec<Vec<u32>>>,
    gpu: Option<GpuRun>,
    /// Of `mixed` on a GPU.
    scaler: Option<LossScaler>,
}

impl Trainer {
    /// A trainer for 8-bit pixels.
    ///
    /// # Errors
    /// When the specification cannot be built.
    pub fn new(spec: TrainerSpec) -> Result<Trainer> {
        let dtype = pixel_type(&spec);
        Trainer::with_pixels(spec, dtype)
    }

    /// A trainer for pixels of this type; with mixup they are floats.
    pub fn with_pixels(spec: TrainerSpec, dtype: DType) -> Result<Trainer> {
        let pool = Pool::new(spec.threads)?;
        let step = network::build(&spec, dtype, network::KEPT_LOGITS)?;
        let plan = Plan::of(&spec, dtype, &step);
        let student = Store::new(&step.student, STUDENT, spec.seed);
        let mut teacher = Store::new(&step.teacher, TEACHER, spec.seed);
        for i in 0..teacher.entries().len() {
            *teacher.values_mut(i) = student.values(i).to_vec();
        }
        let optimizer = Optimizer::new(spec.optimizer, &student);
        let zeros = || vec![0.0; spec.head.out_dim];
        let mut centers = vec![("center", zeros())];
        if spec.loss.region {
            centers.push(("center_grid", zeros()));
        }
        let pixels = Staging::new(dtype, step.pixels);
        Ok(Trainer {
            spec,
            pool,
            plan,
            step,
            arena: None,
            student,
            teacher,
            optimizer,
            centers,
            pixels,
            sums: Vec::new(),
            next_draws: None,
            gpu: None,
            scaler: None,
        })
    }

    /// The same trainer with its state and its steps on a GPU.
    ///
    /// # Errors
    /// When an operator has no kernels, or the GPU has not enough memory.
    pub fn on_gpu(mut self, gpu: Gpu) -> Result<Trainer> {
        if self.spec.accumulate > 1 {
            return Err(Error::Spec(format!(
                "accumulate must be 1 on a GPU, got {}: train on the CPU, or with a larger batch",
                self.spec.accumulate
            )));
        }
        // A GPU recomputes logits: none are kept. Its recorded update follows the whole program.
        let dtype = self.pixels.dtype();
        self.step = network::build(&self.spec, dtype, [0; 2])?;
        self.plan = Plan::of(&self.spec, dtype, &self.step);
        fits(&self.spec, &self.step, gpu.adapter())?;
        self.step.keep_gradients();
        let run = GpuRun::new(gpu, &self.spec, &self.step, &self.student, &self.teacher, &self.centers)?;
        self.gpu = Some(run);
        self.scaler = (self.spec.precision == Precision::Mixed).then(LossScaler::default);
        self.upload();
        Ok(self)
    }

    /// The GPU it runs on.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref().map(GpuRun::gpu)
    }

    /// Copies the stores, the optimiser and the centres to the GPU.
    fn upload(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.upload(&self.student, &self.teacher, &self.optimizer, &self.centers, self.scaler.as_ref());
        }
    }

    /// Brings the stores, the optimiser and the centres up to date with the GPU.
    fn download(&mut self) -> Result<()> {
        match &self.gpu {
            Some(gpu) => gpu.download(&mut self.student, &mut self.teacher, &mut self.optimizer, &mut self.centers, self.scaler.as_mut()),
            None => Ok(()),
        }
    }

    /// What the trainer was built from.
    pub fn spec(&self) -> &TrainerSpec {
        &self.spec
    }

    /// The student's values.
    pub fn student(&self) -> &Store {
        &self.student
    }

    /// The student's values, to set.
    pub fn student_mut(&mut self) -> &mut Store {
        &mut self.student
    }

    /// The teacher's values.
    pub fn teacher(&self) -> &Store {
        &self.teacher
    }

    /// The teacher's values, to set.
    pub fn teacher_mut(&mut self) -> &mut Store {
        &mut self.teacher
    }

    /// A centre by name, `[K]`.
    pub fn center(&self, name: &str) -> Option<&[f32]> {
        self.centers.iter().find(|(n, _)| *n == name).map(|(_, c)| c.as_slice())
    }

    /// Sizes, known before the first step.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of scratch memory the operators have used so far.
    pub fn scratch_peak(&self) -> usize {
        self.pool.scratch_peak()
    }

    /// One step. `mixup` gives a factor for each crop where the trainer was built for it.
    ///
    /// # Errors
    /// When pixels or factors do not have the size of the specification; then nothing was changed.
    pub fn step(&mut self, pixels: Pixels, mixup: Option<&[f32]>, knobs: &Knobs) -> Result<StepStats> {
        self.run(pixels, mixup, knobs, None)
    }

    /// One step with the time of every operator, largest first.
    pub fn profile(&mut self, pixels: Pixels, mixup: Option<&[f32]>, knobs: &Knobs) -> Result<Vec<ProfileRow>> {
        let mut times = Vec::new();
        self.run(pixels, mixup, knobs, Some(&mut times))?;
        let mut rows: BTreeMap<(&str, &str), ProfileRow> = BTreeMap::new();
        for t in &times {
            let row = rows.entry((t.phase, t.op));
            let row = row.or_insert(ProfileRow { phase: t.phase, operator: t.op, calls: 0, time: Duration::ZERO, flops: 0 });
            row.calls += 1;
            row.time += t.time;
            row.flops += t.flops;
        }
        let mut rows: Vec<ProfileRow> = rows.into_values().collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.time));
        Ok(rows)
    }

    /// Gives the next step its neighbours instead of drawing them: for each layer of the teacher, then of the student, a number from 0
    /// (all) to 8 for each segment. To follow a run that drew others.
    ///
    /// # Errors
    /// When there are more or fewer layers or segments.
    pub fn set_next_draws(&mut self, draws: Vec<Vec<u32>>) -> Result<()> {
        let sizes = |got: &mut dyn Iterator<Item = usize>| got.collect::<Vec<_>>();
        let (want, got) = (sizes(&mut self.step.draws.iter().map(|d| d.1)), sizes(&mut draws.iter().map(Vec::len)));
        if want != got {
            return Err(Error::Input { what: "the drawn neighbours", want: want.iter().sum(), got: got.iter().sum() });
        }
        self.next_draws = Some(draws);
        Ok(())
    }

    /// For each layer that draws, which neighbours its windows see in each segment: 0 for all, 1 to 8 for one.
    fn draws(&mut self, knobs: &Knobs) -> Vec<Vec<u32>> {
        let drawn = |(layer, (_, segments)): (usize, &(String, usize))| {
            let mut stream = Stream::new(self.spec.seed, "neighbours", &[knobs.step, layer as u64]);
            let mut draw = || if knobs.progress < self.step.draw_until { 1 + (8.0 * stream.uniform()) as u32 } else { 0 };
            (0..*segments).map(|_| draw()).collect()
        };
        match self.next_draws.take() {
            Some(given) => given,
            None => self.step.draws.iter().enumerate().map(drawn).collect(),
        }
    }

    fn run(&mut self, pixels: Pixels, mixup: Option<&[f32]>, knobs: &Knobs, mut times: Option<&mut Vec<NodeTime>>) -> Result<StepStats> {
        self.check(&pixels, mixup)?;
        let factors = self.drop_path_factors(knobs.step);
        let draws = self.draws(knobs);
        let view_weights = mixup.map(|lambda| esvit_nn::loss::mixup_weights(self.spec.crops.batch, lambda));
        let temperature = [knobs.teacher_temperature as f32];
        if let Some(gpu) = &self.gpu {
            // One pass: `on_gpu` refuses accumulation.
            self.pixels.stage(&self.spec, self.step.pixels, &pixels, mixup, 0);
            let (student_pixels, teacher_pixels): (&[u8], &[u8]) = match &self.pixels {
                Staging::U8(all) => (all, &all[..self.step.pixels.global]),
                Staging::F32 { student, teacher } => (bytemuck::cast_slice(student), bytemuck::cast_slice(teacher)),
            };
            let mut floats: Vec<(&str, &[f32])> =
                self.step.drop_path.iter().zip(&factors).map(|((_, name), factors)| (name.as_str(), factors.as_slice())).collect();
            floats.extend(self.step.draws.iter().zip(&draws).map(|((name, _), d)| (name.as_str(), bytemuck::cast_slice(d))));
            floats.push(("teacher_temperature", &temperature));
            floats.push(("view_pairs.weight", view_weights.as_deref().unwrap_or(&self.step.view_pairs.weight)));
            let inputs = StepInputs { student_pixels, teacher_pixels, floats };
            return gpu.step(&inputs, &self.spec, knobs, &self.student, &mut self.optimizer, times);
        }

        let entries = self.student.entries().len();
        let mut passes = Passes { squares: vec![0.0; entries], updated: vec![false; entries], ..Passes::default() };
        for pass in 0..self.spec.accumulate {
            self.pixels.stage(&self.spec, self.step.pixels, &pixels, mixup, pass);
            let factors: Vec<Vec<f32>> = factors.iter().map(|all| self.factors_of(all, pass)).collect();
            let inputs = PassInputs { factors: &factors, draws: &draws, temperature: &temperature, view_weights: view_weights.as_deref() };
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
                self.consume(stop, &mut passes, knobs);
                if let Some(times) = times.as_deref_mut() {
                    times.push(NodeTime { op: "optimizer_and_teacher", phase: "update", time: started.elapsed(), flops: 0 });
                }
            }
            if finite {
                self.run_nodes(done..self.step.program.nodes().len(), &inputs, times.as_deref_mut())?;
            }
            let started = Instant::now();
            self.keep(&mut passes);
            if self.spec.accumulate > 1 {
                self.add_gradients(pass == 0);
                if let Some(times) = times.as_deref_mut() {
                    times.push(NodeTime { op: "accumulate", phase: "update", time: started.elapsed(), flops: 0 });
                }
            }
            if !(passes.view_loss + passes.region_loss).is_finite() {
                break; // nothing of this step will count
            }
        }

        let started = Instant::now();
        let stats = self.finish(passes, knobs);
        if let Some(times) = times {
            times.push(NodeTime { op: "optimizer_and_teacher", phase: "update", time: started.elapsed(), flops: 0 });
        }
        Ok(stats)
    }

    /// Runs some nodes of the program on the staged pixels.
    fn run_nodes(&mut self, range: Range<usize>, inputs: &PassInputs, times: Option<&mut Vec<NodeTime>>) -> Result<()> {
        let share = [1.0 / self.spec.accumulate as f32];
        let mut bindings = Bindings::new();
        self.student.bind(&mut bindings);
        self.teacher.bind(&mut bindings);
        let (student, teacher) = match &self.pixels {
            Staging::U8(all) => (Slice::U8(all), Slice::U8(&all[..self.step.pixels.global])),
            Staging::F32 { student, teacher } => (Slice::F32(student), Slice::F32(teacher)),
        };
        bindings.bind("student_pixels", student).bind("teacher_pixels", teacher);
        for ((_, name), factors) in self.step.drop_path.iter().zip(inputs.factors) {
            bindings.bind(name, Slice::F32(factors));
        }
        for ((name, _), draws) in self.step.draws.iter().zip(inputs.draws) {
            bindings.bind(name, Slice::U32(draws));
        }
        bindings.bind("loss_share", Slice::F32(&share)).bind("teacher_temperature", Slice::F32(inputs.temperature));
        bindings.bind("view_pairs.teacher", Slice::U32(&self.step.view_pairs.teacher));
        bindings.bind("view_pairs.weight", Slice::F32(inputs.view_weights.unwrap_or(&self.step.view_pairs.weight)));
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
    fn consume(&mut self, stop: usize, passes: &mut Passes, knobs: &Knobs) {
        let Trainer { spec, pool, step, arena: Some(arena), student, teacher, optimizer, .. } = self else {
            unreachable!("the program has run in its arena");
        };
        let entries = step.program.stops()[stop].ready.iter().map(|&ready| step.consumed[ready]);
        let gradient = |i: usize| step.gradients[i].map(|value| step.program.output(arena, value).f32());
        for i in entries.clone() {
            passes.updated[i] = true;
        }
        pool.install(|| optimizer.update(entries, &mut passes.squares, pool, student, teacher, knobs, spec.clip_grad, gradient));
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
        for (i, term) in [Some(step.view), step.region].into_iter().flatten().enumerate() {
            let mean = output(term.teacher_mean);
            match passes.teacher_means.get_mut(i) {
                Some(sum) => lanes::accumulate(mean, sum),
                None => passes.teacher_means.push(mean.to_vec()),
            }
        }
        let statistics = step.student_statistics.iter().chain(&step.teacher_statistics);
        passes.statistics.push(statistics.map(|s| [output(s.mean).to_vec(), output(s.var).to_vec()]).collect());
    }

    /// Adds the gradients of the pass that has just run to the sums; the first pass sets them.
    fn add_gradients(&mut self, first: bool) {
        let Trainer { step, arena: Some(arena), sums, pool, .. } = self else { unreachable!("the program has run in its arena") };
        let gradients = step.gradients.iter().map(|value| value.map(|value| step.program.output(arena, value).f32()));
        if sums.is_empty() {
            *sums = gradients.clone().map(|g| vec![0.0; g.map_or(0, <[f32]>::len)]).collect();
        }
        for (sum, gradient) in sums.iter_mut().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            pool.install(|| {
                pool.for_rows(sum, 1, PIECE, |from, sum| {
                    let gradient = &gradient[from..from + sum.len()];
                    if first { sum.copy_from_slice(gradient) } else { lanes::accumulate(gradient, sum) }
                });
            });
        }
    }

    /// After all passes: statistics, optimiser, teacher, centres. Nothing of it when the loss is not finite.
    fn finish(&mut self, mut passes: Passes, knobs: &Knobs) -> StepStats {
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
        pool.install(|| optimizer.update(rest, squares, pool, student, teacher, knobs, spec.clip_grad, gradient));
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

    /// That a step's pixels and factors have the sizes of the specification.
    fn check(&self, pixels: &Pixels, mixup: Option<&[f32]>) -> Result<()> {
        let (counts, passes) = (self.step.pixels, self.spec.accumulate);
        let check = |what, want, got| if want == got { Ok(()) } else { Err(Error::Input { what, want, got }) };
        let (global, local) = match pixels {
            Pixels::U8 { global, local } => (global.len(), local.len()),
            Pixels::F32 { global, local } => (global.len(), local.len()),
        };
        check("the global crops", passes * counts.global, global)?;
        check("the local crops", passes * counts.local, local)?;
        let crops = GLOBAL_CROPS + self.spec.crops.local_count;
        match (self.spec.loss.mixup, mixup) {
            (true, Some(lambda)) => check("the mixup factors", crops, lambda.len())?,
            (true, None) => check("the mixup factors", crops, 0)?,
            (false, Some(lambda)) => check("the mixup factors", 0, lambda.len())?,
            (false, None) => {}
        }
        match (&self.pixels, pixels) {
            (Staging::U8(_), Pixels::F32 { .. }) => Err(Error::Spec("this trainer was built for 8-bit pixels".into())),
            _ => Ok(()),
        }
    }

    /// For each residual branch a factor for every image of the step: 0 or 1/keep.
    fn drop_path_factors(&self, step: u64) -> Vec<Vec<f32>> {
        let images = self.spec.accumulate * self.spec.crops.batch * (GLOBAL_CROPS + self.spec.crops.local_count);
        let branch = |(branch, (rate, _)): (usize, &(f64, String))| {
            if *rate == 0.0 {
                return Vec::new();
            }
            let keep = 1.0 - *rate as f32;
            let mut stream = Stream::new(self.spec.seed, "drop_path", &[step, branch as u64]);
            (0..images).map(|_| (keep + stream.uniform()).floor() / keep).collect()
        };
        self.step.drop_path.iter().enumerate().map(branch).collect()
    }

    /// A branch's factors for the images of one pass.
    fn factors_of(&self, all: &[f32], pass: usize) -> Vec<f32> {
        let (batch, passes) = (self.spec.crops.batch, self.spec.accumulate);
        all.chunks(batch * passes).flat_map(|crop| &crop[pass * batch..(pass + 1) * batch]).copied().collect()
    }

    /// Keeps gradients after a step, for [`Trainer::gradient`]; without it, on the CPU, each is gone once its parameter was updated.
    /// Takes more memory than the plan says, and changes no number.
    pub fn keep_gradients(&mut self) {
        self.step.keep_gradients();
        self.arena = None;
    }

    /// Gradient of a trained parameter in the last step, before clipping; with accumulation the mean over its passes. `None` where
    /// they are not [kept](Trainer::keep_gradients).
    pub fn gradient(&self, name: &str) -> Option<Cow<'_, [f32]>> {
        let entry = self.student.position(name)?;
        let value = self.step.gradients[entry]?;
        if !self.sums.is_empty() {
            return Some(Cow::Borrowed(&self.sums[entry]));
        }
        if self.step.kept.is_some() {
            return None;
        }
        let program = &self.step.program;
        match &self.gpu {
            Some(gpu) => gpu.read_gradient(&program.gpu_output(gpu.arena(), value)).ok().map(Cow::Owned),
            None => Some(Cow::Borrowed(program.output(self.arena.as_ref()?, value).f32())),
        }
    }

    /// Teacher rows the regions were matched with in the last pass, `[P]`.
    pub fn matches(&self) -> Option<Cow<'_, [u32]>> {
        let (program, value) = (&self.step.program, self.step.matches?);
        match &self.gpu {
            Some(gpu) => {
                let bits = gpu.read(&program.gpu_output(gpu.arena(), value)).ok()?;
                Some(Cow::Owned(bits.iter().map(|v| v.to_bits()).collect()))
            }
            None => Some(Cow::Borrowed(program.output(self.arena.as_ref()?, value).u32())),
        }
    }

    /// The whole state.
    ///
    /// # Errors
    /// When the GPU was lost.
    pub fn state(&mut self) -> Result<TrainerState> {
        self.download()?;
        let center = |(name, values): &(&'static str, Vec<f32>)| Tensor {
            name: (*name).to_string(),
            shape: vec![1, values.len()],
            values: TensorValues::F32(values.clone()),
        };
        Ok(TrainerState {
            student: self.student.tensors(),
            teacher: self.teacher.tensors(),
            loss: self.centers.iter().map(center).collect(),
            optimizer: self.optimizer.state(&self.student),
            scaler: self.scaler,
        })
    }

    /// Replaces the whole state. A loss scaler is taken over where this run has one, and starts anew where the state has none.
    ///
    /// # Errors
    /// When a name, a shape or a moment does not fit; then nothing is changed.
    pub fn load(&mut self, state: &TrainerState) -> Result<()> {
        let (mut student, mut teacher) = (self.student.clone(), self.teacher.clone());
        student.load(&state.student, false)?;
        teacher.load(&state.teacher, false)?;
        let optimizer = Optimizer::from_state(self.spec.optimizer, &student, &state.optimizer)?;
        let mut centers = self.centers.clone();
        for (name, values) in &mut centers {
            match state.loss.iter().find(|t| t.name == *name).map(|t| &t.values) {
                Some(TensorValues::F32(v)) if v.len() == values.len() => values.clone_from(v),
                Some(_) => return Err(Error::State(format!("`{name}` must hold {} floats", values.len()))),
                None => return Err(Error::State(format!("the state has no `{name}`"))),
            }
        }
        if let Some(extra) = state.loss.iter().find(|t| centers.iter().all(|(name, _)| *name != t.name)) {
            return Err(Error::State(format!("the state has `{}`, which this run's loss does not use", extra.name)));
        }
        let scaler = state.scaler.unwrap_or_default();
        if self.scaler.is_some() {
            scaler.check()?;
        }
        self.scaler = self.scaler.map(|_| scaler);
        (self.student, self.teacher, self.optimizer, self.centers) = (student, teacher, optimizer, centers);
        self.upload();
        Ok(())
    }

    /// Replaces the weights of both networks: a pre-trained start.
    pub fn load_weights(&mut self, weights: &[Tensor], partial: bool) -> Result<LoadReport> {
        self.download()?;
        let (mut student, mut teacher) = (self.student.clone(), self.teacher.clone());
        let report = student.load(weights, partial)?;
        teacher.load(weights, partial)?;
        (self.student, self.teacher) = (student, teacher);
        self.upload();
        Ok(report)
    }
}

/// Elements of one piece of parallel work.
const PIECE: usize = 16384;

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
