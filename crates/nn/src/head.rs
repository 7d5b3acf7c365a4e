//! DINO projection head: an MLP with GELU (and optionally batch norm), rows scaled to unit length, and prototypes with
//! normalized weights.
//!
//! The last product `[rows, D] x [D, K]` is not made here: [`crate::loss`] streams it. [`DinoHead::logits`] adds it where
//! somebody wants to see logits.
//!
//! Source: Caron et al. 2021, section 3.1 and appendix C; `models/vision_transformer.py`, `DINOHead`, of microsoft/esvit.

use esvit_graph::{Graph, Result, Value};
use esvit_ops::batch_norm;
use esvit_ops::gelu::GELU;
use esvit_ops::l2_normalize::L2Normalize;
use esvit_ops::weight_norm::WeightNorm;

use crate::layers::{BatchNormLayer, LinearLayer, Mode, RunningStatistics};
use crate::loss::Projection;
use crate::spec::HeadSpec;
use crate::{Init, Role, Scope};

/// A projection head of one network.
#[derive(Clone, Debug)]
pub struct DinoHead {
    layers: Vec<HeadLayer>,
    magnitude: Value,
    direction: Value,
}

#[derive(Clone, Debug)]
struct HeadLayer {
    linear: LinearLayer,
    norm: Option<BatchNormLayer>,
    is_last: bool,
}

impl DinoHead {
    /// Declares the head called `name` in `scope`; features have `width` channels.
    pub fn new(spec: &HeadSpec, g: &mut Graph, scope: &mut Scope, name: &str, width: usize) -> Result<DinoHead> {
        let mut head = scope.child(name);
        let mut layers = Vec::new();
        // Indices of the original's Sequential: each hidden layer is Linear, [BatchNorm], GELU. A single layer is no Sequential.
        let stride = if spec.batch_norm { 3 } else { 2 };
        for i in 0..spec.layers {
            let is_last = i + 1 == spec.layers;
            let input = if i == 0 { width } else { spec.hidden_dim };
            let output = if is_last { spec.bottleneck_dim } else { spec.hidden_dim };
            let module = |index: usize| if spec.layers == 1 { "mlp".to_string() } else { format!("mlp.{index}") };
            let linear = LinearLayer::new(g, &mut head.child(&module(i * stride)), input, output, true)?;
            let norm = if spec.batch_norm && !is_last {
                Some(BatchNormLayer::new(g, &mut head.child(&module(i * stride + 1)), output)?)
            } else {
                None
            };
            layers.push(HeadLayer { linear, norm, is_last });
        }
        let mut last = head.child("last_layer");
        let magnitude_role = if spec.norm_last_layer { Role::Frozen } else { Role::Parameter };
        let magnitude = last.declare(g, "weight_g", &[spec.out_dim, 1], Init::Constant(1.0), magnitude_role)?;
        let bound = 1.0 / (spec.bottleneck_dim as f32).sqrt();
        let direction = last.parameter(g, "weight_v", &[spec.out_dim, spec.bottleneck_dim], Init::Uniform(bound))?;
        Ok(DinoHead { layers, magnitude, direction })
    }

    /// `[rows, C]` to unit rows `[rows, D]`, with the statistics of its batch norms.
    pub fn bottleneck(&self, g: &mut Graph, x: Value, mode: Mode) -> Result<(Value, Vec<RunningStatistics>)> {
        let mut x = x;
        let mut statistics = Vec::new();
        for layer in &self.layers {
            x = layer.linear.forward(g, x)?;
            if let Some(norm) = &layer.norm {
                // One batch of all crops, whatever their sizes: the original concatenates them before the head.
                let rows = batch_norm::BatchNorm::whole(g.matrix(x).0);
                x = norm.forward(g, x, rows, mode, &mut statistics)?;
            }
            if !layer.is_last {
                x = g.apply1(GELU, &[x])?;
            }
        }
        Ok((g.apply(L2Normalize, &[x])?[0], statistics))
    }

    /// Rows `[rows, D]` of the bottleneck and the prototypes: the operands of the loss.
    pub fn projection(&self, z: Value) -> Projection {
        Projection { z, direction: self.direction, magnitude: self.magnitude }
    }

    /// Logits `[rows, K]` of features `[rows, C]`, stored: for looking at, not for training.
    pub fn logits(&self, g: &mut Graph, x: Value, mode: Mode) -> Result<Value> {
        let (z, _) = self.bottleneck(g, x, mode)?;
        let w = g.apply1(WeightNorm, &[self.direction, self.magnitude])?;
        g.apply1(esvit_ops::linear::Linear, &[z, w])
    }
}
