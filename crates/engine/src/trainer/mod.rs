//! A training run: its state, and the executor that moves it from step to step.

mod inputs;

use std::borrow::Cow;

use esvit_graph::{DType, NodeTime};
use esvit_ops::region_match::GLOBAL_CROPS;

use self::inputs::StepInputs;
use crate::executor::{self, Executor, StepContext};
use crate::network::{self, CompiledStep};
use crate::pixels::{PixelMemory, Pixels};
use crate::plan::TrainerPlan;
use crate::profile::{self, ProfileRow};
use crate::spec::TrainerSpec;
use crate::state::{StatePart, TrainerState, TrainingState};
use crate::step::{StepParameters, StepStats};
use crate::tensor::{Tensor, TensorView};
use crate::{BatchLayout, Device, Error, LoadReport, Result, Store};

/// The engine of a training run.
///
/// On a device with memory of its own, [`Trainer::student`], [`Trainer::teacher`] and [`Trainer::center`] are what was last loaded or
/// downloaded; [`Trainer::state`] brings them up to date.
#[derive(Debug)]
pub struct Trainer {
    spec: TrainerSpec,
    plan: TrainerPlan,
    step: CompiledStep,
    state: TrainingState,
    executor: Box<dyn Executor>,
    pixels: PixelMemory,
    /// Neighbors of the next step, where they are not to be sampled.
    next_neighbors: Option<Vec<Vec<u32>>>,
}

impl Trainer {
    /// A trainer for 8-bit pixels.
    ///
    /// # Errors
    /// When the specification cannot be built, or the device cannot run it or has not enough memory.
    pub fn new(spec: TrainerSpec, device: Device) -> Result<Trainer> {
        let dtype = spec.pixel_type();
        Trainer::with_pixels(spec, dtype, device)
    }

