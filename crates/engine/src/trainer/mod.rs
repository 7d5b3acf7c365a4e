//! The training step and everything that changes from step to step.

mod passes;

use std::borrow::Cow;

use esvit_gpu::Gpu;
use esvit_graph::{Arena, DType, NodeTime, Slice};
use esvit_ops::region_match::GLOBAL_CROPS;
use esvit_simd::Pool;

use crate::gpu::{GpuRun, fits};
use crate::network::{self, STUDENT, Step, TEACHER};
use crate::optimizer::Optimizer;
use crate::plan::{Plan, pixel_type};
use crate::profile::{self, ProfileRow};
use crate::random::Stream;
use crate::spec::{Device, Precision, TrainerSpec};
use crate::staging::{Pixels, Staging};
use crate::state::Center;
use crate::step::{StepParameters, StepStats};
use crate::{Error, LoadReport, LossScaler, Result, StatePart, Store, Tensor, TensorValues, TensorView, TrainerState};

/// What a step, or a pass of it, reads besides parameters, pixels and centers.
#[derive(Clone, Debug)]
struct StepInputs {
    /// Of each residual branch, a factor for every image; empty where it never changes.
    factors: Vec<Vec<f32>>,
    /// Neighbors of each layer that draws them: the same in all passes.
    draws: Vec<Vec<u32>>,
    temperature: [f32; 1],
    /// Weights of the view's pairs, where mixup changes them.
    view_weights: Option<Vec<f32>>,
}

impl StepInputs {
    /// Those of one pass: it takes a run of images of each crop.
    fn of_pass(&self, spec: &TrainerSpec, pass: usize) -> StepInputs {
        let (batch, passes) = (spec.crops.batch, spec.accumulate);
        let share = |all: &Vec<f32>| all.chunks(batch * passes).flat_map(|crop| &crop[pass * batch..(pass + 1) * batch]).copied().collect();
        StepInputs { factors: self.factors.iter().map(share).collect(), ..self.clone() }
    }
}

/// Leaves that change from pass to pass, by name.
fn leaves<'a>(step: &'a Step, pixels: &'a Staging, inputs: &'a StepInputs) -> Vec<(&'a str, Slice<'a>)> {
    let (student, teacher) = match pixels {
        Staging::U8(all) => (Slice::U8(all), Slice::U8(&all[..step.pixels.global])),
        Staging::F32 { student, teacher } => (Slice::F32(student), Slice::F32(teacher)),
    };
    let mut leaves = vec![("student_pixels", student), ("teacher_pixels", teacher)];
    leaves.extend(step.drop_path.iter().zip(&inputs.factors).map(|((_, name), factors)| (name.as_str(), Slice::F32(factors))));
    leaves.extend(step.draws.iter().zip(&inputs.draws).map(|((name, _), draws)| (name.as_str(), Slice::U32(draws))));
    leaves.push(("teacher_temperature", Slice::F32(&inputs.temperature)));
    leaves.push(("view_pairs.weight", Slice::F32(inputs.view_weights.as_ref().unwrap_or(&step.view_pairs.weight))));
    leaves
}

