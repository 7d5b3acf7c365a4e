//! A training run on a GPU: parameters, moments, teacher and centers live there; a step is one submission,
//! or one for each of its passes and one for the update. Pixels and the step's parameters go up, a report of a few numbers comes back.

mod fits;
mod kernels;
mod passes;
mod update;

use std::collections::HashMap;
use std::time::Duration;

use esvit_gpu::{Gpu, Recorder, Recording, View};
use esvit_graph::{GpuArena, NodeTime, Slice};
use esvit_nn::RunningStatistics;

pub(crate) use fits::fits;
pub(crate) use kernels::KERNELS;

use self::passes::{Results, Sums};
use crate::network::Step;
use crate::optimizer::Optimizer;
use crate::scaler::LossScaler;
use crate::spec::{Precision, TrainerSpec};
use crate::state::Center;
use crate::{Result, StepParameters, StepStats, Store};

/// Largest buffer that small tensors share.
const SHARED: u64 = 256 << 20;
/// Where tensors begin: any adapter can bind there.
const ALIGN: u64 = 256;

/// Device memory and the recorded step.
#[derive(Debug)]
pub(crate) struct GpuRun {
    gpu: Gpu,
    /// A pass; where a step is one pass, its update too.
    pass: Recording,
    /// The update after several passes, and what they have added up.
    update: Option<(Recording, Sums)>,
    /// The program's results in one pass.
    of_pass: Results,
    arena: GpuArena,
    leaves: HashMap<String, View>,
    student: Vec<View>,
    teacher: Vec<View>,
    /// Of each entry, as many as the optimizer has.
    moments: Vec<Vec<View>>,
    centers: Vec<View>,
    parameters: View,
    report: View,
    scaler: View,
    /// Matrix-product arithmetic of each operator of a pass, in order.
    flops: Vec<u64>,
}

/// Floats of the loss's scale: see `scaler.wgsl`.
const SCALER: usize = 5;

/// Floats of the report before the norms: see `report.wgsl`.
const REPORT_HEAD: usize = 8;

