//! Evaluation against the graph as it was: operators fused, constant weights prepacked.

use esvit_graph::{Bindings, DType, Graph, Leaf, LeafSource, Precision, Program, Shape, Slice, Value, Variant};
use esvit_ops::conv2d::Conv2d;
use esvit_ops::fusion::PATTERNS;
use esvit_ops::gelu::GELU;
use esvit_ops::layer_norm::LayerNorm;
use esvit_ops::linear::Linear;
use esvit_ops::residual::Residual;
use esvit_ops::window_attention::WindowAttention;
use esvit_ops::{Filter, Input, Layout, Segment};
use esvit_simd::Pool;

/// A graph, its outputs, and the leaves with their values.
struct Net {
    graph: Graph,
    outputs: Vec<Value>,
    leaves: Vec<(String, Vec<f32>)>,
}

impl Net {
    fn leaf(&mut self, name: &str, shape: &[usize]) -> Value {
        let values = Input::Wave(Shape::from(shape)).floats(self.leaves.len()).iter().map(|v| 0.2 * v).collect();
        self.leaves.push((name.to_string(), values));
        self.graph.leaf(name, shape, DType::F32).unwrap()
    }

    /// One of each: two layers with GELU between and a residual behind them, the same with a layer norm before them, a layer with a
    /// residual, one that is an output itself, one whose result is read twice, a convolution, a layer norm with a layer behind it, window
    /// attention with padding and a shift, a layer norm whose statistics are read, and one with a layer and GELU behind it.
    fn new(images: usize) -> Net {
        let layout = Layout::new(vec![Segment { images, height: 7, width: 5 }]);
        let (rows, c, hidden) = (layout.tokens(), 48, 130);
        let mut net = Net { graph: Graph::new(), outputs: Vec::new(), leaves: Vec::new() };
        let x = net.leaf("x", &[rows, c]);
        let (w1, b1) = (net.leaf("w1", &[hidden, c]), net.leaf("b1", &[hidden]));
        let (w2, b2) = (net.leaf("w2", &[c, hidden]), net.leaf("b2", &[c]));
        let (w3, w4) = (net.leaf("w3", &[c, c]), net.leaf("w4", &[c, c * 9]));
        let (gamma, beta) = (net.leaf("gamma", &[c]), net.leaf("beta", &[c]));
        let residual = || Residual { layout: layout.clone() };
        let g = &mut net.graph;
        let h = g.apply1(Linear, &[x, w1, b1]).unwrap();
        let h = g.apply1(GELU, &[h]).unwrap();
        let y = g.apply1(Linear, &[h, w2, b2]).unwrap();
        let y = g.apply1(residual(), &[x, y]).unwrap();
        let normalized = g.apply(LayerNorm { eps: 1e-5 }, &[y, gamma, beta]).unwrap()[0];
        let h = g.apply1(Linear, &[normalized, w1, b1]).unwrap();
        let h = g.apply1(GELU, &[h]).unwrap();
        let h = g.apply1(Linear, &[h, w2]).unwrap();
        let y = g.apply1(residual(), &[y, h]).unwrap();
        let z = g.apply1(Linear, &[y, w3]).unwrap();
        let z = g.apply1(residual(), &[z, y]).unwrap();
        let output = g.apply1(Linear, &[z, w3]).unwrap();
        let twice = g.apply1(Linear, &[z, w3]).unwrap();
        let after = g.apply1(GELU, &[output]).unwrap();
        let both = g.apply1(residual(), &[twice, twice]).unwrap();
        let conv = Conv2d { layout: layout.clone(), filter: Filter { kernel: 3, stride: 1, padding: 1 } };
        let conv = g.apply1(conv, &[both, w4]).unwrap();
        let qkv = net.leaf("w5", &[3 * c, c]);
        let (table, padding) = (net.leaf("w_table", &[49, 3]), net.leaf("qkv_bias", &[3 * c]));
        let g = &mut net.graph;
        let normalized = g.apply(LayerNorm { eps: 1e-5 }, &[conv, gamma, beta]).unwrap()[0];
        let qkv = g.apply1(Linear, &[normalized, qkv, padding]).unwrap();
        let attention = g.apply1(WindowAttention::new(&layout, 3, 4, 2), &[qkv, table, padding]).unwrap();
        let norm = g.apply(LayerNorm { eps: 1e-5 }, &[attention, gamma, beta]).unwrap();
        let layer = g.apply1(Linear, &[norm[0], w3]).unwrap();
        let last = g.apply(LayerNorm { eps: 1e-5 }, &[layer, gamma, beta]).unwrap()[0];
        let last = g.apply1(Linear, &[last, w1, b1]).unwrap();
        let last = g.apply1(GELU, &[last]).unwrap();
        net.outputs = vec![output, after, conv, attention, norm[1], last];
        net
    }

    fn bindings(&self, only: impl Fn(&str) -> bool) -> Bindings<Slice<'_>> {
        let mut bindings = Bindings::new();
        for (name, values) in self.leaves.iter().filter(|(name, _)| only(name)) {
            bindings.bind(self.graph.find_leaf(name).unwrap(), Slice::F32(values));
        }
        bindings
    }
}

/// Largest difference, relative to the largest value.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let difference = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    f64::from(difference) / f64::from(largest)
}

