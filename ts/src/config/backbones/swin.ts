/** Swin transformer (Liu et al., 2021), as EsViT uses it: any number of stages from one to four. */
import { z } from "zod";
import { family, renamedKeys, type Misfit } from "./family.js";
import { dropPath, mlpRatio, positive } from "./fields.js";

const schema = z.strictObject({
  kind: z.literal("swin"),
  imageSize: positive.default(224).describe("nominal side in pixels: decides windows and shifts of each stage; crops may differ"),
  patchSize: positive.default(4).describe("side of a patch in pixels"),
  dim: positive.default(96).describe("channels of the first stage; each next one doubles them"),
  depths: z.array(positive).min(1).max(4).default([2, 2, 6, 2]).describe("blocks of each stage"),
  heads: z.array(positive).min(1).max(4).default([3, 6, 12, 24]).describe("attention heads of each stage"),
  window: positive.default(7).describe("side of an attention window in tokens"),
  mlpRatio,
  qkvBias: z.boolean().default(true),
  absolutePosition: z.boolean().default(false).describe("adds a learned position table; then every crop has the nominal size"),
  patchNorm: z.boolean().default(true).describe("layer norm after the patch embedding"),
  dropPath,
});

/** A dropout rate of the original that is 0 in every published file and does not exist here. */
const onlyZero = { accept: (value: unknown) => value === 0, reason: "must be 0, as in every published experiment" };

export const swin = family({
  schema,
  // Window and sizes are not part of a name, and plain `swin` says the family alone: the original takes its network from `--cfg`.
  presets: {
    swin: { kind: "swin" },
    swin_tiny: { kind: "swin", dim: 96, depths: [2, 2, 6, 2], heads: [3, 6, 12, 24], dropPath: 0.1 },
    swin_small: { kind: "swin", dim: 96, depths: [2, 2, 18, 2], heads: [3, 6, 12, 24], dropPath: 0.2 },
    swin_base: { kind: "swin", dim: 128, depths: [2, 2, 18, 2], heads: [4, 8, 16, 32], dropPath: 0.2 },
    swin_large: { kind: "swin", dim: 192, depths: [2, 2, 18, 2], heads: [6, 12, 24, 48], dropPath: 0.2 },
  },
  misfits(backbone, crops) {
    const misfits: Misfit[] = [];
    if (backbone.depths.length !== backbone.heads.length) {
      misfits.push({ path: ["heads"], message: `${backbone.depths.length} numbers, one for each stage of depths`, input: backbone.heads });
    }
    for (const [stage, heads] of backbone.heads.entries()) {
      const channels = backbone.dim * 2 ** stage;
      if (channels % heads !== 0) {
        misfits.push({ path: ["heads", String(stage)], message: `a divisor of the stage's ${channels} channels`, input: heads });
      }
    }
    if (backbone.imageSize % backbone.patchSize !== 0) {
      misfits.push({ path: ["imageSize"], message: `a multiple of patchSize (${backbone.patchSize})`, input: backbone.imageSize });
    }
    if (backbone.absolutePosition) {
      for (const crop of crops.filter(({ size }) => size !== backbone.imageSize)) {
        misfits.push({
          path: ["absolutePosition"],
          message: `false, because ${crop.name} (${crop.size}) differs from imageSize (${backbone.imageSize})`,
          input: true,
        });
      }
    }
    return misfits;
  },
  patch: ({ patchSize }) => ({ name: "backbone.patchSize", size: patchSize }),
  spec: (backbone) => backbone,
  original: {
    title: "Swin",
    names: ["swin_transformer"],
    keys: {
      ...renamedKeys({
        PATCH_SIZE: "patchSize",
        DIM_EMBED: "dim",
        DEPTHS: "depths",
        NUM_HEADS: "heads",
        WINDOW_SIZE: "window",
        MLP_RATIO: "mlpRatio",
        QKV_BIAS: "qkvBias",
        DROP_PATH_RATE: "dropPath",
        USE_APE: "absolutePosition",
        PATCH_NORM: "patchNorm",
      }),
      DROP_RATE: onlyZero,
      ATTN_DROP_RATE: onlyZero,
    },
  },
});
