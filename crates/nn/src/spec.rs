//! What a network is built from. Complete: no field has a default, unknown fields are refused. The TypeScript side
//! makes these from its configuration (`ts/src/native/spec.ts`, field for field).

use serde::{Deserialize, Serialize};

/// A backbone; its `kind` picks the file in `backbones/`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackboneSpec {
    /// Swin Transformer.
    Swin(SwinSpec),
}

/// Swin Transformer of any size.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SwinSpec {
    /// Nominal image size: decides windows and shifts of each stage.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// C of the first stage; doubles from stage to stage.
    pub dim: usize,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Heads of each stage.
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

/// DINO projection head.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSpec {
    /// K: prototypes.
    pub out_dim: usize,
    /// Width of the hidden layers.
    pub hidden_dim: usize,
    /// Width before the prototypes.
    pub bottleneck_dim: usize,
    /// Linear layers before the prototypes.
    pub layers: usize,
    /// Batch norm in the hidden layers.
    pub batch_norm: bool,
    /// Freezes the prototypes' gains at 1.
    pub norm_last_layer: bool,
}
