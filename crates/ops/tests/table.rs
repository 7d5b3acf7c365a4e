//! One list of cases, two tests: the fast version against the plain one (results and gradients), and
//! gradients against finite differences with the operator mid-graph.

mod harness;

use esvit_graph::{Slice, Variant};
use esvit_ops::TABLE;
use esvit_simd::Pool;
use harness::{Operands, build, distance, run};

/// Adding a few hundred terms in another order moves an f32 sum by some 1e-6; exp and erf add as much again.
const PARITY: f64 = 2e-5;

#[test]
fn fast_agrees_with_plain_on_every_case() {
    let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
    for entry in TABLE {
        for case in (entry.cases)() {
            let harness = build(&case);
            let operands = Operands::of(&case);
            let plain = run(&harness, &operands, &one, Variant::Reference);
            let fast = run(&harness, &operands, &two, Variant::Fast);
            let single = run(&harness, &operands, &one, Variant::Fast);
            let values = harness.results.iter().chain(harness.gradients.iter().flatten());
            for (n, value) in values.enumerate() {
                let (a, b) = (harness.value(&fast, *value), harness.value(&plain, *value));
                match (a, b) {
                    (Slice::U32(a), Slice::U32(b)) => assert_eq!(a, b, "{}: {}", entry.name, case.why),
                    (a, b) => {
                        let d = distance(a.f32(), b.f32());
                        assert!(d < PARITY, "{} ({}): result {n} is off by {d:e}", entry.name, case.why);
                        assert_eq!(
                            a.f32(),
                            harness.value(&single, *value).f32(),
                            "{} ({}): result {n} depends on the threads",
                            entry.name,
                            case.why
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_on_every_case() {
    let pool = Pool::new(1).unwrap();
    let mut checked = 0;
    for entry in TABLE {
        for case in (entry.cases)() {
            let harness = build(&case);
            let mut operands = Operands::of(&case);
            let arena = run(&harness, &operands, &pool, Variant::Fast);
            // L = Σ seed·result, in f64 so that differences of it keep their digits.
            let loss = |operands: &Operands| -> f64 {
                let arena = run(&harness, operands, &pool, Variant::Reference);
                harness
                    .seeded
                    .iter()
                    .zip(&harness.seeds)
                    .map(|(&r, seed)| {
                        let y = harness.value(&arena, harness.results[r]).f32();
                        y.iter().zip(seed).map(|(y, s)| *y as f64 * *s as f64).sum::<f64>()
                    })
                    .sum()
            };
            for (&operand, gradient) in case.differentiable.iter().zip(&harness.gradients) {
                let Some(gradient) = gradient else { panic!("{} ({}): operand {operand} has no gradient", entry.name, case.why) };
                let gradient = harness.value(&arena, *gradient).f32().to_vec();
                for probe in 0..3 {
                    // A direction that mixes all elements, and its directional derivative both ways.
                    let direction: Vec<f32> = (0..gradient.len()).map(|i| ((i as f32 + 1.0) * (1.37 + probe as f32)).sin()).collect();
                    let want: f64 = gradient.iter().zip(&direction).map(|(g, d)| *g as f64 * *d as f64).sum();
                    let step = 2e-3f32;
                    let original = operands.floats[operand].clone();
                    let mut at = |sign: f32| {
                        for (v, (o, d)) in operands.floats[operand].iter_mut().zip(original.iter().zip(&direction)) {
                            *v = o + sign * step * d;
                        }
                        loss(&operands)
                    };
                    let got = (at(1.0) - at(-1.0)) / (2.0 * step as f64);
                    operands.floats[operand] = original;
                    let scale: f64 = gradient.iter().zip(&direction).map(|(g, d)| (*g as f64 * *d as f64).powi(2)).sum::<f64>().sqrt();
                    // Rounding of f32 results over the step, and the step's own error: both far below 1 % of the terms' size.
                    let tolerance = 1e-2 * scale + 2e-3 * want.abs() + 2e-4;
                    assert!(
                        (got - want).abs() < tolerance,
                        "{} ({}): operand {operand}: derivative {want} but differences {got}",
                        entry.name,
                        case.why
                    );
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 100, "only {checked} derivatives were checked");
}
