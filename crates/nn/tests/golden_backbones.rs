//! Backbones against the reference: names and shapes, features, features of single blocks, every gradient.

// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

mod support;

use esvit_graph::Graph;
use esvit_nn::{Parameters, Role, Scope, backbones};
use esvit_ops::patchify::Patchify;
use esvit_ops::{Layout, Segment};
use esvit_testkit::{Fixture, Kind, compare_forward, compare_gradient, compare_gradient_group, compare_loss, fixtures, golden_or_skip};
use support::{Feed, Outcome, backbone_spec, leaf, run, trained};

/// Fixtures of families that exist here; the others are counted and named.
fn swin_fixtures(prefix: &str) -> Result<Vec<Fixture>, esvit_testkit::Error> {
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
    for fixture in swin_fixtures("")? {
        let spec = backbone_spec(&fixture.json["model"]).ok_or("a swin")?;
        let mut parameters = Parameters::default();
        backbones::build(&spec, &mut Graph::new(), &mut Scope::root(&mut parameters, "net"))?;
        let all: Vec<_> = parameters.entries.iter().map(|e| (e.name.clone(), e.shape.clone())).collect();
        let trained: Vec<_> =
            parameters.entries.iter().filter(|e| e.role == Role::Parameter).map(|e| (e.name.clone(), e.shape.clone())).collect();
        assert_eq!(all, fixture.shapes("state_dict")?, "{}: state dict", fixture.name);
        assert_eq!(trained, fixture.shapes("parameters")?, "{}: parameters", fixture.name);
    }
    Ok(())
}

fn check(fixture: &Fixture) -> Outcome {
    let spec = backbone_spec(&fixture.json["model"]).ok_or("a swin")?;
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
    let pixels: Vec<f32> = names.iter().zip(&shapes).flat_map(|(name, shape)| fixture.fill_kind(name, shape, Kind::Input)).collect();
    let pixel_leaf = leaf(&mut g, "pixels", &[pixels.len()]);
    let patchify = Patchify { pixels: crops.clone(), patch: backbone.patch_size() };
    let features = backbone.forward(&mut g, &backbones::Input { pixels: pixel_leaf, crops: &patchify, drop_path: vec![] })?;

    let mut feed = Feed::default();
    feed.fill("net", &parameters, |e| fixture.fill(&e.name, &e.shape));
    feed.set("pixels", pixels);
    let mut outputs = vec![("view".to_string(), features.view), ("region".to_string(), features.regions.value)];
    for (b, value) in features.blocks.iter().enumerate() {
        outputs.push((format!("block {b}"), *value));
    }
    let blocks = features.blocks.len();
    let maps = fixture.has_group("attn.all");
    if maps {
        for (b, value) in features.attention.iter().enumerate() {
            outputs.push((format!("attn.{b}"), *value));
        }
    }

    let with_gradients = fixture.has_group("eval.grad.params");
    if with_gradients {
        let mut seeds = Vec::new();
        for (name, value) in [("cotangent.view", features.view), ("cotangent.region", features.regions.value)] {
            let shape = g.shape(value).clone();
            seeds.push((value, leaf(&mut g, name, &shape)));
            feed.set(name, fixture.fill_kind(name, &shape, Kind::Input));
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
    let ran = run(&g, outputs, &feed)?;

    let view = ran.floats("view").ok_or("view")?;
    let region = ran.floats("region").ok_or("region")?;
    compare_forward(&fixture.tensor("eval.view")?, view)?;
    compare_forward(&fixture.tensor("eval.region")?, region)?;

    for case in fixture.json["n_last_blocks"].as_array().into_iter().flatten() {
        let n = case["n"].as_u64().ok_or("n")? as usize;
        let images = shapes[0][0]; // of input.0 alone
        let rows = |b: usize, i: usize| {
            let values = ran.floats(&format!("block {b}")).unwrap_or_default();
            let width = values.len() / crops.images();
            values[i * width..(i + 1) * width].to_vec()
        };
        let got: Vec<f32> = (0..images).flat_map(|i| (blocks - n..blocks).flat_map(move |b| rows(b, i))).collect();
        compare_forward(&fixture.tensor(case["tensor"].as_str().ok_or("tensor")?)?, &got)?;
    }

    // Maps and features of input.0 alone, which is the first segment.
    if fixture.has_tensor("feature_maps.view") {
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
            let cotangent = fixture.fill_kind(name, &[values.len() / cols, cols], Kind::Input);
            values.iter().zip(cotangent).map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
        };
        let c = backbone.width();
        let loss = dot(view, "cotangent.view", c) + dot(region, "cotangent.region", c);
        // A sum of thousands of terms that cancel: compared with the terms' size.
        let want = fixture.json["eval.loss_f64"].as_f64().ok_or("eval.loss_f64")?;
        compare_loss(&format!("{}: loss", fixture.name), loss, want, 1e-5)?;
        let rows = fixture.group("eval.grad.params")?;
        compare_gradient_group(&rows, |name| ran.floats(&format!("d {name}")))?;
        let pixels = ran.floats("d pixels").ok_or("d pixels")?;
        let mut at = 0;
        let input_rows = fixture.group("eval.grad.inputs")?;
        for (row, shape) in input_rows.iter().zip(&shapes) {
            let n: usize = shape.iter().product();
            let golden = row.golden.as_ref().ok_or("inputs have gradients")?;
            compare_gradient(golden, &pixels[at..at + n], esvit_testkit::median_l2(&input_rows))?;
            at += n;
        }
    }
    Ok(())
}

#[test]
fn micro_backbones_agree_in_features_and_every_gradient() -> Outcome {
    if golden_or_skip("micro_backbones").is_none() {
        return Ok(());
    }
    for fixture in swin_fixtures("micro_")? {
        check(&fixture).map_err(|e| format!("{}: {e}", fixture.name))?;
    }
    Ok(())
}

#[test]
fn full_size_backbones_agree() -> Outcome {
    if golden_or_skip("full_backbones").is_none() {
        return Ok(());
    }
    for fixture in swin_fixtures("full_")? {
        check(&fixture).map_err(|e| format!("{}: {e}", fixture.name))?;
    }
    Ok(())
}
