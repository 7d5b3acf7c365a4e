//! ResNet and ResNeXt.
//!
//! 7x7 convolution, max pool, four stages of residual blocks; the view is the mean of the last grid, its tokens are the regions. Names and
//! order of the parameters are torchvision's within the original's wrapper, `backbone.backbone.layer{stage}.{block}.…`.
//!
//! Source: He et al. 2015, <https://arxiv.org/abs/1512.03385>; Xie et al. 2017, <https://arxiv.org/abs/1611.05431>;
//! `torchvision.models.resnet`, whose bottlenecks stride in the 3x3 convolution.

use esvit_graph::{Error, Graph, Result, Value};
use esvit_ops::batch_norm::BatchNorm as Groups;
use esvit_ops::max_pool::MaxPool;
use esvit_ops::relu::RELU;
use esvit_ops::residual::Residual;
use esvit_ops::token_mean::TokenMean;
use esvit_ops::{Filter, Layout};

use super::{Backbone, BackboneInput, Features};
use crate::layers::{BatchNormLayer, ConvLayer, Mode, RunningStatistics};
use crate::spec::ResnetSpec;
use crate::{Scope, TokenMatrix};

/// Planes at which a bottleneck's 3x3 convolution has `width` channels a group, and the first stage's in every published network.
const PLANES: usize = 64;
const STAGES: usize = 4;

pub(super) struct Resnet {
    stem: ConvNorm,
    blocks: Vec<ResnetBlock>,
    width: usize,
}

/// A convolution without bias and its batch norm.
struct ConvNorm {
    conv: ConvLayer,
    norm: BatchNormLayer,
}

struct ResnetBlock {
    /// ReLU follows each but the last; that of the last comes after the residual.
    steps: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

/// State of a forward pass.
struct ResnetPass {
    mode: Mode,
    statistics: Vec<RunningStatistics>,
}

fn filter(kernel: usize, stride: usize) -> Filter {
    Filter { kernel, stride, padding: kernel / 2 }
}

impl ConvNorm {
    fn new(g: &mut Graph, scope: &mut Scope, [conv, norm]: [&str; 2], channels: [usize; 2], filter: Filter) -> Result<ConvNorm> {
        ConvNorm::grouped(g, scope, [conv, norm], channels, filter, 1)
    }

    fn grouped(
        g: &mut Graph,
        scope: &mut Scope,
        [conv, norm]: [&str; 2],
        channels: [usize; 2],
        filter: Filter,
        groups: usize,
    ) -> Result<ConvNorm> {
        // Kaiming's deviation over the outputs, those of all groups, as torchvision initializes.
        let std = (2.0 / (channels[1] * filter.taps()) as f32).sqrt();
        let conv = ConvLayer::grouped(g, &mut scope.child(conv), channels, filter, groups, std)?;
        Ok(ConvNorm { conv, norm: BatchNormLayer::new(g, &mut scope.child(norm), channels[1])? })
    }

    fn forward(&self, g: &mut Graph, x: Value, layout: &Layout, pass: &mut ResnetPass) -> Result<(Value, Layout)> {
        let (x, layout) = self.conv.forward(g, x, layout)?;
        let x = self.norm.forward(g, x, Groups::by_segment(&layout), pass.mode, &mut pass.statistics)?;
        Ok((x, layout))
    }
}

impl ResnetBlock {
    fn new(spec: &ResnetSpec, g: &mut Graph, scope: &mut Scope, input: usize, planes: usize, stride: usize) -> Result<ResnetBlock> {
        let output = planes * expansion(spec);
        let steps = if spec.bottleneck {
            let width = planes * spec.width / PLANES * spec.groups;
            vec![
                ConvNorm::new(g, scope, ["conv1", "bn1"], [input, width], filter(1, 1))?,
                ConvNorm::grouped(g, scope, ["conv2", "bn2"], [width, width], filter(3, stride), spec.groups)?,
                ConvNorm::new(g, scope, ["conv3", "bn3"], [width, output], filter(1, 1))?,
            ]
        } else {
            vec![
                ConvNorm::new(g, scope, ["conv1", "bn1"], [input, planes], filter(3, stride))?,
                ConvNorm::new(g, scope, ["conv2", "bn2"], [planes, planes], filter(3, 1))?,
            ]
        };
        let downsample = match stride != 1 || input != output {
            true => Some(ConvNorm::new(g, scope, ["downsample.0", "downsample.1"], [input, output], filter(1, stride))?),
            false => None,
        };
        Ok(ResnetBlock { steps, downsample })
    }

