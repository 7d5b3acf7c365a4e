//! Swin Transformer.
//!
//! Patch embedding, stages of window-attention blocks with patch merging between them, a final norm. Names and order of the
//! parameters are the original's, `layers.{stage}.blocks.{block}.…`.
//!
//! Windows and shifts are decided once from the nominal image size, halved with rounding down from stage to stage: a stage
//! whose nominal side is no larger than the window gets windows of that side and no shift, whatever the size of the crop.
//!
//! Source: Liu et al. 2021, <https://arxiv.org/abs/2103.14030>; `models/swin_transformer.py` of microsoft/esvit.

use esvit_graph::{Error, Graph, Result, Value};
use esvit_ops::Layout;
use esvit_ops::patch_merge::PatchMerge;
use esvit_ops::position::AddPosition;
use esvit_ops::token_mean::TokenMean;
use esvit_ops::window_attention::{AttentionMap, WindowAttention};

use super::{Backbone, BackboneInput, Features};
use crate::layers::{INIT_STD, LinearLayer, Mlp, NormLayer, drop_path_rates, residual};
use crate::spec::SwinSpec;
use crate::{Init, Role, Scope, TokenMatrix};

const EPS: f32 = 1e-6;

pub(super) struct Swin {
    spec: SwinSpec,
    position: Option<Value>,
    embedding: LinearLayer,
    embedding_norm: Option<NormLayer>,
    stages: Vec<SwinStage>,
    norm: NormLayer,
}

struct SwinStage {
    blocks: Vec<SwinBlock>,
    /// Reduction and norm of the patch merging that follows.
    downsample: Option<(LinearLayer, NormLayer)>,
}

struct SwinBlock {
    norm1: NormLayer,
    bias_table: Value,
    qkv: LinearLayer,
    proj: LinearLayer,
    norm2: NormLayer,
    mlp: Mlp,
    heads: usize,
    window: usize,
    shift: usize,
}

impl Swin {
    pub(super) fn new(spec: &SwinSpec, g: &mut Graph, scope: &mut Scope) -> Result<Swin> {
        check(spec)?;
        let side = spec.image_size / spec.patch_size;
        let position = match spec.absolute_position {
            true => {
                let (tokens, init) = (side * side, Init::Normal(INIT_STD));
                Some(scope.declare_as(g, "absolute_pos_embed", &[1, tokens, spec.dim], &[tokens, spec.dim], init, Role::Parameter)?)
            }
            false => None,
        };
        let mut patch = scope.child("patch_embed");
        let embedding = LinearLayer::patch_convolution(g, &mut patch.child("proj"), spec.patch_size, spec.dim)?;
        let embedding_norm = if spec.patch_norm { Some(NormLayer::new(g, &mut patch.child("norm"), spec.dim, EPS)?) } else { None };

        let mut stages = Vec::new();
        for (s, (&depth, &heads)) in spec.depths.iter().zip(&spec.heads).enumerate() {
            let width = spec.dim << s;
            let nominal = side >> s;
            let mut stage = scope.child(&format!("layers.{s}"));
            let blocks = (0..depth).map(|b| {
                let (window, shift) = match () {
                    _ if nominal <= spec.window => (nominal, 0),
                    _ if b % 2 == 0 => (spec.window, 0),
                    _ => (spec.window, spec.window / 2),
                };
                SwinBlock::new(spec, g, &mut stage.child(&format!("blocks.{b}")), width, heads, window, shift)
            });
            let blocks = blocks.collect::<Result<_>>()?;
            let downsample = if s + 1 < spec.depths.len() {
                let mut scope = stage.child("downsample");
                let reduction = LinearLayer::new(g, &mut scope.child("reduction"), 4 * width, 2 * width, false)?;
                Some((reduction, NormLayer::new(g, &mut scope.child("norm"), 4 * width, EPS)?))
            } else {
                None
            };
            stages.push(SwinStage { blocks, downsample });
        }
        let norm = NormLayer::new(g, &mut scope.child("norm"), spec.dim << (spec.depths.len() - 1), EPS)?;
        Ok(Swin { spec: spec.clone(), position, embedding, embedding_norm, stages, norm })
    }

    /// Patches to tokens, `[N, C]`.
    fn embed(&self, g: &mut Graph, input: &BackboneInput) -> Result<Value> {
        let patches = g.apply1(input.crops.clone(), &[input.pixels])?; // [N, 3·P·P]
        let x = self.embedding.forward(g, patches)?; // [N, C]
        let x = self.embedding_norm.map_or(Ok(x), |norm| norm.forward(g, x))?;
        self.position.map_or(Ok(x), |table| g.apply1(AddPosition, &[x, table]))
    }
}

fn check(spec: &SwinSpec) -> Result<()> {
    let fail = |what: String| Err(Error::Attribute { op: "swin", what });
    if spec.patch_size == 0 || spec.window == 0 || spec.dim == 0 {
        return fail("patch_size, window and dim must be at least 1".into());
    }
    if spec.depths.is_empty() || spec.depths.len() != spec.heads.len() || spec.depths.contains(&0) {
        return fail(format!("depths {:?} and heads {:?} need one positive number for each stage", spec.depths, spec.heads));
    }
    let smallest = (spec.image_size / spec.patch_size) >> (spec.depths.len() - 1);
    if smallest == 0 {
        return fail(format!(
            "image_size {} leaves no token after {} stages of patches of {}",
            spec.image_size,
            spec.depths.len(),
            spec.patch_size
        ));
    }
    for (s, &heads) in spec.heads.iter().enumerate() {
        if heads == 0 || !(spec.dim << s).is_multiple_of(heads) {
            return fail(format!("{} channels of stage {} cannot be split into {heads} heads", spec.dim << s, s + 1));
        }
    }
    if !(0.0..1.0).contains(&spec.drop_path) {
        return fail(format!("drop_path must be at least 0 and below 1, got {}", spec.drop_path));
    }
    Ok(())
}

