//! Backbones against the original: names and shapes, features, features of single blocks, every gradient.

// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

mod support;

use std::collections::HashMap;
use std::path::Path;

use esvit_graph::{DType, Graph};
use esvit_nn::{Mode, ParameterEntry, Parameters, Role, Scope, backbones};
use esvit_ops::batch_norm::MOMENTUM;
use esvit_ops::patchify::Patchify;
use esvit_ops::token_mean::TokenMean;
use esvit_ops::{Layout, Segment};
use esvit_testkit::{
    FillKind, Fixture, GroupRow, compare_forward, compare_gradient, compare_gradient_group, compare_loss, fixtures, golden_or_skip,
};
use support::families::backbone_spec;
use support::{Feed, Outcome, TestDevice, leaf, open_or_skip, run_on, trained};

/// Fixtures of families that exist here; the others are counted and named.
fn known_fixtures(prefix: &str) -> Result<Vec<Fixture>, esvit_testkit::Error> {
    let (known, other): (Vec<_>, Vec<_>) =
        fixtures("backbones", prefix)?.into_iter().partition(|f| backbone_spec(&f.json["model"]).is_some());
    for fixture in other {
        eprintln!("skipped {}: its family is not implemented yet", fixture.name);
    }
    Ok(known)
}

#[test]
fn names_and_shapes_are_the_references_in_its_order() -> Outcome {
    if golden_or_skip("names_and_shapes").is_none() {
        return Ok(());
    }
    for fixture in known_fixtures("")? {
        check_names(&fixture)?;
    }
    Ok(())
}

fn check_names(fixture: &Fixture) -> Outcome {
    let entries = entries_of(&fixture.json["model"])?;
    let all: Vec<_> = entries.iter().map(|e| (e.name.clone(), e.shape.clone())).collect();
    let trained: Vec<_> = entries.iter().filter(|e| e.role == Role::Parameter).map(|e| (e.name.clone(), e.shape.clone())).collect();
    assert_eq!(all, fixture.shapes("state_dict")?, "{}: state dict", fixture.name);
    assert_eq!(trained, fixture.shapes("parameters")?, "{}: parameters", fixture.name);
    Ok(())
}

fn entries_of(model: &serde_json::Value) -> Result<Vec<ParameterEntry>, Box<dyn std::error::Error>> {
    let spec = backbone_spec(model).ok_or("a known family")?;
    let mut parameters = Parameters::default();
    backbones::build(&spec, &mut Graph::new(), &mut Scope::root(&mut parameters, "net"))?;
    Ok(parameters.entries)
}

