//! Segments are recomputed for the backward pass, those inside others once more, and change no bit.

use esvit_graph::{DType, Graph, Program, Result, Slice, Value, Variant};
use esvit_ops::gelu::GELU;
use esvit_ops::layer_norm::LayerNorm;
use esvit_ops::linear::Linear;
use esvit_simd::Pool;

const ROWS: usize = 64;
const WIDTH: usize = 8;
const HIDDEN: usize = 32;
const BLOCKS: usize = 3;

/// Which parts of a block are segments.
#[derive(Clone, Copy, PartialEq)]
enum Parts {
    Nothing,
    Blocks,
    /// The block's first half lies inside, and reads a norm that is in the block alone.
    BlocksAndHalves,
}

fn mlp(g: &mut Graph, name: &str, x: Value) -> Result<Value> {
    let (up, down) =
        (g.leaf(&format!("{name} up"), &[HIDDEN, WIDTH], DType::F32)?, g.leaf(&format!("{name} down"), &[WIDTH, HIDDEN], DType::F32)?);
    let hidden = g.apply1(Linear, &[x, up])?;
    let hidden = g.apply1(GELU, &[hidden])?;
    g.apply1(Linear, &[hidden, down])
}

fn block(g: &mut Graph, index: usize, x: Value, parts: Parts) -> Result<Value> {
    let (gamma, beta) = (g.leaf("gamma", &[WIDTH], DType::F32)?, g.leaf("beta", &[WIDTH], DType::F32)?);
    let normed = g.apply(LayerNorm { eps: 1e-5 }, &[x, gamma, beta])?[0];
    let half = |g: &mut Graph| mlp(g, &format!("{index} first"), normed);
    let y = if parts == Parts::BlocksAndHalves { g.segment(half) } else { half(g) }?;
    let normed = g.apply(LayerNorm { eps: 1e-5 }, &[y, gamma, beta])?[0];
    mlp(g, &format!("{index} second"), normed)
}

/// The program of the result and all gradients, and they.
fn program(parts: Parts) -> Result<(Program, Vec<Value>)> {
    let mut g = Graph::new();
    let (mut x, seed) = (g.leaf("x", &[ROWS, WIDTH], DType::F32)?, g.leaf("seed", &[ROWS, WIDTH], DType::F32)?);
    g.set_checkpointing(parts != Parts::Nothing);
    for index in 0..BLOCKS {
        x = g.segment(|g| block(g, index, x, parts))?;
    }
    let wrt: Vec<Value> = g.leaves().iter().filter(|leaf| leaf.name != "seed").map(|leaf| leaf.value).collect();
    let mut outputs: Vec<Value> = g.gradients(&[(x, seed)], &wrt)?.into_iter().flatten().collect();
    assert_eq!(outputs.len(), wrt.len());
    outputs.push(x);
    Ok((Program::compile(&g, &outputs), outputs))
}

fn count(program: &Program, op: &str) -> usize {
    program.nodes().iter().filter(|node| node.op.name() == op).count()
}

#[test]
fn what_is_computed_again_is_the_same_and_takes_less_memory() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(1)?;
    let mut seen: Vec<(usize, Vec<u32>)> = Vec::new();
    // Layers of a block: four in the forward pass. Again: the first half, and the first layer of the second; with halves the first of those
    // once more.
    for (parts, layers) in [(Parts::Nothing, 4), (Parts::Blocks, 4 + 3), (Parts::BlocksAndHalves, 4 + 3 + 1)] {
        let (program, outputs) = program(parts)?;
        assert_eq!(count(&program, "linear"), BLOCKS * layers);
        let values: Vec<(String, Vec<f32>)> = program
            .leaves()
            .enumerate()
            .map(|(n, (name, len, _))| (name.to_string(), (0..len).map(|i| ((i * 7 + n * 3) as f32 * 0.37).sin()).collect()))
            .collect();
        let bindings = program.bind(values.iter().map(|(name, values)| (name, Slice::F32(values))));
        let mut arena = program.arena();
        program.run(&mut arena, &bindings, &pool, Variant::Fast, None)?;
        let bits = outputs.iter().flat_map(|v| program.output(&arena, *v).f32().iter().map(|g| g.to_bits()));
        seen.push((program.arena_bytes(), bits.collect()));
    }
    assert!(seen.iter().all(|(_, bits)| *bits == seen[0].1), "results differ");
    assert!(seen[1].0 < seen[0].0 && seen[2].0 < seen[1].0, "bytes: {:?}", seen.iter().map(|(bytes, _)| bytes).collect::<Vec<_>>());
    Ok(())
}