impl SwinBlock {
    fn new(
        spec: &SwinSpec,
        g: &mut Graph,
        scope: &mut Scope,
        width: usize,
        heads: usize,
        window: usize,
        shift: usize,
    ) -> Result<SwinBlock> {
        let span = 2 * window - 1;
        let norm1 = NormLayer::new(g, &mut scope.child("norm1"), width, EPS)?;
        let mut attn = scope.child("attn");
        let bias_table = attn.parameter(g, "relative_position_bias_table", &[span * span, heads], Init::Normal(INIT_STD))?;
        attn.constant("relative_position_index", &[window * window; 2], relative_position_index(window));
        let qkv = LinearLayer::new(g, &mut attn.child("qkv"), width, 3 * width, spec.qkv_bias)?;
        let proj = LinearLayer::new(g, &mut attn.child("proj"), width, width, true)?;
        let norm2 = NormLayer::new(g, &mut scope.child("norm2"), width, EPS)?;
        let hidden = (width as f64 * spec.mlp_ratio) as usize;
        let mlp = Mlp::new(g, &mut scope.child("mlp"), width, hidden)?;
        Ok(SwinBlock { norm1, bias_table, qkv, proj, norm2, mlp, heads, window, shift })
    }

    /// The block's output and its attention. `drop_path` gives the factors of the attention branch, then of the MLP branch. With `apart` the attention
    /// branch is a segment of its own.
    fn forward(
        &self,
        g: &mut Graph,
        x: Value,
        layout: &Layout,
        apart: bool,
        drop_path: &mut impl Iterator<Item = Option<Value>>,
    ) -> Result<(Value, Value)> {
        let factor = drop_path.next().flatten();
        let attend = |g: &mut Graph| {
            let normed = self.norm1.forward(g, x)?; // [N, C]
            let qkv = self.qkv.forward(g, normed)?; // [N, 3·C]
            let mut operands = vec![qkv, self.bias_table];
            operands.extend(self.qkv.bias); // what padding tokens hold
            let attention = WindowAttention::new(layout, self.heads, self.window, self.shift);
            let map = g.apply1(AttentionMap(attention.clone()), &operands)?;
            let y = g.apply1(attention, &operands)?; // [N, C]
            let y = self.proj.forward(g, y)?;
            Ok((residual(g, x, y, layout, factor)?, map))
        };
        let (x, map) = if apart { g.segment(attend) } else { attend(g) }?;
        let normed = self.norm2.forward(g, x)?;
        let y = self.mlp.forward(g, normed)?;
        Ok((residual(g, x, y, layout, drop_path.next().flatten())?, map))
    }
}

/// The original's buffer: for each pair of a window's tokens, its row of the bias table.
pub(super) fn relative_position_index(window: usize) -> Vec<i64> {
    let (area, span) = (window * window, 2 * window - 1);
    let row = |p: usize| {
        let (i, j) = (p / area, p % area);
        let dr = i / window + window - 1 - j / window;
        let dc = i % window + window - 1 - j % window;
        (dr * span + dc) as i64
    };
    (0..area * area).map(row).collect()
}

impl Backbone for Swin {
    fn width(&self) -> usize {
        self.spec.dim << (self.spec.depths.len() - 1)
    }

    fn patch_size(&self) -> usize {
        self.spec.patch_size
    }

    fn drop_path_rates(&self) -> Vec<f64> {
        drop_path_rates(self.spec.drop_path, self.spec.depths.iter().sum())
    }

    fn forward(&self, g: &mut Graph, input: &BackboneInput) -> Result<Features> {
        let mut layout = input.crops.tokens();
        // Embedded patches belong to the segment of the first block: storing them costs more than recomputing them.
        let mut x = None;
        let mut drop_path = input.drop_path.iter().copied();
        let (mut blocks, mut attention) = (Vec::new(), Vec::new());
        for (s, stage) in self.stages.iter().enumerate() {
            for block in &stage.blocks {
                let (y, map) = g.segment(|g| {
                    let x = x.map_or_else(|| g.segment(|g| self.embed(g, input)), Ok)?;
                    // Where rows are the most, a block's gradient decides the peak of a step: one more attention is small beside that.
                    block.forward(g, x, &layout, s == 0, &mut drop_path)
                })?;
                x = Some(y);
                attention.push(map);
                // Only the last stage's outputs are normed, as the original's linear evaluation does.
                let normed = if s + 1 == self.stages.len() { self.norm.forward(g, y)? } else { y };
                blocks.push(g.apply1(TokenMean { layout: layout.clone() }, &[normed])?);
            }
            if let (Some(y), Some((reduction, norm))) = (x, &stage.downsample) {
                let merge = PatchMerge { layout: layout.clone() };
                layout = merge.merged();
                let merged = g.apply1(merge, &[y])?; // [N/4, 4·C]
                let merged = norm.forward(g, merged)?;
                x = Some(reduction.forward(g, merged)?); // [N/4, 2·C]
            }
        }
        let x = x.expect("`check` wants a block in every stage");
        let regions = self.norm.forward(g, x)?;
        let view = g.apply1(TokenMean { layout: layout.clone() }, &[regions])?;
        Ok(Features { view, regions: TokenMatrix { value: regions, layout }, blocks, attention, statistics: Vec::new() })
    }
}