/// The graph as it was, in one of its versions, and the fast version of the fused graph with weights that were prepacked and are gone.
fn compare(images: usize, precision: Precision, variant: Variant, tolerance: f64) {
    let mut net = Net::new(images);
    let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
    let plain = Program::compile(&net.graph, &net.outputs).with_precision(precision);
    let mut want = plain.arena();
    plain.run(&mut want, &net.bindings(|_| true), &one, variant, None).unwrap();

    let outputs = net.outputs.clone();
    net.graph.fuse(PATTERNS, &outputs, true);
    let fused = Program::compile(&net.graph, &outputs).with_precision(precision);
    let names: Vec<&str> = fused.nodes().iter().map(|node| node.op.name()).collect();
    assert_eq!(
        names,
        [
            "mlp_residual",
            "norm_mlp_residual",
            "linear",
            "residual",
            "linear",
            "linear",
            "gelu",
            "residual",
            "conv2d",
            "norm_linear",
            "window_attention",
            "layer_norm",
            "linear",
            "norm_linear_gelu",
        ]
    );
    let mut reference = fused.arena();
    fused.run(&mut reference, &net.bindings(|_| true), &one, Variant::Reference, None).unwrap();

    // With values that products alone read as words of two bf16: the program of an encoder.
    let kept = Program::compile(&net.graph, &outputs).with_precision(precision).with_bf16x2();
    let mut weights = net.bindings(|name| name.starts_with('w'));
    let mut results = Vec::new();
    for (fused, pool) in [(&fused, &one), (&fused, &two), (&kept, &two)] {
        let constants = pool.install(|| fused.prepack(&mut weights));
        let replaced: Vec<String> = fused.replaced(&constants).map(String::from).collect();
        // Elsewhere the products read weights as they are.
        let own = esvit_simd::cpu::bf16();
        assert_eq!(replaced.iter().any(|name| name != "w_table"), own);
        assert!(replaced.iter().any(|name| name == "w_table") && constants.bytes() > 0);
        let mut arena = fused.arena();
        let rest = net.bindings(|name| !replaced.iter().any(|r| r == name));
        pool.install(|| fused.run_prepacked(&constants, &mut arena, &rest, pool, None)).unwrap();
        results.push(arena);
    }
    for value in &outputs {
        let want = plain.output(&want, *value).f32();
        let [got, threads] = [0, 1].map(|i| fused.output(&results[i], *value).f32());
        assert_eq!(got, kept.output(&results[2], *value).f32(), "{precision:?}: rounding comes earlier and is another");
        assert!(distance(got, want) < tolerance, "{precision:?}: off by {:e}", distance(got, want));
        if variant == Variant::Reference {
            assert!(distance(fused.output(&reference, *value).f32(), want) < 1e-6, "the fused operators' plain versions");
        }
        assert_eq!(got, threads, "{precision:?}: the result depends on the threads");
    }
}

#[test]
fn prepacked_weights_and_fused_operators_change_no_result() {
    // Few rows, and so many that fused operators go by blocks of them.
    for images in [2, 16] {
        compare(images, Precision::F32, Variant::Reference, 2e-5);
        // Errors of bf16 add up over so many layers: the same roundings on both sides, but where a last bit of f32 tips one.
        compare(images, Precision::Mixed, Variant::Fast, 1e-2);
    }
}

#[test]
fn a_leaf_with_another_reader_is_not_replaced() {
    let mut net = Net::new(2);
    let w = net.graph.leaf("w3", &[48, 48], DType::F32).unwrap();
    let sum = net.graph.apply1(GELU, &[w]).unwrap();
    net.outputs.push(sum);
    let program = Program::compile(&net.graph, &net.outputs);
    let constants = program.prepack(&mut net.bindings(|_| true));
    assert!(program.replaced(&constants).all(|name| name != "w3"));
}

/// Leaves that note what is released, and give nothing afterwards.
struct Noting<'a> {
    bindings: Bindings<Slice<'a>>,
    released: Vec<Leaf>,
}

impl LeafSource for Noting<'_> {
    fn slice(&self, leaf: Leaf) -> Option<Slice<'_>> {
        assert!(!self.released.contains(&leaf), "{leaf:?} is read after it was released");
        self.bindings.slice(leaf)
    }

    fn release(&mut self, leaf: Leaf) {
        self.released.push(leaf);
    }
}

#[test]
fn leaves_are_released_once_behind_their_last_reader() {
    let net = Net::new(2);
    let program = Program::compile(&net.graph, &net.outputs);
    let mut leaves = Noting { bindings: net.bindings(|name| name.starts_with('w')), released: Vec::new() };
    let constants = program.prepack(&mut leaves);
    let replaced: Vec<&str> = program.replaced(&constants).collect();
    // Elsewhere the products read weights as they are.
    let (first_read, last_read): (&[&str], &[&str]) = match esvit_simd::cpu::bf16() {
        true => (&["w1", "w2", "w3", "w4", "w5", "w_table"], &["w2", "w4", "w5", "w_table", "w3", "w1"]),
        false => (&["w_table"], &["w_table"]),
    };
    let last_read: Vec<Leaf> = last_read.iter().map(|name| net.graph.find_leaf(name).unwrap()).collect();
    assert_eq!(leaves.released, last_read);
    assert_eq!(replaced, first_read);
}
