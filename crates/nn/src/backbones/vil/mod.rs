//! Vision Longformer.
//!
//! Stages of patch embedding and blocks, each with global tokens of its own; sparse stages see sliding windows, the others everything.
//! Names and order of the parameters are the original's, `layer{stage}.{index}.…`, where index 0 is the patch embedding, then attention
//! and MLP blocks in turns.
//!
//! Sources: Zhang et al. 2021, <https://arxiv.org/abs/2103.15358>; `models/vision_longformer.py` of microsoft/esvit.

mod attention;
mod embedding;

use esvit_graph::{Error, Graph, Result, Value};
use esvit_ops::Layout;
use esvit_ops::gather_rows::GatherRows;
use esvit_ops::token_mean::TokenMean;

use super::{Backbone, BackboneInput, Features};
use crate::layers::{Mlp, NormLayer, drop_path_rates, residual};
use crate::spec::{VilBorder, VilGate, VilNeighbors, VilSpec};
use crate::{Scope, TokenMatrix};
use attention::{Gate, VilAttention};
use embedding::VilEmbedding;

const EPS: f32 = 1e-6;
const MLP_RATIO: f64 = 4.0;

pub(super) struct Vil {
    spec: VilSpec,
    stages: Vec<VilLayers>,
    norm: NormLayer,
}

struct VilLayers {
    embedding: VilEmbedding,
    globals: usize,
    blocks: Vec<VilBlock>,
}

struct VilBlock {
    norm1: NormLayer,
    attention: VilAttention,
    gate: Gate,
    norm2: NormLayer,
    mlp: Mlp,
}

impl Vil {
    pub(super) fn new(spec: &VilSpec, g: &mut Graph, scope: &mut Scope) -> Result<Vil> {
        check(spec)?;
        let mut side = spec.image_size;
        let mut sparse = true;
        let mut input = None;
        let mut stages = Vec::new();
        for (s, stage) in spec.stages.iter().enumerate() {
            side /= stage.patch_size;
            // One stage with full attention makes all later ones full.
            sparse &= stage.sparse;
            let mut scope = scope.child(&format!("layer{}", s + 1));
            let embedding = VilEmbedding::new(g, &mut scope.child("0"), stage, side, input, spec.norm_embed)?;
            let mut blocks = Vec::new();
            for b in 0..stage.depth {
                let mut attn = scope.child(&(2 * b + 1).to_string());
                let norm1 = NormLayer::new(g, &mut attn.child("norm"), stage.dim, EPS)?;
                let attention = VilAttention::new(g, &mut attn.child("attn"), spec, stage, side, sparse)?;
                let gate = Gate::new(g, &mut attn.child("se"), spec, stage.dim)?;
                let mut mlp = scope.child(&(2 * b + 2).to_string());
                let norm2 = NormLayer::new(g, &mut mlp.child("norm"), stage.dim, EPS)?;
                let off = if spec.gate_balance && spec.gate != VilGate::None { spec.gate_ratio } else { 0.0 };
                let hidden = (stage.dim as f64 * (MLP_RATIO - off)) as usize;
                let mlp = Mlp::new(g, &mut mlp.child("mlp"), stage.dim, hidden)?;
                blocks.push(VilBlock { norm1, attention, gate, norm2, mlp });
            }
            input = Some(stage.dim);
            stages.push(VilLayers { embedding, globals: stage.globals, blocks });
        }
        let norm = NormLayer::new(g, &mut scope.child("norm"), input.unwrap_or(0), EPS)?;
        Ok(Vil { spec: spec.clone(), stages, norm })
    }

    /// View of a stage's tokens: the first global token where there is one, the mean of all where not.
    fn view(&self, g: &mut Graph, x: Value, layout: &Layout, globals: usize) -> Result<Value> {
        match globals > 0 && !self.spec.average_pool {
            true => g.apply1(GatherRows::head(layout, 1), &[x]),
            false => g.apply1(TokenMean { layout: layout.clone() }, &[x]),
        }
    }

    /// Number of blocks whose windows sample their neighbors.
    fn sampling_blocks(&self) -> usize {
        self.stages.iter().flat_map(|s| &s.blocks).filter(|b| b.attention.samples_neighbors()).count()
    }
}

