//! The training step and everything that changes from step to step.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use esvit_gpu::Gpu;
use esvit_graph::{Arena, Bindings, DType, NodeTime, Slice, Variant};
use esvit_nn::RunningStatistics;
use esvit_nn::loss::Term;
use esvit_ops::batch_norm::MOMENTUM;
use esvit_ops::patchify::{MEAN, STD};
use esvit_ops::region_match::GLOBAL_CROPS;
use esvit_simd::Pool;

use crate::gpu::{GpuRun, StepInputs};
use crate::monitor::feature_deviation;
use crate::network::{self, STUDENT, Step, TEACHER};
use crate::optimizer::Optimizer;
use crate::plan::{Plan, pixel_type};
use crate::random::Stream;
use crate::spec::TrainerSpec;
use crate::{Error, LoadReport, Result, Store, Tensor, TensorValues, TrainerState};

/// Pixels of a step: the global crops, all images of crop 0 first, then the local ones.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// 8-bit RGB, (height, width, channel), normalised by the engine.
    U8 {
        /// `2·B` images of the global size.
        global: &'a [u8],
        /// `local_count·B` images of the local size.
        local: &'a [u8],
    },
    /// Normalised floats, (channel, height, width); what a trainer with mixup works on.
    F32 {
        /// `2·B` images of the global size.
        global: &'a [f32],
        /// `local_count·B` images of the local size.
        local: &'a [f32],
    },
}

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
    /// Neighbours of the next step, where they are not to be drawn.
    next_draws: Option<Vec<Vec<u32>>>,
    gpu: Option<GpuRun>,
}

