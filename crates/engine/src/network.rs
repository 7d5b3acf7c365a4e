//! The training step as a graph: teacher on the global crops, student on all crops, loss, gradients.

use esvit_graph::{Consumed, DType, Graph, Leaf, Program, Value};
use esvit_nn::loss::{self, Pairs, Projection, Term};
use esvit_nn::{DinoHead, Mode, ParameterEntry, Parameters, Role, RunningStatistics, Scope, backbones, leaf_name};
use esvit_ops::patchify::Patchify;
use esvit_ops::region_match::{GLOBAL_CROPS, RegionMatch};
use esvit_ops::{Layout, Segment};

use crate::averages::{self, MovingAverage};
use crate::spec::TrainerSpec;
use crate::{DeviceKind, Error, Result};

const STUDENT: &str = "student";
const TEACHER: &str = "teacher";

/// A compiled step, its leaves and its results.
#[derive(Debug)]
pub(crate) struct CompiledStep {
    pub program: Program,
    /// Entry of each gradient that is consumed at a ready point of the program, and valid nowhere else.
    consumed: Vec<usize>,
    /// The program that keeps all gradients to its end, where `program` does not.
    with_gradients: Option<Program>,
    pub leaves: StepLeaves,
    pub student: Parameters,
    pub teacher: Parameters,
    /// Gradient of each entry of the student's state dict.
    pub gradients: Vec<Option<Value>>,
    pub view: Term,
    pub region: Option<Term>,
    /// `[P]`, teacher rows the regions were matched with.
    pub matches: Option<Value>,
    /// `[2·B, C]`.
    pub teacher_views: Value,
    /// Statistics of every batch norm, the student's, then the teacher's.
    pub statistics: Vec<RunningStatistics>,
    /// Averages that follow the update, in order.
    pub averages: Vec<MovingAverage>,
    /// Rate of stochastic depth of each residual branch.
    pub drop_path: Vec<f64>,
    /// Segments of each layer whose neighbors are sampled: the teacher's layers, then the student's.
    pub sampled_segments: Vec<usize>,
    /// Share of the training in which neighbors are sampled.
    pub sample_until: f64,
    pub view_pairs: Pairs,
    pub region_weights: Vec<f32>,
    pub pixels: PixelCounts,
}

/// Handles of a step's leaves; `None` for those that are not in the graph.
#[derive(Debug)]
pub(crate) struct StepLeaves {
    /// For each entry of the student's state dict.
    pub student: Vec<Option<Leaf>>,
    /// For each entry of the teacher's state dict.
    pub teacher: Vec<Option<Leaf>>,
    /// `center` and, with the region loss, `center_grid`.
    pub centers: Vec<Option<Leaf>>,
    pub student_pixels: Option<Leaf>,
    pub teacher_pixels: Option<Leaf>,
    /// Factors of each residual branch.
    pub drop_path: Vec<Option<Leaf>>,
    /// Neighbors of each layer that samples them.
    pub neighbors: Vec<Option<Leaf>>,
    pub temperature: Option<Leaf>,
    pub view_teacher: Option<Leaf>,
    pub view_weights: Option<Leaf>,
    pub region_weights: Option<Leaf>,
    /// Gradient of the loss: the share of a pass.
    pub loss_share: Option<Leaf>,
}

impl CompiledStep {
    /// Entries whose gradients are consumed at a ready point of the program.
    pub fn entries_at(&self, point: usize) -> Vec<usize> {
        self.program.ready_points()[point].ready.iter().map(|&ready| self.consumed[ready]).collect()
    }

    /// Entries whose gradients no ready point consumes, and entries without gradients.
    pub fn entries_behind(&self) -> Vec<usize> {
        (0..self.student.entries.len()).filter(|entry| !self.consumed.contains(entry)).collect()
    }

    /// The terms of the loss.
    pub fn terms(&self) -> impl Iterator<Item = Term> {
        [Some(self.view), self.region].into_iter().flatten()
    }

    /// Whether gradients are valid after the program.
    pub fn keeps_gradients(&self) -> bool {
        self.with_gradients.is_none()
    }

    /// Keeps all gradients to the end of the program.
    pub fn keep_gradients(&mut self) {
        if let Some(program) = self.with_gradients.take() {
            (self.program, self.consumed) = (program, Vec::new());
        }
    }
}

/// Numbers of pixel values (three a pixel).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PixelCounts {
    pub global: usize,
    pub local: usize,
}

/// Outputs of one network's half of the graph.
struct NetworkOutputs {
    view: Projection,
    region: Option<Projection>,
    views: Value,
    regions: Value,
    crop_tokens: Vec<usize>,
    statistics: Vec<RunningStatistics>,
    sampled_segments: Vec<usize>,
    sample_until: f64,
}