    fn forward(&self, g: &mut Graph, x: Value, layout: &Layout, pass: &mut ResnetPass) -> Result<(Value, Layout)> {
        let (mut y, mut grids) = (x, layout.clone());
        for (i, step) in self.steps.iter().enumerate() {
            if i > 0 {
                y = g.apply1(RELU, &[y])?;
            }
            (y, grids) = step.forward(g, y, &grids, pass)?;
        }
        let skip = match &self.downsample {
            Some(step) => step.forward(g, x, layout, pass)?.0,
            None => x,
        };
        let sum = g.apply1(Residual { layout: grids.clone() }, &[skip, y])?;
        Ok((g.apply1(RELU, &[sum])?, grids))
    }
}

/// Channels of a block's result over those of its middle.
fn expansion(spec: &ResnetSpec) -> usize {
    if spec.bottleneck { 4 } else { 1 }
}

impl Resnet {
    pub(super) fn new(spec: &ResnetSpec, g: &mut Graph, scope: &mut Scope) -> Result<Resnet> {
        let fail = |what: String| Err(Error::Attribute { op: "resnet", what });
        if spec.depths.len() != STAGES || spec.depths.contains(&0) {
            return fail(format!("depths must be {STAGES} positive numbers, got {:?}", spec.depths));
        }
        if spec.dim * spec.width / PLANES == 0 || spec.groups == 0 || (!spec.bottleneck && (spec.width, spec.groups) != (PLANES, 1)) {
            let what = format!("a block needs channels, and one without a bottleneck width {PLANES} and one group");
            return fail(format!("{what}; got dim {}, width {}, groups {}", spec.dim, spec.width, spec.groups));
        }
        let mut scope = scope.child("backbone.backbone");
        let stem = ConvNorm::new(g, &mut scope, ["conv1", "bn1"], [3, spec.dim], filter(7, 2))?;
        let (mut blocks, mut input) = (Vec::new(), spec.dim);
        for (s, &depth) in spec.depths.iter().enumerate() {
            let planes = spec.dim << s;
            for b in 0..depth {
                let stride = if s > 0 && b == 0 { 2 } else { 1 };
                blocks.push(ResnetBlock::new(spec, g, &mut scope.child(&format!("layer{}.{b}", s + 1)), input, planes, stride)?);
                input = planes * expansion(spec);
            }
        }
        Ok(Resnet { stem, blocks, width: input })
    }
}

impl Backbone for Resnet {
    fn width(&self) -> usize {
        self.width
    }

    fn patch_size(&self) -> usize {
        1
    }

    fn drop_path_rates(&self) -> Vec<f64> {
        Vec::new()
    }

    fn forward(&self, g: &mut Graph, input: &BackboneInput) -> Result<Features> {
        let mut pass = ResnetPass { mode: input.mode, statistics: Vec::new() };
        let x = g.apply1(input.crops.clone(), &[input.pixels])?; // [pixels, 3]
        let (x, layout) = self.stem.forward(g, x, &input.crops.tokens(), &mut pass)?;
        let x = g.apply1(RELU, &[x])?;
        let pool = MaxPool { layout, filter: filter(3, 2) };
        let mut layout = pool.output();
        let mut x = g.apply(pool, &[x])?[0];
        let mut blocks = Vec::new();
        for block in &self.blocks {
            (x, layout) = block.forward(g, x, &layout, &mut pass)?;
            blocks.push(g.apply1(TokenMean { layout: layout.clone() }, &[x])?);
        }
        let view = *blocks.last().expect("four stages have blocks");
        Ok(Features { view, regions: TokenMatrix { value: x, layout }, blocks, attention: Vec::new(), statistics: pass.statistics })
    }
}
