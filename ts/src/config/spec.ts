import { availableParallelism } from "node:os";
import type { BackboneSpec, CvtSpec, EncoderSpec, ResnetSpec, SwinSpec, TrainerSpec, VilSpec, VitSpec } from "../native/spec.js";
import type { Backbone } from "./backbone.js";
import type { Config } from "./schema.js";
import { parseVilArch } from "./vil-arch.js";

/** The engine's words for a backbone. */
export function toBackboneSpec(backbone: Backbone): BackboneSpec {
  switch (backbone.kind) {
    case "cvt": return toCvtSpec(backbone);
    case "resnet": return toResnetSpec(backbone);
    case "swin": return toSwinSpec(backbone);
    case "vil": return toVilSpec(backbone);
    case "vit": return toVitSpec(backbone);
  }
}

type Of<Kind> = Extract<Backbone, { kind: Kind }>;

function toCvtSpec(backbone: Of<"cvt">): CvtSpec {
  return {
    kind: backbone.kind,
    dims: backbone.dims,
    depths: backbone.depths,
    heads: backbone.heads,
    windows: backbone.windows,
    embed_kernels: backbone.embedKernels,
    embed_strides: backbone.embedStrides,
    embed_paddings: backbone.embedPaddings,
    qkv_kernels: backbone.qkvKernels,
    qkv_bias: backbone.qkvBias,
    mlp_ratios: backbone.mlpRatios,
    shift: backbone.shift,
    relative_position: backbone.relativePosition,
    residual_stem: backbone.residualStem,
    drop_path: backbone.dropPath,
  };
}

function toResnetSpec(backbone: Of<"resnet">): ResnetSpec {
  const { kind, depths, bottleneck, dim, width, groups } = backbone;
  return { kind, depths, bottleneck, dim, width, groups };
}

function toVitSpec(backbone: Of<"vit">): VitSpec {
  return {
    kind: backbone.kind,
    image_size: backbone.imageSize,
    patch_size: backbone.patchSize,
    dim: backbone.dim,
    depth: backbone.depth,
    heads: backbone.heads,
    mlp_ratio: backbone.mlpRatio,
    qkv_bias: backbone.qkvBias,
    drop_path: backbone.dropPath,
  };
}

function toVilSpec(backbone: Of<"vil">): VilSpec {
  return {
    kind: backbone.kind,
    image_size: backbone.imageSize,
    stages: parseVilArch(backbone.arch).map((stage) => ({
      heads: stage.heads,
      dim: stage.dim,
      depth: stage.depth,
      sparse: stage.sparse && backbone.attention === "sliding",
      globals: stage.globals,
      patch_size: stage.patchSize,
      window: stage.window,
      absolute_position: stage.absolutePosition,
      pooled: stage.pooled,
    })),
    norm_embed: backbone.normEmbed,
    average_pool: backbone.averagePool,
    share_weights: backbone.shareWeights,
    only_global: backbone.onlyGlobal,
    border: backbone.border,
    neighbors: backbone.neighbors,
    draw_until: backbone.drawUntil,
    pool: backbone.pool,
    gate: backbone.gate,
    gate_ratio: backbone.gateRatio,
    gate_balance: backbone.gateBalance,
    drop_path: backbone.dropPath,
  };
}

function toSwinSpec(backbone: Of<"swin">): SwinSpec {
  return {
    kind: backbone.kind,
    image_size: backbone.imageSize,
    patch_size: backbone.patchSize,
    dim: backbone.dim,
    depths: backbone.depths,
    heads: backbone.heads,
    window: backbone.window,
    mlp_ratio: backbone.mlpRatio,
    qkv_bias: backbone.qkvBias,
    absolute_position: backbone.absolutePosition,
    patch_norm: backbone.patchNorm,
    drop_path: backbone.dropPath,
  };
}

/** Threads of the engine: `threads`, or all cores when it is 0. */
export function engineThreads(threads: number): number {
  return threads > 0 ? threads : availableParallelism();
}

/** Images of a step on one device: those of all its passes. */
export function imagesPerStep({ batchSize, accumulate }: Pick<Config, "batchSize" | "accumulate">): number {
  return batchSize * accumulate;
}

/** What the engine's trainer is built from. */
export function toTrainerSpec(config: Config): TrainerSpec {
  return {
    backbone: toBackboneSpec(config.backbone),
    head: {
      out_dim: config.head.outDim,
      hidden_dim: config.head.hiddenDim,
      bottleneck_dim: config.head.bottleneckDim,
      layers: config.head.layers,
      batch_norm: config.head.batchNorm,
      norm_last_layer: config.head.normLastLayer,
    },
    crops: {
      batch: config.batchSize,
      global_size: config.crops.globalSize,
      local_size: config.crops.localSize,
      local_count: config.crops.localCount,
    },
    accumulate: config.accumulate,
    loss: {
      region: config.loss.region,
      student_temperature: config.loss.studentTemperature,
      center_momentum: config.loss.centerMomentum,
      mixup: config.mixup.enabled,
    },
    optimizer: config.optimizer.kind,
    clip_grad: config.optimizer.clipGrad,
    precision: config.precision,
    checkpointing: config.checkpointing,
    seed: config.seed,
    threads: engineThreads(config.threads),
  };
}

/** What the engine's encoder is built from; images have `config.evaluate.crop` pixels a side, batches its `batchSize`. */
export function toEncoderSpec(
  config: Pick<Config, "backbone" | "evaluate" | "precision" | "threads">, output: EncoderSpec["output"] = "view",
): EncoderSpec {
  return {
    backbone: toBackboneSpec(config.backbone),
    image_size: config.evaluate.crop,
    batch: config.evaluate.batchSize,
    precision: config.precision,
    threads: engineThreads(config.threads),
    output,
  };
}
