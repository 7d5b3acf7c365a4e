//! CvT, version 4 of microsoft/esvit.
//!
//! Each stage embeds tokens with a convolution, then mixes them in blocks: q, k and v come from a depthwise convolution, a batch norm and
//! a pointwise one, attention stays inside windows, the MLP uses QuickGELU. Names and order of the parameters are the original's,
//! `stage{s}.1.layers.{b}.{0 attention, 1 mlp}.…`.
//!
//! Grids are extended by zeros to whole windows before the depthwise convolution: what is added takes part in the convolution, the
//! statistics and the keys. Scores are divided by √C of the whole width. A shift moves nothing, it only masks regions, in every block.
//! Windows are no larger than a grid's shorter side; then the relative positions use the middle of the table. The original fails there.
//!
//! Source: Wu et al. 2021, <https://arxiv.org/abs/2103.15808>; `models/cvt_v4_transformer.py` of microsoft/esvit.

use esvit_graph::{Error, Graph, Result, Value};
use esvit_ops::batch_norm::BatchNorm as Groups;
use esvit_ops::depthwise_conv::DepthwiseConv;
use esvit_ops::quick_gelu::QUICK_GELU;
use esvit_ops::regrid::Regrid;
use esvit_ops::relu::RELU;
use esvit_ops::token_mean::TokenMean;
use esvit_ops::window_attention::{AttentionMap, WindowAttention};
use esvit_ops::zeros::Zeros;
use esvit_ops::{Filter, Layout, Segment};

use super::{Backbone, BackboneInput, Features};
use crate::layers::{BatchNormLayer, ConvLayer, INIT_STD, Mode, NormLayer, RunningStatistics, drop_path_rates, residual};
use crate::spec::CvtSpec;
use crate::{Init, Role, Scope, TokenMatrix};

const EPS: f32 = 1e-5;

pub(super) struct Cvt {
    spec: CvtSpec,
    stages: Vec<CvtStage>,
    norm: NormLayer,
}

struct CvtStage {
    embedding: CvtEmbedding,
    blocks: Vec<CvtBlock>,
}

enum CvtEmbedding {
    Convolution(ConvLayer, NormLayer),
    /// Convolutions with batch norm and ReLU.
    Stem(Vec<(ConvLayer, BatchNormLayer)>),
}

struct CvtBlock {
    norm1: NormLayer,
    /// Nominal window, and the bias table of its relative positions.
    window: usize,
    bias_table: Option<Value>,
    depthwise: Value,
    kernel: usize,
    batch_norm: BatchNormLayer,
    pointwise: ConvLayer,
    proj: ConvLayer,
    norm2: NormLayer,
    mlp: [ConvLayer; 2],
    heads: usize,
    width: usize,
    shift: bool,
}

/// State of a forward pass.
struct CvtPass<'a> {
    mode: Mode,
    statistics: Vec<RunningStatistics>,
    drop_path: std::slice::Iter<'a, Option<Value>>,
}

impl CvtPass<'_> {
    /// Factors of the next residual branch, if its rate is not 0.
    fn next_factor(&mut self) -> Option<Value> {
        self.drop_path.next().copied().flatten()
    }
}

impl Cvt {
    pub(super) fn new(spec: &CvtSpec, g: &mut Graph, scope: &mut Scope) -> Result<Cvt> {
        check(spec)?;
        let mut stages = Vec::new();
        for (s, &width) in spec.dims.iter().enumerate() {
            let mut stage = scope.child(&format!("stage{s}"));
            let mut first = stage.child("0");
            let embedding = if s == 0 && spec.residual_stem {
                CvtEmbedding::stem(g, &mut first.child("stem"), width)?
            } else {
                let input = if s == 0 { 3 } else { spec.dims[s - 1] };
                let filter = Filter { kernel: spec.embed_kernels[s], stride: spec.embed_strides[s], padding: spec.embed_paddings[s] };
                let conv = ConvLayer::new(g, &mut first.child("proj"), [input, width], filter, INIT_STD, true)?;
                CvtEmbedding::Convolution(conv, NormLayer::new(g, &mut first.child("norm"), width, EPS)?)
            };
            let blocks = (0..spec.depths[s]).map(|b| CvtBlock::new(spec, s, g, &mut stage.child(&format!("1.layers.{b}"))));
            stages.push(CvtStage { embedding, blocks: blocks.collect::<Result<_>>()? });
        }
        let norm = NormLayer::new(g, &mut scope.child("norm"), spec.dims[spec.dims.len() - 1], EPS)?;
        Ok(Cvt { spec: spec.clone(), stages, norm })
    }
}

