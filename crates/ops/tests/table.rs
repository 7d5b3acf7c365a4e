//! One list of cases, two tests: the fast version against the plain one (results and gradients), and
//! gradients against finite differences with the operator mid-graph.

use std::sync::Arc;

use esvit_graph::{Arena, Bindings, DType, Graph, Program, Slice, Value, Variant, volume};
use esvit_ops::{Case, TABLE};
use esvit_simd::Pool;

/// Values of a case's operands.
struct Operands {
    names: Vec<String>,
    floats: Vec<Vec<f32>>,
    indices: Vec<Vec<u32>>,
    pixels: Vec<Vec<u8>>,
    types: Vec<DType>,
}

impl Operands {
    fn of(case: &Case) -> Operands {
        let each = || case.inputs.iter().enumerate();
        Operands {
            names: each().map(|(i, _)| format!("operand {i}")).collect(),
            floats: each().map(|(i, input)| input.floats(i)).collect(),
            indices: each().map(|(i, input)| input.indices(i)).collect(),
            pixels: each().map(|(i, input)| input.pixels(i)).collect(),
            types: case.inputs.iter().map(|input| input.dtype()).collect(),
        }
    }

    fn bind<'a>(&'a self, bindings: &mut Bindings<'a>) {
        for (i, name) in self.names.iter().enumerate() {
            bindings.bind(
                name,
                match self.types[i] {
                    DType::F32 => Slice::F32(&self.floats[i]),
                    DType::U32 => Slice::U32(&self.indices[i]),
                    DType::U8 => Slice::U8(&self.pixels[i]),
                },
            );
        }
    }
}

/// Operands, the operator, seeds for its float results, and the gradients of its operands.
struct Harness {
    program: Program,
    results: Vec<Value>,
    seeded: Vec<usize>,
    seeds: Vec<Vec<f32>>,
    seed_values: Vec<Value>,
    gradients: Vec<Option<Value>>,
}

impl Harness {
    /// A result or gradient after a run; a gradient can be the incoming one itself (`dx = dy`).
    fn value<'a>(&'a self, arena: &'a Arena, value: Value) -> Slice<'a> {
        match self.seed_values.iter().position(|seed| *seed == value) {
            Some(i) => Slice::F32(&self.seeds[i]),
            None => self.program.output(arena, value),
        }
    }
}

fn build(case: &Case) -> Harness {
    let mut graph = Graph::new();
    let operands: Vec<Value> = case
        .inputs
        .iter()
        .enumerate()
        .map(|(i, input)| graph.leaf(&format!("operand {i}"), input.shape(), input.dtype()).unwrap())
        .collect();
    let results = graph.apply_shared(Arc::clone(&case.op), &operands).unwrap();
    // The first result is the operator's value, the rest are kept for the backward pass.
    let seeded: Vec<usize> = if case.differentiable.is_empty() { vec![] } else { vec![0] };
    let mut pairs = Vec::new();
    let mut seeds = Vec::new();
    for &r in &seeded {
        let shape = graph.shape(results[r]).clone();
        pairs.push((results[r], graph.leaf(&format!("seed {r}"), &shape, DType::F32).unwrap()));
        // Mid-graph: every result weighs differently, so the incoming gradient is never 1.
        seeds.push((0..volume(&shape)).map(|i| (i as f32 * 0.917 + 0.3).cos() + 0.2).collect());
    }
    let wrt: Vec<Value> = case.differentiable.iter().map(|&i| operands[i]).collect();
    let gradients = graph.gradients(&pairs, &wrt).unwrap();
    let outputs: Vec<Value> = results.iter().copied().chain(gradients.iter().flatten().copied()).collect();
    let seed_values = pairs.iter().map(|(_, seed)| *seed).collect();
    Harness { program: Program::compile(&graph, &outputs), results, seeded, seeds, seed_values, gradients }
}

fn run(harness: &Harness, operands: &Operands, pool: &Pool, variant: Variant) -> Arena {
    let mut arena = harness.program.arena();
    let names: Vec<String> = harness.seeded.iter().map(|r| format!("seed {r}")).collect();
    let mut bindings = Bindings::new();
    operands.bind(&mut bindings);
    for (name, seed) in names.iter().zip(&harness.seeds) {
        bindings.bind(name, Slice::F32(seed));
    }
    pool.install(|| harness.program.run(&mut arena, &bindings, pool, variant, None)).unwrap();
    arena
}

/// Distance of two vectors relative to the second, with a floor for vectors that are all zero.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let d: f64 = got.iter().zip(want).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).sum();
    let n: f64 = want.iter().map(|b| (*b as f64).powi(2)).sum();
    d.sqrt() / n.sqrt().max(1e-3)
}

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
