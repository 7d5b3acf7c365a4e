//! Heads and losses against the original: logits, losses, matches, centers, every gradient.

mod support;

use esvit_graph::{Graph, Value};
use esvit_nn::loss::{self, Projection};
use esvit_nn::spec::HeadSpec;
use esvit_nn::{DinoHead, Mode, ParameterEntry, Parameters, Role, Scope};
use esvit_ops::region_match::RegionMatch;
use esvit_testkit::{
    FillKind, Fixture, LOSS_STEP, compare_forward, compare_gradient, compare_gradient_group, compare_integers, compare_loss, fixtures,
    golden_or_skip, median_l2,
};
use serde_json::Value as Json;
use support::{Feed, Outcome, Ran, leaf, run, trained};

fn size(json: &Json, key: &str, default: usize) -> usize {
    json[key].as_u64().map_or(default, |v| v as usize)
}

fn number(json: &Json, key: &str) -> Result<f64, String> {
    json[key].as_f64().ok_or_else(|| format!("`{key}` is missing"))
}

fn sizes(json: &Json) -> Vec<usize> {
    json.as_array().into_iter().flatten().filter_map(Json::as_u64).map(|v| v as usize).collect()
}

fn head_spec(json: &Json, norm_last_layer: bool) -> HeadSpec {
    HeadSpec {
        out_dim: size(json, "out_dim", 0),
        hidden_dim: size(json, "hidden_dim", 2048),
        bottleneck_dim: size(json, "bottleneck_dim", 256),
        layers: size(json, "nlayers", 3),
        batch_norm: json["use_bn"] == true,
        norm_last_layer,
    }
}

// ---------------------------------------------------------------- heads alone

fn check_head(fixture: &Fixture, mode: Mode, part: &str) -> Outcome {
    let json = &fixture.json["head"];
    let spec = head_spec(json, json["norm_last_layer"] == true);
    let shape = sizes(&fixture.json["input"]["shape"]);
    let mut g = Graph::new();
    let mut parameters = Parameters::default();
    let head = DinoHead::new(&spec, &mut g, &mut Scope::root(&mut parameters, "net"), "head", shape[1])?;
    let names: Vec<_> = parameters.entries.iter().map(|e| (e.name.trim_start_matches("head.").to_string(), e.shape.clone())).collect();
    assert_eq!(names, fixture.shapes("state_dict")?, "{}: state dict", fixture.name);

    let x = leaf(&mut g, "x", &shape);
    let (_, statistics) = head.bottleneck(&mut g, x, mode)?;
    let logits = head.logits(&mut g, x, mode)?;
    let cotangent_shape = [shape[0], spec.out_dim];
    let cotangent = leaf(&mut g, "cotangent", &cotangent_shape);
    let leaves = trained(&mut g, "net", &parameters);
    let mut wrt: Vec<Value> = leaves.iter().map(|(_, v)| *v).collect();
    wrt.push(x);
    let gradients = g.gradients(&[(logits, cotangent)], &wrt)?;
    let mut outputs = vec![("logits".to_string(), logits)];
    for (name, gradient) in leaves.iter().map(|(n, _)| n.as_str()).chain(["input"]).zip(&gradients) {
        outputs.push((name.to_string(), gradient.ok_or_else(|| format!("`{name}` has no gradient"))?));
    }
    for s in &statistics {
        outputs.push((format!("{}.mean", s.path), s.mean));
        outputs.push((format!("{}.var", s.path), s.var));
    }
    let mut feed = Feed::default();
    let scaled = fixture.json["weight_g"] == "scale";
    let start = |e: &ParameterEntry| match scaled && e.name.ends_with("weight_g") {
        true => fixture.fill_kind(&e.name, &e.shape, FillKind::Scale),
        false => fixture.fill(&e.name, &e.shape),
    };
    feed.fill("net", &parameters, start);
    feed.set("x", fixture.fill_kind("head.in", &shape, FillKind::Input));
    let seed = fixture.fill_kind("cotangent", &cotangent_shape, FillKind::Input);
    feed.set("cotangent", seed.clone());
    let ran = run(&g, outputs, &feed)?;

    let logits = ran.floats("logits").ok_or("logits")?;
    compare_forward(&fixture.tensor(&format!("{part}.out"))?, logits)?;
    let loss: f64 = logits.iter().zip(&seed).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    compare_loss(&format!("{} {part}.loss", fixture.name), loss, number(&fixture.json, &format!("{part}.loss_f64"))?, 1e-5)?;
    compare_gradient_group(&fixture.tensors(&format!("{part}.grad."))?, |name| ran.floats(name))?;

    if mode == Mode::Train {
        // Momentum 0.1 and the unbiased variance, as PyTorch's running averages.
        let n = shape[0] as f32;
        for s in &statistics {
            for (buffer, new, factor) in [("running_mean", "mean", 1.0), ("running_var", "var", n / (n - 1.0))] {
                let name = format!("{}.{buffer}", s.path);
                let entry = parameters.entries.iter().find(|e| e.name == name).ok_or("buffer")?;
                let new = ran.floats(&format!("{}.{new}", s.path)).ok_or("statistic")?;
                let got: Vec<f32> =
                    fixture.fill(&name, &entry.shape).iter().zip(new).map(|(old, new)| 0.9 * old + 0.1 * new * factor).collect();
                let golden = [format!("train.after.{name}"), format!("train.after.{}", name.trim_start_matches("head."))];
                let golden = golden.iter().find(|n| fixture.has_tensor(n)).ok_or_else(|| format!("no golden for {name}"))?;
                compare_forward(&fixture.tensor(golden)?, &got)?;
            }
        }
    }
    Ok(())
}