impl TrainerSpec {
    /// Bytes of logits that the view and the region loss store for the backward pass. On a CPU what they save of recomputation is worth more
    /// than they cost, up to about here; a GPU stores none, and neither does a run with checkpointing.
    pub fn logit_bytes(&self, device: DeviceKind) -> [usize; 2] {
        match device {
            DeviceKind::Cpu if !self.checkpointing => [8 << 20, 48 << 20],
            DeviceKind::Cpu | DeviceKind::Gpu => [0; 2],
        }
    }

    /// Type of the pixels a step reads: with mixup they are floats.
    pub(crate) fn pixel_type(&self) -> DType {
        if self.loss.mixup { DType::F32 } else { DType::U8 }
    }
}

/// The program of a trainer's step, for looking at its nodes.
///
/// # Errors
/// When the specification cannot be built.
pub fn step_program(spec: &TrainerSpec, device: DeviceKind) -> Result<Program> {
    Ok(build(spec, spec.pixel_type(), device)?.program)
}

/// Builds the step that a device runs.
pub(crate) fn build(spec: &TrainerSpec, pixels: DType, device: DeviceKind) -> Result<CompiledStep> {
    let (crops, logit_bytes) = (&spec.crops, spec.logit_bytes(device));
    check(spec)?;
    let batch = crops.batch;
    let square = |images, side| Segment { images, height: side, width: side };
    let global = square(GLOBAL_CROPS * batch, crops.global_size);
    let mut all = vec![global];
    if crops.local_count > 0 {
        all.push(square(crops.local_count * batch, crops.local_size));
    }
    let images: usize = all.iter().map(|s| s.images).sum();
    let counts = PixelCounts { global: 3 * global.tokens(), local: 3 * all[1..].iter().map(Segment::tokens).sum::<usize>() };

    let mut g = Graph::new();
    let (mut student_parameters, mut teacher_parameters) = (Parameters::default(), Parameters::default());

    g.set_phase("teacher");
    let teacher = half(spec, &mut g, &mut teacher_parameters, TEACHER, pixels, Layout::new(vec![global]), &[])?;

    g.set_phase("student");
    let drop_path = {
        // The rates are the backbone's to say; a graph of its own keeps this build out of the program.
        let mut parameters = Parameters::default();
        backbones::build(&spec.backbone, &mut Graph::new(), &mut Scope::root(&mut parameters, STUDENT))?.drop_path_rates()
    };
    let mut factors = Vec::new();
    for (branch, &rate) in drop_path.iter().enumerate() {
        factors.push(if rate > 0.0 { Some(g.leaf(&drop_path_leaf(branch), &[images], DType::F32)?) } else { None });
    }
    g.set_checkpointing(spec.checkpointing);
    let student = half(spec, &mut g, &mut student_parameters, STUDENT, pixels, Layout::new(all), &factors)?;

    g.set_checkpointing(false);

    g.set_phase("loss");
    let k = [spec.head.out_dim];
    let temperature = g.leaf("teacher_temperature", &[1], DType::F32)?;
    let tau = spec.loss.student_temperature;
    let ncrops = GLOBAL_CROPS + crops.local_count;
    let view_pairs = match spec.loss.mixup {
        true => loss::mixup_pairs(batch, ncrops),
        false => loss::view_pairs(batch, ncrops, if spec.loss.region { 0.5 } else { 1.0 }),
    };
    let (pair_teacher, pair_weight) = loss::pair_leaves(&mut g, "view_pairs", &view_pairs)?;
    let pair_teacher = pair_teacher.ok_or_else(|| Error::Spec("the view loss has no pairs".into()))?;
    let center = g.leaf("center", &k, DType::F32)?;
    let view = loss::term(
        &mut g,
        student.view,
        teacher.view,
        tau,
        center,
        temperature,
        &view_pairs.offsets,
        pair_teacher,
        pair_weight,
        logit_bytes[0],
    )?;
    let (mut region, mut matches, mut region_weights) = (None, None, Vec::new());
    if let (Some(s), Some(t)) = (student.region, teacher.region) {
        let matching = RegionMatch { batch, crop_tokens: student.crop_tokens.clone() };
        let pairs = loss::region_pairs(&matching, 0.5);
        let found = g.apply1(matching, &[student.regions, teacher.regions])?;
        let (_, pair_weight) = loss::pair_leaves(&mut g, "region_pairs", &pairs)?;
        let center = g.leaf("center_grid", &k, DType::F32)?;
        region = Some(loss::term(&mut g, s, t, tau, center, temperature, &pairs.offsets, found, pair_weight, logit_bytes[1])?);
        (matches, region_weights) = (Some(found), pairs.weight);
    }

    g.set_phase("backward");
    let share = g.leaf("loss_share", &[1], DType::F32)?;
    let mut seeds = vec![(view.loss, share)];
    seeds.extend(region.map(|term| (term.loss, share)));
    let leaves = StepLeaves::find(&g, &student_parameters, &teacher_parameters, drop_path.len(), [&teacher, &student]);
    let value = |leaf: &Option<Leaf>| leaf.map(|leaf| g.leaf_value(leaf));
    let trained = |(entry, leaf): (&ParameterEntry, &Option<Leaf>)| if entry.role == Role::Parameter { value(leaf) } else { None };
    let student_values: Vec<Option<Value>> = student_parameters.entries.iter().zip(&leaves.student).map(trained).collect();
    let teacher_values: Vec<Option<Value>> = teacher_parameters.entries.iter().zip(&leaves.teacher).map(trained).collect();
    let wrt: Vec<Value> = student_values.iter().flatten().copied().collect();
    let mut found = g.gradients(&seeds, &wrt)?.into_iter();
    let gradients: Vec<Option<Value>> = student_values.iter().map(|value| value.and_then(|_| found.next().flatten())).collect();

    let mut outputs: Vec<Value> = Vec::new();
    for term in [Some(view), region].into_iter().flatten() {
        outputs.extend([term.loss, term.teacher_mean, term.entropy]);
    }
    outputs.push(teacher.views);
    outputs.extend(matches);
    for s in student.statistics.iter().chain(&teacher.statistics) {
        outputs.extend([s.mean, s.var]);
    }
    let everything: Vec<Value> = outputs.iter().copied().chain(gradients.iter().flatten().copied()).collect();
    if device == DeviceKind::Cpu {
        g.fuse(esvit_ops::fusion::PATTERNS, &everything, false);
    }
    let on_device = |program: Program| {
        let program = program.with_precision(spec.precision.into());
        match device {
            DeviceKind::Cpu => program.with_bf16x2(),
            DeviceKind::Gpu => program,
        }
    };
    let summed = spec.accumulate > 1;
    // A GPU's update is recorded behind the program. Sums over the passes are formed at ready points everywhere.
    let (mut program, mut consumed, mut with_gradients) = (None, Vec::new(), None);
    if device == DeviceKind::Cpu || summed {
        let losses: Vec<Value> = [Some(view), region].into_iter().flatten().map(|term| term.loss).collect();
        let results;
        (consumed, results) = consumed_gradients(&gradients, &student_values, &teacher_values, summed);
        program = Some(on_device(Program::compile_with_ready_points(&g, &outputs, &results, &losses)));
    }
    if !summed {
        with_gradients = Some(on_device(Program::compile(&g, &everything)));
    }
    let (program, with_gradients) = match (program, with_gradients) {
        (Some(program), with_gradients) => (program, with_gradients),
        (None, Some(program)) => (program, None),
        (None, None) => unreachable!("one of them is always compiled"),
    };
    let statistics = (&student.statistics[..], &teacher.statistics[..]);
    let centers = averages::of_centers(leaves.centers.len(), spec.loss.center_momentum);
    let running = averages::of_statistics(spec.accumulate, (&student_parameters, statistics.0), (&teacher_parameters, statistics.1));
    let averages = centers.chain(running).collect();
    Ok(CompiledStep {
        program,
        consumed,
        with_gradients,
        leaves,
        student: student_parameters,
        teacher: teacher_parameters,
        gradients,
        view,
        region,
        matches,
        teacher_views: teacher.views,
        statistics: [student.statistics, teacher.statistics].concat(),
        averages,
        drop_path,
        sampled_segments: [teacher.sampled_segments, student.sampled_segments].concat(),
        sample_until: student.sample_until,
        view_pairs,
        region_weights,
        pixels: counts,
    })
}

