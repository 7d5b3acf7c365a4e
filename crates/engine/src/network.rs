//! The training step as a graph: teacher on the global crops, student on all crops, loss, gradients.

use esvit_graph::{Consumed, DType, Graph, Program, Value};
use esvit_nn::loss::{self, Pairs, Projection, Term};
use esvit_nn::{DinoHead, Mode, Parameters, RunningStatistics, Scope, backbones};
use esvit_ops::patchify::Patchify;
use esvit_ops::region_match::{GLOBAL_CROPS, RegionMatch};
use esvit_ops::token_mean::TokenMean;
use esvit_ops::{Layout, Segment};

use crate::spec::{Device, TrainerSpec};
use crate::{Error, Result};

pub(crate) const STUDENT: &str = "student";
pub(crate) const TEACHER: &str = "teacher";

/// A compiled step and where its results are.
#[derive(Debug)]
pub(crate) struct Step {
    pub program: Program,
    /// Entry of each result that the program's stops consume: its gradient is valid at its stop only.
    pub consumed: Vec<usize>,
    /// The same program with all gradients kept to its end; `None` when `program` is that, and with several passes, whose sums are kept.
    pub kept: Option<Program>,
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
    pub student_statistics: Vec<RunningStatistics>,
    pub teacher_statistics: Vec<RunningStatistics>,
    /// Rate of stochastic depth of each residual branch, and the leaf of its factors.
    pub drop_path: Vec<(f64, String)>,
    /// Leaves of neighbors to draw, `[segments]` each: the teacher's layers, then the student's.
    pub draws: Vec<(String, usize)>,
    /// Share of the training in which they are drawn.
    pub draw_until: f64,
    pub view_pairs: Pairs,
    pub region_weights: Vec<f32>,
    pub pixels: PixelCounts,
}

impl Step {
    /// Entries whose gradients are complete at a stop of the program.
    pub fn entries_at(&self, stop: usize) -> impl Iterator<Item = usize> + Clone {
        self.program.stops()[stop].ready.iter().map(|&ready| self.consumed[ready])
    }

    /// The terms of the loss.
    pub fn terms(&self) -> impl Iterator<Item = Term> {
        [Some(self.view), self.region].into_iter().flatten()
    }

    /// Keeps all gradients to the end of the program.
    pub fn keep_gradients(&mut self) {
        if let Some(kept) = self.kept.take() {
            (self.program, self.consumed) = (kept, Vec::new());
        }
    }
}

/// Numbers of pixel values (three a pixel).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PixelCounts {
    pub global: usize,
    pub local: usize,
}

/// One network's share of the graph.
struct Half {
    view: Projection,
    region: Option<Projection>,
    views: Value,
    regions: Value,
    crop_tokens: Vec<usize>,
    statistics: Vec<RunningStatistics>,
    draws: Vec<(String, usize)>,
    draw_until: f64,
}

impl TrainerSpec {
    /// Bytes of logits that the view and the region loss keep for the backward pass. On a CPU what they save of recomputation is worth more than
    /// they cost, up to about here; a GPU keeps none, and neither does who would rather compute twice.
    pub fn kept_logits(&self, device: Device) -> [usize; 2] {
        match device {
            Device::Cpu if !self.checkpointing => [8 << 20, 48 << 20],
            Device::Cpu | Device::Gpu => [0; 2],
        }
    }
}

/// The program of a trainer's step, for looking at its nodes.
///
/// # Errors
/// When the specification cannot be built.
pub fn step_program(spec: &TrainerSpec, device: Device) -> Result<Program> {
    Ok(build(spec, crate::plan::pixel_type(spec), device)?.program)
}