#[test]
fn heads_agree() -> Outcome {
    if golden_or_skip("heads").is_none() {
        return Ok(());
    }
    for fixture in fixtures("head_and_loss", "head_")? {
        let mut parts = 0;
        for (part, mode) in [("any", Mode::Train), ("train", Mode::Train), ("eval", Mode::Eval)] {
            if fixture.has_tensor(&format!("{part}.out")) {
                check_head(&fixture, mode, part).map_err(|e| format!("{} ({part}): {e}", fixture.name))?;
                parts += 1;
            }
        }
        assert!(parts > 0, "{}: no part", fixture.name);
    }
    Ok(())
}

// ---------------------------------------------------------------- losses

/// Sizes of a loss fixture.
struct Setting {
    crops: usize,
    batch: usize,
    k: usize,
    /// Tokens of each crop; empty without the region term.
    crop_tokens: Vec<usize>,
}

impl Setting {
    fn of(json: &Json, k: usize) -> Setting {
        let (crops, batch) = (size(json, "ncrops", 0), size(json, "batch", 0));
        let tokens = sizes(&json["s_npatch"]);
        let crop_tokens = if tokens.is_empty() { vec![] } else { (0..crops).map(|c| tokens[usize::from(c >= 2)]).collect() };
        Setting { crops, batch, k, crop_tokens }
    }

    fn rows(&self, crops: usize) -> usize {
        self.batch * self.crop_tokens[..crops].iter().sum::<usize>()
    }

    fn region(&self) -> bool {
        !self.crop_tokens.is_empty()
    }
}

fn teacher_temperature(json: &Json, epoch: usize) -> Result<f32, String> {
    let (warm, temp) = (number(json, "warmup_teacher_temp")?, number(json, "teacher_temp")?);
    let epochs = size(json, "warmup_teacher_temp_epochs", 0);
    Ok(if epoch < epochs { warm + (temp - warm) * epoch as f64 / (epochs.max(2) - 1) as f64 } else { temp } as f32)
}