/// Entries whose gradients are consumed at ready points, and their gradients with the leaves that an update changes. With several passes
/// gradients are added up there, which changes no leaf.
fn consumed_gradients(
    gradients: &[Option<Value>],
    student: &[Option<Value>],
    teacher: &[Option<Value>],
    summed: bool,
) -> (Vec<usize>, Vec<Consumed>) {
    let consumed = |(i, value): (usize, &Option<Value>)| {
        let leaves = if summed { Vec::new() } else { [student[i], teacher[i]].into_iter().flatten().collect() };
        Some((i, Consumed { value: (*value)?, leaves }))
    };
    gradients.iter().enumerate().filter_map(consumed).unzip()
}

fn drop_path_leaf(branch: usize) -> String {
    format!("drop_path.{branch}")
}

fn neighbors_leaf(network: &str, layer: usize) -> String {
    format!("{network}_neighbors.{layer}")
}

impl StepLeaves {
    fn find(
        g: &Graph,
        student: &Parameters,
        teacher: &Parameters,
        branches: usize,
        [teacher_outputs, student_outputs]: [&NetworkOutputs; 2],
    ) -> StepLeaves {
        let entries = |parameters: &Parameters, network: &str| {
            parameters.entries.iter().map(|e| g.find_leaf(&leaf_name(network, &e.name))).collect::<Vec<_>>()
        };
        let layers = |outputs: &NetworkOutputs, network: &'static str| {
            (0..outputs.sampled_segments.len()).map(move |layer| g.find_leaf(&neighbors_leaf(network, layer)))
        };
        let center_grid = g.find_leaf("center_grid");
        StepLeaves {
            student: entries(student, STUDENT),
            teacher: entries(teacher, TEACHER),
            centers: [g.find_leaf("center")].into_iter().chain(center_grid.map(Some)).collect(),
            student_pixels: g.find_leaf("student_pixels"),
            teacher_pixels: g.find_leaf("teacher_pixels"),
            drop_path: (0..branches).map(|branch| g.find_leaf(&drop_path_leaf(branch))).collect(),
            neighbors: layers(teacher_outputs, TEACHER).chain(layers(student_outputs, STUDENT)).collect(),
            temperature: g.find_leaf("teacher_temperature"),
            view_teacher: g.find_leaf("view_pairs.teacher"),
            view_weights: g.find_leaf("view_pairs.weight"),
            region_weights: g.find_leaf("region_pairs.weight"),
            loss_share: g.find_leaf("loss_share"),
        }
    }
}

