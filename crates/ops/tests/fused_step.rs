//! A graph with its gradients, as it is and fused: the same bits in both.

use esvit_graph::{DType, Graph, Precision, Program, Result, Slice, Value, Variant};
use esvit_ops::fusion::PATTERNS;
use esvit_ops::gelu::GELU;
use esvit_ops::linear::Linear;
use esvit_ops::residual::Residual;
use esvit_ops::{Layout, Segment};
use esvit_simd::Pool;

const WIDTH: usize = 40;
/// Hidden elements of the branches, and whether they have factors. Many are more than one block of a product's depth (KC): the epilogue
/// follows the last block, but for a residual without factors, which is the first summand.
const BRANCHES: [(usize, bool); 3] = [(1500, true), (130, false), (90, true)];

/// Two residual branches with factors for each image and one without, and all gradients.
fn graph() -> Result<(Graph, Vec<Value>)> {
    let layout = Layout::new(vec![Segment { images: 2, height: 5, width: 3 }, Segment { images: 3, height: 2, width: 1 }]);
    let mut g = Graph::new();
    let shape = [layout.tokens(), WIDTH];
    let (mut x, seed) = (g.leaf("x", &shape, DType::F32)?, g.leaf("seed", &shape, DType::F32)?);
    for (branch, (hidden, scaled)) in BRANCHES.into_iter().enumerate() {
        let mut leaf = |name: &str, shape: &[usize]| g.leaf(&format!("{branch} {name}"), shape, DType::F32);
        let (up, up_bias) = (leaf("up", &[hidden, WIDTH])?, leaf("up bias", &[hidden])?);
        let (down, down_bias) = (leaf("down", &[WIDTH, hidden])?, leaf("down bias", &[WIDTH])?);
        let factors = leaf("factors", &[layout.images()])?;
        let h = g.apply1(Linear, &[x, up, up_bias])?;
        let h = g.apply1(GELU, &[h])?;
        let y = g.apply1(Linear, &[h, down, down_bias])?;
        let operands = if scaled { vec![x, y, factors] } else { vec![x, y] };
        x = g.apply1(Residual { layout: layout.clone() }, &operands)?;
    }
    let trained = |name: &str| name != "seed" && !name.contains("factors");
    let wrt: Vec<Value> = g.leaves().iter().filter(|leaf| trained(&leaf.name)).map(|leaf| leaf.value).collect();
    let mut outputs: Vec<Value> = g.gradients(&[(x, seed)], &wrt)?.into_iter().flatten().collect();
    assert_eq!(outputs.len(), wrt.len());
    outputs.push(x);
    Ok((g, outputs))
}

fn results(program: &Program, outputs: &[Value], pool: &Pool, variant: Variant) -> Result<Vec<f32>> {
    let values: Vec<(String, Vec<f32>)> = program
        .leaves()
        .enumerate()
        .map(|(n, (name, len, _))| (name.to_string(), (0..len).map(|i| 0.3 * ((i * 7 + n * 3) as f32 * 0.37).sin()).collect()))
        .collect();
    let bindings = program.bind(values.iter().map(|(name, values)| (name, Slice::F32(values))));
    let mut arena = program.arena();
    pool.install(|| program.run(&mut arena, &bindings, pool, variant, None))?;
    Ok(outputs.iter().flat_map(|v| program.output(&arena, *v).f32().to_vec()).collect())
}

#[test]
fn fusion_changes_no_bit_of_a_step() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (one, two) = (Pool::new(1)?, Pool::new(2)?);
    for precision in [Precision::F32, Precision::Mixed] {
        let (mut g, outputs) = graph()?;
        let plain = Program::compile(&g, &outputs).with_precision(precision);
        g.fuse(PATTERNS, &outputs, false);
        let fused = Program::compile(&g, &outputs).with_precision(precision);
        let count = |name: &str| fused.nodes().iter().filter(|node| node.op.name() == name).count();
        assert_eq!([count("linear_residual"), count("linear_gelu_dx"), count("residual"), count("gelu_dx")], [3, 3, 0, 0]);
        // The operand of a GELU is read by its gradient and therefore stored: such a GELU is not fused.
        assert_eq!([count("gelu"), count("linear_gelu")], [6, 0]);
        let want = results(&plain, &outputs, &two, Variant::Fast)?;
        for pool in [&one, &two] {
            let got = results(&fused, &outputs, pool, Variant::Fast)?;
            assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{precision:?}: another result");
        }
        let (got, want) = (results(&fused, &outputs, &one, Variant::Reference)?, results(&plain, &outputs, &one, Variant::Reference)?);
        let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-6 * largest), "plain versions of fused operators");
    }
    Ok(())
}