/// Adds the loss terms of a setting; outputs are named, pairs and centers are fed.
fn add_loss(
    g: &mut Graph,
    feed: &mut Feed,
    outputs: &mut Vec<(String, Value)>,
    setting: &Setting,
    lambda: Option<&[f32]>,
    temperature: f32,
    view: [Projection; 2],
    region: Option<([Projection; 2], Value, Value)>,
    centers: &[Vec<f32>],
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let t = leaf(g, "temperature", &[1]);
    feed.set("temperature", vec![temperature]);
    let pairs = match lambda {
        Some(lambda) => {
            let mut pairs = loss::mixup_pairs(setting.batch, setting.crops);
            pairs.weight = loss::mixup_weights(setting.batch, lambda);
            pairs
        }
        None => loss::view_pairs(setting.batch, setting.crops, if setting.region() { 0.5 } else { 1.0 }),
    };
    let (teacher_rows, weight) = loss::pair_leaves(g, "view_pairs", &pairs)?;
    feed.set_indices("view_pairs.teacher", pairs.teacher.clone());
    feed.set("view_pairs.weight", pairs.weight.clone());
    let center = leaf(g, "center", &[setting.k]);
    feed.set("center", centers[0].clone());
    let term = loss::term(g, view[0], view[1], 0.1, center, t, &pairs.offsets, teacher_rows.ok_or("pairs")?, weight, 1 << 20)?;
    outputs.extend([("view_loss".to_string(), term.loss), ("view_mean".into(), term.teacher_mean)]);
    let mut losses = vec![term.loss];
    if let Some((region, student_features, teacher_features)) = region {
        let matching = RegionMatch { batch: setting.batch, crop_tokens: setting.crop_tokens.clone() };
        let pairs = loss::region_pairs(&matching, 0.5);
        let found = g.apply1(matching, &[student_features, teacher_features])?;
        let (_, weight) = loss::pair_leaves(g, "region_pairs", &pairs)?;
        feed.set("region_pairs.weight", pairs.weight.clone());
        let center = leaf(g, "center_grid", &[setting.k]);
        feed.set("center_grid", centers[1].clone());
        let term = loss::term(g, region[0], region[1], 0.1, center, t, &pairs.offsets, found, weight, 1 << 20)?;
        outputs.extend([("region_loss".to_string(), term.loss), ("region_mean".into(), term.teacher_mean), ("match".into(), found)]);
        losses.push(term.loss);
    }
    Ok(losses)
}

/// Compares matches with fixtures named `{prefix}match.q{q}.v{v}`, each `[B, T]` of tokens in the teacher's image.
fn compare_matches(fixture: &Fixture, prefix: &str, setting: &Setting, ours: &[u32]) -> Outcome {
    let mut at = 0;
    let mut by_pair = std::collections::BTreeMap::<(usize, usize), Vec<i32>>::new();
    for (crop, &tokens) in setting.crop_tokens.iter().enumerate() {
        for image in 0..setting.batch {
            for _ in 0..tokens {
                for q in (0..2).filter(|&q| q != crop) {
                    let first = (q * setting.batch + image) * setting.crop_tokens[q];
                    by_pair.entry((q, crop)).or_default().push(ours[at] as i32 - first as i32);
                    at += 1;
                }
            }
        }
    }
    for ((q, v), got) in by_pair {
        let (_, want) = fixture.integers(&format!("{prefix}match.q{q}.v{v}"))?;
        compare_integers(&format!("{} {prefix}match.q{q}.v{v}", fixture.name), &got, &want)?;
    }
    Ok(())
}

fn total(ran: &Ran) -> f64 {
    ["view_loss", "region_loss"].iter().filter_map(|name| ran.floats(name)).map(|l| f64::from(l[0])).sum()
}

fn moved(center: &[f32], mean: &[f32]) -> Vec<f32> {
    center.iter().zip(mean).map(|(c, m)| 0.9 * c + 0.1 * m).collect()
}

