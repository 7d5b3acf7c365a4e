//! Whole training runs against the original's: losses, matches, gradient norms, parameters, moments, centers.

// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

use esvit_engine::device::{self, Gpu};
use esvit_engine::spec::{CropSpec, LossSpec, OptimizerKind, PrecisionSpec, TrainerSpec};
use esvit_engine::{Device, Pixels, StepParameters, Store, TensorValues, Trainer};
use esvit_nn::spec::HeadSpec;
use esvit_testkit::{
    FillKind, Fixture, Outcome, compare_forward, compare_integers, compare_parameters, compare_trajectory, fixtures, golden_or_skip,
};
use families::backbone_spec;
use serde_json::Value as Json;

#[path = "../../nn/tests/support/families.rs"]
mod families;

fn number(json: &Json, key: &str) -> Result<f64, String> {
    json[key].as_f64().ok_or_else(|| format!("`{key}` is missing"))
}

/// The trainer of a fixture; `None` for families that are not there yet.
fn spec(fixture: &Fixture) -> Result<Option<TrainerSpec>, Box<dyn std::error::Error>> {
    let (model, run) = (&fixture.json["model"], &fixture.json["run"]);
    let flag = |json: &Json, key: &str| json[key].as_bool().unwrap_or(false);
    let Some(backbone) = backbone_spec(model) else { return Ok(None) };
    let optimizer = match run["optimizer"].as_str() {
        Some("adamw") => OptimizerKind::Adamw,
        Some("sgd") => OptimizerKind::Sgd,
        Some("lars") => OptimizerKind::Lars,
        other => return Err(format!("optimizer {other:?}").into()),
    };
    Ok(Some(TrainerSpec {
        backbone,
        head: HeadSpec {
            out_dim: number(run, "out_dim")? as usize,
            hidden_dim: number(&run["head"], "hidden_dim")? as usize,
            bottleneck_dim: number(&run["head"], "bottleneck_dim")? as usize,
            layers: 3,
            batch_norm: flag(run, "use_bn_in_head"),
            norm_last_layer: flag(run, "norm_last_layer"),
        },
        crops: CropSpec {
            batch: number(run, "batch")? as usize,
            global_size: number(run, "global_size")? as usize,
            local_size: number(run, "local_size")? as usize,
            local_count: number(run, "local_crops")? as usize,
        },
        accumulate: 1,
        loss: LossSpec {
            region: flag(run, "dense"),
            student_temperature: 0.1,
            center_momentum: 0.9,
            mixup: !fixture.json["mixup"].is_null(),
        },
        optimizer,
        clip_grad: number(run, "clip_grad")? as f32,
        seed: 0,
        precision: PrecisionSpec::F32,
        checkpointing: false,
        threads: 2,
    }))
}

fn fill_store(fixture: &Fixture, store: &mut Store) {
    for i in 0..store.entries().len() {
        let entry = store.entries()[i].clone();
        if entry.role.has_values() {
            *store.values_mut(i) = fixture.fill(&entry.name, &entry.shape);
        }
    }
}

/// The original's order of matches (global crop, other crop, image, token), as token of the teacher's image, from ours
/// (student row, then global crop; absolute teacher rows).
fn reference_matches(ours: &[u32], batch: usize, crop_tokens: &[usize]) -> Vec<i32> {
    let mut by_pair = vec![Vec::new(); 2 * crop_tokens.len()];
    let mut at = 0;
    for (crop, &tokens) in crop_tokens.iter().enumerate() {
        for image in 0..batch {
            for _ in 0..tokens {
                for q in (0..2).filter(|&q| q != crop) {
                    let first = (q * batch + image) * crop_tokens[q];
                    by_pair[q * crop_tokens.len() + crop].push(ours[at] as i32 - first as i32);
                    at += 1;
                }
            }
        }
    }
    by_pair.concat()
}