/// One part of a fixture, `eval` or `train`: the latter where the original's network behaves differently in training.
fn check(fixture: &Fixture, part: &str, device: &TestDevice) -> Outcome {
    let spec = backbone_spec(&fixture.json["model"]).ok_or("a known family")?;
    let mut g = Graph::new();
    let mut parameters = Parameters::default();
    let backbone = backbones::build(&spec, &mut g, &mut Scope::root(&mut parameters, "net"))?;

    // Consecutive crops of equal width form a group: segments, in order.
    let inputs = fixture.json["inputs"].as_array().ok_or("inputs")?;
    let shapes: Vec<Vec<usize>> = inputs
        .iter()
        .map(|i| i["shape"].as_array().into_iter().flatten().filter_map(|v| v.as_u64()).map(|v| v as usize).collect())
        .collect();
    let segments: Vec<Segment> = shapes.iter().map(|s| Segment { images: s[0], height: s[2], width: s[3] }).collect();
    let crops = Layout::new(segments);
    let names: Vec<&str> = inputs.iter().filter_map(|i| i["name"].as_str()).collect();
    let pixels: Vec<f32> = names.iter().zip(&shapes).flat_map(|(name, shape)| fixture.fill_kind(name, shape, FillKind::Input)).collect();
    let pixel_leaf = leaf(&mut g, "pixels", &[pixels.len()]);
    let patchify = Patchify { pixels: crops.clone(), patch: backbone.patch_size() };
    let mut feed = Feed::default();
    // Neighbors drawn in training: the original's calls went through the blocks, then through the segments.
    let drawn: Vec<u32> =
        fixture.json["train.vil_modes"].as_array().into_iter().flatten().filter_map(|v| v.as_u64()).map(|v| v as u32).collect();
    let layers = if part == "train" { backbone.sampled_layers().0 } else { 0 };
    let mut neighbors = Vec::new();
    for layer in 0..layers {
        let name = format!("draws.{layer}");
        neighbors.push(g.leaf(&name, &[shapes.len()], DType::U32)?);
        feed.set_indices(name, (0..shapes.len()).map(|segment| drawn[segment * layers + layer]).collect());
    }
    let mode = if part == "train" { Mode::Train } else { Mode::Eval };
    let features =
        backbone.forward(&mut g, &backbones::BackboneInput { pixels: pixel_leaf, crops: &patchify, drop_path: vec![], neighbors, mode })?;

    feed.fill("net", &parameters, |e| fixture.fill(&e.name, &e.shape));
    feed.set("pixels", pixels);
    let mut outputs = vec![("view".to_string(), features.view), ("region".to_string(), features.regions.value)];
    for (b, value) in features.blocks.iter().enumerate() {
        outputs.push((format!("block {b}"), *value));
    }
    let blocks = features.blocks.len();
    for (i, s) in features.statistics.iter().enumerate() {
        outputs.push((format!("mean {i}"), s.mean));
        outputs.push((format!("var {i}"), s.var));
    }
    let patch_mean = g.apply1(TokenMean { layout: features.regions.layout.clone() }, &[features.regions.value])?;
    outputs.push(("patch mean".into(), patch_mean));
    let maps = part == "eval" && fixture.has_group("attn.all");
    if maps {
        for (b, value) in features.attention.iter().enumerate() {
            outputs.push((format!("attn.{b}"), *value));
        }
    }

    let with_gradients = fixture.has_group(&format!("{part}.grad.params"));
    if with_gradients {
        let mut seeds = Vec::new();
        for (name, value) in [("cotangent.view", features.view), ("cotangent.region", features.regions.value)] {
            let shape = g.shape(value).clone();
            seeds.push((value, leaf(&mut g, name, &shape)));
            feed.set(name, fixture.fill_kind(name, &shape, FillKind::Input));
        }
        let leaves = trained(&mut g, "net", &parameters);
        let mut wrt: Vec<_> = leaves.iter().map(|(_, v)| *v).collect();
        wrt.push(pixel_leaf);
        let gradients = g.gradients(&seeds, &wrt)?;
        for ((name, _), gradient) in leaves.iter().zip(&gradients) {
            let gradient = gradient.ok_or_else(|| format!("{}: `{name}` has no gradient", fixture.name))?;
            outputs.push((format!("d {name}"), gradient));
        }
        outputs.push(("d pixels".into(), gradients.last().copied().flatten().ok_or("no pixel gradient")?));
    }
    let ran = run_on(device, &g, outputs, &feed)?;

    let view = ran.floats("view").ok_or("view")?;
    let region = ran.floats("region").ok_or("region")?;
    compare_forward(&fixture.tensor(&format!("{part}.view"))?, view)?;
    compare_forward(&fixture.tensor(&format!("{part}.region"))?, region)?;
    if fixture.has_group(&format!("{part}.buffers_after")) {
        // The running averages take the crop sizes one after the other.
        let mut buffers: HashMap<String, Vec<f32>> = parameters
            .entries
            .iter()
            .filter(|e| e.role == Role::Buffer)
            .map(|e| (e.name.clone(), fixture.fill(&e.name, &e.shape)))
            .collect();
        for (i, s) in features.statistics.iter().enumerate() {
            let unbiased = s.rows as f32 / (s.rows as f32 - 1.0);
            for (what, leaf, factor) in [("mean", "running_mean", 1.0), ("var", "running_var", unbiased)] {
                let new = ran.floats(&format!("{what} {i}")).ok_or("statistics")?;
                let running = buffers.get_mut(&format!("{}.{leaf}", s.path)).ok_or("a buffer")?;
                running.iter_mut().zip(new).for_each(|(running, new)| *running = (1.0 - MOMENTUM) * *running + MOMENTUM * new * factor);
            }
        }
        for row in fixture.group(&format!("{part}.buffers_after"))? {
            let golden = row.golden.as_ref().ok_or("a buffer")?;
            compare_forward(golden, buffers.get(&row.name).ok_or_else(|| format!("`{}` is missing", row.name))?)?;
        }
    }

    for case in fixture.json["n_last_blocks"].as_array().into_iter().flatten().filter(|_| part == "eval") {
        let n = case["n"].as_u64().ok_or("n")? as usize;
        let images = shapes[0][0]; // of input.0 alone
        let rows = |b: usize, i: usize| {
            let values = ran.floats(&format!("block {b}")).unwrap_or_default();
            let width = values.len() / crops.images();
            values[i * width..(i + 1) * width].to_vec()
        };
        // Behind the blocks, where the fixture says so, the mean of the last one's patches.
        let average = case["return_patch_avgpool"] == true;
        let mean = ran.floats("patch mean").ok_or("patch mean")?;
        let mean = |i: usize| if average { mean[i * backbone.width()..][..backbone.width()].to_vec() } else { Vec::new() };
        let got: Vec<f32> = (0..images).flat_map(|i| [(blocks - n..blocks).flat_map(|b| rows(b, i)).collect(), mean(i)].concat()).collect();
        compare_forward(&fixture.tensor(case["tensor"].as_str().ok_or("tensor")?)?, &got)?;
    }

    // Maps and features of input.0 alone, which is the first segment.
    let eval = part == "eval";
    if eval && fixture.has_tensor("feature_maps.tokens") {
        let (n, c) = (shapes[0][0], backbone.width());
        let tokens = features.regions.layout.segments()[0].tokens_per_image();
        let image = |i: usize| [&view[i * c..][..c], &region[i * tokens * c..][..tokens * c]].concat();
        compare_forward(&fixture.tensor("feature_maps.tokens")?, &(0..n).flat_map(image).collect::<Vec<_>>())?;
    }
    if eval && fixture.has_tensor("feature_maps.view") {
        let (n, c) = (shapes[0][0], backbone.width());
        let tokens = features.regions.layout.segments()[0].tokens();
        compare_forward(&fixture.tensor("feature_maps.view")?, &view[..n * c])?;
        compare_forward(&fixture.tensor("feature_maps.grid")?, &region[..tokens * c])?;
    }
    if maps {
        for row in fixture.group("attn.all")? {
            let golden = row.golden.as_ref().ok_or("a map")?;
            compare_forward(golden, &ran.floats(&row.name).ok_or("map")?[..golden.len()])?;
        }
        let last = fixture.tensor("attn.last")?;
        compare_forward(&last, &ran.floats(&format!("attn.{}", blocks - 1)).ok_or("map")?[..last.len()])?;
    }

    if with_gradients {
        let dot = |values: &[f32], name: &str, cols: usize| -> f64 {
            let cotangent = fixture.fill_kind(name, &[values.len() / cols, cols], FillKind::Input);
            values.iter().zip(cotangent).map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
        };
        let c = backbone.width();
        let loss = dot(view, "cotangent.view", c) + dot(region, "cotangent.region", c);
        // A sum of thousands of terms that cancel: compared with the terms' size.
        let want = fixture.json[format!("{part}.loss_f64")].as_f64().ok_or("loss_f64")?;
        // A GPU's exp and division are some units less exact.
        let tolerance: f64 = if matches!(device, TestDevice::Cpu) { 1e-5 } else { 5e-5 };
        // Behind batch norms of a batch the original itself is further off; it says by how much.
        let noise = fixture.json[format!("{part}.loss")].as_f64().map_or(0.0, |rounded| ((rounded - want) / want).abs());
        let tolerance = tolerance.max(20.0 * noise);
        compare_loss(&format!("{}: loss", fixture.name), loss, want, tolerance)?;
        let mut rows = fixture.group(&format!("{part}.grad.params"))?;
        // Full-size ResNets have millions of values before a ReLU, and some of them lie within rounding of zero.
        let kinks = fixture.json["model"]["family"] == "resnet" && fixture.name.contains("full_");
        let least = if kinks { KINK } else { 0.0 };
        if kinks || part == "train" {
            share_noise(&mut rows, least);
        }
        compare_gradient_group(&rows, |name| ran.floats(&format!("d {name}")))?;
        let pixels = ran.floats("d pixels").ok_or("d pixels")?;
        let mut at = 0;
        let mut input_rows = fixture.group(&format!("{part}.grad.inputs"))?;
        if kinks || part == "train" {
            share_noise(&mut input_rows, least);
        }
        for (row, shape) in input_rows.iter().zip(&shapes) {
            let n: usize = shape.iter().product();
            let golden = row.golden.as_ref().ok_or("inputs have gradients")?;
            compare_gradient(golden, &pixels[at..at + n], esvit_testkit::median_l2(&input_rows))?;
            at += n;
        }
    }
    Ok(())
}