/// Losses on given logits: the prototypes are the identity, so that the bottleneck rows are the logits.
fn check_loss(fixture: &Fixture) -> Outcome {
    let json = &fixture.json;
    let k = size(json, "out_dim", 0);
    let setting = Setting::of(json, k);
    let c = size(json, "feature_dim", 1);
    let identity: Vec<f32> = (0..k * k).map(|i| if i / k == i % k { 1.0 } else { 0.0 }).collect();
    let lambda: Option<Vec<f32>> =
        json["targets_mixup"]["lam"].as_array().map(|a| a.iter().filter_map(Json::as_f64).map(|v| v as f32).collect());
    let mut centers = vec![vec![0.0f32; k]; 2];
    for (call, epoch) in sizes(&json["epochs"]).into_iter().enumerate() {
        let mut g = Graph::new();
        let (mut feed, mut outputs) = (Feed::default(), Vec::new());
        let one = leaf(&mut g, "one", &[1]);
        feed.set("one", vec![1.0]);
        let (direction, magnitude) = (leaf(&mut g, "identity", &[k, k]), leaf(&mut g, "magnitude", &[k, 1]));
        feed.set("identity", identity.clone());
        feed.set("magnitude", vec![1.0; k]);
        let mut data = |g: &mut Graph, name: String, rows: usize, cols: usize, kind: FillKind| {
            feed.set(name.clone(), fixture.fill_kind(&name, &[rows, cols], kind));
            leaf(g, &name, &[rows, cols])
        };
        let mut logits = |g: &mut Graph, net: &str, level: &str, rows| Projection {
            z: data(g, format!("loss.{call}.{net}.{level}"), rows, k, FillKind::Half),
            direction,
            magnitude,
        };
        let view = [logits(&mut g, "student", "view", setting.crops * setting.batch), logits(&mut g, "teacher", "view", 2 * setting.batch)];
        let region = if setting.region() {
            let (ns, nt) = (setting.rows(setting.crops), setting.rows(2));
            let both = [logits(&mut g, "student", "region", ns), logits(&mut g, "teacher", "region", nt)];
            let s = data(&mut g, format!("loss.{call}.student.fea"), ns, c, FillKind::Input);
            let t = data(&mut g, format!("loss.{call}.teacher.fea"), nt, c, FillKind::Input);
            Some((both, s, t))
        } else {
            None
        };
        let temperature = teacher_temperature(json, epoch)?;
        let losses = add_loss(&mut g, &mut feed, &mut outputs, &setting, lambda.as_deref(), temperature, view, region, &centers)?;
        let seeds: Vec<_> = losses.iter().map(|l| (*l, one)).collect();
        let mut wrt = vec![("student.view", view[0].z)];
        wrt.extend(region.map(|(both, ..)| ("student.region", both[0].z)));
        let leaves: Vec<Value> = wrt.iter().map(|(_, v)| *v).collect();
        for ((name, _), gradient) in wrt.iter().zip(g.gradients(&seeds, &leaves)?) {
            outputs.push((name.to_string(), gradient.ok_or("a gradient")?));
        }
        let ran = run(&g, outputs, &feed)?;
        compare_loss(
            &format!("{} call {call}", fixture.name),
            total(&ran),
            json["loss_values"][call].as_f64().ok_or("loss_values")?,
            LOSS_STEP,
        )?;
        for (name, _) in &wrt {
            let golden = fixture.tensor(&format!("{call}.grad.{name}"))?;
            compare_gradient(&golden, ran.floats(name).ok_or("gradient")?, golden.l2)?;
        }
        if let Some(matches) = ran.indices("match") {
            compare_matches(fixture, &format!("{call}."), &setting, matches)?;
        }
        for (i, (name, mean)) in [("center", "view_mean"), ("center_grid", "region_mean")].iter().enumerate() {
            if let Some(mean) = ran.floats(mean) {
                centers[i] = moved(&centers[i], mean);
                compare_forward(&fixture.tensor(&format!("{call}.{name}_after"))?, &centers[i])?;
            }
        }
    }
    Ok(())
}

#[test]
fn losses_agree_on_given_logits() -> Outcome {
    if golden_or_skip("losses").is_none() {
        return Ok(());
    }
    let mut all = fixtures("head_and_loss", "dino_")?;
    all.extend(fixtures("head_and_loss", "ddino_")?);
    for fixture in &all {
        check_loss(fixture).map_err(|e| format!("{}: {e}", fixture.name))?;
    }
    Ok(())
}

