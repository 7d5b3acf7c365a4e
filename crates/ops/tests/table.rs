//! One list of cases, two tests: the fast version against the plain one (results and gradients), and
//! gradients against finite differences with the operator mid-graph.

mod harness;

use std::sync::Arc;

use esvit_graph::{Precision, Slice, Variant};
use esvit_ops::prototype_loss::PrototypeLoss;
use esvit_ops::{Case, Input, TABLE};
use esvit_simd::Pool;
use harness::{CaseOperands, build, distance, run};

/// Adding a few hundred terms in another order moves an f32 sum by some 1e-6; exp and erf add as much again.
const PARITY: f64 = 2e-5;

#[test]
fn fast_agrees_with_plain_on_every_case() {
    let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
    for entry in TABLE {
        for case in (entry.cases)() {
            let harness = build(&case);
            let operands = CaseOperands::of(&case);
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

/// bf16 keeps 8 bits: each operand is off by up to 2⁻⁹. Sums of 500 waves cancel almost to nothing, which makes 6 % of it; the products
/// themselves are held against exact sums of rounded operands in `esvit_simd`.
const MIXED: f64 = 0.1;

#[test]
fn mixed_precision_stays_near_plain_on_every_case() {
    let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
    let mut rounded = 0;
    for entry in TABLE {
        for case in (entry.cases)() {
            let mut harness = build(&case);
            let operands = CaseOperands::of(&case);
            let plain = run(&harness, &operands, &one, Variant::Reference);
            let single = run(&harness, &operands, &one, Variant::Fast);
            harness.program = harness.program.with_precision(Precision::Mixed);
            let mixed = run(&harness, &operands, &one, Variant::Fast);
            let threads = run(&harness, &operands, &two, Variant::Fast);
            let values = harness.results.iter().chain(harness.gradients.iter().flatten());
            for (n, value) in values.enumerate() {
                let (Slice::F32(a), Slice::F32(b)) = (harness.value(&mixed, *value), harness.value(&plain, *value)) else { continue };
                let d = distance(a, b);
                assert!(d < MIXED, "{} ({}): result {n} is off by {d:e}", entry.name, case.why);
                assert_eq!(a, harness.value(&threads, *value).f32(), "{} ({}): result {n} depends on the threads", entry.name, case.why);
                rounded += usize::from(a != harness.value(&single, *value).f32());
            }
        }
    }
    assert_eq!(rounded > 10, esvit_simd::cpu::bf16(), "{rounded} results differ from single precision");
}

#[test]
fn kept_logits_give_the_gradients_of_recomputed_ones() {
    let (ns, nt, k, d) = (9, 6, 2500, 16);
    let case = |keep| {
        let inputs = vec![
            Input::UnitRows(vec![ns, d]),
            Input::Wave(vec![k, d]),
            Input::Positive(vec![k, 1]),
            Input::UnitRows(vec![nt, d]),
            Input::Wave(vec![k, d]),
            Input::Positive(vec![k, 1]),
            Input::Wave(vec![k]),
            Input::Positive(vec![1]),
            Input::Index(vec![2 * ns], nt as u32),
            Input::Positive(vec![2 * ns]),
        ];
        let offsets: Arc<[u32]> = (0..=ns as u32).map(|i| 2 * i).collect();
        Case::new("kept logits", PrototypeLoss { student_temperature: 0.1, offsets, keep }, inputs).differentiate(&[0, 1, 2])
    };
    let pool = Pool::new(2).unwrap();
    let gradients = |keep: usize, precision: Precision| -> Vec<Vec<f32>> {
        let case = case(keep);
        let mut harness = build(&case);
        assert_eq!(harness.results.len(), if keep > 0 { 6 } else { 5 });
        harness.program = harness.program.with_precision(precision);
        let arena = run(&harness, &CaseOperands::of(&case), &pool, Variant::Fast);
        harness.gradients.iter().flatten().map(|g| harness.value(&arena, *g).f32().to_vec()).collect()
    };
    for precision in [Precision::F32, Precision::Mixed] {
        let none = gradients(0, precision);
        // f16 is off by 2⁻¹¹ of a logit, here of 3.5, and the temperature makes ten times that of it.
        // Ranges of two tiles: budgets for nothing but a little, one tile of each, all.
        for keep in [4096, 8 * 15 * 256 * 4, 1 << 30] {
            for (a, b) in gradients(keep, precision).iter().zip(&none) {
                match precision {
                    Precision::F32 => assert_eq!(a, b, "keep {keep}"),
                    Precision::Mixed => assert!(distance(a, b) < 1e-2, "keep {keep}: off by {:e}", distance(a, b)),
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
            let mut operands = CaseOperands::of(&case);
            let arena = run(&harness, &operands, &pool, Variant::Fast);
            // L = Σ seed·result, in f64 so that differences of it keep their digits.
            let loss = |operands: &CaseOperands| -> f64 {
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
