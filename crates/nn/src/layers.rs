//! Linear layers, convolutions, norms and the MLP as the backbones use them.

use esvit_graph::{Graph, Result, Value};
use esvit_ops::batch_norm::{self, BatchNormEval};
use esvit_ops::conv2d::Conv2d;
use esvit_ops::gelu::GELU;
use esvit_ops::grouped_conv::GroupedConv;
use esvit_ops::layer_norm::LayerNorm;
use esvit_ops::residual::Residual;
use esvit_ops::row_map::RowMapBuilder;
use esvit_ops::{Filter, Layout};

use crate::{Init, Role, Scope};

/// Deviation of every linear weight and bias table at the start.
pub const INIT_STD: f32 = 0.02;

/// Weight `[out, in]` and bias `[out]` of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearLayer {
    weight: Value,
    /// The bias, if there is one.
    pub bias: Option<Value>,
}

impl LinearLayer {
    /// Declares `weight` and, if wanted, `bias` in `scope`.
    pub fn new(g: &mut Graph, scope: &mut Scope, input: usize, output: usize, bias: bool) -> Result<LinearLayer> {
        let weight = scope.parameter(g, "weight", &[output, input], Init::Normal(INIT_STD))?;
        let bias = if bias { Some(scope.parameter(g, "bias", &[output], Init::Constant(0.0))?) } else { None };
        Ok(LinearLayer { weight, bias })
    }

    /// Declares a convolution whose stride is its kernel, applied to patches as a linear layer: weight
    /// `[out, 3, P, P]`, both it and the bias uniform within 1/√(3·P·P), PyTorch's default.
    pub fn patch_convolution(g: &mut Graph, scope: &mut Scope, patch: usize, output: usize) -> Result<LinearLayer> {
        let input = 3 * patch * patch;
        let bound = Init::Uniform(1.0 / (input as f32).sqrt());
        let weight = scope.declare_as(g, "weight", &[output, 3, patch, patch], &[output, input], bound, Role::Parameter)?;
        Ok(LinearLayer { weight, bias: Some(scope.parameter(g, "bias", &[output], bound)?) })
    }

    /// Declares a convolution of tokens whose stride is its kernel: weight `[out, in, P, P]` and bias as above. It is applied to patches whose
    /// tokens lie side by side, so its columns are put in that order: `[out, P·P·in]`.
    pub fn token_convolution(g: &mut Graph, scope: &mut Scope, patch: usize, input: usize, output: usize) -> Result<LinearLayer> {
        let area = patch * patch;
        let bound = Init::Uniform(1.0 / ((input * area) as f32).sqrt());
        let weight = scope.parameter(g, "weight", &[output, input, patch, patch], bound)?;
        let bias = scope.parameter(g, "bias", &[output], bound)?;
        // Rows of `input` values, (out, position) in the result; in the parameter the positions are innermost.
        let mut map = RowMapBuilder::new(input, &[area]);
        (0..output * area).for_each(|row| map.row(&[(0, row, 1.0)]));
        let weight = g.apply1(map.finish(&[output, area * input]), &[weight])?;
        Ok(LinearLayer { weight, bias: Some(bias) })
    }

    /// `[N, in]` to `[N, out]`.
    pub fn forward(&self, g: &mut Graph, x: Value) -> Result<Value> {
        let mut operands = vec![x, self.weight];
        operands.extend(self.bias);
        g.apply1(esvit_ops::linear::Linear, &operands)
    }
}

/// Scale and shift of a layer norm.
#[derive(Clone, Copy, Debug)]
pub struct NormLayer {
    gamma: Value,
    beta: Value,
    eps: f32,
}

impl NormLayer {
    /// Declares `weight` and `bias` in `scope`.
    pub fn new(g: &mut Graph, scope: &mut Scope, width: usize, eps: f32) -> Result<NormLayer> {
        let gamma = scope.parameter(g, "weight", &[width], Init::Constant(1.0))?;
        let beta = scope.parameter(g, "bias", &[width], Init::Constant(0.0))?;
        Ok(NormLayer { gamma, beta, eps })
    }

    /// `[N, C]` to `[N, C]`.
    pub fn forward(&self, g: &mut Graph, x: Value) -> Result<Value> {
        Ok(g.apply(LayerNorm { eps: self.eps }, &[x, self.gamma, self.beta])?[0])
    }
}

/// `fc1`, GELU, `fc2`.
#[derive(Clone, Copy, Debug)]
pub struct Mlp {
    fc1: LinearLayer,
    fc2: LinearLayer,
}

impl Mlp {
    /// Declares both layers in `scope`.
    pub fn new(g: &mut Graph, scope: &mut Scope, width: usize, hidden: usize) -> Result<Mlp> {
        Ok(Mlp {
            fc1: LinearLayer::new(g, &mut scope.child("fc1"), width, hidden, true)?,
            fc2: LinearLayer::new(g, &mut scope.child("fc2"), hidden, width, true)?,
        })
    }

    /// `[N, C]` to `[N, C]`.
    pub fn forward(&self, g: &mut Graph, x: Value) -> Result<Value> {
        let hidden = self.fc1.forward(g, x)?;
        let hidden = g.apply1(GELU, &[hidden])?;
        self.fc2.forward(g, hidden)
    }
}

/// Where batch norms take their statistics from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The batch; the running statistics are updated after the step. Student and teacher alike.
    Train,
    /// The running statistics.
    Eval,
}

/// A batch norm's statistics of one group of rows in one step, for the running averages.
#[derive(Clone, Debug)]
pub struct RunningStatistics {
    /// Module path: the buffers are `{path}.running_mean`, `{path}.running_var`, `{path}.num_batches_tracked`.
    pub path: String,
    /// Mean of the group, `[C]`.
    pub mean: Value,
    /// Biased variance of the group, `[C]`.
    pub var: Value,
    /// Rows of the group: the running variance is the unbiased one.
    pub rows: usize,
}