/// Features through four heads into both loss terms.
fn check_whole(fixture: &Fixture) -> Outcome {
    let json = &fixture.json;
    let mut spec = head_spec(&json["head"], json["student_norm_last_layer"] == true);
    let setting = Setting::of(json, spec.out_dim);
    let width = size(&json["head"], "in_dim", 0);
    let mut g = Graph::new();
    let (mut feed, mut outputs) = (Feed::default(), Vec::new());
    let one = leaf(&mut g, "one", &[1]);
    feed.set("one", vec![1.0]);
    let mut student_parameters = Parameters::default();
    let mut projections = Vec::new();
    let mut features = Vec::new();
    let mut statistics_of = 0;
    for net in ["student", "teacher"] {
        spec.norm_last_layer |= net == "teacher";
        let crops = if net == "student" { setting.crops } else { 2 };
        let mut parameters = Parameters::default();
        for (head_name, level, rows) in [("head", "view", crops * setting.batch), ("head_dense", "region", setting.rows(crops))] {
            let mut scope = Scope::root(&mut parameters, net);
            let head = DinoHead::new(&spec, &mut g, &mut scope, head_name, width)?;
            let name = format!("{net}.{level}_features");
            feed.set(name.clone(), fixture.fill_kind(&name, &[rows, width], FillKind::Input));
            let x = leaf(&mut g, &name, &[rows, width]);
            let (z, statistics) = head.bottleneck(&mut g, x, Mode::Train)?;
            statistics_of += statistics.len();
            let projection = head.projection(z);
            let prototypes = g.apply1(esvit_ops::weight_norm::WeightNorm, &[projection.direction, projection.magnitude])?;
            outputs.push((format!("{net}.logits.{level}"), g.apply1(esvit_ops::linear::Linear, &[z, prototypes])?));
            projections.push(projection);
            features.push((name, x));
        }
        feed.fill(net, &parameters, |e| fixture.fill(&format!("{net}.{}", e.name), &e.shape));
        if net == "student" {
            student_parameters = parameters;
        }
    }
    assert_eq!(statistics_of > 0, spec.batch_norm);
    let centers = ["center", "center_grid"].map(|name| fixture.fill_kind(name, &[1, setting.k], FillKind::Bias));
    let temperature = teacher_temperature(json, size(json, "epoch", 0))?;
    let region = ([projections[1], projections[3]], features[1].1, features[3].1);
    let losses =
        add_loss(&mut g, &mut feed, &mut outputs, &setting, None, temperature, [projections[0], projections[2]], Some(region), &centers)?;
    let seeds: Vec<_> = losses.iter().map(|l| (*l, one)).collect();
    let mut wrt: Vec<(String, Value)> =
        trained(&mut g, "student", &student_parameters).into_iter().map(|(n, v)| (format!("student.{n}"), v)).collect();
    wrt.extend(features[..2].iter().cloned());
    let leaves: Vec<Value> = wrt.iter().map(|(_, v)| *v).collect();
    for ((name, _), gradient) in wrt.iter().zip(g.gradients(&seeds, &leaves)?) {
        outputs.push((format!("d {name}"), gradient.ok_or_else(|| format!("`{name}` has no gradient"))?));
    }
    let ran = run(&g, outputs, &feed)?;

    compare_loss(&fixture.name, total(&ran), number(json, "loss")?, LOSS_STEP)?;
    for net in ["student", "teacher"] {
        for level in ["view", "region"] {
            let name = format!("{net}.logits.{level}");
            let golden =
                [name.clone(), format!("{net}.{level}_logits")].into_iter().find(|n| fixture.has_tensor(n)).ok_or("golden logits")?;
            compare_forward(&fixture.tensor(&golden)?, ran.floats(&name).ok_or("logits")?)?;
        }
    }
    let rows = fixture.group("grad.params")?;
    compare_gradient_group(&rows, |name| ran.floats(&format!("d {name}")))?;
    for (name, _) in &features[..2] {
        let golden = fixture.tensor(&format!("grad.{name}"))?;
        compare_gradient(&golden, ran.floats(&format!("d {name}")).ok_or("gradient")?, median_l2(&rows).min(golden.l2))?;
    }
    compare_matches(fixture, "", &setting, ran.indices("match").ok_or("match")?)?;
    for (i, (name, mean)) in [("center", "view_mean"), ("center_grid", "region_mean")].iter().enumerate() {
        compare_forward(&fixture.tensor(&format!("{name}_after"))?, &moved(&centers[i], ran.floats(mean).ok_or("mean")?))?;
    }
    Ok(())
}

#[test]
fn heads_and_losses_agree_together() -> Outcome {
    if golden_or_skip("whole").is_none() {
        return Ok(());
    }
    for fixture in fixtures("head_and_loss", "whole_")? {
        check_whole(&fixture).map_err(|e| format!("{}: {e}", fixture.name))?;
    }
    Ok(())
}

#[test]
fn frozen_magnitudes_are_no_parameters() {
    let spec = HeadSpec { out_dim: 4, hidden_dim: 4, bottleneck_dim: 4, layers: 3, batch_norm: true, norm_last_layer: true };
    let mut parameters = Parameters::default();
    DinoHead::new(&spec, &mut Graph::new(), &mut Scope::root(&mut parameters, "net"), "head", 4).unwrap();
    let role = |name: &str| parameters.entries.iter().find(|e| e.name == name).map(|e| e.role.clone());
    assert_eq!(role("head.last_layer.weight_g"), Some(Role::Frozen));
    assert_eq!(role("head.mlp.1.running_mean"), Some(Role::Buffer));
}
