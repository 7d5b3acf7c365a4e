/** Convolutional vision transformer (Wu et al., 2021) as EsViT changed it, cvt_v4; lists hold a value for each stage. */
import { z } from "zod";
import { family, renamedKeys, type Misfit } from "./family.js";
import { dropPath, positive } from "./fields.js";

const perStage = <Item extends z.ZodType>(item: Item) => z.array(item).min(1).max(4);

const schema = z.strictObject({
  kind: z.literal("cvt"),
  dims: perStage(positive).default([64, 192, 384, 768]).describe("channels"),
  depths: perStage(positive).default([2, 2, 6, 2]).describe("blocks"),
  heads: perStage(positive).default([1, 3, 6, 12]).describe("attention heads"),
  windows: perStage(positive).default([7, 7, 7, 7]).describe("side of an attention window in tokens; a smaller grid is one window"),
  embedKernels: perStage(positive).default([7, 3, 3, 3]).describe("kernel of the convolution that embeds tokens"),
  embedStrides: perStage(positive).default([4, 2, 2, 2]).describe("its stride"),
  embedPaddings: perStage(z.int().nonnegative()).default([2, 1, 1, 1]).describe("its padding"),
  qkvKernels: perStage(positive).default([3, 3, 3, 3]).describe("kernel of the depthwise convolution before q, k and v; odd"),
  qkvBias: perStage(z.boolean()).default([true, true, true, true]),
  mlpRatios: perStage(z.number().positive()).default([4, 4, 4, 4]).describe("hidden width of a block's MLP over its channels"),
  shift: perStage(z.boolean()).default([false, false, false, false]).describe("masks the regions of a shifted grid in every block"),
  relativePosition: z.boolean().default(false).describe("learned bias of relative positions"),
  residualStem: z.boolean().default(false).describe("three 3x3 convolutions instead of the first embedding"),
  dropPath,
});

export const cvt = family({
  schema,
  // These names say the family alone: the original takes its networks from `--cfg`.
  presets: {
    cvt: { kind: "cvt" },
    cvt_tiny: { kind: "cvt" },
    cvt_small: { kind: "cvt" },
  },
  misfits(backbone) {
    const misfits: Misfit[] = [];
    for (const [field, list] of Object.entries(backbone)) {
      if (Array.isArray(list) && list.length !== backbone.dims.length) {
        misfits.push({ path: [field], message: `${backbone.dims.length} values, one for each stage of dims`, input: list });
      }
    }
    for (const [stage, heads] of backbone.heads.entries()) {
      const channels = backbone.dims[stage];
      if (channels !== undefined && channels % heads !== 0) {
        misfits.push({ path: ["heads", String(stage)], message: `a divisor of the stage's ${channels} channels`, input: heads });
      }
    }
    for (const [stage, kernel] of backbone.qkvKernels.entries()) {
      if (kernel % 2 === 0) misfits.push({ path: ["qkvKernels", String(stage)], message: "odd", input: kernel });
    }
    return misfits;
  },
  patch: () => ({ name: "backbone", size: 1 }),
  spec: (backbone) => backbone,
  original: {
    title: "CvT",
    names: ["cls_cvt", "cls_cvt_v4", "cvt_v4_transformer"],
    // Windows follow from the crops.
    nominalSize: false,
    keys: {
      ...renamedKeys({
        DIM_EMBED: "dims",
        DEPTH: "depths",
        NUM_HEADS: "heads",
        WINDOW_SIZE: "windows",
        PATCH_SIZE: "embedKernels",
        PATCH_STRIDE: "embedStrides",
        PATCH_PADDING: "embedPaddings",
        KERNEL_QKV: "qkvKernels",
        QKV_BIAS: "qkvBias",
        MLP_RATIO: "mlpRatios",
        SHIFT: "shift",
        REL_POS_EMBED: "relativePosition",
        RES_STEM: "residualStem",
        DROP_PATH_RATE: "dropPath",
      }),
      INIT: { accept: (value) => value === "trunc_norm", reason: "must be trunc_norm, as in every published experiment" },
      NUM_STAGES: { accept: (value) => typeof value === "number", reason: "must be a number; the lists say how many stages there are" },
      PADDING_QKV: { accept: (value) => Array.isArray(value), reason: "must be half of KERNEL_QKV, which it follows from" },
    },
  },
});
