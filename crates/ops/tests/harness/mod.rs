//! A case as a program with seeds and gradients, for the tests of all cases.

use std::sync::Arc;

use esvit_graph::{Arena, DType, Graph, Program, Slice, Value, Variant, volume};
use esvit_ops::Case;
use esvit_simd::Pool;

/// Values of a case's operands.
pub struct CaseOperands {
    pub names: Vec<String>,
    pub floats: Vec<Vec<f32>>,
    pub indices: Vec<Vec<u32>>,
    pub pixels: Vec<Vec<u8>>,
    pub types: Vec<DType>,
}

impl CaseOperands {
    pub fn of(case: &Case) -> CaseOperands {
        let each = || case.inputs.iter().enumerate();
        CaseOperands {
            names: each().map(|(i, _)| format!("operand {i}")).collect(),
            floats: each().map(|(i, input)| input.floats(i)).collect(),
            indices: each().map(|(i, input)| input.indices(i)).collect(),
            pixels: each().map(|(i, input)| input.pixels(i)).collect(),
            types: case.inputs.iter().map(|input| input.dtype()).collect(),
        }
    }

    pub fn slices(&self) -> impl Iterator<Item = (String, Slice<'_>)> {
        self.names.iter().enumerate().map(|(i, name)| {
            let slice = match self.types[i] {
                DType::F32 => Slice::F32(&self.floats[i]),
                DType::U32 => Slice::U32(&self.indices[i]),
                DType::U8 => Slice::U8(&self.pixels[i]),
            };
            (name.clone(), slice)
        })
    }
}

/// Operands, the operator, seeds for its float results, and the gradients of its operands.
pub struct Harness {
    pub program: Program,
    pub results: Vec<Value>,
    pub seeded: Vec<usize>,
    pub seeds: Vec<Vec<f32>>,
    pub seed_values: Vec<Value>,
    pub gradients: Vec<Option<Value>>,
}

impl Harness {
    /// A result or gradient after a run; a gradient can be the incoming one itself (`dx = dy`).
    pub fn value<'a>(&'a self, arena: &'a Arena, value: Value) -> Slice<'a> {
        match self.seed_values.iter().position(|seed| *seed == value) {
            Some(i) => Slice::F32(&self.seeds[i]),
            None => self.program.output(arena, value),
        }
    }
}

pub fn build(case: &Case) -> Harness {
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

pub fn run(harness: &Harness, operands: &CaseOperands, pool: &Pool, variant: Variant) -> Arena {
    let mut arena = harness.program.arena();
    let seeds = harness.seeded.iter().zip(&harness.seeds).map(|(r, seed)| (format!("seed {r}"), Slice::F32(seed)));
    let bindings = harness.program.bind(operands.slices().chain(seeds));
    pool.install(|| harness.program.run(&mut arena, &bindings, pool, variant, None)).unwrap();
    arena
}

/// Distance of two vectors relative to the second, with a lower bound for vectors that are all zero.
pub fn distance(got: &[f32], want: &[f32]) -> f64 {
    let d: f64 = got.iter().zip(want).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).sum();
    let n: f64 = want.iter().map(|b| (*b as f64).powi(2)).sum();
    d.sqrt() / n.sqrt().max(1e-3)
}