fn check(spec: &CvtSpec) -> Result<()> {
    let fail = |what: String| Err(Error::Attribute { op: "cvt", what });
    let stages = spec.dims.len();
    let positive: [(&str, &[usize]); 7] = [
        ("dims", &spec.dims),
        ("depths", &spec.depths),
        ("heads", &spec.heads),
        ("windows", &spec.windows),
        ("embed_kernels", &spec.embed_kernels),
        ("embed_strides", &spec.embed_strides),
        ("qkv_kernels", &spec.qkv_kernels),
    ];
    for (name, list) in positive {
        if stages == 0 || list.len() != stages || list.contains(&0) {
            return fail(format!("{name} needs one positive number for each stage, got {list:?}"));
        }
    }
    let lengths = [
        ("embed_paddings", spec.embed_paddings.len()),
        ("qkv_bias", spec.qkv_bias.len()),
        ("mlp_ratios", spec.mlp_ratios.len()),
        ("shift", spec.shift.len()),
    ];
    if let Some((name, len)) = lengths.into_iter().find(|(_, len)| *len != stages) {
        return fail(format!("{name} needs one value for each of {stages} stages, got {len}"));
    }
    if let Some(kernel) = spec.qkv_kernels.iter().find(|kernel| *kernel % 2 == 0) {
        return fail(format!("qkv_kernels must be odd, got {kernel}"));
    }
    for (s, (&width, &heads)) in spec.dims.iter().zip(&spec.heads).enumerate() {
        if !width.is_multiple_of(heads) {
            return fail(format!("{width} channels of stage {} cannot be split into {heads} heads", s + 1));
        }
    }
    if !(0.0..1.0).contains(&spec.drop_path) {
        return fail(format!("drop_path must be at least 0 and below 1, got {}", spec.drop_path));
    }
    Ok(())
}

impl CvtEmbedding {
    fn stem(g: &mut Graph, scope: &mut Scope, width: usize) -> Result<CvtEmbedding> {
        let step = |(index, input, stride): (usize, usize, usize)| {
            let filter = Filter { kernel: 3, stride, padding: 1 };
            let conv = ConvLayer::new(g, &mut scope.child(&index.to_string()), [input, width], filter, INIT_STD, false)?;
            Ok((conv, BatchNormLayer::new(g, &mut scope.child(&(index + 1).to_string()), width)?))
        };
        Ok(CvtEmbedding::Stem([(0, 3, 2), (3, width, 1), (6, width, 2)].into_iter().map(step).collect::<Result<_>>()?))
    }

    fn forward(&self, g: &mut Graph, x: Value, layout: &Layout, pass: &mut CvtPass) -> Result<(Value, Layout)> {
        match self {
            CvtEmbedding::Convolution(conv, norm) => {
                let (x, layout) = conv.forward(g, x, layout)?;
                Ok((norm.forward(g, x)?, layout))
            }
            CvtEmbedding::Stem(steps) => {
                let (mut x, mut layout) = (x, layout.clone());
                for (conv, norm) in steps {
                    (x, layout) = conv.forward(g, x, &layout)?;
                    x = norm.forward(g, x, Groups::by_segment(&layout), pass.mode, &mut pass.statistics)?;
                    x = g.apply1(RELU, &[x])?;
                }
                Ok((x, layout))
            }
        }
    }
}

impl CvtBlock {
    fn new(spec: &CvtSpec, s: usize, g: &mut Graph, scope: &mut Scope) -> Result<CvtBlock> {
        let (width, heads, window, kernel) = (spec.dims[s], spec.heads[s], spec.windows[s], spec.qkv_kernels[s]);
        let norm1 = NormLayer::new(g, &mut scope.child("0.norm"), width, EPS)?;
        let mut attention = scope.child("0.fn");
        let bias_table = if spec.relative_position {
            let table = attention.parameter(g, "rel_pos_bias_table", &[(2 * window - 1).pow(2), heads], Init::Normal(INIT_STD))?;
            attention.constant("rel_pos_idx", &[window * window; 2], super::swin::relative_position_index(window));
            Some(table)
        } else {
            None
        };
        let mut qkv = attention.child("qkv");
        let shape = ([width, 1, kernel, kernel], [width, kernel * kernel]);
        let depthwise = qkv.child("dw").declare_as(g, "weight", &shape.0, &shape.1, Init::Normal(INIT_STD), Role::Parameter)?;
        let batch_norm = BatchNormLayer::new(g, &mut qkv.child("bn"), width)?;
        let pointwise = ConvLayer::pointwise(g, &mut qkv.child("pw"), [width, 3 * width], spec.qkv_bias[s])?;
        let proj = ConvLayer::pointwise(g, &mut attention.child("proj_out"), [width, width], true)?;
        let norm2 = NormLayer::new(g, &mut scope.child("1.norm"), width, EPS)?;
        let hidden = (width as f64 * spec.mlp_ratios[s]) as usize;
        let mlp = [
            ConvLayer::pointwise(g, &mut scope.child("1.fn.net.0"), [width, hidden], true)?,
            ConvLayer::pointwise(g, &mut scope.child("1.fn.net.2"), [hidden, width], true)?,
        ];
        let shift = spec.shift[s];
        Ok(CvtBlock { norm1, window, bias_table, depthwise, kernel, batch_norm, pointwise, proj, norm2, mlp, heads, width, shift })
    }

    /// Windows of a grid.
    fn window(&self, s: &Segment) -> usize {
        self.window.min(s.height).min(s.width)
    }