    /// A trainer for pixels of this type; with mixup they are floats.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn with_pixels(spec: TrainerSpec, dtype: DType, device: Device) -> Result<Trainer> {
        let kind = device.kind();
        let step = network::build(&spec, dtype, kind)?;
        let plan = TrainerPlan::of(&spec, dtype, &step, kind);
        let state = TrainingState::new(&spec, &step, kind);
        let executor = executor::open(device, &spec, &step, &state)?;
        let pixels = PixelMemory::new(dtype, step.pixels);
        Ok(Trainer { spec, plan, step, state, executor, pixels, next_neighbors: None })
    }

    /// Specification the trainer was built from.
    pub fn spec(&self) -> &TrainerSpec {
        &self.spec
    }

    /// Sizes, known before the first step.
    pub fn plan(&self) -> &TrainerPlan {
        &self.plan
    }

    /// The student's values.
    pub fn student(&self) -> &Store {
        &self.state.student
    }

    /// The teacher's values.
    pub fn teacher(&self) -> &Store {
        &self.state.teacher
    }

    /// A center by name, `[K]`.
    pub fn center(&self, name: &str) -> Option<&[f32]> {
        self.state.centers.iter().find(|(n, _)| *n == name).map(|(_, c)| c.as_slice())
    }

    /// Runs one step. `mixup` gives a factor for each crop where the trainer was built for it.
    ///
    /// # Errors
    /// When pixels or factors do not have the size of the specification; then nothing was changed.
    pub fn step(&mut self, pixels: Pixels, mixup: Option<&[f32]>, parameters: &StepParameters) -> Result<StepStats> {
        self.run(pixels, mixup, parameters, None)
    }

    /// Runs one step and returns the time of every operator, largest first.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn profile(&mut self, pixels: Pixels, mixup: Option<&[f32]>, parameters: &StepParameters) -> Result<Vec<ProfileRow>> {
        let mut times = Vec::new();
        self.run(pixels, mixup, parameters, Some(&mut times))?;
        Ok(profile::rows(&times))
    }

    fn run(
        &mut self,
        pixels: Pixels,
        mixup: Option<&[f32]>,
        parameters: &StepParameters,
        mut times: Option<&mut Vec<NodeTime>>,
    ) -> Result<StepStats> {
        self.check(&pixels, mixup)?;
        let Trainer { spec, step, state, executor, .. } = self;
        let inputs = StepInputs::new(spec, step, parameters, mixup, self.next_neighbors.take());
        let context = StepContext { spec, step, parameters };
        executor.begin(&context, state);
        for pass in 0..spec.accumulate {
            let pixels = self.pixels.pass(spec, pixels, mixup, pass);
            let inputs = inputs.of_pass(spec, pass);
            if !executor.run_pass(&context, state, pass, &inputs.leaves(step, pixels), times.as_deref_mut())? {
                break; // nothing of this step will count
            }
        }
        executor.finish(&context, state, times)
    }

    /// Checks that a step's pixels and factors have the sizes of the specification.
    fn check(&self, pixels: &Pixels, mixup: Option<&[f32]>) -> Result<()> {
        let (counts, passes) = (self.step.pixels, self.spec.accumulate);
        let check = |what, want, got| if want == got { Ok(()) } else { Err(Error::Input { what, want, got }) };
        match pixels {
            Pixels::U8(batch) => {
                let (want, got) = (BatchLayout::of(&self.spec), batch.layout());
                if *got != want {
                    return Err(Error::Batch(format!("this trainer reads batches of {want:?}, got one of {got:?}")));
                }
            }
            Pixels::F32 { global, local } => {
                check("the global crops", passes * counts.global, global.len())?;
                check("the local crops", passes * counts.local, local.len())?;
            }
        }
        let crops = GLOBAL_CROPS + self.spec.crops.local_count;
        match (self.spec.loss.mixup, mixup) {
            (true, Some(lambda)) => check("the mixup factors", crops, lambda.len())?,
            (true, None) => check("the mixup factors", crops, 0)?,
            (false, Some(lambda)) => check("the mixup factors", 0, lambda.len())?,
            (false, None) => {}
        }
        match (&self.pixels, pixels) {
            (PixelMemory::Bytes, Pixels::F32 { .. }) => Err(Error::Spec("this trainer was built for 8-bit pixels".into())),
            _ => Ok(()),
        }
    }

    /// Gives the next step its neighbors instead of sampling them: for each layer of the teacher, then of the student, a number from 0 (all)
    /// to 8 for each segment. To follow a run that sampled others.
    ///
    /// # Errors
    /// When there are more or fewer layers or segments.
    pub fn set_next_neighbors(&mut self, neighbors: Vec<Vec<u32>>) -> Result<()> {
        let (want, got) = (&self.step.sampled_segments, neighbors.iter().map(Vec::len).collect::<Vec<_>>());
        if *want != got {
            return Err(Error::Input { what: "the sampled neighbors", want: want.iter().sum(), got: got.iter().sum() });
        }
        self.next_neighbors = Some(neighbors);
        Ok(())
    }

    /// Keeps gradients after a step, for [`Trainer::gradient`]; without it, on the CPU, each is gone once its parameter was updated. Takes
    /// more memory than the plan says, and changes no number.
    pub fn keep_gradients(&mut self) {
        if !self.step.keeps_gradients() {
            self.step.keep_gradients();
            self.executor.reset_program();
        }
    }

    /// Gradient of a trained parameter in the last step, before clipping; with accumulation the mean over its passes. `None` where it is not
    /// [kept](Trainer::keep_gradients).
    pub fn gradient(&self, name: &str) -> Option<Cow<'_, [f32]>> {
        let entry = self.state.student.position(name)?;
        if !self.step.keeps_gradients() || self.step.gradients[entry].is_none() {
            return None;
        }
        self.executor.gradient(&self.step, entry).ok().flatten()
    }

    /// Teacher rows the regions were matched with in the last pass, `[P]`.
    pub fn matches(&self) -> Option<Cow<'_, [u32]>> {
        self.executor.matches(&self.step).ok().flatten()
    }

    /// The whole state.
    ///
    /// # Errors
    /// When the GPU was lost.
    pub fn state(&mut self) -> Result<TrainerState> {
        self.executor.download(&mut self.state)?;
        Ok(self.state.to_data(|view| view.to_values()))
    }

    /// The state without values: [`Trainer::read`] gives those of a tensor at a time, so that nobody needs room for all of them.
    ///
    /// # Errors
    /// As [`Trainer::state`].
    pub fn outline(&mut self) -> Result<TrainerState> {
        self.executor.download(&mut self.state)?;
        Ok(self.state.to_data(|view| view.to_no_values()))
    }

    /// Values of a tensor by its position in what [`Trainer::outline`] returned last; until the next step or load they are those of that
    /// moment.
    pub fn read(&self, part: StatePart, index: usize) -> Option<TensorView<'_>> {
        self.state.read(part, index)
    }

    /// Replaces the whole state. A loss scaler is taken over where this run has one, and starts anew where the state has none.
    ///
    /// # Errors
    /// When a name, a shape or a moment does not fit; then nothing is changed.
    pub fn load(&mut self, state: TrainerState) -> Result<()> {
        self.state.load(&self.spec, state)?;
        self.executor.upload(&self.state);
        Ok(())
    }

    /// Replaces the weights of both networks: a pre-trained start.
    ///
    /// # Errors
    /// When a shape does not fit, or, unless `partial`, a name; then nothing is changed.
    pub fn load_weights(&mut self, weights: Vec<Tensor>, partial: bool) -> Result<LoadReport> {
        self.change_weights(|student, teacher| {
            let report = student.check(&weights, partial)?;
            teacher.load(weights.clone(), partial)?;
            student.load(weights, partial)?;
            Ok(report)
        })
    }

    /// Lets `change` set values of the student and the teacher.
    ///
    /// # Errors
    /// Errors of `change`, and the loss of the GPU.
    pub fn change_weights<T>(&mut self, change: impl FnOnce(&mut Store, &mut Store) -> Result<T>) -> Result<T> {
        self.executor.download(&mut self.state)?;
        let changed = change(&mut self.state.student, &mut self.state.teacher)?;
        self.executor.upload(&self.state);
        Ok(changed)
    }
}