impl GpuRun {
    /// Records the step. The state is uploaded by [`GpuRun::upload`].
    pub fn new(gpu: Gpu, spec: &TrainerSpec, step: &Step, student: &Store, teacher: &Store, centers: &[Center]) -> Result<GpuRun> {
        let of =
            |store: &Store| -> Vec<u64> { store.entries().iter().enumerate().map(|(i, _)| 4 * store.values(i).len() as u64).collect() };
        let sizes = of(student);
        let student_views = allocate_all(&gpu, "the student", &sizes)?;
        let teacher_views = allocate_all(&gpu, "the teacher", &of(teacher))?;
        let slots = Optimizer::moments_per_value(spec.optimizer);
        let mut moments = vec![Vec::new(); sizes.len()];
        let trained: Vec<usize> = (0..sizes.len()).filter(|&i| step.gradients[i].is_some()).collect();
        for _ in 0..slots {
            let sizes: Vec<u64> = trained.iter().map(|&i| sizes[i]).collect();
            for (&i, view) in trained.iter().zip(allocate_all(&gpu, "the optimizer's moments", &sizes)?) {
                moments[i].push(view);
            }
        }
        let center = |(name, values): &Center| Ok(gpu.allocate(name, 4 * values.len() as u64)?);
        let center_views = centers.iter().map(center).collect::<Result<Vec<_>>>()?;
        let entries = sizes.len();
        let parameters = gpu.allocate("the step's parameters", 4 * (update::PARAMETERS_HEAD + 4 * entries) as u64)?;
        let report = gpu.allocate("the step's report", 4 * (REPORT_HEAD + 4 * entries) as u64)?;
        let scaler = gpu.allocate("the loss's scale", 4 * SCALER as u64)?;
        let unit = gpu.allocate("one", 4)?;
        gpu.upload(&unit, bytemuck::bytes_of(&1.0f32));

        let mut leaves = HashMap::new();
        // The gradient of the loss is its scale: 1 in single precision.
        leaves.insert("loss_share".to_string(), scaler.part(0, 4));
        for (store, views) in [(student, &student_views), (teacher, &teacher_views)] {
            leaves.extend(views.iter().enumerate().map(|(i, view)| (store.leaf(i).to_string(), view.clone())));
        }
        leaves.extend(centers.iter().zip(&center_views).map(|((name, _), view)| (name.to_string(), view.clone())));
        let program = &step.program;
        for (name, len, dtype) in program.leaves() {
            if !leaves.contains_key(name) {
                leaves.insert(name.to_string(), gpu.allocate(name, (len * dtype.size()) as u64)?);
            }
        }
        let constant = |name: &str, bytes: &[u8]| {
            if let Some(view) = leaves.get(name) {
                gpu.upload(view, bytes);
            }
        };
        constant("view_pairs.teacher", bytemuck::cast_slice(&step.view_pairs.teacher));
        constant("region_pairs.weight", bytemuck::cast_slice(&step.region_weights));

        let arena = program.gpu_arena(&gpu)?;
        let of_pass = Results::of_program(step, &arena);
        let state = update::State {
            student,
            student_views: &student_views,
            teacher_views: &teacher_views,
            moments: &moments,
            report: &report,
            parameters: &parameters,
            scaler: &scaler,
        };
        let targets = Targets { centers: &center_views, teacher, one: &unit };
        let mut flops = program.flops_of_nodes();
        let mut rec = Recorder::new(&gpu);
        let (pass, update) = match spec.accumulate {
            1 => {
                program.record(&mut rec, &arena, &leaves)?;
                record_update(&mut rec, spec, step, &state, &targets, &of_pass)?;
                (rec.finish()?, None)
            }
            passes => {
                let sums = Sums::new(&gpu, &of_pass, passes)?;
                let nodes = std::mem::take(&mut flops);
                let mut done = 0;
                // What is complete at a stop is added up there: its memory serves the next nodes.
                for (stop, at) in program.stops().iter().enumerate() {
                    program.record_nodes(done..at.after, &mut rec, &arena, &leaves)?;
                    rec.begin("accumulate", "update");
                    flops.extend(nodes[done..at.after].iter().chain([&0]));
                    done = at.after;
                    for entry in step.entries_at(stop) {
                        sums.add_gradient(&mut rec, &of_pass, entry)?;
                    }
                }
                program.record_nodes(done..nodes.len(), &mut rec, &arena, &leaves)?;
                flops.extend(&nodes[done..]);
                rec.begin("accumulate", "update");
                sums.add_rest(&mut rec, &of_pass)?;
                let pass = rec.finish()?;
                let mut rec = Recorder::new(&gpu);
                record_update(&mut rec, spec, step, &state, &targets, &sums.results)?;
                (pass, Some((rec.finish()?, sums)))
            }
        };
        Ok(GpuRun {
            gpu,
            pass,
            update,
            of_pass,
            arena,
            leaves,
            student: student_views,
            teacher: teacher_views,
            moments,
            centers: center_views,
            parameters,
            report,
            scaler,
            flops,
        })
    }

    /// What it runs on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Copies the whole state to the GPU.
    pub fn upload(&self, student: &Store, teacher: &Store, optimizer: &Optimizer, centers: &[Center], scaler: Option<&LossScaler>) {
        self.gpu.upload(&self.scaler, bytemuck::cast_slice(&scaler.map_or([1.0, 0.0, 1.0, 1.0, 1.0], LossScaler::values)));
        for (store, views) in [(student, &self.student), (teacher, &self.teacher)] {
            for (i, view) in views.iter().enumerate() {
                self.gpu.upload(view, bytemuck::cast_slice(store.values(i)));
            }
        }
        for (i, slots) in self.moments.iter().enumerate() {
            for (slot, view) in slots.iter().enumerate() {
                let values = optimizer.moment(i, slot);
                match values {
                    // Never updated: a new run, or a state that says so.
                    [] => self.gpu.upload(view, &vec![0; view.bytes() as usize]),
                    values => self.gpu.upload(view, bytemuck::cast_slice(values)),
                }
            }
        }
        for ((_, values), view) in centers.iter().zip(&self.centers) {
            self.gpu.upload(view, bytemuck::cast_slice(values));
        }
    }

