//! Vision transformer with a class token, in DeiT's form.
//!
//! Patches and a class token get positions, resampled bicubically for crops of other than the nominal size, then blocks of full
//! attention, and a final norm. The class token is the view feature, the patches are the regions. Names and order of the parameters are the
//! original's.
//!
//! Sources: Dosovitskiy et al. 2021, <https://arxiv.org/abs/2010.11929>; `models/vision_transformer.py` of microsoft/esvit.

use esvit_graph::{Error, Graph, Result, Value};
use esvit_ops::attention::{Attention, ImageAttentionMap};
use esvit_ops::gather_rows::GatherRows;
use esvit_ops::position::AddPositions;
use esvit_ops::row_map::{Cubic, RowMapBuilder};
use esvit_ops::{Layout, Segment};

use super::{Backbone, BackboneInput, Features};
use crate::layers::{INIT_STD, LinearLayer, Mlp, NormLayer, drop_path_rates, residual};
use crate::spec::VitSpec;
use crate::{Init, Scope, TokenMatrix};

const EPS: f32 = 1e-6;

pub(super) struct Vit {
    spec: VitSpec,
    class_token: Value,
    /// `[1, 1 + patches, C]`: the class token's, then the patches' of the nominal size.
    position: Value,
    embedding: LinearLayer,
    blocks: Vec<VitBlock>,
    norm: NormLayer,
}

struct VitBlock {
    norm1: NormLayer,
    qkv: LinearLayer,
    proj: LinearLayer,
    norm2: NormLayer,
    mlp: Mlp,
}

impl Vit {
    pub(super) fn new(spec: &VitSpec, g: &mut Graph, scope: &mut Scope) -> Result<Vit> {
        check(spec)?;
        let side = spec.image_size / spec.patch_size;
        let class_token = scope.parameter(g, "cls_token", &[1, 1, spec.dim], Init::Normal(INIT_STD))?;
        let position = scope.parameter(g, "pos_embed", &[1, 1 + side * side, spec.dim], Init::Normal(INIT_STD))?;
        let embedding = LinearLayer::patch_convolution(g, &mut scope.child("patch_embed.proj"), spec.patch_size, spec.dim)?;
        let blocks = (0..spec.depth).map(|b| VitBlock::new(spec, g, &mut scope.child(&format!("blocks.{b}")))).collect::<Result<_>>()?;
        let norm = NormLayer::new(g, &mut scope.child("norm"), spec.dim, EPS)?;
        Ok(Vit { spec: spec.clone(), class_token, position, embedding, blocks, norm })
    }

    /// Class token and positions of every segment, `[Σ (1 + patches), C]`.
    fn positions(&self, g: &mut Graph, grids: &Layout) -> Result<Value> {
        let side = self.spec.image_size / self.spec.patch_size;
        let mut map = RowMapBuilder::new(self.spec.dim, &[1, 1]);
        for s in grids.segments() {
            map.row(&[(0, 0, 1.0), (1, 0, 1.0)]);
            let (rows, cols) = resampling(side, s);
            for t in 0..s.tokens_per_image() {
                let taps = |(i, wi): (usize, f32)| cols.taps(t % s.width).map(move |(j, wj)| (1, 1 + i * side + j, wi * wj));
                map.row(&rows.taps(t / s.width).flat_map(taps).collect::<Vec<_>>());
            }
        }
        let shape = [map.rows(), self.spec.dim];
        g.apply1(map.finish(&shape), &[self.class_token, self.position])
    }
}

/// From the nominal grid to a segment's: rows, then columns. The original has one factor for both, from the numbers of patches.
fn resampling(side: usize, s: &Segment) -> (Cubic, Cubic) {
    let factor = |to: usize| match s.height == s.width {
        true => (s.tokens_per_image() as f64 / (side * side) as f64).sqrt(),
        false => to as f64 / side as f64,
    };
    (Cubic::new(side, s.height, factor(s.height)), Cubic::new(side, s.width, factor(s.width)))
}