    /// The attention branch, and the attention of the first crop size.
    fn attend(&self, g: &mut Graph, x: Value, layout: &Layout, pass: &mut CvtPass) -> Result<(Value, Value)> {
        let normed = self.norm1.forward(g, x)?; // [N, C]
        let whole = |s: &Segment| {
            let window = self.window(s);
            Segment { height: s.height.next_multiple_of(window), width: s.width.next_multiple_of(window), ..*s }
        };
        let extended = Layout::new(layout.segments().iter().map(whole).collect::<Vec<_>>());
        let filter = Filter { kernel: self.kernel, stride: 1, padding: self.kernel / 2 };
        let y = g.apply1(DepthwiseConv::extended(layout, &extended, filter), &[normed, self.depthwise])?; // [N', C]
        let y = self.batch_norm.forward(g, y, Groups::by_segment(&extended), pass.mode, &mut pass.statistics)?;
        let (qkv, _) = self.pointwise.forward(g, y, &extended)?; // [N', 3·C]
        let table = match self.bias_table {
            Some(table) => table,
            None => g.apply1(Zeros(vec![(2 * self.window - 1).pow(2), self.heads]), &[])?,
        };

        // Segments with the same window attend together.
        let mut windows: Vec<(usize, Vec<usize>)> = Vec::new();
        for (s, segment) in layout.segments().iter().enumerate() {
            let window = self.window(segment);
            match windows.iter_mut().find(|(w, _)| *w == window) {
                Some((_, segments)) => segments.push(s),
                None => windows.push((window, vec![s])),
            }
        }
        let scale = 1.0 / (self.width as f32).sqrt();
        let (mut parts, mut layouts, mut source, mut map) = (Vec::new(), Vec::new(), vec![None; layout.segments().len()], None);
        for (part, (window, segments)) in windows.iter().enumerate() {
            let (rows, grids) = if windows.len() == 1 {
                (qkv, extended.clone())
            } else {
                let grids = Layout::new(segments.iter().map(|&s| extended.segments()[s]).collect::<Vec<_>>());
                (g.apply1(Regrid::select(&extended, segments), &[qkv])?, grids)
            };
            let cut = if self.shift { window / 2 } else { 0 };
            let attention = WindowAttention::in_place(&grids, self.heads, *window, cut, self.window, scale);
            if map.is_none() {
                map = Some(g.apply1(AttentionMap(attention.clone()), &[rows, table])?);
            }
            parts.push(g.apply1(attention, &[rows, table])?);
            layouts.push(grids);
            segments.iter().enumerate().for_each(|(at, &s)| source[s] = Some((part, at)));
        }
        let y = match parts[..] {
            [only] if extended == *layout => only,
            _ => g.apply1(Regrid::new(layouts, layout.clone(), source), &parts)?, // [N, C]
        };
        let map = map.ok_or(Error::Attribute { op: "cvt", what: "there are no crops".into() })?;
        Ok((self.proj.forward(g, y, layout)?.0, map))
    }

    fn forward(&self, g: &mut Graph, x: Value, layout: &Layout, pass: &mut CvtPass) -> Result<(Value, Value)> {
        let (y, map) = self.attend(g, x, layout, pass)?;
        let x = residual(g, x, y, layout, pass.next_factor())?;
        let normed = self.norm2.forward(g, x)?;
        let (hidden, _) = self.mlp[0].forward(g, normed, layout)?;
        let hidden = g.apply1(QUICK_GELU, &[hidden])?;
        let (y, _) = self.mlp[1].forward(g, hidden, layout)?;
        Ok((residual(g, x, y, layout, pass.next_factor())?, map))
    }
}

impl Backbone for Cvt {
    fn width(&self) -> usize {
        self.spec.dims[self.spec.dims.len() - 1]
    }

    fn patch_size(&self) -> usize {
        1
    }

    fn drop_path_rates(&self) -> Vec<f64> {
        drop_path_rates(self.spec.drop_path, self.spec.depths.iter().sum())
    }

    fn forward(&self, g: &mut Graph, input: &BackboneInput) -> Result<Features> {
        let mut pass = CvtPass { mode: input.mode, statistics: Vec::new(), drop_path: input.drop_path.iter() };
        let mut x = g.apply1(input.crops.clone(), &[input.pixels])?; // [pixels, 3]
        let mut layout = input.crops.tokens();
        let (mut blocks, mut attention) = (Vec::new(), Vec::new());
        for (s, stage) in self.stages.iter().enumerate() {
            (x, layout) = stage.embedding.forward(g, x, &layout, &mut pass)?;
            for block in &stage.blocks {
                let map;
                (x, map) = block.forward(g, x, &layout, &mut pass)?;
                attention.push(map);
                // Only the last stage's outputs are normed, as the original's linear evaluation does.
                let normed = if s + 1 == self.stages.len() { self.norm.forward(g, x)? } else { x };
                blocks.push(g.apply1(TokenMean { layout: layout.clone() }, &[normed])?);
            }
        }
        let regions = self.norm.forward(g, x)?;
        let view = g.apply1(TokenMean { layout: layout.clone() }, &[regions])?;
        Ok(Features { view, regions: TokenMatrix { value: regions, layout }, blocks, attention, statistics: pass.statistics })
    }
}
