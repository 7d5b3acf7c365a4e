//! Options that save memory and change no number: passes over parts of a batch, and blocks that are recomputed in the backward pass.

use esvit_engine::spec::{CropSpec, LossSpec, OptimizerKind, PrecisionSpec, TrainerSpec};
use esvit_engine::{Batch, BatchLayout, Device, DeviceKind, Pixels, StepParameters, StepStats, TensorValues, Trainer, TrainerPlan};
use esvit_nn::spec::{BackboneSpec, HeadSpec, SwinSpec};
use esvit_testkit::Outcome;

const GLOBAL: usize = 32;
const LOCAL: usize = 16;
const LOCALS: usize = 2;
/// Images of a step.
const IMAGES: usize = 6;

fn spec(passes: usize, batch_norm: bool) -> TrainerSpec {
    TrainerSpec {
        backbone: BackboneSpec::Swin(SwinSpec {
            image_size: GLOBAL,
            patch_size: 4,
            dim: 16,
            depths: vec![1, 2],
            heads: vec![1, 2],
            window: 4,
            mlp_ratio: 2.0,
            qkv_bias: true,
            absolute_position: false,
            patch_norm: true,
            drop_path: 0.3,
        }),
        head: HeadSpec { out_dim: 96, hidden_dim: 24, bottleneck_dim: 16, layers: 3, batch_norm, norm_last_layer: false },
        crops: CropSpec { batch: IMAGES / passes, global_size: GLOBAL, local_size: LOCAL, local_count: LOCALS },
        accumulate: passes,
        loss: LossSpec { region: true, student_temperature: 0.1, center_momentum: 0.9, mixup: false },
        optimizer: OptimizerKind::Adamw,
        clip_grad: 0.3,
        seed: 5,
        precision: PrecisionSpec::F32,
        checkpointing: false,
        threads: 2,
    }
}

fn step(trainer: &mut Trainer, step: u64) -> esvit_engine::Result<StepStats> {
    let pixels = |count: usize, salt: usize| -> Vec<u8> { (0..count).map(|i| ((i * 31 + i / 7 * salt + i / 1024) % 256) as u8).collect() };
    let global = pixels(2 * IMAGES * 3 * GLOBAL * GLOBAL, 13 + step as usize);
    let local = pixels(LOCALS * IMAGES * 3 * LOCAL * LOCAL, 5 + step as usize);
    let parameters = StepParameters {
        step,
        progress: 0.0,
        learning_rate: 1e-3,
        weight_decay: 0.05,
        momentum: 0.9,
        teacher_temperature: 0.05,
        freeze_last_layer: false,
    };
    trainer.step(Pixels::U8(&Batch::from_crops(BatchLayout::of(trainer.spec()), &global, &local)?.read()?), None, &parameters)
}

/// Relative distance of two vectors.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = square(&mut got.iter().zip(want).map(|(a, b)| f64::from(a - b)));
    difference / square(&mut want.iter().map(|&v| f64::from(v))).max(1e-30)
}

#[test]
fn passes_over_parts_are_a_pass_over_the_whole() -> Outcome {
    let mut whole = Trainer::new(spec(1, false), Device::Cpu)?;
    whole.keep_gradients();
    let mut parts = [2, 3, 6].map(|passes| Trainer::new(spec(passes, false), Device::Cpu));
    for n in 0..2 {
        let want = step(&mut whole, n)?;
        for trainer in &mut parts {
            let trainer = trainer.as_mut().map_err(|e| e.to_string())?;
            let got = step(trainer, n)?;
            // From the second step on AdamW has turned rounding noise of tiny gradients into small steps.
            let tolerance = if n == 0 { 1e-5 } else { 2e-3 };
            assert!((got.loss / want.loss - 1.0).abs() < tolerance, "loss {} not {}", got.loss, want.loss);
            assert!((got.view_loss / want.view_loss - 1.0).abs() < tolerance);
            assert!((got.teacher_entropy / want.teacher_entropy - 1.0).abs() < tolerance);
            assert!((got.gradient_norm / want.gradient_norm - 1.0).abs() < 10.0 * tolerance);
            assert!((got.feature_deviation / want.feature_deviation - 1.0).abs() < tolerance);
            for name in ["center", "center_grid"] {
                let (got, want) = (trainer.center(name).ok_or(name)?, whole.center(name).ok_or(name)?);
                assert!(distance(got, want) < tolerance, "{name} is off by {:e}", distance(got, want));
            }
            if n > 0 {
                continue;
            }
            let names: Vec<String> = whole.student().entries().iter().map(|e| e.name.clone()).collect();
            for name in names {
                let (Some(got), Some(want)) = (trainer.gradient(&name), whole.gradient(&name)) else { continue };
                let size = want.iter().map(|v| v * v).sum::<f32>().sqrt();
                // A gradient that is zero but for rounding has no relative distance.
                assert!(size < 1e-7 || distance(&got, &want) < 1e-3, "gradient of {name} is off by {:e}", distance(&got, &want));
            }
        }
    }
    Ok(())
}

fn bits(trainer: &mut Trainer) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let state = trainer.state()?;
    let all = [state.student, state.teacher, state.loss, state.optimizer.slots].concat();
    let floats = all.into_iter().filter_map(|t| match t.values {
        TensorValues::F32(v) => Some(v),
        TensorValues::I64(_) => None,
    });
    Ok(floats.flatten().map(f32::to_bits).collect())
}

