//! Results that are cheap to compute are recomputed for the gradients that read them, and are the same to the bit.

use esvit_graph::{DType, Graph, Program, Slice, Value, Variant};
use esvit_ops::gelu::GELU;
use esvit_ops::layer_norm::LayerNorm;
use esvit_ops::linear::Linear;
use esvit_simd::Pool;

const ROWS: usize = 5;
const WIDTH: usize = 8;

fn count(program: &Program, op: &str) -> usize {
    program.nodes().iter().filter(|node| node.op.name() == op).count()
}

#[test]
fn gelu_and_layer_norm_do_not_wait_for_the_backward_pass() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::new();
    let mut leaf = |name: &str, shape: &[usize]| g.leaf(name, shape, DType::F32);
    let (x, seed) = (leaf("x", &[ROWS, WIDTH])?, leaf("seed", &[ROWS, WIDTH])?);
    let (gamma, beta) = (leaf("gamma", &[WIDTH])?, leaf("beta", &[WIDTH])?);
    let (first, second) = (leaf("first", &[WIDTH, WIDTH])?, leaf("second", &[WIDTH, WIDTH])?);
    let norm = || LayerNorm { eps: 1e-5 };
    // A norm of a norm: recomputing one needs the other.
    let outer = g.apply(norm(), &[x, gamma, beta])?[0];
    let normed = g.apply(norm(), &[outer, gamma, beta])?[0];
    let wide = g.apply1(Linear, &[normed, first])?;
    let hidden = g.apply1(GELU, &[wide])?;
    let y = g.apply1(Linear, &[hidden, second])?;
    let gradients: Vec<Value> = g.gradients(&[(y, seed)], &[first, second, x])?.into_iter().flatten().collect();
    let program = Program::compile(&g, &[&gradients[..], &[y]].concat());
    assert_eq!((count(&program, "gelu"), count(&program, "layer_norm")), (2, 4));
    // Without gradients nothing is recomputed.
    assert_eq!(count(&Program::compile(&g, &[y]), "gelu"), 1);

    // Beside the gradients, what their formulas read: the results of the forward pass.
    let outputs = [&gradients[..], &[normed, hidden]].concat();
    let program = Program::compile(&g, &outputs);
    let values: Vec<Vec<f32>> = (0..4).map(|n| (0..WIDTH * WIDTH).map(|i| ((i * 7 + n * 3) as f32 * 0.37).sin()).collect()).collect();
    let rows = ROWS * WIDTH;
    let leaves: [(&str, &[f32]); 6] = [
        ("x", &values[0][..rows]),
        ("seed", &values[1][..rows]),
        ("gamma", &values[2][..WIDTH]),
        ("beta", &values[3][..WIDTH]),
        ("first", &values[2]),
        ("second", &values[3]),
    ];
    let bindings = program.bind(leaves.map(|(name, values)| (name, Slice::F32(values))));
    let (pool, mut arena) = (Pool::new(1)?, program.arena());
    program.run(&mut arena, &bindings, &pool, Variant::Reference, None)?;
    let hidden = program.output(&arena, hidden).f32();
    let gradient = program.output(&arena, gradients[1]).f32();
    for (i, got) in gradient.iter().enumerate() {
        let (out, inner) = (i / WIDTH, i % WIDTH);
        let want: f64 = (0..ROWS).map(|r| f64::from(values[1][r * WIDTH + out]) * f64::from(hidden[r * WIDTH + inner])).sum();
        assert!((f64::from(*got) - want).abs() < 1e-5, "{got}, not {want}");
    }
    Ok(())
}
