//! Every case on a GPU: results and gradients against the plain version, as one binding and cut into pieces.

// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

mod harness;

use esvit_gpu::{Gpu, Recorder, View};
use esvit_graph::{Bindings, DType, GpuArena, Graph, Precision, Program, Slice, Value, Variant};
use esvit_ops::gelu::GELU;
use esvit_ops::{Case, TABLE};
use esvit_simd::Pool;
use harness::{CaseOperands, Harness, build, distance, run};

/// The adapter, or none after saying so. With `REQUIRE_GPU=1` its absence is a failure.
fn gpu() -> Option<Gpu> {
    match Gpu::open() {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os("REQUIRE_GPU").is_some_and(|v| v == "1") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn upload(gpu: &Gpu, bytes: &[u8]) -> View {
    let view = gpu.allocate("a test's operand", bytes.len() as u64).unwrap();
    gpu.upload(&view, bytes);
    view
}

fn leaves(gpu: &Gpu, harness: &Harness, operands: &CaseOperands) -> Bindings<View> {
    let mut leaves = Vec::new();
    for (i, name) in operands.names.iter().enumerate() {
        let data = match operands.types[i] {
            DType::F32 => bytemuck::cast_slice(&operands.floats[i]),
            DType::U32 => bytemuck::cast_slice(&operands.indices[i]),
            DType::U8 => &operands.pixels[i],
        };
        leaves.push((name.clone(), upload(gpu, data)));
    }
    for (r, seed) in harness.seeded.iter().zip(&harness.seeds) {
        leaves.push((format!("seed {r}"), upload(gpu, bytemuck::cast_slice(seed))));
    }
    harness.program.bind(leaves)
}

/// A result or gradient; a gradient can be the incoming one itself.
fn value(gpu: &Gpu, program: &Program, harness: &Harness, arena: &GpuArena, value: Value) -> Vec<f32> {
    match harness.seed_values.iter().position(|seed| *seed == value) {
        Some(i) => harness.seeds[i].clone(),
        None => gpu.read_f32(&program.gpu_output(arena, value)).unwrap(),
    }
}

/// Bindings of a poor adapter: nothing the cases do is refused there.
const SMALL: u64 = 256 << 10;

/// Sums of a few thousand terms in another order, and the drivers' exp and sqrt.
const PARITY: f64 = 3e-5;
/// Operands of products in half precision are off by up to 5e-4; the cases' smooth ones cancel in sums over many rows, and their errors
/// do not.
const MIXED: f64 = 1e-2;

fn check(gpu: &Gpu, name: &str, case: &Case, piece: u64, precision: Precision) {
    let mut harness = build(case);
    harness.program = harness.program.with_precision(precision);
    let tolerance = if precision == Precision::Mixed { MIXED } else { PARITY };
    let operands = CaseOperands::of(case);
    let pool = Pool::new(1).unwrap();
    let plain = run(&harness, &operands, &pool, Variant::Reference);
    let arena = harness.program.gpu_arena_of(gpu, piece as usize).unwrap();
    let leaves = leaves(gpu, &harness, &operands);
    // Below some kilobytes 64 rows, the least that is cut, are more than a binding.
    let mut rec = if piece < SMALL { Recorder::with_pieces(gpu, piece) } else { Recorder::with_bindings(gpu, piece) };
    harness.program.record(&mut rec, &arena, &leaves).unwrap_or_else(|e| panic!("{name} ({}): {e}", case.why));
    let recording = rec.finish().unwrap_or_else(|e| panic!("{name} ({}): {e}", case.why));
    recording.run(gpu).unwrap();
    let all = || harness.results.iter().chain(harness.gradients.iter().flatten());
    let first: Vec<Vec<f32>> = all().map(|v| value(gpu, &harness.program, &harness, &arena, *v)).collect();
    // A second run over the same memory must not see anything of the first.
    recording.run(gpu).unwrap();
    for (n, v) in all().enumerate() {
        let got = value(gpu, &harness.program, &harness, &arena, *v);
        let same = got.iter().zip(&first[n]).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{name} ({}): result {n} changes from run to run", case.why);
        match harness.value(&plain, *v) {
            Slice::U32(want) => {
                let got: Vec<u32> = got.iter().map(|v| v.to_bits()).collect();
                assert_eq!(got, want, "{name} ({}): result {n}", case.why);
            }
            want => {
                let d = distance(&got, want.f32());
                assert!(d < tolerance, "{name} ({}), {precision:?}: result {n} is off by {d:e}", case.why);
            }
        }
    }
}

#[test]
fn kernels_agree_with_plain_on_every_case() {
    let Some(gpu) = gpu() else { return };
    // `ONLY=linear` while working on one.
    let only = std::env::var("ONLY").ok();
    for entry in TABLE.iter().filter(|entry| only.as_deref().is_none_or(|name| name == entry.name)) {
        for case in (entry.cases)() {
            check(&gpu, entry.name, &case, 1 << 27, Precision::F32);
            check(&gpu, entry.name, &case, 1024, Precision::F32);
            check(&gpu, entry.name, &case, SMALL, Precision::Mixed);
        }
    }
}

/// Gradients that meet: few enough for one dispatch, exactly as many, and more.
#[test]
fn a_value_used_many_times_gets_the_sum_of_its_gradients() {
    let Some(gpu) = gpu() else { return };
    for uses in [2, 3, 4, 5, 9] {
        let shape = [50, 12];
        let wave = |t: f32| (0..600).map(|i| (i as f32 * 0.917 + t).cos() + 0.2).collect::<Vec<f32>>();
        let names: Vec<String> = (0..=uses).map(|i| format!("leaf {i}")).collect();
        let values: Vec<Vec<f32>> = (0..=uses).map(|i| wave(i as f32)).collect();
        let mut graph = Graph::new();
        let x = graph.leaf(&names[0], &shape, DType::F32).unwrap();
        let mut seeds = Vec::new();
        for name in &names[1..] {
            let y = graph.apply1(GELU, &[x]).unwrap();
            seeds.push((y, graph.leaf(name, &shape, DType::F32).unwrap()));
        }
        let dx = graph.gradients(&seeds, &[x]).unwrap()[0].unwrap();
        let program = Program::compile(&graph, &[dx]);
        let mut plain = program.arena();
        let named = || names.iter().zip(&values);
        let bindings = program.bind(named().map(|(name, values)| (name, Slice::F32(values))));
        let leaves = program.bind(named().map(|(name, values)| (name, upload(&gpu, bytemuck::cast_slice(values)))));
        program.run(&mut plain, &bindings, &Pool::new(1).unwrap(), Variant::Reference, None).unwrap();
        for piece in [u64::MAX / 2, 1024] {
            let arena = program.gpu_arena(&gpu).unwrap();
            let mut rec = Recorder::with_pieces(&gpu, piece);
            program.record(&mut rec, &arena, &leaves).unwrap();
            rec.finish().unwrap().run(&gpu).unwrap();
            let got = gpu.read_f32(&program.gpu_output(&arena, dx)).unwrap();
            let d = distance(&got, program.output(&plain, dx).f32());
            assert!(d < PARITY, "{uses} gradients: the sum is off by {d:e}");
        }
    }
}