/// Backbone and heads of one network over some crops.
fn half(
    spec: &TrainerSpec,
    g: &mut Graph,
    parameters: &mut Parameters,
    network: &str,
    pixels: DType,
    crops: Layout,
    drop_path: &[Option<Value>],
) -> Result<NetworkOutputs> {
    let mut scope = Scope::root(parameters, network);
    let backbone = backbones::build(&spec.backbone, g, &mut scope)?;
    let view_head = DinoHead::new(&spec.head, g, &mut scope, "head", backbone.width())?;
    let region_head = match spec.loss.region {
        true => Some(DinoHead::new(&spec.head, g, &mut scope, "head_dense", backbone.width())?),
        false => None,
    };
    let values = 3 * crops.tokens();
    let leaf = g.leaf(&format!("{network}_pixels"), &[values], pixels)?;
    let (layers, sample_until) = backbone.sampled_layers();
    let sampled_segments = vec![crops.segments().len(); layers];
    let neighbors = sampled_segments.iter().enumerate().map(|(layer, n)| g.leaf(&neighbors_leaf(network, layer), &[*n], DType::U32));
    let neighbors = neighbors.collect::<esvit_graph::Result<_>>()?;
    let input = backbones::BackboneInput {
        pixels: leaf,
        crops: &Patchify { pixels: crops, patch: backbone.patch_size() },
        drop_path: drop_path.to_vec(),
        mode: Mode::Train,
        neighbors,
    };
    let features = backbone.forward(g, &input)?;
    let mut statistics = features.statistics;
    let (z, more) = view_head.bottleneck(g, features.view, Mode::Train)?;
    statistics.extend(more);
    let view = view_head.projection(z);
    let mut region = None;
    if let Some(head) = region_head {
        let (z, more) = head.bottleneck(g, features.regions.value, Mode::Train)?;
        statistics.extend(more);
        region = Some(head.projection(z));
    }
    let batch = spec.crops.batch;
    let crop_tokens = features.regions.layout.segments().iter();
    let crop_tokens = crop_tokens.flat_map(|s| std::iter::repeat_n(s.tokens_per_image(), s.images / batch)).collect();
    Ok(NetworkOutputs {
        view,
        region,
        views: features.view,
        regions: features.regions.value,
        crop_tokens,
        statistics,
        sampled_segments,
        sample_until,
    })
}

fn check(spec: &TrainerSpec) -> Result<()> {
    let fail = |what: &str| Err(Error::Spec(what.into()));
    if spec.crops.batch == 0 {
        return fail("crops.batch must be at least 1");
    }
    if spec.accumulate == 0 {
        return fail("accumulate must be at least 1");
    }
    if spec.head.out_dim == 0 || spec.head.hidden_dim == 0 || spec.head.bottleneck_dim == 0 || spec.head.layers == 0 {
        return fail("head: out_dim, hidden_dim, bottleneck_dim and layers must be at least 1");
    }
    if spec.loss.student_temperature.is_nan() || spec.loss.student_temperature <= 0.0 {
        return fail("loss.student_temperature must be above 0");
    }
    if !(0.0..=1.0).contains(&spec.loss.center_momentum) {
        return fail("loss.center_momentum must be between 0 and 1");
    }
    if spec.loss.mixup && spec.loss.region {
        return fail("loss.mixup works with the view loss only: turn loss.region off");
    }
    if spec.clip_grad.is_nan() || spec.clip_grad < 0.0 {
        return fail("clip_grad must be at least 0");
    }
    Ok(())
}