/// Change of the gradients before a ReLU when one value lies on its other side: a term of one channel's sum over the tokens, 1 % of the norm
/// over all channels at most. Tolerances are twenty times this.
const KINK: f64 = 5e-4;

/// No gradient is held to be more exact than half of its group are. Behind a ReLU a value next to zero falls on either side of it with the
/// last bit of a batch norm of the batch, and takes whole channels of gradients with it: where it happens is chance, how much it moves is not.
fn share_noise(rows: &mut [GroupRow], least: f64) {
    let mut all: Vec<f64> = rows.iter().filter_map(|row| row.golden.as_ref()?.noise.rel_l2).collect();
    all.sort_by(f64::total_cmp);
    let Some(&median) = all.get(all.len() / 2) else { return };
    for golden in rows.iter_mut().filter_map(|row| row.golden.as_mut()) {
        golden.noise.rel_l2 = golden.noise.rel_l2.map(|noise| noise.max(median).max(least));
    }
}

/// All parts of a fixture.
fn check_all(fixture: &Fixture, device: &TestDevice) -> Outcome {
    check(fixture, "eval", device).map_err(|e| format!("{}: {e}", fixture.name))?;
    if fixture.has_tensor("train.view") {
        check(fixture, "train", device).map_err(|e| format!("{}, in training: {e}", fixture.name))?;
    }
    Ok(())
}

