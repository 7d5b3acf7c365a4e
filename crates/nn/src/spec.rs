//! Specifications of networks. They are complete: no field has a default, unknown fields are refused. JavaScript spells them in camelCase;
//! TypeScript's types and their comments are generated from this file, and its configuration has the same fields.

use serde::{Deserialize, Serialize};

/// Backbone of any family; its `kind` picks the file in `backbones/`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum BackboneSpec {
    /// CvT, version 4 (`cvt`).
    Cvt(CvtSpec),
    /// ResNet and ResNeXt (`resnet`).
    Resnet(ResnetSpec),
    /// Swin Transformer (`swin`).
    Swin(SwinSpec),
    /// Vision Longformer (`vil`).
    Vil(VilSpec),
    /// Vision transformer, DeiT's sizes included (`vit`).
    Vit(VitSpec),
}

/// Swin Transformer of any size.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SwinSpec {
    /// Nominal image size: decides windows and shifts of each stage.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Channels C of the first stage; they double from stage to stage.
    pub dim: usize,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Attention heads of each stage.
    pub heads: Vec<usize>,
    /// Side of a window in tokens.
    pub window: usize,
    /// Hidden width of the MLP over C.
    pub mlp_ratio: f64,
    /// Bias on q, k and v.
    pub qkv_bias: bool,
    /// Learned absolute position embedding; only for crops of the nominal size.
    pub absolute_position: bool,
    /// Layer norm after the patch embedding.
    pub patch_norm: bool,
    /// Stochastic depth of the last block; grows linearly from 0.
    pub drop_path: f64,
}

/// Vision transformer of any size.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VitSpec {
    /// Nominal image size: decides the position table, which is resampled for other sizes.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Channels C.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads of each block.
    pub heads: usize,
    /// Hidden width of the MLP over C.
    pub mlp_ratio: f64,
    /// Bias on q, k and v.
    pub qkv_bias: bool,
    /// Stochastic depth of the last block; grows linearly from 0.
    pub drop_path: f64,
}

/// Vision Longformer of any depth.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VilSpec {
    /// Nominal image size: decides the tables of positions, which are resampled for other sizes.
    pub image_size: usize,
    /// Stages, from the pixels on.
    pub stages: Vec<VilStage>,
    /// Layer norm after each patch embedding.
    pub norm_embed: bool,
    /// Makes the view feature the mean over the tokens even where there is a global one.
    pub average_pool: bool,
    /// Lets global tokens use the projections of the others.
    pub share_weights: bool,
    /// Lets windows see the global tokens alone, not even themselves.
    pub only_global: bool,
    /// Keys beyond the grid.
    pub border: VilBorder,
    /// Neighbors that a window sees.
    pub neighbors: VilNeighbors,
    /// Share of the training after which drawn neighbors become all.
    pub draw_until: f64,
    /// Pooling of windows where a stage has pooled keys.
    pub pool: VilPool,
    /// Gate on the channels after each attention.
    pub gate: VilGate,
    /// Hidden width of the squeeze over C, or side of the convolution over C.
    pub gate_ratio: f64,
    /// Takes the gate's ratio off the MLP's.
    pub gate_balance: bool,
    /// Stochastic depth of the last block; grows linearly from 0.
    pub drop_path: f64,
}

/// A stage of a Vision Longformer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VilStage {
    /// Attention heads.
    pub heads: usize,
    /// Channels C.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention in sliding windows; without, every token sees every one.
    pub sparse: bool,
    /// Number of global tokens.
    pub globals: usize,
    /// Side of a patch: of pixels in the first stage, of tokens in the others.
    pub patch_size: usize,
    /// Side of a window in tokens.
    pub window: usize,
    /// Separable absolute positions; without, a bias for every relative position.
    pub absolute_position: bool,
    /// Pooled windows as further keys of sparse attention.
    pub pooled: bool,
}

/// Keys beyond the grid of a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum VilBorder {
    /// No keys.
    Open,
    /// The windows at the other end.
    Cyclic,
    /// No keys, and distances count, not windows.
    Exact,
}

/// Which neighbors a window sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum VilNeighbors {
    /// All eight neighbors.
    All,
    /// One neighbor, drawn for each attention and step while training; all in evaluation.
    Drawn,
    /// No neighbor.
    None,
}

/// Pooling of a window into one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum VilPool {
    /// Sum by learned weights.
    Learned,
    /// Mean.
    Mean,
}

/// Gate on the channels after an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum VilGate {
    /// No gate.
    None,
    /// Squeeze and excitation.
    Squeeze,
    /// Convolution over the channels (ECA).
    Convolution,
}

/// CvT of any size; one value for each stage.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CvtSpec {
    /// Channels C of each stage.
    pub dims: Vec<usize>,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Attention heads of each stage.
    pub heads: Vec<usize>,
    /// Side of a window in tokens; a smaller grid is one window.
    pub windows: Vec<usize>,
    /// Kernel of the convolution that embeds tokens.
    pub embed_kernels: Vec<usize>,
    /// Stride of that convolution.
    pub embed_strides: Vec<usize>,
    /// Padding of that convolution.
    pub embed_paddings: Vec<usize>,
    /// Kernel of the depthwise convolution before q, k and v; odd.
    pub qkv_kernels: Vec<usize>,
    /// Bias on q, k and v.
    pub qkv_bias: Vec<bool>,
    /// Hidden width of the MLP over C.
    pub mlp_ratios: Vec<f64>,
    /// Masks the regions of a shifted grid in every block.
    pub shift: Vec<bool>,
    /// Learned bias of relative positions.
    pub relative_position: bool,
    /// Three 3x3 convolutions instead of the first embedding.
    pub residual_stem: bool,
    /// Stochastic depth of the last block; grows linearly from 0.
    pub drop_path: f64,
}

/// ResNet or ResNeXt as torchvision builds it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ResnetSpec {
    /// Blocks of each of the four stages.
    pub depths: Vec<usize>,
    /// Blocks of three convolutions and four times the channels; else of two.
    pub bottleneck: bool,
    /// Channels C of the stem and, before expansion, of the first stage: 64 in torchvision; they double from stage to stage.
    pub dim: usize,
    /// Channels of a group of a bottleneck's 3x3 convolution at C = 64: 64, or 128 in the wide variants.
    pub width: usize,
    /// Groups of the 3x3 convolutions of bottlenecks.
    pub groups: usize,
}

/// DINO projection head.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HeadSpec {
    /// Number of prototypes, K.
    pub out_dim: usize,
    /// Width of the hidden layers.
    pub hidden_dim: usize,
    /// Width before the prototypes.
    pub bottleneck_dim: usize,
    /// Linear layers before the prototypes, at least 1.
    pub layers: usize,
    /// Batch norm in the hidden layers.
    pub batch_norm: bool,
    /// Freezes the magnitudes of the prototypes at 1.
    pub norm_last_layer: bool,
}
