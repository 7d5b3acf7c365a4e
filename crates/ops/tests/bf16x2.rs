//! Values that are kept as words of two bf16 against the same program without them: what is rounded anyway is rounded earlier.

// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

use esvit_graph::{DType, Graph, Precision, Program, Slice, Value, Variant};
use esvit_ops::fusion::PATTERNS;
use esvit_ops::gelu::GELU;
use esvit_ops::layer_norm::LayerNorm;
use esvit_ops::linear::Linear;
use esvit_ops::residual::Residual;
use esvit_ops::window_attention::WindowAttention;
use esvit_ops::{Layout, Segment};
use esvit_simd::Pool;

/// Window attention with its projections: grids with padding, heads of `d` channels; results and gradients.
struct Net {
    graph: Graph,
    outputs: Vec<Value>,
    leaves: Vec<(String, Vec<f32>)>,
}

impl Net {
    fn new(heads: usize, d: usize, bias: bool) -> Net {
        let layout = Layout::new(vec![Segment { images: 2, height: 5, width: 6 }, Segment { images: 1, height: 4, width: 4 }]);
        let (n, c) = (layout.tokens(), heads * d);
        let (mut graph, mut leaves) = (Graph::new(), Vec::new());
        let g = &mut graph;
        let mut leaf = |g: &mut Graph, name: &str, shape: &[usize], scale: f32| {
            let number = leaves.len() as f32;
            let values = (0..shape.iter().product()).map(|i| scale * (i as f32 * (0.37 + 0.1 * number)).sin()).collect();
            leaves.push((name.to_string(), values));
            g.leaf(name, shape, DType::F32).unwrap()
        };
        let x = leaf(g, "x", &[n, c], 1.0);
        let table = leaf(g, "table", &[49, heads], 1.0);
        let (into, out) = (leaf(g, "qkv", &[3 * c, c], 0.3), leaf(g, "proj", &[c, c], 0.3));
        let mut trained = vec![x, table, into, out];
        let mut layer = vec![x, into];
        if bias {
            layer.push(leaf(g, "bias", &[3 * c], 0.5));
            trained.push(layer[2]);
        }
        let dy = leaf(g, "dy", &[n, c], 1.0);
        let qkv = g.apply1(Linear, &layer).unwrap();
        let operands: Vec<Value> = [qkv, table].into_iter().chain(layer.get(2).copied()).collect();
        let y = g.apply1(WindowAttention::new(&layout, heads, 4, 2), &operands).unwrap();
        let y = g.apply1(Linear, &[y, out]).unwrap();
        let mut outputs = vec![y];
        outputs.extend(g.gradients(&[(y, dy)], &trained).unwrap().into_iter().flatten());
        Net { graph, outputs, leaves }
    }

    /// Norm, MLP and a residual with factors, fused; all but the factors are trained. Biases come last.
    fn mlp() -> Net {
        let layout = Layout::new(vec![Segment { images: 2, height: 5, width: 6 }, Segment { images: 1, height: 3, width: 3 }]);
        let (n, c, hidden) = (layout.tokens(), 34, 66);
        let (mut graph, mut leaves) = (Graph::new(), Vec::new());
        let g = &mut graph;
        let shapes: [(&str, &[usize], f32); 9] = [
            ("x", &[n, c], 1.0),
            ("gamma", &[c], 1.0),
            ("beta", &[c], 0.5),
            ("up", &[hidden, c], 0.3),
            ("down", &[c, hidden], 0.3),
            ("up bias", &[hidden], 0.5),
            ("down bias", &[c], 0.5),
            ("factors", &[3], 1.5),
            ("dy", &[n, c], 1.0),
        ];
        let values: Vec<Value> = shapes.iter().map(|(name, shape, _)| g.leaf(name, shape, DType::F32).unwrap()).collect();
        for (number, (name, shape, scale)) in shapes.iter().enumerate() {
            let step = 0.37 + 0.1 * number as f32;
            // Gradients whose sums do not cancel.
            let mean = if *name == "dy" { 1.0 } else { 0.0 };
            leaves.push((name.to_string(), (0..shape.iter().product()).map(|i| mean + scale * (i as f32 * step).sin()).collect()));
        }
        let &[x, gamma, beta, up, down, up_bias, down_bias, factors, dy] = &values[..] else { unreachable!("nine leaves") };
        let normed = g.apply(LayerNorm { eps: 1e-6 }, &[x, gamma, beta]).unwrap()[0];
        let h = g.apply1(Linear, &[normed, up, up_bias]).unwrap();
        let h = g.apply1(GELU, &[h]).unwrap();
        let y = g.apply1(Linear, &[h, down, down_bias]).unwrap();
        let y = g.apply1(Residual { layout }, &[x, y, factors]).unwrap();
        let mut outputs = vec![y];
        outputs.extend(g.gradients(&[(y, dy)], &values[..7]).unwrap().into_iter().flatten());
        g.fuse(PATTERNS, &outputs, false);
        Net { graph, outputs, leaves }
    }

    fn run(&self, program: &Program, threads: usize, variant: Variant) -> Vec<Vec<f32>> {
        let (pool, mut arena) = (Pool::new(threads).unwrap(), program.arena());
        let bindings = program.bind(self.leaves.iter().map(|(name, values)| (name, Slice::F32(values))));
        pool.install(|| program.run(&mut arena, &bindings, &pool, variant, None)).unwrap();
        self.outputs.iter().map(|output| program.output(&arena, *output).f32().to_vec()).collect()
    }
}

/// Distance of two results, relative to the largest element.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    a.iter().zip(b).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn results_are_those_of_values_that_are_rounded_when_they_are_read() {
    if !esvit_simd::cpu::bf16() {
        eprintln!("skipped: this CPU does not multiply bf16, so that nothing is kept rounded");
        return;
    }
    let attention = [(2, 10, true), (3, 32, true), (1, 34, false)].map(|(heads, d, bias)| (Net::new(heads, d, bias), usize::from(bias)));
    for (case, (net, biases)) in attention.into_iter().chain([(Net::mlp(), 2)]).enumerate() {
        let program = || Program::compile(&net.graph, &net.outputs).with_precision(Precision::Mixed);
        let (plain, pairs) = (program(), program().with_bf16x2());
        assert!(pairs.arena_bytes() < plain.arena_bytes(), "case {case}: {} of {}", pairs.arena_bytes(), plain.arena_bytes());
        let got = net.run(&pairs, 2, Variant::Fast);
        assert!(got == net.run(&pairs, 1, Variant::Fast), "case {case}: threads change the result");
        for (i, (got, want)) in got.iter().zip(&net.run(&plain, 2, Variant::Fast)).enumerate() {
            // The gradient of a bias is a sum of what is rounded now: 76 rows of errors of 2⁻⁹ at most.
            let within = if i + biases >= net.outputs.len() { 3e-2 } else { 0.0 };
            assert!(distance(got, want) <= within, "case {case}, result {i}: {}", distance(got, want));
        }
    }
}

#[test]
fn heads_of_odd_width_and_single_precision_stay_as_they_are() {
    for (d, precision) in [(5, Precision::Mixed), (8, Precision::F32)] {
        let net = Net::new(1, d, true);
        let program = || Program::compile(&net.graph, &net.outputs).with_precision(precision);
        assert_eq!(program().with_bf16x2().arena_bytes(), program().arena_bytes());
        assert_eq!(net.run(&program().with_bf16x2(), 2, Variant::Fast), net.run(&program(), 2, Variant::Fast));
    }
}