#[test]
fn micro_backbones_agree_in_features_and_every_gradient() -> Outcome {
    if golden_or_skip("micro_backbones").is_none() {
        return Ok(());
    }
    for fixture in known_fixtures("micro_")? {
        check_all(&fixture, &TestDevice::Cpu)?;
    }
    Ok(())
}

#[test]
fn micro_backbones_on_a_gpu_agree_in_features_and_every_gradient() -> Outcome {
    if golden_or_skip("micro_backbones on a GPU").is_none() {
        return Ok(());
    }
    let Some(gpu) = open_or_skip()? else { return Ok(()) };
    // `ONLY=micro_vil_ape` while working on one.
    let only = std::env::var("ONLY").ok();
    for fixture in known_fixtures("micro_")? {
        if only.as_ref().is_none_or(|only| fixture.name.ends_with(only)) {
            check_all(&fixture, &TestDevice::Gpu(gpu.clone()))?;
        }
    }
    Ok(())
}

#[test]
fn full_size_backbones_agree() -> Outcome {
    if golden_or_skip("full_backbones").is_none() {
        return Ok(());
    }
    for fixture in known_fixtures("full_")? {
        check_all(&fixture, &TestDevice::Cpu)?;
    }
    Ok(())
}

/// ResNeXt is not among the golden fixtures: `torchvision/make.py` made this one and says how.
fn torchvision(name: &str) -> Result<Fixture, esvit_testkit::Error> {
    Fixture::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torchvision"), name)
}

#[test]
fn resnext_agrees_with_torchvision_in_features_and_every_gradient() -> Outcome {
    let fixture = torchvision("micro_resnext")?;
    check_names(&fixture)?;
    check_all(&fixture, &TestDevice::Cpu)?;
    match open_or_skip()? {
        Some(gpu) => check_all(&fixture, &TestDevice::Gpu(gpu)),
        None => Ok(()),
    }
}

#[test]
fn published_resnexts_have_the_names_and_sizes_of_torchvision() -> Outcome {
    check_names(&torchvision("names_resnext50_32x4d")?)?;
    // What torchvision's documentation says, less the classifier of 1000 classes.
    for (arch, count) in [("resnext50_32x4d", 25_028_904), ("resnext101_32x8d", 88_791_336), ("resnext101_64x4d", 83_455_272)] {
        let entries = entries_of(&serde_json::json!({ "family": "resnet", "arch": arch }))?;
        let trained = entries.iter().filter(|e| e.role == Role::Parameter);
        assert_eq!(trained.map(|e| e.shape.iter().product::<usize>()).sum::<usize>(), count - 2_049_000, "{arch}");
    }
    Ok(())
}