/// The step as a device runs it.
pub(crate) fn build(spec: &TrainerSpec, pixels: DType, device: Device) -> Result<Step> {
    let (crops, keep) = (&spec.crops, spec.kept_logits(device));
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
    let mut drop_path = Vec::new();
    let rates = {
        // The rates are the backbone's to say; a graph of its own keeps this build out of the program.
        let mut parameters = Parameters::default();
        backbones::build(&spec.backbone, &mut Graph::new(), &mut Scope::root(&mut parameters, STUDENT))?.drop_path_rates()
    };
    let mut factors = Vec::new();
    for (branch, &rate) in rates.iter().enumerate() {
        let name = format!("drop_path.{branch}");
        factors.push(if rate > 0.0 { Some(g.leaf(&name, &[images], DType::F32)?) } else { None });
        drop_path.push((rate, name));
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
    let view =
        loss::term(&mut g, student.view, teacher.view, tau, center, temperature, &view_pairs.offsets, pair_teacher, pair_weight, keep[0])?;
    let (mut region, mut matches, mut region_weights) = (None, None, Vec::new());
    if let (Some(s), Some(t)) = (student.region, teacher.region) {
        let matching = RegionMatch { batch, crop_tokens: student.crop_tokens.clone() };
        let pairs = loss::region_pairs(&matching, 0.5);
        let found = g.apply1(matching, &[student.regions, teacher.regions])?;
        let (_, pair_weight) = loss::pair_leaves(&mut g, "region_pairs", &pairs)?;
        let center = g.leaf("center_grid", &k, DType::F32)?;
        region = Some(loss::term(&mut g, s, t, tau, center, temperature, &pairs.offsets, found, pair_weight, keep[1])?);
        (matches, region_weights) = (Some(found), pairs.weight);
    }

    g.set_phase("backward");
    let share = g.leaf("loss_share", &[1], DType::F32)?;
    let mut seeds = vec![(view.loss, share)];
    seeds.extend(region.map(|term| (term.loss, share)));
    let leaves = leaves_of(&g, &student_parameters, STUDENT);
    let wrt: Vec<Value> = leaves.iter().flatten().copied().collect();
    let mut found = g.gradients(&seeds, &wrt)?.into_iter();
    let gradients: Vec<Option<Value>> = leaves.iter().map(|leaf| leaf.and_then(|_| found.next().flatten())).collect();

    let mut outputs: Vec<Value> = Vec::new();
    for term in [Some(view), region].into_iter().flatten() {
        outputs.extend([term.loss, term.teacher_mean, term.entropy]);
    }
    outputs.push(teacher.views);
    outputs.extend(matches);
    for s in student.statistics.iter().chain(&teacher.statistics) {
        outputs.extend([s.mean, s.var]);
    }
    let losses: Vec<Value> = [Some(view), region].into_iter().flatten().map(|term| term.loss).collect();
    let averaged = leaves_of(&g, &teacher_parameters, TEACHER);
    let summed = spec.accumulate > 1;
    let pairs = gradients.iter().zip(leaves.iter().zip(averaged)).enumerate();
    let (consumed, pairs): (Vec<usize>, Vec<Consumed>) = pairs
        .filter_map(|(i, (value, (leaf, averaged)))| {
            // With several passes gradients are added up at the stops, which changes no leaf.
            let leaves = if summed { Vec::new() } else { leaf.iter().copied().chain(averaged).collect() };
            Some((i, Consumed { value: (*value)?, leaves }))
        })
        .unzip();
    let kept_on_device = |program: Program| {
        let program = program.with_precision(spec.precision.into());
        match device {
            Device::Cpu => program.with_bf16x2(),
            Device::Gpu => program,
        }
    };
    let everything: Vec<Value> = outputs.iter().copied().chain(gradients.iter().flatten().copied()).collect();
    if device == Device::Cpu {
        g.fuse(esvit_ops::fusion::PATTERNS, &everything, false);
    }
    let program = kept_on_device(Program::compile_with_stops(&g, &outputs, &pairs, &losses));
    let kept = (!summed).then(|| kept_on_device(Program::compile(&g, &everything)));
    Ok(Step {
        program,
        consumed,
        kept,
        student: student_parameters,
        teacher: teacher_parameters,
        gradients,
        view,
        region,
        matches,
        teacher_views: teacher.views,
        student_statistics: student.statistics,
        teacher_statistics: teacher.statistics,
        drop_path,
        draws: [teacher.draws, student.draws].concat(),
        draw_until: student.draw_until,
        view_pairs,
        region_weights,
        pixels: counts,
    })
}

/// Leaf of each trained entry of a network, `None` for the others.
fn leaves_of(g: &Graph, parameters: &Parameters, network: &str) -> Vec<Option<Value>> {
    let find = |name: &str| g.leaves().iter().find(|leaf| leaf.name == name).map(|leaf| leaf.value);
    let trained = |e: &esvit_nn::Entry| e.role == esvit_nn::Role::Parameter;
    parameters.entries.iter().map(|e| if trained(e) { find(&esvit_nn::leaf_name(network, &e.name)) } else { None }).collect()
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
) -> Result<Half> {
    let mut scope = Scope::root(parameters, network);
    let backbone = backbones::build(&spec.backbone, g, &mut scope)?;
    let view_head = DinoHead::new(&spec.head, g, &mut scope, "head", backbone.width())?;
    let region_head = match spec.loss.region {
        true => Some(DinoHead::new(&spec.head, g, &mut scope, "head_dense", backbone.width())?),
        false => None,
    };
    let values = 3 * crops.tokens();
    let leaf = g.leaf(&format!("{network}_pixels"), &[values], pixels)?;
    let (layers, draw_until) = backbone.draws();
    let draws: Vec<_> = (0..layers).map(|layer| (format!("{network}_draws.{layer}"), crops.segments().len())).collect();
    let draw_leaves = draws.iter().map(|(name, n)| g.leaf(name, &[*n], DType::U32)).collect::<esvit_graph::Result<_>>()?;
    let input = backbones::Input {
        pixels: leaf,
        crops: &Patchify { pixels: crops, patch: backbone.patch_size() },
        drop_path: drop_path.to_vec(),
        mode: Mode::Train,
        draws: draw_leaves,
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
    Ok(Half { view, region, views: features.view, regions: features.regions.value, crop_tokens, statistics, draws, draw_until })
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

/// A compiled forward pass for evaluation.
#[derive(Debug)]
pub(crate) struct Forward {
    pub program: Program,
    pub parameters: Parameters,
    /// What was asked for, side by side.
    pub outputs: Vec<Value>,
    pub widths: Vec<usize>,
}

/// Results of a backbone in evaluation.
pub(crate) enum Wanted {
    View,
    LastBlocks(usize),
    /// The same, and the mean of the last block's regions.
    LastBlocksAndRegions(usize),
}

/// `fuse` joins operators, for a CPU.
pub(crate) fn build_forward(
    backbone: &esvit_nn::spec::BackboneSpec,
    crops: Layout,
    pixels: DType,
    wanted: Wanted,
    fuse: bool,
) -> Result<Forward> {
    let mut g = Graph::new();
    let mut parameters = Parameters::default();
    let backbone = backbones::build(backbone, &mut g, &mut Scope::root(&mut parameters, TEACHER))?;
    let leaf = g.leaf("pixels", &[3 * crops.tokens()], pixels)?;
    let crops = Patchify { pixels: crops, patch: backbone.patch_size() };
    let features = backbone
        .forward(&mut g, &backbones::Input { pixels: leaf, crops: &crops, drop_path: Vec::new(), draws: Vec::new(), mode: Mode::Eval })?;
    let blocks = features.blocks.len();
    let mut outputs = match wanted {
        Wanted::View => vec![features.view],
        Wanted::LastBlocks(n) | Wanted::LastBlocksAndRegions(n) if (1..=blocks).contains(&n) => features.blocks[blocks - n..].to_vec(),
        Wanted::LastBlocks(n) | Wanted::LastBlocksAndRegions(n) => {
            return Err(Error::Spec(format!("last_blocks must be between 1 and {blocks}, got {n}")));
        }
    };
    if let Wanted::LastBlocksAndRegions(_) = wanted {
        outputs.push(g.apply1(TokenMean { layout: features.regions.layout.clone() }, &[features.regions.value])?);
    }
    let widths = outputs.iter().map(|v| g.matrix(*v).1).collect();
    if fuse {
        g.fuse(esvit_ops::fusion::PATTERNS, &outputs, true);
    }
    Ok(Forward { program: Program::compile(&g, &outputs), parameters, outputs, widths })
}