fn check(spec: &VilSpec) -> Result<()> {
    let fail = |what: String| Err(Error::Attribute { op: "vil", what });
    if spec.stages.is_empty() {
        return fail("there must be a stage".into());
    }
    let (mut side, mut sparse) = (spec.image_size, true);
    for (s, stage) in spec.stages.iter().enumerate() {
        let s = s + 1;
        if stage.patch_size == 0 || stage.dim == 0 || stage.depth == 0 || stage.window == 0 {
            return fail(format!("dim, depth, patch_size and window of stage {s} must be at least 1"));
        }
        side /= stage.patch_size;
        if side == 0 {
            return fail(format!("image_size {} leaves no token in stage {s}", spec.image_size));
        }
        if stage.heads == 0 || !stage.dim.is_multiple_of(stage.heads) {
            return fail(format!("{} channels of stage {s} cannot be split into {} heads", stage.dim, stage.heads));
        }
        if stage.absolute_position && stage.dim % 2 != 0 {
            return fail(format!("{} channels of stage {s} cannot be halved for absolute positions", stage.dim));
        }
        sparse &= stage.sparse;
        if sparse && spec.only_global && stage.globals == 0 {
            return fail(format!("only_global needs a global token in stage {s}"));
        }
        if stage.pooled && (!sparse || spec.only_global || side < stage.window) {
            return fail(format!("pooled keys of stage {s} need sliding windows, and at least one whole window"));
        }
        if stage.pooled && stage.absolute_position {
            return fail(format!("pooled keys of stage {s} need relative positions"));
        }
    }
    if spec.border == VilBorder::Exact && spec.neighbors != VilNeighbors::All {
        return fail("exact distances need all neighbors".into());
    }
    if !(0.0..=1.0).contains(&spec.draw_until) {
        return fail(format!("draw_until must be between 0 and 1, got {}", spec.draw_until));
    }
    if !(0.0..1.0).contains(&spec.gate_ratio) {
        return fail(format!("gate_ratio must be at least 0 and below 1, got {}", spec.gate_ratio));
    }
    if !(0.0..1.0).contains(&spec.drop_path) {
        return fail(format!("drop_path must be at least 0 and below 1, got {}", spec.drop_path));
    }
    Ok(())
}

impl Backbone for Vil {
    fn width(&self) -> usize {
        self.spec.stages.last().map_or(0, |s| s.dim)
    }

    fn patch_size(&self) -> usize {
        self.spec.stages[0].patch_size
    }

    fn drop_path_rates(&self) -> Vec<f64> {
        drop_path_rates(self.spec.drop_path, self.spec.stages.iter().map(|s| s.depth).sum())
    }

    fn sampled_layers(&self) -> (usize, f64) {
        (self.sampling_blocks(), self.spec.draw_until)
    }

    fn forward(&self, g: &mut Graph, input: &BackboneInput) -> Result<Features> {
        let patches = g.apply1(input.crops.clone(), &[input.pixels])?; // [N, 3·P·P]
        let mut grids = input.crops.tokens();
        let mut x = patches;
        let mut drop_path = input.drop_path.iter().copied();
        let mut neighbors = input.neighbors.iter().copied();
        let (mut blocks, mut maps) = (Vec::new(), Vec::new());
        let mut layout = grids.clone();
        let mut before = 0;
        for (s, stage) in self.stages.iter().enumerate() {
            let side = self.spec.stages[s].patch_size;
            if s > 0 {
                if let Some(grid) = grids.segments().iter().find(|grid| grid.height < side || grid.width < side) {
                    let what =
                        format!("a crop has {} x {} tokens left in stage {s}, less than a patch of the next", grid.height, grid.width);
                    return Err(Error::Attribute { op: "vil", what });
                }
                if before > 0 {
                    x = g.apply1(GatherRows::tail(&layout, before), &[x])?;
                }
                x = g.apply1(GatherRows::patches(&grids, side), &[x])?;
                grids = grids.map(|h, w| (h / side, w / side));
            }
            layout = match stage.globals {
                0 => grids.clone(),
                globals => grids.map(|h, w| (1, globals + h * w)),
            };
            x = g.segment(|g| stage.embedding.forward(g, x, &grids, &layout))?;
            for block in &stage.blocks {
                let draw = if block.attention.samples_neighbors() { neighbors.next() } else { None };
                let map;
                (x, map) = g.segment(|g| {
                    let normed = block.norm1.forward(g, x)?;
                    let (y, map) = block.attention.forward(g, normed, &grids, &layout, draw)?;
                    let y = block.gate.forward(g, y, &layout)?;
                    let x = residual(g, x, y, &layout, drop_path.next().flatten())?;
                    let normed = block.norm2.forward(g, x)?;
                    let y = block.mlp.forward(g, normed)?;
                    Ok((residual(g, x, y, &layout, drop_path.next().flatten())?, map))
                })?;
                maps.push(map);
                // Only the last stage's outputs are normed, as the original's linear evaluation does.
                let normed = if s + 1 == self.stages.len() { self.norm.forward(g, x)? } else { x };
                blocks.push(self.view(g, normed, &layout, stage.globals)?);
            }
            before = stage.globals;
        }
        let normed = self.norm.forward(g, x)?;
        let view = self.view(g, normed, &layout, before)?;
        let regions = match before > 0 && !self.spec.average_pool {
            false => TokenMatrix { value: normed, layout },
            true => {
                let value = g.apply1(GatherRows::tail(&layout, 1), &[normed])?;
                // Further global tokens are regions like the others, as in the original.
                let layout = if before == 1 { grids } else { layout.map(|_, tokens| (1, tokens - 1)) };
                TokenMatrix { value, layout }
            }
        };
        Ok(Features { view, regions, blocks, attention: maps, statistics: Vec::new() })
    }
}
