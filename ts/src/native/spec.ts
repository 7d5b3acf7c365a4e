/**
 * The complete specification the engine builds a program from. The engine has no defaults of its
 * own: every field is there, and an unknown one is an error. `config/` makes these from a `Config`.
 * Mirrors `crates/nn/src/spec.rs` and `crates/engine/src/spec.rs` (serde, snake case as here).
 */
export interface SwinSpec {
  kind: "swin";
  /** Nominal image size: decides windows and shifts of each stage, as the reference does. */
  image_size: number;
  patch_size: number;
  dim: number;
  depths: number[];
  heads: number[];
  window: number;
  mlp_ratio: number;
  qkv_bias: boolean;
  absolute_position: boolean;
  patch_norm: boolean;
  drop_path: number;
}

export interface VilSpec {
  kind: "vil";
  image_size: number;
  stages: {
    heads: number;
    dim: number;
    depth: number;
    sparse: boolean;
    globals: number;
    patch_size: number;
    window: number;
    absolute_position: boolean;
    pooled: boolean;
  }[];
  norm_embed: boolean;
  average_pool: boolean;
  share_weights: boolean;
  only_global: boolean;
  border: "open" | "cyclic" | "exact";
  neighbors: "all" | "drawn" | "none";
  /** Share of the training after which drawn neighbors become all. */
  draw_until: number;
  pool: "learned" | "mean";
  gate: "none" | "squeeze" | "convolution";
  gate_ratio: number;
  gate_balance: boolean;
  drop_path: number;
}

export interface VitSpec {
  kind: "vit";
  /** Nominal image size: decides the position table. */
  image_size: number;
  patch_size: number;
  dim: number;
  depth: number;
  heads: number;
  mlp_ratio: number;
  qkv_bias: boolean;
  drop_path: number;
}

export interface CvtSpec {
  kind: "cvt";
  dims: number[];
  depths: number[];
  heads: number[];
  windows: number[];
  embed_kernels: number[];
  embed_strides: number[];
  embed_paddings: number[];
  qkv_kernels: number[];
  qkv_bias: boolean[];
  mlp_ratios: number[];
  shift: boolean[];
  relative_position: boolean;
  residual_stem: boolean;
  drop_path: number;
}

export interface ResnetSpec {
  kind: "resnet";
  depths: number[];
  bottleneck: boolean;
  /** Channels of the stem. */
  dim: number;
  /** Channels of a group of a bottleneck's 3x3 convolution where a stage has 64. */
  width: number;
  groups: number;
}

export type BackboneSpec = CvtSpec | ResnetSpec | SwinSpec | VilSpec | VitSpec;

export interface HeadSpec {
  /** Prototypes, K. */
  out_dim: number;
  hidden_dim: number;
  bottleneck_dim: number;
  /** Linear layers before the prototypes, at least 1. */
  layers: number;
  batch_norm: boolean;
  /** Freezes the gains of the last layer at 1. */
  norm_last_layer: boolean;
}

export interface TrainerSpec {
  backbone: BackboneSpec;
  head: HeadSpec;
  crops: {
    /** Images a pass, B. */
    batch: number;
    global_size: number;
    local_size: number;
    /** Local crops an image; 0 for none. */
    local_count: number;
  };
  /** Passes of a step, whose gradients are averaged; a step's crops hold the images of all of them. */
  accumulate: number;
  loss: { region: boolean; student_temperature: number; center_momentum: number; mixup: boolean };
  optimizer: "adamw" | "sgd" | "lars";
  /** Largest norm of one parameter's gradient; 0 turns clipping off. */
  clip_grad: number;
  precision: Precision;
  /** Whether the student's blocks are computed again in the backward pass. */
  checkpointing: boolean;
  seed: number;
  threads: number;
}

/** Rounding of matrix products: not at all, or bf16 (CPU) and f16 (GPU) operands with single-precision sums. */
export type Precision = "f32" | "mixed";

export interface EncoderSpec {
  backbone: BackboneSpec;
  /** Side of the images given to `encode`. */
  image_size: number;
  /** Largest number of images in one call of the program. */
  batch: number;
  precision: Precision;
  threads: number;
  /**
   * `view`: the pooled feature; a number n: token means or class tokens of the last n blocks, concatenated (linear evaluation), and behind
   * them the mean of the last block's regions.
   */
  output: "view" | { last_blocks: number } | { last_blocks_and_regions: number };
}
