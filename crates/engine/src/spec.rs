//! Specifications of a trainer and of an encoder, complete and strict as those of [`esvit_nn::spec`].

use esvit_nn::spec::{BackboneSpec, HeadSpec};
use serde::{Deserialize, Serialize};

/// Specification of a training run: everything that does not change from step to step.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrainerSpec {
    /// Backbone of the network.
    pub backbone: BackboneSpec,
    /// Head of the views and, with the region loss, of the regions.
    pub head: HeadSpec,
    /// Crops of a pass.
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
    /// Recomputes the student's blocks in the backward pass instead of keeping what they computed.
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
    /// Images of a pass, B.
    pub batch: usize,
    /// Side of the global crops, in pixels.
    pub global_size: usize,
    /// Side of the local crops, in pixels.
    pub local_size: usize,
    /// Local crops of an image; 0 for none.
    pub local_count: usize,
}

/// Terms of the loss.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LossSpec {
    /// Half view loss, half region loss; without, the view loss alone.
    pub region: bool,
    /// Temperature τ of the student's softmax.
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

/// Rounding of matrix products.
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

/// Specification of a forward pass for evaluation.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EncoderSpec {
    /// Backbone of the network.
    pub backbone: BackboneSpec,
    /// Side of the images, in pixels.
    pub image_size: usize,
    /// Largest number of images in one pass.
    pub batch: usize,
    /// Rounding of matrix products.
    pub precision: PrecisionSpec,
    /// Compute threads; 0 for one a core.
    pub threads: usize,
    /// Features that are returned.
    pub output: FeatureOutput,
}

/// Features that an encoder returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum FeatureOutput {
    /// Pooled feature.
    View,
    /// Token means or class tokens of the last n blocks, side by side.
    LastBlocks(usize),
    /// Features of the last n blocks, and beside them the mean of the last block's regions: what ViT's linear evaluation may add to the
    /// class tokens.
    LastBlocksAndRegions(usize),
}