/// Scale, shift and running statistics of a batch norm.
#[derive(Clone, Debug)]
pub struct BatchNormLayer {
    gamma: Value,
    beta: Value,
    mean: Value,
    var: Value,
    /// Module path, without the network: names the buffers to update.
    path: String,
}

impl BatchNormLayer {
    /// Declares `weight`, `bias` and the running statistics in `scope`.
    pub fn new(g: &mut Graph, scope: &mut Scope, width: usize) -> Result<BatchNormLayer> {
        let c = [width];
        let gamma = scope.parameter(g, "weight", &c, Init::Constant(1.0))?;
        let beta = scope.parameter(g, "bias", &c, Init::Constant(0.0))?;
        let mean = scope.declare(g, "running_mean", &c, Init::Constant(0.0), Role::Buffer)?;
        let var = scope.declare(g, "running_var", &c, Init::Constant(1.0), Role::Buffer)?;
        scope.declare(g, "num_batches_tracked", &[], Init::Constant(0.0), Role::Buffer)?;
        Ok(BatchNormLayer { gamma, beta, mean, var, path: scope.module().to_string() })
    }

    /// `[N, C]` to `[N, C]`. In training the rows are normalized by `groups`, whose statistics are added to `statistics` in order.
    pub fn forward(
        &self,
        g: &mut Graph,
        x: Value,
        groups: batch_norm::BatchNorm,
        mode: Mode,
        statistics: &mut Vec<RunningStatistics>,
    ) -> Result<Value> {
        if mode == Mode::Eval {
            return g.apply1(BatchNormEval, &[x, self.gamma, self.beta, self.mean, self.var]);
        }
        let rows = groups.groups().to_vec();
        let results = g.apply(groups, &[x, self.gamma, self.beta])?;
        for (pair, rows) in results[1..].chunks(2).zip(rows) {
            statistics.push(RunningStatistics { path: self.path.clone(), mean: pair[0], var: pair[1], rows });
        }
        Ok(results[0])
    }
}

/// Weight `[O, I/G, k, k]` and bias `[O]` of a convolution in G groups.
#[derive(Clone, Copy, Debug)]
pub struct ConvLayer {
    weight: Value,
    bias: Option<Value>,
    filter: Filter,
    groups: usize,
}

impl ConvLayer {
    /// A convolution in one group: declares `weight` (normal with this deviation) and, if wanted, a `bias` of zeros in `scope`.
    pub fn new(g: &mut Graph, scope: &mut Scope, channels: [usize; 2], filter: Filter, std: f32, bias: bool) -> Result<ConvLayer> {
        let conv = ConvLayer::grouped(g, scope, channels, filter, 1, std)?;
        let bias = if bias { Some(scope.parameter(g, "bias", &[channels[1]], Init::Constant(0.0))?) } else { None };
        Ok(ConvLayer { bias, ..conv })
    }

    /// Declares `weight` (normal with this deviation) in `scope`; without a bias.
    pub fn grouped(
        g: &mut Graph,
        scope: &mut Scope,
        [input, output]: [usize; 2],
        filter: Filter,
        groups: usize,
        std: f32,
    ) -> Result<ConvLayer> {
        let (k, own) = (filter.kernel, input / groups);
        let shapes: [&[usize]; 2] = [&[output, own, k, k], &[output, own * filter.taps()]];
        let weight = scope.declare_as(g, "weight", shapes[0], shapes[1], Init::Normal(std), Role::Parameter)?;
        Ok(ConvLayer { weight, bias: None, filter, groups })
    }

    /// A 1x1 convolution: a linear layer by another name.
    pub fn pointwise(g: &mut Graph, scope: &mut Scope, channels: [usize; 2], bias: bool) -> Result<ConvLayer> {
        ConvLayer::new(g, scope, channels, Filter { kernel: 1, stride: 1, padding: 0 }, INIT_STD, bias)
    }

    /// `[N, I]` to `[N', O]`, and the grids of the result.
    pub fn forward(&self, g: &mut Graph, x: Value, layout: &Layout) -> Result<(Value, Layout)> {
        if self.groups > 1 {
            let conv = GroupedConv { layout: layout.clone(), filter: self.filter, groups: self.groups };
            let output = conv.output();
            return Ok((g.apply1(conv, &[x, self.weight])?, output));
        }
        let mut operands = vec![x, self.weight];
        operands.extend(self.bias);
        if self.filter == (Filter { kernel: 1, stride: 1, padding: 0 }) {
            return Ok((g.apply1(esvit_ops::linear::Linear, &operands)?, layout.clone()));
        }
        let conv = Conv2d { layout: layout.clone(), filter: self.filter };
        let output = conv.output();
        Ok((g.apply1(conv, &operands)?, output))
    }
}

/// `x + branch`; with stochastic depth the branch of each image is multiplied with its factor in `scale`, `[images]`.
pub fn residual(g: &mut Graph, x: Value, branch: Value, layout: &Layout, scale: Option<Value>) -> Result<Value> {
    let mut operands = vec![x, branch];
    operands.extend(scale);
    g.apply1(Residual { layout: layout.clone() }, &operands)
}

/// Rates of stochastic depth of so many blocks with two residual branches each: from 0 for the first block to `last` for the last.
pub fn drop_path_rates(last: f64, blocks: usize) -> Vec<f64> {
    let rate = |b: usize| if blocks > 1 { last * b as f64 / (blocks - 1) as f64 } else { 0.0 };
    (0..blocks).flat_map(|b| [rate(b), rate(b)]).collect()
}
