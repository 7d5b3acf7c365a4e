//! A micro network on a GPU and on the CPU, step by step: every optimizer, both loss terms, mixup, batch norm in the head. Small enough for a GPU in
//! software; the original's own trajectories are in `golden_train.rs`.

// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

use esvit_engine::device::Gpu;
use esvit_engine::spec::{CropSpec, EncoderSpec, FeatureOutput, LossSpec, OptimizerKind, PrecisionSpec, TrainerSpec};
use esvit_engine::{
    Batch, BatchLayout, BatchReader, Device, Encoder, LossScaler, Pixels, StepParameters, StepStats, Tensor, TensorValues, Trainer,
    TrainerState,
};
use esvit_nn::spec::{BackboneSpec, HeadSpec, SwinSpec, VilBorder, VilGate, VilNeighbors, VilPool, VilSpec, VilStage};
use esvit_testkit::Outcome;

fn spec(optimizer: OptimizerKind, region: bool, mixup: bool, batch_norm: bool) -> TrainerSpec {
    TrainerSpec {
        backbone: BackboneSpec::Swin(SwinSpec {
            image_size: 32,
            patch_size: 4,
            dim: 16,
            depths: vec![1, 2],
            heads: vec![1, 2],
            window: 4,
            mlp_ratio: 2.0,
            qkv_bias: true,
            absolute_position: false,
            patch_norm: true,
            drop_path: 0.2,
        }),
        head: HeadSpec { out_dim: 96, hidden_dim: 24, bottleneck_dim: 16, layers: 3, batch_norm, norm_last_layer: false },
        crops: CropSpec { batch: 2, global_size: 32, local_size: 16, local_count: 1 },
        accumulate: 1,
        loss: LossSpec { region, student_temperature: 0.1, center_momentum: 0.9, mixup },
        optimizer,
        clip_grad: 0.3,
        seed: 5,
        precision: PrecisionSpec::F32,
        checkpointing: false,
        threads: 1,
    }
}

/// A stage of sliding windows, whose neighbors are drawn, and one of full attention.
fn longformer() -> BackboneSpec {
    let stage = |heads, dim, sparse, patch_size| VilStage {
        heads,
        dim,
        depth: 1,
        sparse,
        globals: 1,
        patch_size,
        window: 3,
        absolute_position: false,
        pooled: false,
    };
    BackboneSpec::Vil(VilSpec {
        image_size: 32,
        stages: vec![stage(1, 8, true, 4), stage(2, 16, false, 2)],
        norm_embed: true,
        average_pool: false,
        share_weights: true,
        only_global: false,
        border: VilBorder::Open,
        neighbors: VilNeighbors::Drawn,
        draw_until: 0.5,
        pool: VilPool::Mean,
        gate: VilGate::None,
        gate_ratio: 0.0,
        gate_balance: false,
        drop_path: 0.2,
    })
}

fn values(tensor: &Tensor) -> Vec<f64> {
    match &tensor.values {
        TensorValues::F32(v) => v.iter().map(|&v| f64::from(v)).collect(),
        TensorValues::I64(v) => v.iter().map(|&v| v as f64).collect(),
    }
}

/// All tensors of two states, one by one, relative to their size.
fn compare(what: &str, got: &TrainerState, want: &TrainerState) {
    let all = |s: &TrainerState| [s.student.clone(), s.teacher.clone(), s.loss.clone(), s.optimizer.slots.clone()].concat();
    let (got_all, want_all) = (all(got), all(want));
    assert_eq!(got_all.len(), want_all.len(), "{what}: tensors");
    assert_eq!(got.optimizer.steps, want.optimizer.steps, "{what}: updates");
    for (g, w) in got_all.iter().zip(&want_all) {
        assert_eq!(g.name, w.name, "{what}");
        let (g, v) = (values(g), values(w));
        let difference: f64 = g.iter().zip(&v).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let size: f64 = v.iter().map(|b| b * b).sum::<f64>().sqrt();
        // Key biases and what hangs on them are rounding noise: AdamW turns noise of 1e-9 into steps of the learning rate.
        assert!(difference <= 2e-3 * size + 3e-4, "{what}: {} is off by {difference:e} of {size:e}", w.name);
    }
}

