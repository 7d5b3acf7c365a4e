//! Device memory of a run's state.

use esvit_gpu::{Gpu, View};

use crate::Result;
use crate::network::CompiledStep;
use crate::optimizer::Optimizer;
use crate::scaler::LossScaler;
use crate::spec::TrainerSpec;
use crate::state::{Center, TrainingState};

/// Largest buffer that small tensors share.
const SHARED: u64 = 256 << 20;
/// Where tensors begin: any adapter can bind there.
pub const ALIGN: u64 = 256;
/// Floats of the loss's scale: see `scaler.wgsl`.
const SCALER: usize = 5;
/// Floats of the report before the norms: see `report.wgsl`.
pub const REPORT_HEAD: usize = 8;
/// Floats of the parameters before those of the entries: the teacher's keep and share, the largest norm, one spare.
pub const PARAMETERS_HEAD: usize = 4;

/// Everything an update reads and changes, in GPU memory.
#[derive(Debug)]
pub struct GpuState {
    pub student: Vec<View>,
    pub teacher: Vec<View>,
    /// Moments of each entry, as many as the optimizer has; none for entries without a gradient.
    pub moments: Vec<Vec<View>>,
    pub centers: Vec<View>,
    pub parameters: View,
    pub report: View,
    /// The loss's scale and what changes it.
    pub scaler: View,
    /// A one, for counts.
    pub one: View,
}

impl GpuState {
    /// Memory for a state of this size, without values.
    pub fn new(gpu: &Gpu, spec: &TrainerSpec, step: &CompiledStep, state: &TrainingState) -> Result<GpuState> {
        let bytes = |store: &crate::Store| -> Vec<u64> { (0..store.entries().len()).map(|i| 4 * store.values(i).len() as u64).collect() };
        let sizes = bytes(&state.student);
        let student = allocate_all(gpu, "the student", &sizes)?;
        let teacher = allocate_all(gpu, "the teacher", &bytes(&state.teacher))?;
        let mut moments = vec![Vec::new(); sizes.len()];
        let trained: Vec<usize> = (0..sizes.len()).filter(|&i| step.gradients[i].is_some()).collect();
        for _ in 0..Optimizer::moments_per_value(spec.optimizer) {
            let sizes: Vec<u64> = trained.iter().map(|&i| sizes[i]).collect();
            for (&i, view) in trained.iter().zip(allocate_all(gpu, "the optimizer's moments", &sizes)?) {
                moments[i].push(view);
            }
        }
        let center = |(name, values): &Center| Ok(gpu.allocate(name, 4 * values.len() as u64)?);
        let centers = state.centers.iter().map(center).collect::<Result<Vec<_>>>()?;
        let one = gpu.allocate("one", 4)?;
        gpu.upload(&one, bytemuck::bytes_of(&1.0f32));
        Ok(GpuState {
            student,
            teacher,
            moments,
            centers,
            parameters: gpu.allocate("the step's parameters", 4 * (PARAMETERS_HEAD + 4 * sizes.len()) as u64)?,
            report: gpu.allocate("the step's report", 4 * (REPORT_HEAD + 4 * sizes.len()) as u64)?,
            scaler: gpu.allocate("the loss's scale", 4 * SCALER as u64)?,
            one,
        })
    }

    /// Copies the whole state to the GPU.
    pub fn upload(&self, gpu: &Gpu, state: &TrainingState) {
        let scaler = state.scaler.as_ref().map_or([1.0, 0.0, 1.0, 1.0, 1.0], LossScaler::values);
        gpu.upload(&self.scaler, bytemuck::cast_slice(&scaler));
        for (store, views) in [(&state.student, &self.student), (&state.teacher, &self.teacher)] {
            for (i, view) in views.iter().enumerate() {
                gpu.upload(view, bytemuck::cast_slice(store.values(i)));
            }
        }
        for (i, slots) in self.moments.iter().enumerate() {
            for (slot, view) in slots.iter().enumerate() {
                match state.optimizer.moment(i, slot) {
                    // Never updated: a new run, or a state that says so.
                    [] => gpu.upload(view, &vec![0; view.bytes() as usize]),
                    values => gpu.upload(view, bytemuck::cast_slice(values)),
                }
            }
        }
        for ((_, values), view) in state.centers.iter().zip(&self.centers) {
            gpu.upload(view, bytemuck::cast_slice(values));
        }
    }

    /// Copies the whole state from the GPU, tensor by tensor.
    pub fn download(&self, gpu: &Gpu, state: &mut TrainingState) -> Result<()> {
        if let Some(scaler) = &mut state.scaler {
            let values = gpu.read_f32(&self.scaler.part(0, 8))?;
            (scaler.scale, scaler.growth_tracker) = (values[0], values[1] as u32);
        }
        let read = |view: &View, into: &mut [f32]| -> Result<()> {
            if !into.is_empty() {
                into.copy_from_slice(&gpu.read_f32(&view.part(0, 4 * into.len() as u64))?);
            }
            Ok(())
        };
        for (store, views) in [(&mut state.student, &self.student), (&mut state.teacher, &self.teacher)] {
            for (i, view) in views.iter().enumerate() {
                read(view, store.values_mut(i))?;
            }
        }
        for (i, slots) in self.moments.iter().enumerate() {
            for (slot, view) in slots.iter().enumerate() {
                read(view, state.optimizer.moment_mut(i, slot))?;
            }
        }
        for ((_, values), view) in state.centers.iter_mut().zip(&self.centers) {
            read(view, values)?;
        }
        Ok(())
    }
}

/// Memory for tensors of these sizes, many in a buffer. Tensors of no size get the smallest view.
pub fn allocate_all(gpu: &Gpu, what: &str, sizes: &[u64]) -> Result<Vec<View>> {
    let mut views = Vec::with_capacity(sizes.len());
    let mut from = 0;
    while from < sizes.len() {
        let room = |size: u64| size.max(4).next_multiple_of(ALIGN);
        let mut total = room(sizes[from]);
        let mut to = from + 1;
        while to < sizes.len() && total + room(sizes[to]) <= SHARED {
            total += room(sizes[to]);
            to += 1;
        }
        let buffer = gpu.allocate(what, total)?;
        let mut offset = 0;
        for &size in &sizes[from..to] {
            views.push(buffer.part(offset, size.max(4)));
            offset += room(size);
        }
        from = to;
    }
    Ok(views)
}