/// A training run's engine.
///
/// On a GPU the stores, the optimizer and the centers are what was last loaded or downloaded; [`Trainer::state`] brings them up to date.
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
    /// Neighbors of the next step, where they are not to be drawn.
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
        let step = network::build(&spec, dtype, Device::Cpu)?;
        let plan = Plan::of(&spec, dtype, &step, Device::Cpu);
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
        // The recorded update follows the whole program.
        let dtype = self.pixels.dtype();
        self.step = network::build(&self.spec, dtype, Device::Gpu)?;
        self.plan = Plan::of(&self.spec, dtype, &self.step, Device::Gpu);
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

    /// Copies the stores, the optimizer and the centers to the GPU.
    fn upload(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.upload(&self.student, &self.teacher, &self.optimizer, &self.centers, self.scaler.as_ref());
        }
    }

    /// Brings the stores, the optimizer and the centers up to date with the GPU.
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

    /// A center by name, `[K]`.
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
    pub fn step(&mut self, pixels: Pixels, mixup: Option<&[f32]>, parameters: &StepParameters) -> Result<StepStats> {
        self.run(pixels, mixup, parameters, None)
    }

    /// One step with the time of every operator, largest first.
    pub fn profile(&mut self, pixels: Pixels, mixup: Option<&[f32]>, parameters: &StepParameters) -> Result<Vec<ProfileRow>> {
        let mut times = Vec::new();
        self.run(pixels, mixup, parameters, Some(&mut times))?;
        Ok(profile::rows(&times))
    }

    /// Gives the next step its neighbors instead of drawing them: for each layer of the teacher, then of the student, a number from 0
    /// (all) to 8 for each segment. To follow a run that drew others.
    ///
    /// # Errors
    /// When there are more or fewer layers or segments.
    pub fn set_next_draws(&mut self, draws: Vec<Vec<u32>>) -> Result<()> {
        let sizes = |got: &mut dyn Iterator<Item = usize>| got.collect::<Vec<_>>();
        let (want, got) = (sizes(&mut self.step.draws.iter().map(|d| d.1)), sizes(&mut draws.iter().map(Vec::len)));
        if want != got {
            return Err(Error::Input { what: "the drawn neighbors", want: want.iter().sum(), got: got.iter().sum() });
        }
        self.next_draws = Some(draws);
        Ok(())
    }

    /// For each layer that draws, which neighbors its windows see in each segment: 0 for all, 1 to 8 for one.
    fn draws(&mut self, parameters: &StepParameters) -> Vec<Vec<u32>> {
        let drawn = |(layer, (_, segments)): (usize, &(String, usize))| {
            let mut stream = Stream::new(self.spec.seed, "neighbours", &[parameters.step, layer as u64]);
            let mut draw = || if parameters.progress < self.step.draw_until { 1 + (8.0 * stream.uniform()) as u32 } else { 0 };
            (0..*segments).map(|_| draw()).collect()
        };
        match self.next_draws.take() {
            Some(given) => given,
            None => self.step.draws.iter().enumerate().map(drawn).collect(),
        }
    }

    fn run(
        &mut self,
        pixels: Pixels,
        mixup: Option<&[f32]>,
        parameters: &StepParameters,
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<StepStats> {
        self.check(&pixels, mixup)?;
        let inputs = StepInputs {
            factors: self.drop_path_factors(parameters.step),
            draws: self.draws(parameters),
            temperature: [parameters.teacher_temperature as f32],
            view_weights: mixup.map(|lambda| esvit_nn::loss::mixup_weights(self.spec.crops.batch, lambda)),
        };
        match self.gpu {
            Some(_) => self.run_on_gpu(pixels, mixup, &inputs, parameters, times),
            None => self.run_on_cpu(pixels, mixup, &inputs, parameters, times),
        }
    }

    /// All passes of a step, and its update.
    fn run_on_gpu(
        &mut self,
        pixels: Pixels,
        mixup: Option<&[f32]>,
        inputs: &StepInputs,
        parameters: &StepParameters,
        mut times: Option<&mut Vec<NodeTime>>,
    ) -> Result<StepStats> {
        let Trainer { spec, step, pixels: staging, gpu: Some(gpu), student, optimizer, .. } = self else {
            unreachable!("called for a trainer on a GPU");
        };
        gpu.begin(spec, parameters, student, optimizer);
        for pass in 0..spec.accumulate {
            staging.stage(spec, step.pixels, &pixels, mixup, pass);
            gpu.run_pass(pass, &leaves(step, staging, &inputs.of_pass(spec, pass)), times.as_deref_mut())?;
        }
        gpu.finish(parameters, student, optimizer, times)
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
        if let Some(gpu) = &self.gpu {
            return gpu.read_gradient(entry).ok().flatten().map(Cow::Owned);
        }
        if !self.sums.is_empty() {
            return Some(Cow::Borrowed(&self.sums[entry]));
        }
        if self.step.kept.is_some() {
            return None;
        }
        Some(Cow::Borrowed(self.step.program.output(self.arena.as_ref()?, value).f32()))
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
        self.state_with(|view| view.to_values())
    }

    /// The state without values: [`Trainer::read`] gives those of a tensor at a time, so that nobody needs room for all of them.
    ///
    /// # Errors
    /// As [`Trainer::state`].
    pub fn outline(&mut self) -> Result<TrainerState> {
        self.state_with(|view| view.to_no_values())
    }

    /// Values of a tensor by its place in what [`Trainer::outline`] returned last; until the next step or load they are those of that moment.
    pub fn read(&self, part: StatePart, index: usize) -> Option<TensorView<'_>> {
        let of = |store: &'_ Store| index < store.entries().len();
        match part {
            StatePart::Student if of(&self.student) => Some(self.student.view(index)),
            StatePart::Teacher if of(&self.teacher) => Some(self.teacher.view(index)),
            StatePart::Student | StatePart::Teacher => None,
            StatePart::Loss => self.centers.get(index).map(|(_, values)| TensorView::F32(values)),
            StatePart::Slots => self.optimizer.slots(&self.student).nth(index).map(|(_, _, moment)| TensorView::F32(moment)),
        }
    }

    fn state_with(&mut self, values: impl Fn(TensorView) -> TensorValues) -> Result<TrainerState> {
        self.download()?;
        let center = |(name, center): &(&'static str, Vec<f32>)| Tensor {
            name: (*name).to_string(),
            shape: vec![1, center.len()],
            values: values(TensorView::F32(center)),
        };
        Ok(TrainerState {
            student: self.student.tensors_with(&values),
            teacher: self.teacher.tensors_with(&values),
            loss: self.centers.iter().map(center).collect(),
            optimizer: self.optimizer.state(&self.student, &values),
            scaler: self.scaler,
        })
    }

    /// Replaces the whole state. A loss scaler is taken over where this run has one, and starts anew where the state has none.
    ///
    /// # Errors
    /// When a name, a shape or a moment does not fit; then nothing is changed.
    pub fn load(&mut self, state: TrainerState) -> Result<()> {
        self.student.check(&state.student, false)?;
        self.teacher.check(&state.teacher, false)?;
        let optimizer = Optimizer::from_state(self.spec.optimizer, &self.student, state.optimizer)?;
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
        self.student.load(state.student, false)?;
        self.teacher.load(state.teacher, false)?;
        (self.optimizer, self.centers) = (optimizer, centers);
        self.upload();
        Ok(())
    }

    /// Replaces the weights of both networks: a pre-trained start.
    ///
    /// # Errors
    /// When a shape does not fit, or, unless `partial`, a name; then nothing is changed.
    pub fn load_weights(&mut self, weights: Vec<Tensor>, partial: bool) -> Result<LoadReport> {
        self.download()?;
        let report = self.student.check(&weights, partial)?;
        self.teacher.load(weights.clone(), partial)?;
        self.student.load(weights, partial)?;
        self.upload();
        Ok(report)
    }
}