    /// Copies the whole state from the GPU, tensor by tensor.
    pub fn download(
        &self,
        student: &mut Store,
        teacher: &mut Store,
        optimizer: &mut Optimizer,
        centers: &mut [Center],
        scaler: Option<&mut LossScaler>,
    ) -> Result<()> {
        if let Some(scaler) = scaler {
            let values = self.gpu.read_f32(&self.scaler.part(0, 8))?;
            (scaler.scale, scaler.growth_tracker) = (values[0], values[1] as u32);
        }
        let read = |view: &View, into: &mut [f32]| -> Result<()> {
            if !into.is_empty() {
                into.copy_from_slice(&self.gpu.read_f32(&view.part(0, 4 * into.len() as u64))?);
            }
            Ok(())
        };
        for (store, views) in [(student, &self.student), (teacher, &self.teacher)] {
            for (i, view) in views.iter().enumerate() {
                read(view, store.values_mut(i))?;
            }
        }
        for (i, slots) in self.moments.iter().enumerate() {
            for (slot, view) in slots.iter().enumerate() {
                read(view, optimizer.moment_mut(i, slot))?;
            }
        }
        for ((_, values), view) in centers.iter_mut().zip(&self.centers) {
            read(view, values)?;
        }
        Ok(())
    }

    /// Value of a result of the last step.
    pub fn read(&self, view: &View) -> Result<Vec<f32>> {
        Ok(self.gpu.read_f32(view)?)
    }

    /// Gradient of entry `i` in the last step, without the loss's scale; `None` where it has none.
    pub fn read_gradient(&self, i: usize) -> Result<Option<Vec<f32>>> {
        let results = self.update.as_ref().map_or(&self.of_pass, |(_, sums)| &sums.results);
        let Some(view) = &results.gradients[i] else { return Ok(None) };
        let unscale = self.read(&self.report.part(0, 4 * REPORT_HEAD as u64))?[7];
        Ok(Some(self.read(view)?.into_iter().map(|g| g * unscale).collect()))
    }

    /// Where results of the program are.
    pub fn arena(&self) -> &GpuArena {
        &self.arena
    }

    /// Tells the GPU a step's parameters, before its first pass.
    pub fn begin(&self, spec: &TrainerSpec, parameters: &StepParameters, student: &Store, optimizer: &Optimizer) {
        self.gpu.upload(&self.parameters, bytemuck::cast_slice(&update::parameters(spec, parameters, student, &self.moments, optimizer)));
    }

    /// One pass on these leaves. With `times`, operator by operator, noting how long each took.
    pub fn run_pass(&self, pass: usize, leaves: &[(&str, Slice)], times: Option<&mut Vec<NodeTime>>) -> Result<()> {
        for (name, values) in leaves {
            if let Some(view) = self.leaves.get(*name) {
                self.gpu.upload(view, values.bytes());
            }
        }
        if let Some((_, sums)) = &self.update {
            self.gpu.upload(&sums.number, bytemuck::bytes_of(&(pass as u32)));
        }
        self.run(&self.pass, &self.flops, times)
    }