fn check(spec: &VitSpec) -> Result<()> {
    let fail = |what: String| Err(Error::Attribute { op: "vit", what });
    if spec.patch_size == 0 || spec.dim == 0 || spec.depth == 0 {
        return fail("patch_size, dim and depth must be at least 1".into());
    }
    if spec.image_size < spec.patch_size {
        return fail(format!("image_size {} is less than a patch of {}", spec.image_size, spec.patch_size));
    }
    if spec.heads == 0 || !spec.dim.is_multiple_of(spec.heads) {
        return fail(format!("{} channels cannot be split into {} heads", spec.dim, spec.heads));
    }
    if !(0.0..1.0).contains(&spec.drop_path) {
        return fail(format!("drop_path must be at least 0 and below 1, got {}", spec.drop_path));
    }
    Ok(())
}

impl VitBlock {
    fn new(spec: &VitSpec, g: &mut Graph, scope: &mut Scope) -> Result<VitBlock> {
        let norm1 = NormLayer::new(g, &mut scope.child("norm1"), spec.dim, EPS)?;
        let qkv = LinearLayer::new(g, &mut scope.child("attn.qkv"), spec.dim, 3 * spec.dim, spec.qkv_bias)?;
        let proj = LinearLayer::new(g, &mut scope.child("attn.proj"), spec.dim, spec.dim, true)?;
        let norm2 = NormLayer::new(g, &mut scope.child("norm2"), spec.dim, EPS)?;
        let hidden = (spec.dim as f64 * spec.mlp_ratio) as usize;
        let mlp = Mlp::new(g, &mut scope.child("mlp"), spec.dim, hidden)?;
        Ok(VitBlock { norm1, qkv, proj, norm2, mlp })
    }

    /// The block's output and its attention.
    fn forward(
        &self,
        g: &mut Graph,
        x: Value,
        layout: &Layout,
        heads: usize,
        drop_path: &mut impl Iterator<Item = Option<Value>>,
    ) -> Result<(Value, Value)> {
        let normed = self.norm1.forward(g, x)?; // [N, C]
        let qkv = self.qkv.forward(g, normed)?; // [N, 3·C]
        let attention = Attention::full(layout, heads, false);
        let map = g.apply1(ImageAttentionMap(attention.clone()), &[qkv])?;
        let y = g.apply(attention, &[qkv])?[0]; // [N, C]
        let y = self.proj.forward(g, y)?;
        let x = residual(g, x, y, layout, drop_path.next().flatten())?;
        let normed = self.norm2.forward(g, x)?;
        let y = self.mlp.forward(g, normed)?;
        Ok((residual(g, x, y, layout, drop_path.next().flatten())?, map))
    }
}

impl Backbone for Vit {
    fn width(&self) -> usize {
        self.spec.dim
    }

    fn patch_size(&self) -> usize {
        self.spec.patch_size
    }

    fn drop_path_rates(&self) -> Vec<f64> {
        drop_path_rates(self.spec.drop_path, self.spec.depth)
    }

    fn forward(&self, g: &mut Graph, input: &BackboneInput) -> Result<Features> {
        let grids = input.crops.tokens();
        let layout = grids.map(|h, w| (1, 1 + h * w));
        let mut x = g.segment(|g| {
            let patches = g.apply1(input.crops.clone(), &[input.pixels])?; // [N, 3·P·P]
            let x = self.embedding.forward(g, patches)?; // [N, C]
            let x = g.apply1(GatherRows::padded(&grids, 1, 0), &[x])?; // [images + N, C]
            let positions = self.positions(g, &grids)?;
            g.apply1(AddPositions { layout: layout.clone() }, &[x, positions])
        })?;
        let mut drop_path = input.drop_path.iter().copied();
        let (mut blocks, mut attention) = (Vec::new(), Vec::new());
        for block in &self.blocks {
            let map;
            (x, map) = g.segment(|g| block.forward(g, x, &layout, self.spec.heads, &mut drop_path))?;
            attention.push(map);
            let class = g.apply1(GatherRows::head(&layout, 1), &[x])?;
            blocks.push(self.norm.forward(g, class)?);
        }
        let normed = self.norm.forward(g, x)?;
        let view = g.apply1(GatherRows::head(&layout, 1), &[normed])?;
        let regions = g.apply1(GatherRows::tail(&layout, 1), &[normed])?;
        Ok(Features { view, regions: TokenMatrix { value: regions, layout: grids }, blocks, attention, statistics: Vec::new() })
    }
}
