//! The step on a GPU: parameters, moments, teacher and centers live there; a step is one submission, or one for each of its passes and one
//! for the update. Pixels and the step's parameters go up, a report of a few numbers comes back.

mod capacity;
mod kernels;
mod memory;
mod recording;
mod results;
mod update;

use std::borrow::Cow;
use std::time::Duration;

use esvit_gpu::{Gpu, Recording, View};
use esvit_graph::{Bindings, GpuArena, Leaf, NodeTime, Slice};

pub(crate) use kernels::KERNELS;

use self::capacity::check_capacity;
use self::memory::{GpuState, REPORT_HEAD};
use self::recording::{Places, StepRecordings};
use self::results::{GpuResults, GpuSums};
use super::contract::{Executor, StepContext};
use crate::network::CompiledStep;
use crate::spec::TrainerSpec;
use crate::state::TrainingState;
use crate::{Result, StepStats};

/// Device memory and the recorded step.
#[derive(Debug)]
pub(super) struct GpuExecutor {
    gpu: Gpu,
    recordings: StepRecordings,
    /// The program's results in one pass.
    of_pass: GpuResults,
    /// Sums over several passes.
    sums: Option<GpuSums>,
    arena: GpuArena,
    leaves: Bindings<View>,
    memory: GpuState,
}

impl GpuExecutor {
    /// Allocates memory, records the step and uploads the state.
    pub fn new(gpu: Gpu, spec: &TrainerSpec, step: &CompiledStep, state: &TrainingState) -> Result<GpuExecutor> {
        check_capacity(spec, step, gpu.adapter())?;
        let memory = GpuState::new(&gpu, spec, step, state)?;
        let leaves = allocate_leaves(&gpu, step, &memory)?;
        let arena = step.program.gpu_arena(&gpu)?;
        let of_pass = GpuResults::of_program(step, &arena);
        let sums = match spec.accumulate {
            1 => None,
            passes => Some(GpuSums::new(&gpu, &of_pass, passes)?),
        };
        let places =
            Places { arena: &arena, leaves: &leaves, memory: &memory, student: &state.student, of_pass: &of_pass, sums: sums.as_ref() };
        let recordings = recording::record(&gpu, spec, step, &places)?;
        memory.upload(&gpu, state);
        Ok(GpuExecutor { gpu, recordings, of_pass, sums, arena, leaves, memory })
    }

    fn run(&self, recording: &Recording, flops: &[u64], times: Option<&mut Vec<NodeTime>>) -> Result<()> {
        let Some(times) = times else { return Ok(recording.run(&self.gpu)?) };
        for t in recording.profile(&self.gpu)? {
            let flops = flops.get(t.operator).copied().unwrap_or(0);
            times.push(NodeTime { op: t.name, phase: t.phase, time: Duration::from_secs_f64(t.seconds), flops });
        }
        Ok(())
    }

    fn report(&self) -> Result<Vec<f32>> {
        Ok(self.gpu.read_f32(&self.memory.report.part(0, 4 * REPORT_HEAD as u64))?)
    }
}

/// Views of all leaves: those of the state, and memory for the others that the program reads.
fn allocate_leaves(gpu: &Gpu, step: &CompiledStep, memory: &GpuState) -> Result<Bindings<View>> {
    let mut leaves = Bindings::new();
    let known = &step.leaves;
    for (handles, views) in [(&known.student, &memory.student), (&known.teacher, &memory.teacher), (&known.centers, &memory.centers)] {
        for (leaf, view) in handles.iter().zip(views) {
            if let Some(leaf) = *leaf {
                leaves.bind(leaf, view.clone());
            }
        }
    }
    if let Some(leaf) = known.loss_share {
        // The gradient of the loss is its scale: 1 in single precision.
        leaves.bind(leaf, memory.scaler.part(0, 4));
    }
    for (name, len, dtype) in step.program.leaves() {
        let Some(leaf) = step.program.leaf(name) else { continue };
        if leaves.get(leaf).is_none() {
            leaves.bind(leaf, gpu.allocate(name, (len * dtype.size()) as u64)?);
        }
    }
    let constants: [(Option<Leaf>, &[u8]); 2] = [
        (known.view_teacher, bytemuck::cast_slice(&step.view_pairs.teacher)),
        (known.region_weights, bytemuck::cast_slice(&step.region_weights)),
    ];
    for (leaf, bytes) in constants {
        if let Some(view) = leaf.and_then(|leaf| leaves.get(leaf)) {
            gpu.upload(view, bytes);
        }
    }
    Ok(leaves)
}

impl Executor for GpuExecutor {
    fn begin(&mut self, context: &StepContext, state: &TrainingState) {
        let StepContext { spec, parameters, .. } = *context;
        let values = update::parameters(spec, parameters, &state.student, &self.memory.moments, &state.optimizer);
        self.gpu.upload(&self.memory.parameters, bytemuck::cast_slice(&values));
    }

    fn run_pass(
        &mut self,
        _: &StepContext,
        _: &mut TrainingState,
        pass: usize,
        leaves: &[(Leaf, Slice)],
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<bool> {
        for (leaf, values) in leaves {
            if let Some(view) = self.leaves.get(*leaf) {
                self.gpu.upload(view, values.bytes());
            }
        }
        if let Some(sums) = &self.sums {
            self.gpu.upload(&sums.number, bytemuck::bytes_of(&(pass as u32)));
        }
        self.run(&self.recordings.pass, &self.recordings.flops, times)?;
        Ok(true)
    }

    fn finish(&mut self, context: &StepContext, state: &mut TrainingState, times: Option<&mut Vec<NodeTime>>) -> Result<StepStats> {
        if let Some(update) = &self.recordings.update {
            self.run(update, &[], times)?;
        }
        let report = self.report()?;
        let (view_loss, region_loss) = (f64::from(report[0]), f64::from(report[1]));
        let finite = report[3] != 0.0;
        let taken = finite && report[6] != 0.0;
        if taken {
            update::count(context.parameters, &state.student, &self.memory.moments, &mut state.optimizer);
        }
        Ok(StepStats {
            loss: view_loss + region_loss,
            view_loss,
            region_loss,
            teacher_entropy: f64::from(report[2]),
            feature_deviation: f64::from(report[4]),
            gradient_norm: if taken { f64::from(report[5]) } else { 0.0 },
            finite,
            skipped: finite && !taken,
            loss_scale: 1.0 / f64::from(report[7]),
        })
    }

    fn upload(&mut self, state: &TrainingState) {
        self.memory.upload(&self.gpu, state);
    }

    fn download(&self, state: &mut TrainingState) -> Result<()> {
        self.memory.download(&self.gpu, state)
    }

    fn gradient(&self, _: &CompiledStep, entry: usize) -> Result<Option<Cow<'_, [f32]>>> {
        let results = self.sums.as_ref().map_or(&self.of_pass, |sums| &sums.results);
        let Some(view) = &results.gradients[entry] else { return Ok(None) };
        let unscale = self.report()?[7];
        Ok(Some(self.gpu.read_f32(view)?.into_iter().map(|g| g * unscale).collect()))
    }

    fn matches(&self, step: &CompiledStep) -> Result<Option<Cow<'_, [u32]>>> {
        let Some(value) = step.matches else { return Ok(None) };
        let bits = self.gpu.read_f32(&step.program.gpu_output(&self.arena, value))?;
        Ok(Some(bits.iter().map(|v| v.to_bits()).collect()))
    }

    fn reset_program(&mut self) {
        unreachable!("a GPU keeps all gradients: its program is never replaced")
    }
}