    /// After the passes: the update, where it was not part of the pass, and the report.
    pub fn finish(
        &self,
        parameters: &StepParameters,
        student: &Store,
        optimizer: &mut Optimizer,
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<StepStats> {
        if let Some((update, _)) = &self.update {
            self.run(update, &[], times)?;
        }
        let report = self.gpu.read_f32(&self.report.part(0, 4 * REPORT_HEAD as u64))?;
        let (view_loss, region_loss) = (f64::from(report[0]), f64::from(report[1]));
        let finite = report[3] != 0.0;
        let taken = finite && report[6] != 0.0;
        if taken {
            update::count(parameters, student, &self.moments, optimizer);
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

    fn run(&self, recording: &Recording, flops: &[u64], times: Option<&mut Vec<NodeTime>>) -> Result<()> {
        let Some(times) = times else { return Ok(recording.run(&self.gpu)?) };
        for t in recording.profile(&self.gpu)? {
            let flops = flops.get(t.operator).copied().unwrap_or(0);
            times.push(NodeTime { op: t.name, phase: t.phase, time: Duration::from_secs_f64(t.seconds), flops });
        }
        Ok(())
    }
}

/// What an update changes besides the student's entries and the teacher's.
struct Targets<'a> {
    centers: &'a [View],
    teacher: &'a Store,
    /// A one, for counts.
    one: &'a View,
}

/// Records what follows the passes: report, optimizer, teacher, centers and running statistics.
fn record_update(
    rec: &mut Recorder,
    spec: &TrainerSpec,
    step: &Step,
    state: &update::State,
    targets: &Targets,
    results: &Results,
) -> Result<()> {
    rec.begin("report", "update");
    update::report(rec, state, &results.scalars[0], results.scalars.get(2), &results.scalars[1])?;
    rec.begin("optimizer_and_teacher", "update");
    for (i, gradient) in results.gradients.iter().enumerate() {
        update::norms(rec, state, i, gradient.as_ref(), spec.optimizer)?;
    }
    if spec.precision == Precision::Mixed {
        update::scaler(rec, state)?;
    }
    for (i, gradient) in results.gradients.iter().enumerate() {
        update::entry(rec, state, i, gradient.as_ref(), spec.optimizer)?;
    }
    rec.begin("centers_and_statistics", "update");
    let momentum = spec.loss.center_momentum;
    for (view, mean) in targets.centers.iter().zip(&results.teacher_means) {
        update::average(rec, state, mean, view, momentum, 1.0 - momentum)?;
    }
    for of_pass in &results.statistics {
        let mut values = of_pass.iter();
        for (store, views, statistics) in [
            (state.student, state.student_views, &step.student_statistics),
            (targets.teacher, state.teacher_views, &step.teacher_statistics),
        ] {
            for (s, [mean, var]) in statistics.iter().zip(values.by_ref()) {
                running(rec, state, store, views, s, [mean, var], targets.one)?;
            }
        }
    }
    rec.begin("summary", "update");
    let rows = esvit_ops::region_match::GLOBAL_CROPS * spec.crops.batch * spec.accumulate;
    let cols = (results.views.bytes() / 4) as usize / rows;
    update::summary(rec, state.report, &results.views, [rows, cols], state.student.entries().len())
}

/// Running averages of a batch norm: momentum 0.1, the unbiased variance, and the count of batches.
fn running(
    rec: &mut Recorder,
    state: &update::State,
    store: &Store,
    views: &[View],
    s: &RunningStatistics,
    [mean, var]: [&View; 2],
    one: &View,
) -> Result<()> {
    use esvit_ops::batch_norm::MOMENTUM;
    let unbiased = s.rows as f32 / (s.rows as f32 - 1.0).max(1.0);
    let targets = [
        ("running_mean", mean, 1.0 - MOMENTUM, MOMENTUM),
        ("running_var", var, 1.0 - MOMENTUM, MOMENTUM * unbiased),
        ("num_batches_tracked", one, 1.0, 1.0),
    ];
    for (buffer, new, keep, factor) in targets {
        if let Some(i) = store.position(&format!("{}.{buffer}", s.path)) {
            update::average(rec, state, new, &views[i], keep, factor)?;
        }
    }
    Ok(())
}

/// Memory for tensors of these sizes, many in a buffer. Tensors of no size get the smallest view.
fn allocate_all(gpu: &Gpu, what: &str, sizes: &[u64]) -> Result<Vec<View>> {
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
