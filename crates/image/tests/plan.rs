//! Plans from JSON: the shape TypeScript writes, what is refused and how it is named, and that
//! several plans are several renderings.

use esvit_image::{
    CropPlan, CropWindow, ImageError, Limits, PixelOperation, ResampleFilter, RgbImage, encode_png, render, render_all, render_into,
};
use serde_json::{Value, json};

/// A plan with every field and every operation.
fn complete() -> Value {
    json!({
        "left": 3, "top": 2, "width": 20, "height": 17, "outWidth": 12, "outHeight": 9,
        "filter": "bicubic", "flip": true,
        "operations": [
            { "kind": "brightness", "factor": 0.8 },
            { "kind": "contrast", "factor": 1.2 },
            { "kind": "saturation", "factor": 1.1 },
            { "kind": "hue", "shift": -0.1 },
            { "kind": "grayscale" },
            { "kind": "blur", "radius": 1.3 },
            { "kind": "solarize", "threshold": 128 },
        ],
    })
}

fn plan(edit: impl Fn(&mut Value)) -> Result<CropPlan, serde_json::Error> {
    let mut value = complete();
    edit(&mut value);
    serde_json::from_value(value)
}

fn image() -> RgbImage {
    let pixels = (0..40 * 30 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    RgbImage::new(40, 30, pixels).unwrap()
}

fn png() -> Vec<u8> {
    encode_png(image().pixels(), 40, 30).unwrap()
}

#[test]
fn every_field_and_operation_is_read() {
    let plan = plan(|_| {}).unwrap();
    assert_eq!((plan.left, plan.top, plan.width, plan.height), (3, 2, 20, 17));
    assert_eq!((plan.out_width, plan.out_height, plan.filter, plan.flip), (12, 9, ResampleFilter::Bicubic, true));
    assert_eq!(
        plan.operations,
        [
            PixelOperation::Brightness { factor: 0.8 },
            PixelOperation::Contrast { factor: 1.2 },
            PixelOperation::Saturation { factor: 1.1 },
            PixelOperation::Hue { shift: -0.1 },
            PixelOperation::Grayscale {},
            PixelOperation::Blur { radius: 1.3 },
            PixelOperation::Solarize { threshold: 128 },
        ]
    );
}

#[test]
fn unknown_and_missing_fields_are_refused() {
    let unknown = plan(|plan| plan["widht"] = json!(3)).unwrap_err();
    assert!(unknown.to_string().contains("widht"), "{unknown}");
    for at in 0..7 {
        let unknown = plan(|plan| plan["operations"][at]["amount"] = json!(1)).unwrap_err();
        assert!(unknown.to_string().contains("amount"), "operation {at}: {unknown}");
    }
    let kind = plan(|plan| plan["operations"][0]["kind"] = json!("sharpen")).unwrap_err();
    assert!(kind.to_string().contains("sharpen"), "{kind}");
    for field in complete().as_object().unwrap().keys() {
        let missing = plan(|plan| drop(plan.as_object_mut().unwrap().remove(field))).unwrap_err();
        assert!(missing.to_string().contains(field), "{missing}");
    }
}

#[test]
fn values_out_of_range_are_named() {
    type Edit = fn(&mut CropPlan);
    let cases: [(&str, Edit); 16] = [
        ("left", |plan| plan.left = 40),
        ("top", |plan| plan.top = 30),
        ("width", |plan| plan.width = 38),
        ("height", |plan| plan.height = 0),
        ("outWidth", |plan| plan.out_width = 0),
        ("outHeight", |plan| plan.out_height = 4097),
        ("window.fullWidth", |plan| plan.window = Some(CropWindow { full_width: 11, full_height: 9, left: 0, top: 0 })),
        ("window.fullHeight", |plan| plan.window = Some(CropWindow { full_width: 12, full_height: 0, left: 0, top: 0 })),
        ("window.left", |plan| plan.window = Some(CropWindow { full_width: 14, full_height: 10, left: 3, top: 1 })),
        ("window.top", |plan| plan.window = Some(CropWindow { full_width: 14, full_height: 10, left: 2, top: u32::MAX })),
        ("operations[0].factor", |plan| plan.operations[0] = PixelOperation::Brightness { factor: f64::NAN }),
        ("operations[1].factor", |plan| plan.operations[1] = PixelOperation::Contrast { factor: -0.1 }),
        ("operations[2].factor", |plan| plan.operations[2] = PixelOperation::Saturation { factor: 1e300 }),
        ("operations[3].shift", |plan| plan.operations[3] = PixelOperation::Hue { shift: 0.51 }),
        ("operations[5].radius", |plan| plan.operations[5] = PixelOperation::Blur { radius: f64::INFINITY }),
        ("operations[6].threshold", |plan| plan.operations[6] = PixelOperation::Solarize { threshold: 257 }),
    ];
    for (field, edit) in cases {
        let good = plan(|_| {}).unwrap();
        let mut bad = good.clone();
        edit(&mut bad);
        match render_all(&png(), &[good, bad], &Limits::default()) {
            Err(ImageError::Plan { field: got, .. }) => assert_eq!(got, format!("plans[1].{field}")),
            other => panic!("{field}: {:?}", other.map(|pixels| pixels.len())),
        }
    }
}

#[test]
fn a_message_is_one_sentence() {
    let mut bad = plan(|_| {}).unwrap();
    bad.width = 38;
    let error = render(&image(), &bad, &mut [0; 12 * 9 * 3]).unwrap_err();
    assert_eq!(error.to_string(), "width must be from 1 to 37, what the image has from 3, got 38");
}

#[test]
fn plans_of_one_image_are_rendered_one_after_the_other() {
    let first = plan(|_| {}).unwrap();
    let second = plan(|plan| {
        plan["outWidth"] = json!(5);
        plan["flip"] = json!(false);
        plan["operations"] = json!([]);
    })
    .unwrap();
    let together = render_all(&png(), &[first.clone(), second.clone()], &Limits::default()).unwrap();
    let mut one_by_one = Vec::new();
    for plan in [first, second] {
        let mut out = vec![0; plan.out_bytes()];
        render(&image(), &plan, &mut out).unwrap();
        one_by_one.extend(out);
    }
    assert_eq!(together, one_by_one);
    assert_eq!(render_all(&png(), &[], &Limits::default()), Ok(Vec::new()));
}

#[test]
fn the_flip_comes_before_the_operations_and_after_the_resize() {
    let plain = plan(|plan| plan["operations"] = json!([])).unwrap();
    let unflipped = plan(|plan| {
        plan["operations"] = json!([]);
        plan["flip"] = json!(false);
    })
    .unwrap();
    let draw = |plan: &CropPlan| {
        let mut out = vec![0; plan.out_bytes()];
        render(&image(), plan, &mut out).unwrap();
        out
    };
    let mirrored: Vec<u8> = draw(&unflipped).chunks_exact(12 * 3).flat_map(|row| row.rchunks_exact(3).flatten().copied()).collect();
    assert_eq!(draw(&plain), mirrored);
}

#[test]
fn a_buffer_of_another_size_is_refused() {
    let plan = plan(|_| {}).unwrap();
    let result = render(&image(), &plan, &mut [0; 10]);
    assert_eq!(result, Err(ImageError::Buffer { width: 12, height: 9, want: 324, got: 10 }));
}

#[test]
fn a_window_is_a_part_of_the_resized_box() {
    let whole = plan(|plan| {
        plan["outWidth"] = json!(31);
        plan["outHeight"] = json!(25);
        plan["operations"] = json!([]);
        plan["flip"] = json!(false);
    })
    .unwrap();
    let window = plan(|plan| {
        plan["window"] = json!({ "fullWidth": 31, "fullHeight": 25, "left": 19, "top": 7 });
        plan["operations"] = json!([]);
        plan["flip"] = json!(false);
    })
    .unwrap();
    let pixels = render_all(&png(), &[whole, window], &Limits::default()).unwrap();
    let (whole, window) = pixels.split_at(31 * 25 * 3);
    let wanted: Vec<u8> = (7..16).flat_map(|y| whole[(y * 31 + 19) * 3..(y * 31 + 31) * 3].iter().copied()).collect();
    assert_eq!(window, wanted);
}

#[test]
fn an_output_of_another_size_is_refused_before_anything_is_decoded() {
    let plan = plan(|_| {}).unwrap();
    let (mut right, mut wrong) = ([0; 12 * 9 * 3], [0; 10]);
    let result = render_into(b"no image", &[plan.clone(), plan], &mut [&mut right, &mut wrong], &Limits::default());
    assert_eq!(result, Err(ImageError::Buffer { width: 12, height: 9, want: 324, got: 10 }));
}