#[test]
fn the_same_run_and_a_resumed_one_have_the_same_bits() -> Outcome {
    let spec = spec(3, true);
    let (mut first, mut second) = (Trainer::new(spec.clone(), Device::Cpu)?, Trainer::new(spec.clone(), Device::Cpu)?);
    for n in 0..3 {
        step(&mut first, n)?;
    }
    step(&mut second, 0)?;
    let state = second.state()?;
    let mut resumed = Trainer::new(TrainerSpec { threads: 1, ..spec }, Device::Cpu)?;
    resumed.load(state.clone())?;
    for n in 1..3 {
        step(&mut resumed, n)?;
    }
    assert!(bits(&mut first)? == bits(&mut resumed)?, "the resumed run differs");
    Ok(())
}

#[test]
fn batch_norms_see_each_pass() -> Outcome {
    let mut trainer = Trainer::new(spec(3, true), Device::Cpu)?;
    step(&mut trainer, 0)?;
    let state = trainer.state()?;
    let counter = state.student.iter().find(|t| t.name.ends_with("num_batches_tracked")).ok_or("no batch norm")?;
    assert_eq!(counter.values, TensorValues::I64(vec![3]));
    Ok(())
}

#[test]
fn a_pass_whose_loss_is_not_finite_undoes_the_step() -> Outcome {
    let mut trainer = Trainer::new(spec(2, true), Device::Cpu)?;
    trainer.change_weights(|student, _| {
        student.values_mut(0)[0] = f32::NAN;
        Ok(())
    })?;
    let before = bits(&mut trainer)?;
    assert!(!step(&mut trainer, 0)?.finite);
    assert!(bits(&mut trainer)? == before, "something was changed");
    Ok(())
}

#[test]
fn a_step_needs_the_images_of_all_passes() -> Outcome {
    let mut trainer = Trainer::new(TrainerSpec { accumulate: 2, ..spec(1, false) }, Device::Cpu)?;
    let error = step(&mut trainer, 0).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("global crops"), "{error}");
    let error = Trainer::new(TrainerSpec { accumulate: 0, ..spec(1, false) }, Device::Cpu).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("accumulate must be at least 1"), "{error}");
    Ok(())
}

#[test]
fn checkpointing_changes_memory_and_no_bit() -> Outcome {
    for passes in [1, 2] {
        let kept = spec(passes, true);
        let again = TrainerSpec { checkpointing: true, ..kept.clone() };
        let (mut kept, mut again) = (Trainer::new(kept, Device::Cpu)?, Trainer::new(again, Device::Cpu)?);
        let (arena, smaller) = (kept.plan().memory.arena, again.plan().memory.arena);
        assert!(smaller < arena, "{smaller} bytes are not less than {arena}");
        assert!(again.plan().flops > kept.plan().flops);
        for n in 0..3 {
            let (a, b) = (step(&mut kept, n)?, step(&mut again, n)?);
            assert_eq!(a, b);
        }
        assert!(bits(&mut kept)? == bits(&mut again)?, "the states differ");
    }
    Ok(())
}

#[test]
fn updates_during_the_backward_pass_are_those_after_it() -> Outcome {
    // Prototypes whose gradient alone is worth a stop.
    let spec = TrainerSpec { head: HeadSpec { out_dim: 70_000, ..spec(1, true).head }, ..spec(1, true) };
    let (mut during, mut after) = (Trainer::new(spec.clone(), Device::Cpu)?, Trainer::new(spec, Device::Cpu)?);
    after.keep_gradients();
    for n in 0..3 {
        assert_eq!(step(&mut during, n)?, step(&mut after, n)?);
    }
    assert!(bits(&mut during)? == bits(&mut after)?, "the states differ");
    assert!(during.gradient("head.mlp.0.weight").is_none() && after.gradient("head.mlp.0.weight").is_some());
    Ok(())
}

#[test]
fn updates_during_the_backward_pass_free_memory() -> Outcome {
    // Blocks whose gradients together are larger than what one image keeps for the backward pass.
    let backbone = match spec(6, false).backbone {
        BackboneSpec::Swin(swin) => BackboneSpec::Swin(SwinSpec { dim: 128, depths: vec![2, 10], heads: vec![4, 8], ..swin }),
        #[allow(unreachable_patterns)]
        other => other,
    };
    let memory = |accumulate, device| {
        TrainerPlan::new(&TrainerSpec { backbone: backbone.clone(), accumulate, checkpointing: true, ..spec(6, false) }, device)
    };
    let (summed, updated, kept) =
        (memory(6, DeviceKind::Cpu)?.memory, memory(1, DeviceKind::Cpu)?.memory, memory(1, DeviceKind::Gpu)?.memory);
    assert!(summed.arena <= updated.arena, "with accumulation gradients are added up as soon as they are complete");
    assert!(2 * updated.arena < kept.arena, "{} bytes are not half of {}", updated.arena, kept.arena);
    Ok(())
}

#[test]
fn a_gpu_keeps_no_logits() -> Outcome {
    let spec = TrainerSpec { head: HeadSpec { out_dim: 70_000, ..spec(1, false).head }, ..spec(1, false) };
    let [cpu, gpu] = [DeviceKind::Cpu, DeviceKind::Gpu].map(|device| TrainerPlan::new(&spec, device).map(|plan| plan.memory.arena));
    // It keeps all gradients instead: here those of the prototypes, `[70,000, 16]` twice, of which the CPU has one at a time.
    let (kept, gradients): (usize, usize) = (spec.logit_bytes(DeviceKind::Cpu).iter().sum(), 2 * 4 * 70_000 * 16);
    let (cpu, gpu) = (cpu?, gpu?);
    assert!(gpu + kept / 2 < cpu + gradients, "{gpu} bytes on a GPU, {cpu} on the CPU");
    Ok(())
}
