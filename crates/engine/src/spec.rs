//! What a trainer or an encoder is built from. Complete and strict: see `ts/src/native/spec.ts`.

use esvit_nn::spec::{BackboneSpec, HeadSpec};
use serde::{Deserialize, Serialize};

/// A training run's static part.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrainerSpec {
    /// The network.
    pub backbone: BackboneSpec,
    /// Both heads (views and regions).
    pub head: HeadSpec,
    /// What one pass sees.
    pub crops: CropSpec,
    /// Passes of a step: their gradients are averaged before the update. 1 without accumulation.
    pub accumulate: usize,
    /// Loss terms.
    pub loss: LossSpec,
    /// Update rule.
    pub optimizer: OptimizerKind,
    /// Largest norm of one parameter's gradient; 0 turns clipping off.
    pub clip_grad: f32,
    /// Rounding of matrix products.
    pub precision: PrecisionSpec,
    /// Whether the student's blocks are computed again in the backward pass, instead of keeping what they computed.
    pub checkpointing: bool,
    /// Seed of the initial weights and of stochastic depth.
    pub seed: u64,
    /// Compute threads; 0 for one a core.
    pub threads: usize,
}

/// Crops of a pass: two global ones and some local ones for each image.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CropSpec {
    /// B: images.
    pub batch: usize,
    /// Side of the global crops, in pixels.
    pub global_size: usize,
    /// Side of the local crops, in pixels.
    pub local_size: usize,
    /// Local crops of an image.
    pub local_count: usize,
}

/// Loss terms.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LossSpec {
    /// Half view loss, half region loss; without, the view loss alone.
    pub region: bool,
    /// τ.
    pub student_temperature: f32,
    /// Momentum of the centers.
    pub center_momentum: f32,
    /// Mixed student crops with soft targets (view loss only).
    pub mixup: bool,
}

/// Update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    Adamw,
    /// Momentum 0.9.
    Sgd,
    /// Layer-wise rates over momentum 0.9.
    Lars,
}

/// Rounding of matrix products: see [`esvit_graph::Precision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(rename = "Precision"))]
#[serde(rename_all = "camelCase")]
pub enum PrecisionSpec {
    /// Single precision everywhere.
    F32,
    /// Operands of matrix products in bf16 (CPU) or f16 (GPU).
    Mixed,
}

impl From<PrecisionSpec> for esvit_graph::Precision {
    fn from(precision: PrecisionSpec) -> Self {
        match precision {
            PrecisionSpec::F32 => Self::F32,
            PrecisionSpec::Mixed => Self::Mixed,
        }
    }
}

/// A forward pass for evaluation.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EncoderSpec {
    /// The network.
    pub backbone: BackboneSpec,
    /// Side of the images, in pixels.
    pub image_size: usize,
    /// Images of one pass.
    pub batch: usize,
    /// Rounding of matrix products.
    pub precision: PrecisionSpec,
    /// Compute threads; 0 for one a core.
    pub threads: usize,
    /// Which features.
    pub output: FeatureOutput,
}

/// Which features an encoder returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum FeatureOutput {
    /// The pooled feature.
    View,
    /// Token means or class tokens of the last n blocks, side by side.
    LastBlocks(usize),
    /// The same, and beside them the mean of the last block's regions: what ViT's linear evaluation may add to the class tokens.
    LastBlocksAndRegions(usize),
}