/// Images of a step.
fn images(spec: &TrainerSpec) -> usize {
    spec.crops.batch * spec.accumulate
}

/// A full batch of a step.
fn crops(spec: &TrainerSpec, step: usize) -> esvit_engine::Result<BatchReader> {
    let images = images(spec);
    let pixels = |count: usize, salt: usize| -> Vec<u8> { (0..count).map(|i| ((i * 31 + i / 7 * salt) % 256) as u8).collect() };
    let (global, local) = (pixels(images * 2 * 3 * 32 * 32, 13 + step), pixels(images * 3 * 16 * 16, 5 + step));
    Batch::from_crops(BatchLayout::of(spec), &global, &local)?.read()
}

fn steps(name: &str, spec: TrainerSpec, gpu: &Gpu) -> Outcome {
    let (mut here, mut there) = (Trainer::new(spec.clone(), Device::Cpu)?, Trainer::new(spec.clone(), Device::Gpu(gpu.clone()))?);
    let lambda = spec.loss.mixup.then_some([0.7f32, 0.4, 1.0]);
    for step in 0..3usize {
        let batch = crops(&spec, step)?;
        let crops = Pixels::U8(&batch);
        let parameters = StepParameters {
            step: step as u64,
            // Neighbors are drawn in the first steps, and no longer in the last.
            progress: step as f64 / 3.0,
            learning_rate: 1e-3 * (step + 1) as f64,
            weight_decay: 0.05,
            momentum: 0.95,
            teacher_temperature: 0.05,
            freeze_last_layer: step == 0,
        };
        let lambda = lambda.as_ref().map(|l| l.as_slice());
        let (a, b) = (here.step(crops, lambda, &parameters)?, there.step(crops, lambda, &parameters)?);
        for (key, a, b) in [
            ("loss", a.loss, b.loss),
            ("view loss", a.view_loss, b.view_loss),
            ("region loss", a.region_loss, b.region_loss),
            ("entropy", a.teacher_entropy, b.teacher_entropy),
            ("deviation", a.feature_deviation, b.feature_deviation),
            ("gradient norm", a.gradient_norm, b.gradient_norm),
        ] {
            assert!((a - b).abs() <= 1e-3 * a.abs() + 1e-5, "{name}, step {step}: {key} is {b} on the GPU and {a} on the CPU");
        }
        assert!(b.finite);
    }
    compare(name, &there.state()?, &here.state()?);

    // A state goes through the GPU's memory unchanged.
    let state = there.state()?;
    let mut again = Trainer::new(spec, Device::Gpu(gpu.clone()))?;
    again.load(state.clone())?;
    assert!(again.state()? == state, "{name}: the state changed on its way");
    Ok(())
}

