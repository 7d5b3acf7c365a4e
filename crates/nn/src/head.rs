//! DINO projection head: an MLP with GELU (and optionally batch norm), rows scaled to unit length, and prototypes with
//! normalised weights.
//!
//! The last product `[rows, D] x [D, K]` is not made here: [`crate::loss`] streams it. [`DinoHead::logits`] adds it where
//! somebody wants to see logits.
//!
//! Source: Caron et al. 2021, section 3.1 and appendix C; `models/vision_transformer.py`, `DINOHead`, of the reference.

use esvit_graph::{Graph, Result, Value};
use esvit_ops::batch_norm::{BatchNorm, BatchNormEval};
use esvit_ops::gelu::Gelu;
use esvit_ops::l2_normalize::L2Normalize;
use esvit_ops::weight_norm::WeightNorm;

use crate::layers::Linear;
use crate::spec::HeadSpec;
use crate::{Init, Role, Scope};

/// Where batch norms take their statistics from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadMode {
    /// The batch; the running statistics are updated after the step. Student and teacher alike.
    Train,
    /// The running statistics.
    Eval,
}

/// A projection head of one network.
#[derive(Clone, Debug)]
pub struct DinoHead {
    layers: Vec<Layer>,
    gain: Value,
    direction: Value,
}

#[derive(Clone, Debug)]
struct Layer {
    linear: Linear,
    norm: Option<BatchNormParameters>,
    is_last: bool,
}

#[derive(Clone, Debug)]
struct BatchNormParameters {
    gamma: Value,
    beta: Value,
    mean: Value,
    var: Value,
    /// Module path, without the network: names the buffers to update.
    path: String,
}

/// A batch norm's statistics of one step, for the running averages.
#[derive(Clone, Debug)]
pub struct RunningStatistics {
    /// Module path: the buffers are `{path}.running_mean`, `{path}.running_var`, `{path}.num_batches_tracked`.
    pub path: String,
    /// Mean of the batch, `[C]`.
    pub mean: Value,
    /// Biased variance of the batch, `[C]`.
    pub var: Value,
    /// Rows of the batch: the running variance is the unbiased one.
    pub rows: usize,
}

impl DinoHead {
    /// Declares the head called `name` in `scope`; features have `width` channels.
    pub fn new(spec: &HeadSpec, g: &mut Graph, scope: &mut Scope, name: &str, width: usize) -> Result<DinoHead> {
        let mut head = scope.child(name);
        let mut layers = Vec::new();
        // Indices of the reference's Sequential: each hidden layer is Linear, [BatchNorm], GELU. A single layer is no Sequential.
        let stride = if spec.batch_norm { 3 } else { 2 };
        for i in 0..spec.layers {
            let is_last = i + 1 == spec.layers;
            let input = if i == 0 { width } else { spec.hidden_dim };
            let output = if is_last { spec.bottleneck_dim } else { spec.hidden_dim };
            let module = |index: usize| if spec.layers == 1 { "mlp".to_string() } else { format!("mlp.{index}") };
            let linear = Linear::new(g, &mut head.child(&module(i * stride)), input, output, true)?;
            let norm = if spec.batch_norm && !is_last {
                let module = module(i * stride + 1);
                let path = format!("{name}.{module}");
                let mut scope = head.child(&module);
                let c = [output];
                let gamma = scope.parameter(g, "weight", &c, Init::Constant(1.0))?;
                let beta = scope.parameter(g, "bias", &c, Init::Constant(0.0))?;
                let mean = scope.declare(g, "running_mean", &c, Init::Constant(0.0), Role::Buffer)?;
                let var = scope.declare(g, "running_var", &c, Init::Constant(1.0), Role::Buffer)?;
                scope.declare(g, "num_batches_tracked", &[], Init::Constant(0.0), Role::Buffer)?;
                Some(BatchNormParameters { gamma, beta, mean, var, path })
            } else {
                None
            };
            layers.push(Layer { linear, norm, is_last });
        }
        let mut last = head.child("last_layer");
        let gain_role = if spec.norm_last_layer { Role::Frozen } else { Role::Parameter };
        let gain = last.declare(g, "weight_g", &[spec.out_dim, 1], Init::Constant(1.0), gain_role)?;
        let bound = 1.0 / (spec.bottleneck_dim as f32).sqrt();
        let direction = last.parameter(g, "weight_v", &[spec.out_dim, spec.bottleneck_dim], Init::Uniform(bound))?;
        Ok(DinoHead { layers, gain, direction })
    }

    /// `[rows, C]` to unit rows `[rows, D]`, with the statistics of its batch norms.
    pub fn bottleneck(&self, g: &mut Graph, x: Value, mode: HeadMode) -> Result<(Value, Vec<RunningStatistics>)> {
        let mut x = x;
        let mut statistics = Vec::new();
        for layer in &self.layers {
            x = layer.linear.forward(g, x)?;
            match (&layer.norm, mode) {
                (None, _) => {}
                (Some(norm), HeadMode::Train) => {
                    let rows = g.matrix(x).0;
                    let results = g.apply(BatchNorm, &[x, norm.gamma, norm.beta])?;
                    x = results[0];
                    statistics.push(RunningStatistics { path: norm.path.clone(), mean: results[1], var: results[2], rows });
                }
                (Some(norm), HeadMode::Eval) => x = g.apply1(BatchNormEval, &[x, norm.gamma, norm.beta, norm.mean, norm.var])?,
            }
            if !layer.is_last {
                x = g.apply1(Gelu, &[x])?;
            }
        }
        Ok((g.apply(L2Normalize, &[x])?[0], statistics))
    }

    /// The prototypes `[K, D]`.
    pub fn prototypes(&self, g: &mut Graph) -> Result<Value> {
        g.apply1(WeightNorm, &[self.direction, self.gain])
    }

    /// Logits `[rows, K]` of features `[rows, C]`, stored: for looking at, not for training.
    pub fn logits(&self, g: &mut Graph, x: Value, mode: HeadMode) -> Result<Value> {
        let (z, _) = self.bottleneck(g, x, mode)?;
        let w = self.prototypes(g)?;
        g.apply1(esvit_ops::linear::Linear, &[z, w])
    }
}
