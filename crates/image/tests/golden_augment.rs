//! Every case of the augmentation goldens, executed as plans: pictures and normalized tensors
//! that Pillow and torchvision made.

mod common;

use std::fs;
use std::path::Path;

use esvit_image::{CropPlan, Limits, RgbImage, decode, render};
use safetensors::SafeTensors;
use serde_json::{Value, json};

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read_json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&read(folder, name)).unwrap()
}

fn picture(folder: &Path, name: &str) -> RgbImage {
    decode(&read(folder, name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One step of a case as a pixel operation of a plan; none for those that are fields of the plan.
fn operation(step: &Value) -> Option<Value> {
    let factor = &step["factor"];
    Some(match step["op"].as_str().unwrap() {
        "resized_crop" | "hflip" => return None,
        "adjust_brightness" => json!({ "kind": "brightness", "factor": factor }),
        "adjust_contrast" => json!({ "kind": "contrast", "factor": factor }),
        "adjust_saturation" => json!({ "kind": "saturation", "factor": factor }),
        "adjust_hue" => json!({ "kind": "hue", "shift": factor }),
        "rgb_to_grayscale(3)" => json!({ "kind": "grayscale" }),
        "gaussian_blur" => json!({ "kind": "blur", "radius": step["radius"] }),
        "solarize" => json!({ "kind": "solarize", "threshold": step["threshold"] }),
        other => panic!("unknown operation {other}"),
    })
}

/// The plan of a case: a list of steps of which at most the first is a crop and only then a flip.
fn plan(source: &RgbImage, steps: &[Value]) -> CropPlan {
    let whole = json!({ "left": 0, "top": 0, "width": source.width(), "height": source.height(),
        "out_size": [source.height(), source.width()] });
    let has = |op: &str| steps.iter().any(|step| step["op"] == op);
    let crop = if has("resized_crop") { &steps[0] } else { &whole };
    serde_json::from_value(json!({
        "left": crop["left"], "top": crop["top"], "width": crop["width"], "height": crop["height"],
        "outHeight": crop["out_size"][0], "outWidth": crop["out_size"][1],
        "filter": "bicubic",
        "flip": has("hflip"),
        "operations": steps.iter().filter_map(operation).collect::<Vec<_>>(),
    }))
    .unwrap()
}

/// The plan of torchvision's `Resize(resize)` and `CenterCrop(crop)`, as `ts/src/augment/evaluation.ts` makes it.
fn evaluation(source: &RgbImage, resize: u32, crop: u32) -> CropPlan {
    let (width, height) = (source.width(), source.height());
    let short = width.min(height);
    let side = |length: u32| if length == short { resize } else { (f64::from(resize) * f64::from(length) / f64::from(short)) as u32 };
    let margin = |length: u32| (f64::from(length - crop) / 2.0).round_ties_even() as u32;
    serde_json::from_value(json!({
        "left": 0, "top": 0, "width": width, "height": height, "outWidth": crop, "outHeight": crop,
        "window": { "fullWidth": side(width), "fullHeight": side(height), "left": margin(side(width)), "top": margin(side(height)) },
        "filter": "bicubic", "flip": false, "operations": [],
    }))
    .unwrap()
}

fn run(folder: &Path, case: &Value) -> Vec<u8> {
    let source_name = case["source"].as_str().unwrap();
    let source = picture(folder, source_name);
    let op = case["op"].as_str().unwrap();
    if let Some(sizes) = op.strip_prefix("resize(") {
        let (resize, crop) = sizes.trim_end_matches(')').split_once(")+center_crop(").unwrap();
        return draw(&source, &evaluation(&source, resize.parse().unwrap(), crop.parse().unwrap()));
    }
    let steps = match op {
        "chain" => case["steps"].as_array().unwrap().clone(),
        _ => vec![case.clone()],
    };
    draw(&source, &plan(&source, &steps))
}

fn draw(source: &RgbImage, plan: &CropPlan) -> Vec<u8> {
    let mut out = vec![0; plan.out_bytes()];
    render(source, plan, &mut out).unwrap();
    out
}

/// The goldens allow one level in 1 % of the samples after resampling and blur. The arithmetic is
/// repeated exactly, so no difference is accepted at all.
#[test]
fn every_case_is_reproduced_bit_for_bit() {
    let Some(folder) = common::folder("ESVIT_GOLDEN", "../shared/golden", "augment") else { return };
    let cases = read_json(&folder, "cases.json");
    let cases = cases["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in cases {
        let name = case["output"].as_str().unwrap();
        let wanted = picture(&folder, name);
        let got = run(&folder, case);
        assert_eq!(got.len(), wanted.pixels().len(), "{name}");
        let differing = got.iter().zip(wanted.pixels()).filter(|(a, b)| a != b).count();
        let largest = got.iter().zip(wanted.pixels()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        if differing > 0 {
            wrong.push(format!("{name}: {differing} of {} samples differ, by up to {largest}", got.len()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// `(x / 255 − mean) / std` in f32, as torchvision's `ToTensor` and `Normalize`.
fn normalized(pixels: &[u8], mean: &[f32], std: &[f32]) -> Vec<f32> {
    (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(move |&x| (f32::from(x) / 255.0 - mean[c]) / std[c])).collect()
}

#[test]
fn normalized_tensors_agree() {
    let Some(folder) = common::folder("ESVIT_GOLDEN", "../shared/golden", "augment") else { return };
    let catalog = read_json(&folder, "tensors.json");
    let cases = read_json(&folder, "cases.json");
    let arrays = read(&folder, "tensors.safetensors");
    let arrays = SafeTensors::deserialize(&arrays).unwrap();
    let floats = |value: &Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
    let (mean, std) = (floats(&catalog["mean"]), floats(&catalog["std"]));
    let tensors = catalog["tensors"].as_object().unwrap();
    assert!(!tensors.is_empty());
    for (name, entry) in tensors {
        let output = format!("{}.png", name.strip_suffix(".normalized").unwrap());
        let case = cases["cases"].as_array().unwrap().iter().find(|case| case["output"] == *output).unwrap();
        let got = normalized(&run(&folder, case), &mean, &std);
        let n = got.len();
        let number = |key: &str| entry[key].as_f64().unwrap();
        let tolerance = 2e-5 * number("absmax").max(1.0) as f32;

        let (key, places): (String, Vec<usize>) = match entry["stored"].as_str().unwrap() {
            "full" => (name.clone(), (0..n).collect()),
            _ => (format!("{name}#samples"), (0..64).map(|j| j * (n - 1) / 63).collect()),
        };
        let (stored, rest) = arrays.tensor(&key).unwrap().data().as_chunks::<4>();
        assert!(rest.is_empty() && stored.len() == places.len(), "{key}");
        for (&place, &bytes) in places.iter().zip(stored) {
            let wanted = f32::from_le_bytes(bytes);
            assert!((got[place] - wanted).abs() <= tolerance, "{key}[{place}]: {} for {wanted}", got[place]);
        }
        let sum: f64 = got.iter().map(|&x| f64::from(x)).sum();
        let l2 = got.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        assert!((l2 / number("l2") - 1.0).abs() <= 1e-5, "{name}: l2 {l2}");
        assert!((sum - number("sum")).abs() <= 1e-5 * l2 * (n as f64).sqrt(), "{name}: sum {sum}");
    }
}