#[test]
fn a_step_on_a_gpu_is_that_on_the_cpu() -> Outcome {
    let gpu = match Gpu::open() {
        Ok(gpu) => gpu,
        Err(error) if std::env::var("REQUIRE_GPU").as_deref() == Ok("1") => return Err(error.into()),
        Err(error) => {
            eprintln!("skipped: {error}");
            return Ok(());
        }
    };
    steps("adamw, both losses", spec(OptimizerKind::Adamw, true, false, false), &gpu)?;
    steps("sgd, batch norm", spec(OptimizerKind::Sgd, false, false, true), &gpu)?;
    steps("lars, mixup", spec(OptimizerKind::Lars, false, true, false), &gpu)?;
    let longformer = TrainerSpec { backbone: longformer(), ..spec(OptimizerKind::Adamw, true, false, false) };
    steps("sliding windows with drawn neighbors", longformer.clone(), &gpu)?;
    // Several passes: what they leave is added up on the GPU.
    let passes = |accumulate, spec: TrainerSpec| TrainerSpec { accumulate, ..spec };
    steps("adamw, two passes", passes(2, spec(OptimizerKind::Adamw, true, false, false)), &gpu)?;
    steps("sgd, batch norm, three passes", passes(3, spec(OptimizerKind::Sgd, false, false, true)), &gpu)?;
    steps("lars, mixup, two passes", passes(2, spec(OptimizerKind::Lars, false, true, false)), &gpu)?;
    steps("drawn neighbors, two passes", passes(2, longformer), &gpu)
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing() -> Outcome {
    let Ok(gpu) = Gpu::open() else {
        eprintln!("skipped: this machine has no GPU");
        return Ok(());
    };
    for accumulate in [1, 2] {
        changes_nothing(TrainerSpec { accumulate, ..spec(OptimizerKind::Adamw, true, false, true) }, gpu.clone())?;
    }
    Ok(())
}

fn changes_nothing(spec: TrainerSpec, gpu: Gpu) -> Outcome {
    let mut trainer = Trainer::new(spec.clone(), Device::Gpu(gpu))?;
    trainer.change_weights(|student, _| {
        student.values_mut(0)[0] = f32::NAN;
        Ok(())
    })?;
    let before = trainer.state()?;
    let batch = crops(&spec, 0)?;
    let parameters = StepParameters {
        step: 0,
        progress: 0.0,
        learning_rate: 0.1,
        weight_decay: 0.1,
        momentum: 0.5,
        teacher_temperature: 0.05,
        freeze_last_layer: false,
    };
    let stats = trainer.step(Pixels::U8(&batch), None, &parameters)?;
    assert!(!stats.finite);
    let after = trainer.state()?;
    let bits = |s: &TrainerState| -> Vec<u64> {
        [&s.student, &s.teacher, &s.loss].into_iter().flatten().flat_map(|t| values(t).into_iter().map(f64::to_bits)).collect()
    };
    assert_eq!(bits(&after), bits(&before));
    assert_eq!(after.optimizer.slots.len(), 0);
    Ok(())
}

fn train(trainer: &mut Trainer, steps: std::ops::Range<usize>) -> Result<Vec<StepStats>, esvit_engine::Error> {
    let step = |step: usize| {
        let batch = crops(trainer.spec(), step % 3)?;
        let parameters = StepParameters {
            step: step as u64,
            learning_rate: 1e-4,
            weight_decay: 0.05,
            momentum: 0.95,
            teacher_temperature: 0.05,
            freeze_last_layer: false,
            progress: 0.0,
        };
        trainer.step(Pixels::U8(&batch), None, &parameters)
    };
    steps.map(step).collect()
}

/// Operands of products in half precision: the losses of twenty steps stay within this share of those in single precision.
const MIXED: f64 = 2e-3;

#[test]
fn mixed_follows_single_precision_scales_its_loss_and_repeats_its_bits() -> Outcome {
    let Ok(gpu) = Gpu::open() else {
        eprintln!("skipped: this machine has no GPU");
        return Ok(());
    };
    let single = spec(OptimizerKind::Adamw, true, false, false);
    let mixed = TrainerSpec { precision: PrecisionSpec::Mixed, ..single.clone() };
    let open = |spec: &TrainerSpec| Trainer::new(spec.clone(), Device::Gpu(gpu.clone()));
    let (mut a, mut b) = (open(&single)?, open(&mixed)?);
    // A new network's bottleneck rows are short, and their gradients long: this scale is one that they do not overflow.
    let start = LossScaler { scale: 4.0, ..LossScaler::default() };
    let initial = b.state()?;
    b.load(TrainerState { scaler: Some(start), ..initial.clone() })?;
    let (mut losses, mut rounded) = (train(&mut a, 0..1)?, train(&mut b, 0..1)?);
    for entry in a.student().entries() {
        let (Some(x), Some(y)) = (a.gradient(&entry.name), b.gradient(&entry.name)) else { continue };
        let norm = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>().sqrt();
        let difference: Vec<f32> = x.iter().zip(y.iter()).map(|(x, y)| x - y).collect();
        let off = norm(&difference) / norm(&x);
        assert!(off < 1e-2, "the gradient of {} in mixed is off by {off:e}", entry.name);
    }
    losses.extend(train(&mut a, 1..20)?);
    rounded.extend(train(&mut b, 1..20)?);
    for (step, (a, b)) in losses.iter().zip(&rounded).enumerate() {
        let (a, b) = (a.loss, b.loss);
        assert!((a - b).abs() <= MIXED * a, "step {step}: the loss is {b} in mixed and {a} in single precision");
    }
    assert_ne!(losses, rounded, "mixed rounds nothing");
    assert_eq!(a.state()?.scaler, None);
    let state = b.state()?;
    assert_eq!(state.scaler, Some(LossScaler { growth_tracker: 20, ..start }));

    // The same bits again, also from a state in the middle.
    let mut again = open(&mixed)?;
    again.load(TrainerState { scaler: Some(start), ..initial })?;
    train(&mut again, 0..10)?;
    let middle = again.state()?;
    let mut resumed = open(&mixed)?;
    resumed.load(middle.clone())?;
    train(&mut resumed, 10..20)?;
    assert!(resumed.state()? == state, "a resumed run differs");

    // Too large a scale: the optimizer passes over the step, the rest goes on.
    let with = |scaler: LossScaler| TrainerState { scaler: Some(scaler), ..state.clone() };
    let huge = LossScaler { scale: 2f32.powi(100), growth_tracker: 7, ..LossScaler::default() };
    resumed.load(with(huge))?;
    let told = train(&mut resumed, 20..21)?[0];
    assert!(told.skipped && told.finite && told.loss_scale == 2f64.powi(100) && told.gradient_norm == 0.0, "{told:?}");
    let after = resumed.state()?;
    assert_eq!(after.scaler, Some(LossScaler { scale: 2f32.powi(99), growth_tracker: 0, ..huge }));
    assert!(after.student == state.student && after.optimizer == state.optimizer, "the step was taken");
    assert!(after.teacher != state.teacher && after.loss != state.loss, "the teacher or the centers stood still");

    // A long row of good steps: it grows.
    let due = LossScaler { growth_tracker: 1999, ..start };
    resumed.load(with(due))?;
    train(&mut resumed, 20..21)?;
    assert_eq!(resumed.state()?.scaler, Some(LossScaler { scale: 8.0, growth_tracker: 0, ..due }));
    assert!(resumed.load(with(LossScaler { scale: 0.0, ..due })).is_err());
    Ok(())
}

#[test]
fn passes_over_parts_are_a_pass_over_the_whole() -> Outcome {
    let Ok(gpu) = Gpu::open() else {
        eprintln!("skipped: this machine has no GPU");
        return Ok(());
    };
    let parts = |accumulate: usize| {
        let spec = spec(OptimizerKind::Adamw, true, false, false);
        TrainerSpec { accumulate, crops: CropSpec { batch: 6 / accumulate, ..spec.crops.clone() }, ..spec }
    };
    let (mut here, mut there) = (Trainer::new(parts(1), Device::Cpu)?, Trainer::new(parts(3), Device::Gpu(gpu.clone()))?);
    here.keep_gradients();
    let (want, got) = (train(&mut here, 0..1)?[0], train(&mut there, 0..1)?[0]);
    assert!(
        (got.loss / want.loss - 1.0).abs() < 1e-4 && (got.gradient_norm / want.gradient_norm - 1.0).abs() < 1e-3,
        "{got:?}, not {want:?}"
    );
    assert!((got.feature_deviation / want.feature_deviation - 1.0).abs() < 1e-4, "{got:?}, not {want:?}");
    for entry in here.student().entries() {
        let (Some(x), Some(y)) = (here.gradient(&entry.name), there.gradient(&entry.name)) else { continue };
        let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>().sqrt();
        let (size, off) = (norm(&mut x.iter().copied()), norm(&mut x.iter().zip(y.iter()).map(|(x, y)| x - y)));
        assert!(off < 1e-3 * size + 1e-7, "the gradient of {} is off by {off:e} of {size:e}", entry.name);
    }
    compare("three passes", &there.state()?, &here.state()?);

    // In mixed precision: a step whose scale is too large is passed over as a whole, and a resumed run has the same bits.
    let mixed = TrainerSpec { precision: PrecisionSpec::Mixed, ..parts(3) };
    let open = |state: &TrainerState| -> Result<Trainer, esvit_engine::Error> {
        let mut trainer = Trainer::new(mixed.clone(), Device::Gpu(gpu.clone()))?;
        trainer.load(state.clone())?;
        Ok(trainer)
    };
    let start = LossScaler { scale: 4.0, ..LossScaler::default() };
    let state = TrainerState { scaler: Some(start), ..there.state()? };
    let mut whole = open(&state)?;
    train(&mut whole, 1..3)?;
    assert_eq!(whole.state()?.scaler, Some(LossScaler { growth_tracker: 2, ..start }), "once a step, not once a pass");
    train(&mut whole, 3..5)?;
    let mut resumed = open(&state)?;
    train(&mut resumed, 1..3)?;
    let mut resumed = open(&resumed.state()?)?;
    train(&mut resumed, 3..5)?;
    let state = resumed.state()?;
    assert!(whole.state()? == state, "a resumed run differs");
    let huge = LossScaler { scale: 2f32.powi(100), ..start };
    let mut skipping = open(&TrainerState { scaler: Some(huge), ..state.clone() })?;
    let told = train(&mut skipping, 5..6)?[0];
    assert!(told.skipped && told.finite && told.loss_scale == 2f64.powi(100), "{told:?}");
    let after = skipping.state()?;
    assert!(after.student == state.student && after.optimizer == state.optimizer, "the step was taken");
    assert!(after.teacher != state.teacher && after.loss != state.loss, "the teacher or the centers stood still");
    assert_eq!(after.scaler.map(|s| s.scale), Some(2f32.powi(99)), "halved once");
    Ok(())
}

#[test]
fn features_in_mixed_point_where_those_of_single_precision_do() -> Outcome {
    let Ok(gpu) = Gpu::open() else {
        eprintln!("skipped: this machine has no GPU");
        return Ok(());
    };
    let backbone = spec(OptimizerKind::Adamw, true, false, false).backbone;
    let features = |precision| -> Result<(Vec<f32>, usize), esvit_engine::Error> {
        let output = FeatureOutput::LastBlocks(2);
        let spec = EncoderSpec { backbone: backbone.clone(), image_size: 32, batch: 4, precision, threads: 1, output };
        let mut encoder = Encoder::new(spec, Device::Gpu(gpu.clone()))?;
        encoder.initialize(7);
        let pixels: Vec<u8> = (0..8 * 3 * 32 * 32).map(|i| ((i * 37 + i / 11 * 5) % 256) as u8).collect();
        Ok((encoder.encode(&pixels, 8)?, encoder.width()))
    };
    let ((single, width), (mixed, _)) = (features(PrecisionSpec::F32)?, features(PrecisionSpec::Mixed)?);
    assert_ne!(single, mixed, "mixed rounds nothing");
    for (a, b) in single.chunks(width).zip(mixed.chunks(width)) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(cosine > 0.999, "cosine {cosine}");
    }
    Ok(())
}