/// The step's pixels in one piece: global crops, then local ones.
#[derive(Debug)]
enum Staging {
    U8(Vec<u8>),
    F32 { student: Vec<f32>, teacher: Vec<f32> },
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
        let (global, all) = (step.pixels.global, step.pixels.global + step.pixels.local);
        let pixels = match dtype {
            DType::U8 => Staging::U8(vec![0; all]),
            _ => Staging::F32 { student: vec![0.0; all], teacher: vec![0.0; global] },
        };
        Ok(Trainer { spec, pool, plan, step, arena: None, student, teacher, optimizer, centers, pixels, next_draws: None, gpu: None })
    }

    /// The same trainer with its state and its steps on a GPU.
    ///
    /// # Errors
    /// When an operator has no kernels, or the GPU has not enough memory.
    pub fn on_gpu(mut self, gpu: Gpu) -> Result<Trainer> {
        // A GPU recomputes logits: none are kept.
        let dtype = match self.pixels {
            Staging::U8(_) => DType::U8,
            Staging::F32 { .. } => DType::F32,
        };
        self.step = network::build(&self.spec, dtype, [0; 2])?;
        self.plan = Plan::of(&self.spec, dtype, &self.step);
        let run = GpuRun::new(gpu, &self.spec, &self.step, &self.student, &self.teacher, &self.centers)?;
        run.upload(&self.student, &self.teacher, &self.optimizer, &self.centers);
        self.gpu = Some(run);
        Ok(self)
    }

    /// The GPU it runs on.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref().map(GpuRun::gpu)
    }

    /// Copies the stores, the optimiser and the centres to the GPU.
    fn upload(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.upload(&self.student, &self.teacher, &self.optimizer, &self.centers);
        }
    }

    /// Brings the stores, the optimiser and the centres up to date with the GPU.
    fn download(&mut self) -> Result<()> {
        match &self.gpu {
            Some(gpu) => gpu.download(&mut self.student, &mut self.teacher, &mut self.optimizer, &mut self.centers),
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
        self.stage(pixels, mixup)?;
        let factors = self.drop_path_factors(knobs.step);
        let draws = self.draws(knobs);
        let view_weights = mixup.map(|lambda| esvit_nn::loss::mixup_weights(self.spec.crops.batch, lambda));
        let temperature = [knobs.teacher_temperature as f32];
        if let Some(gpu) = &self.gpu {
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

        let mut bindings = Bindings::new();
        self.student.bind(&mut bindings);
        self.teacher.bind(&mut bindings);
        let (student, teacher) = match &self.pixels {
            Staging::U8(all) => (Slice::U8(all), Slice::U8(&all[..self.step.pixels.global])),
            Staging::F32 { student, teacher } => (Slice::F32(student), Slice::F32(teacher)),
        };
        bindings.bind("student_pixels", student).bind("teacher_pixels", teacher);
        for ((_, name), factors) in self.step.drop_path.iter().zip(&factors) {
            bindings.bind(name, Slice::F32(factors));
        }
        for ((name, _), draws) in self.step.draws.iter().zip(&draws) {
            bindings.bind(name, Slice::U32(draws));
        }
        bindings.bind("one", Slice::F32(&[1.0])).bind("teacher_temperature", Slice::F32(&temperature));
        bindings.bind("view_pairs.teacher", Slice::U32(&self.step.view_pairs.teacher));
        bindings.bind("view_pairs.weight", Slice::F32(view_weights.as_deref().unwrap_or(&self.step.view_pairs.weight)));
        bindings.bind("region_pairs.weight", Slice::F32(&self.step.region_weights));
        for (name, center) in &self.centers {
            bindings.bind(name, Slice::F32(center));
        }
        let (program, pool) = (&self.step.program, &self.pool);
        let arena = self.arena.get_or_insert_with(|| program.arena());
        pool.install(|| program.run(arena, &bindings, pool, Variant::Fast, times.as_deref_mut()))?;

        let started = Instant::now();
        let stats = self.finish(knobs);
        if let Some(times) = times {
            times.push(NodeTime { op: "optimizer_and_teacher", phase: "update", time: started.elapsed(), flops: 0 });
        }
        Ok(stats)
    }

    /// After the program: statistics, optimiser, teacher, centres. Nothing of it when the loss is not finite.
    fn finish(&mut self, knobs: &Knobs) -> StepStats {
        let Trainer { spec, pool, step, arena: Some(arena), student, teacher, optimizer, centers, .. } = self else {
            unreachable!("the program has run in its arena");
        };
        let output = |value| step.program.output(arena, value).f32();
        let scalar = |value| f64::from(output(value)[0]);
        let view_loss = scalar(step.view.loss);
        let region_loss = step.region.map_or(0.0, |term| scalar(term.loss));
        let views = output(step.teacher_views);
        let mut stats = StepStats {
            loss: view_loss + region_loss,
            view_loss,
            region_loss,
            teacher_entropy: scalar(step.view.entropy),
            feature_deviation: feature_deviation(views, views.len() / (GLOBAL_CROPS * spec.crops.batch)),
            gradient_norm: 0.0,
            finite: (view_loss + region_loss).is_finite(),
        };
        if !stats.finite {
            return stats;
        }
        let gradient = |i: usize| step.gradients[i].map(|value| step.program.output(arena, value).f32());
        stats.gradient_norm = pool.install(|| optimizer.update(pool, student, teacher, knobs, spec.clip_grad, gradient));

        let momentum = spec.loss.center_momentum;
        let terms: [Option<Term>; 2] = [Some(step.view), step.region];
        for ((_, center), term) in centers.iter_mut().zip(terms.into_iter().flatten()) {
            for (c, mean) in center.iter_mut().zip(step.program.output(arena, term.teacher_mean).f32()) {
                *c = *c * momentum + mean * (1.0 - momentum);
            }
        }
        for (store, statistics) in [(student, &step.student_statistics), (teacher, &step.teacher_statistics)] {
            for s in statistics {
                update_running(store, s, step.program.output(arena, s.mean).f32(), step.program.output(arena, s.var).f32());
            }
        }
        stats
    }

    /// Copies pixels to where the program reads them, mixed where asked.
    fn stage(&mut self, pixels: Pixels, mixup: Option<&[f32]>) -> Result<()> {
        let counts = self.step.pixels;
        let check = |what, want, got| if want == got { Ok(()) } else { Err(Error::Input { what, want, got }) };
        let (global, local) = match pixels {
            Pixels::U8 { global, local } => (global.len(), local.len()),
            Pixels::F32 { global, local } => (global.len(), local.len()),
        };
        check("the global crops", counts.global, global)?;
        check("the local crops", counts.local, local)?;
        let crops = GLOBAL_CROPS + self.spec.crops.local_count;
        match (self.spec.loss.mixup, mixup) {
            (true, Some(lambda)) => check("the mixup factors", crops, lambda.len())?,
            (true, None) => check("the mixup factors", crops, 0)?,
            (false, Some(lambda)) => check("the mixup factors", 0, lambda.len())?,
            (false, None) => {}
        }
        match (&mut self.pixels, pixels) {
            (Staging::U8(all), Pixels::U8 { global, local }) => {
                all[..counts.global].copy_from_slice(global);
                all[counts.global..].copy_from_slice(local);
            }
            (Staging::F32 { student, teacher }, Pixels::F32 { global, local }) => {
                student[..counts.global].copy_from_slice(global);
                student[counts.global..].copy_from_slice(local);
                teacher.copy_from_slice(global);
            }
            (Staging::F32 { student, teacher }, Pixels::U8 { global, local }) => {
                let (to_global, to_local) = student.split_at_mut(counts.global);
                normalise(global, self.spec.crops.global_size, to_global);
                normalise(local, self.spec.crops.local_size, to_local);
                teacher.copy_from_slice(to_global);
            }
            (Staging::U8(_), Pixels::F32 { .. }) => return Err(Error::Spec("this trainer was built for 8-bit pixels".into())),
        }
        if let (Staging::F32 { student, .. }, Some(lambda)) = (&mut self.pixels, mixup) {
            let batch = self.spec.crops.batch;
            let mut rest = student.as_mut_slice();
            for (crop, &lambda) in lambda.iter().enumerate() {
                let side = if crop < GLOBAL_CROPS { self.spec.crops.global_size } else { self.spec.crops.local_size };
                let (images, tail) = rest.split_at_mut(batch * 3 * side * side);
                mix_reversed(images, batch, lambda);
                rest = tail;
            }
        }
        Ok(())
    }

    /// For each residual branch a factor for every image: 0 or 1/keep.
    fn drop_path_factors(&self, step: u64) -> Vec<Vec<f32>> {
        let images = self.spec.crops.batch * (GLOBAL_CROPS + self.spec.crops.local_count);
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

    /// Gradient of a trained parameter in the last step, before clipping.
    pub fn gradient(&self, name: &str) -> Option<Cow<'_, [f32]>> {
        let value = self.step.gradients[self.student.position(name)?]?;
        let program = &self.step.program;
        match &self.gpu {
            Some(gpu) => gpu.read(&program.gpu_output(gpu.arena(), value)).ok().map(Cow::Owned),
            None => Some(Cow::Borrowed(program.output(self.arena.as_ref()?, value).f32())),
        }
    }

    /// Teacher rows the regions were matched with in the last step, `[P]`.
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
        })
    }

    /// Replaces the whole state.
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

/// 8-bit (height, width, channel) to normalised (channel, height, width).
fn normalise(from: &[u8], side: usize, to: &mut [f32]) {
    let area = side * side;
    for (from, to) in from.chunks(3 * area).zip(to.chunks_mut(3 * area)) {
        for (p, rgb) in from.chunks(3).enumerate() {
            for c in 0..3 {
                to[c * area + p] = (f32::from(rgb[c]) / 255.0 - MEAN[c]) / STD[c];
            }
        }
    }
}

/// `x ← λ·x + (1 − λ)·x[reversed]` over the images of a crop.
fn mix_reversed(images: &mut [f32], batch: usize, lambda: f32) {
    let n = images.len() / batch;
    for i in 0..batch.div_ceil(2) {
        let (head, tail) = images.split_at_mut((batch - 1 - i) * n);
        if i == batch - 1 - i {
            continue; // the middle image is mixed with itself
        }
        for (a, b) in head[i * n..(i + 1) * n].iter_mut().zip(&mut tail[..n]) {
            (*a, *b) = (lambda * *a + (1.0 - lambda) * *b, lambda * *b + (1.0 - lambda) * *a);
        }
    }
}