/// The neighbors a step of the original drew, in our order. It called the teacher's layers, then the student's for the global crops, then for
/// the local ones.
fn reference_neighbors(fixture: &Fixture, step: usize, steps: usize) -> Option<Vec<Vec<u32>>> {
    let all: Vec<u32> = fixture.json["vil_modes_in_call_order"].as_array()?.iter().filter_map(Json::as_u64).map(|v| v as u32).collect();
    let calls = &all[step * all.len() / steps..(step + 1) * all.len() / steps];
    let layers = calls.len() / 3;
    let teacher = calls[..layers].iter().map(|&draw| vec![draw]);
    Some(teacher.chain((0..layers).map(|l| vec![calls[layers + l], calls[2 * layers + l]])).collect())
}

/// The trajectory on a device.
fn check(fixture: &Fixture, spec: TrainerSpec, device: Device) -> Outcome {
    let run = &fixture.json["run"];
    let crops = spec.crops.clone();
    let mut trainer = Trainer::with_pixels(spec, esvit_graph::DType::F32, device)?;
    trainer.keep_gradients();
    trainer.change_weights(|student, teacher| {
        fill_store(fixture, student);
        fill_store(fixture, teacher);
        Ok(())
    })?;
    let steps = fixture.json["steps"].as_array().ok_or("steps")?;
    let per_epoch = number(run, "iters_per_epoch")? as usize;
    let ncrops = 2 + crops.local_count;
    let mut lambdas = fixture.json["mixup"]["lam_cycle"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_f64)
        .collect::<Vec<_>>()
        .into_iter()
        .cycle();
    let views = number(run, "num_mixup_views").unwrap_or(0.0) as usize;
    let (norms_shape, norms) = fixture.doubles("grad_norm_before_clip")?;
    let norm_names: Vec<&str> = fixture.json["grad_norm_names"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let (mut losses, mut golden_losses) = (Vec::new(), Vec::new());
    for (t, step) in steps.iter().enumerate() {
        let epoch = t / per_epoch;
        let image = |c: usize| {
            let side = if c < 2 { crops.global_size } else { crops.local_size };
            fixture.fill_kind(&format!("step{t}.crop{c}"), &[crops.batch, 3, side, side], FillKind::Input)
        };
        let global: Vec<f32> = (0..2).flat_map(image).collect();
        let local: Vec<f32> = (2..ncrops).flat_map(image).collect();
        let (warm, temp) = (number(run, "warmup_teacher_temp")?, number(run, "teacher_temp")?);
        let warm_epochs = number(run, "warmup_teacher_temp_epochs")? as usize;
        let teacher_temperature = if epoch < warm_epochs && warm_epochs > 1 {
            warm + (temp - warm) * epoch as f64 / (warm_epochs - 1) as f64
        } else if epoch < warm_epochs {
            warm
        } else {
            temp
        };
        let parameters = StepParameters {
            step: t as u64,
            progress: t as f64 / steps.len() as f64,
            learning_rate: number(step, "lr")?,
            weight_decay: number(step, "wd")?,
            momentum: number(step, "momentum")?,
            teacher_temperature,
            freeze_last_layer: epoch < number(run, "freeze_last_layer")? as usize,
        };
        let mixup: Option<Vec<f32>> = (!fixture.json["mixup"].is_null())
            .then(|| (0..ncrops).map(|c| if c < views { lambdas.next().unwrap_or(1.0) as f32 } else { 1.0 }).collect());
        if let Some(neighbors) = reference_neighbors(fixture, t, steps.len()) {
            trainer.set_next_neighbors(neighbors)?;
        }
        let stats = trainer.step(Pixels::F32 { global: &global, local: &local }, mixup.as_deref(), &parameters)?;
        losses.push(stats.loss);
        golden_losses.push(number(step, "loss")?);

        if let Some(matches) = trainer.matches() {
            let (_, want) = fixture.integers(&format!("match.step{t}"))?;
            // Tokens of an image, from the fixture's sizes: the grid is halved with rounding up after each stage.
            let tokens = |side: usize| (0..3).fold(side / 4, |s, _| s.div_ceil(2)).pow(2);
            let crop_tokens: Vec<usize> = (0..ncrops).map(|c| tokens(if c < 2 { crops.global_size } else { crops.local_size })).collect();
            compare_integers(&format!("{} match.step{t}", fixture.name), &reference_matches(&matches, crops.batch, &crop_tokens), &want)?;
        }
        let row = &norms[t * norms_shape[1]..(t + 1) * norms_shape[1]];
        let median = {
            let mut sorted = row.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        for (name, want) in norm_names.iter().zip(row) {
            let gradient = trainer.gradient(name).ok_or_else(|| format!("{}: `{name}` has no gradient", fixture.name))?;
            let got = gradient.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            // Key biases carry rounding noise only, and every step's parameters differ by what went before.
            let tolerance = 2e-4 * want + 1e-4 * median;
            assert!((got - want).abs() <= tolerance, "{} step {t}: |gradient of {name}| = {got}, the original has {want}", fixture.name);
        }
        if t + 1 == per_epoch {
            trainer.state()?;
            compare_parameters(&fixture.group("epoch1.student.params")?, |name| value(trainer.student(), name))?;
        }
    }
    let state = trainer.state()?;
    compare_trajectory(&fixture.name, &losses, &golden_losses)?;
    compare_parameters(&fixture.group("final.student.params")?, |name| value(trainer.student(), name))?;
    compare_parameters(&fixture.group("final.teacher.params")?, |name| value(trainer.teacher(), name))?;
    for (group, store) in [("final.student.buffers", trainer.student()), ("final.teacher.buffers", trainer.teacher())] {
        if fixture.has_group(group) {
            compare_parameters(&fixture.group(group)?, |name| value(store, name))?;
        }
    }
    for name in ["center", "center_grid"] {
        let key = format!("final.{name}");
        if fixture.has_tensor(&key) {
            compare_forward(&fixture.tensor(&key)?, trainer.center(name).ok_or("center")?)?;
        }
    }
    for slot in ["exp_avg", "exp_avg_sq", "momentum_buffer", "mu"] {
        let key = format!("final.optimizer.{slot}");
        if fixture.has_group(&key) {
            let find = |name: &str| state.optimizer.slots.iter().find(|t| t.name == format!("{slot}/{name}"));
            compare_parameters(&fixture.group(&key)?, |name| match &find(name)?.values {
                TensorValues::F32(v) => Some(v.clone()),
                TensorValues::I64(_) => None,
            })?;
        }
    }
    // `{"6": "all 92 others", "4": [names]}`
    if let Some(counts) = fixture.json["optimizer_step_counts"].as_object() {
        let lagging: Vec<&str> = counts.values().filter_map(Json::as_array).flatten().filter_map(Json::as_str).collect();
        for (count, names) in counts {
            let count: u32 = count.parse()?;
            for (name, &steps) in &state.optimizer.steps {
                let listed = names.as_array().is_some_and(|a| a.iter().any(|n| n == name.as_str()));
                if listed || (names.is_string() && !lagging.contains(&name.as_str())) {
                    assert_eq!(steps, count, "{}: updates of {name}", fixture.name);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn trajectories_are_the_originals() -> Outcome {
    if golden_or_skip("trajectories").is_none() {
        return Ok(());
    }
    for fixture in fixtures("train", "")? {
        match spec(&fixture)? {
            Some(spec) => check(&fixture, spec, Device::Cpu).map_err(|e| format!("{}: {e}", fixture.name))?,
            None => eprintln!("skipped {}: its family is not implemented yet", fixture.name),
        }
    }
    Ok(())
}

#[test]
fn trajectories_on_a_gpu_are_the_originals() -> Outcome {
    if golden_or_skip("trajectories on a GPU").is_none() {
        return Ok(());
    }
    let Some(gpu) = open_or_skip()? else { return Ok(()) };
    // In software each takes minutes: one of them, with every kernel, has to do; `gpu_parity.rs` has the other optimizers.
    let all = gpu.adapter().kind != device::AdapterKind::Software || std::env::var("ESVIT_GPU_ALL").as_deref() == Ok("1");
    for fixture in fixtures("train", "")? {
        if let Some(spec) = spec(&fixture)? {
            if !all && fixture.name != "train/swin_dense_adamw" {
                eprintln!("skipped {} on {}: it takes minutes in software; ESVIT_GPU_ALL=1 runs it", fixture.name, gpu.adapter().name);
                continue;
            }
            check(&fixture, spec, Device::Gpu(gpu.clone())).map_err(|e| format!("{}: {e}", fixture.name))?;
        }
    }
    Ok(())
}

/// The best adapter, or none after saying so. With `REQUIRE_GPU=1` its absence is a failure.
fn open_or_skip() -> Result<Option<Gpu>, Box<dyn std::error::Error>> {
    match Gpu::open() {
        Ok(gpu) => Ok(Some(gpu)),
        Err(error) if std::env::var("REQUIRE_GPU").as_deref() == Ok("1") => Err(error.into()),
        Err(error) => {
            eprintln!("skipped: {error}");
            Ok(None)
        }
    }
}

#[test]
fn parameter_groups_are_the_originals() -> Outcome {
    let Some(folder) = golden_or_skip("parameter_groups") else { return Ok(()) };
    let file = folder.join("schedules/param_groups.json");
    if !file.is_file() {
        eprintln!("skipped parameter_groups_are_the_originals: no file {}", file.display());
        return Ok(());
    }
    let text = std::fs::read_to_string(file)?;
    let all: Json = serde_json::from_str(&text)?;
    let mut checked = 0;
    for (name, case) in all.as_object().ok_or("an object")? {
        let model = &case["model"];
        let Some(backbone) = backbone_spec(model) else {
            eprintln!("skipped param_groups {name}: its family is not implemented yet");
            continue;
        };
        let names =
            |key: &str| -> Vec<String> { case[key].as_array().into_iter().flatten().filter_map(Json::as_str).map(String::from).collect() };
        let (regularized, free) = (names("regularized"), names("not_regularized"));
        let side = model["IMAGE_SIZE"][0].as_u64().unwrap_or(224) as usize;
        let region = regularized.iter().any(|n| n.starts_with("head_dense."));
        let head = regularized.iter().chain(&free);
        let spec = TrainerSpec {
            backbone,
            head: HeadSpec {
                out_dim: 8,
                hidden_dim: 8,
                bottleneck_dim: 4,
                layers: 3,
                batch_norm: head.clone().any(|n| n == "head.mlp.1.weight"),
                norm_last_layer: !head.clone().any(|n| n == "head.last_layer.weight_g"),
            },
            crops: CropSpec { batch: 1, global_size: side, local_size: side, local_count: 1 },
            accumulate: 1,
            loss: LossSpec { region, student_temperature: 0.1, center_momentum: 0.9, mixup: false },
            optimizer: OptimizerKind::Adamw,
            clip_grad: 0.0,
            seed: 0,
            precision: PrecisionSpec::F32,
            checkpointing: false,
            threads: 1,
        };
        let mut trainer = Trainer::new(spec, Device::Cpu)?;
        let state = trainer.state()?.optimizer;
        assert_eq!(state.decayed, regularized, "{name}: decayed");
        assert_eq!(state.not_decayed, free, "{name}: not decayed");
        checked += 1;
    }
    assert!(checked > 0, "no case of a known family was found");
    Ok(())
}

fn value(store: &Store, name: &str) -> Option<Vec<f32>> {
    store.position(name).map(|i| store.values(i).to_vec())
}
