/** Vision transformer (Dosovitskiy et al., 2021) with a class token, in DeiT's sizes or others. */
import { z } from "zod";
import { family, type Misfit } from "./family.js";
import { dropPath, mlpRatio, positive } from "./fields.js";

const schema = z.strictObject({
  kind: z.literal("vit"),
  imageSize: positive.default(224).describe("nominal side in pixels: decides the position table, which is resampled for other crops"),
  patchSize: positive.default(16).describe("side of a patch in pixels"),
  dim: positive.default(384).describe("channels"),
  depth: positive.default(12).describe("blocks"),
  heads: positive.default(6).describe("attention heads"),
  mlpRatio,
  qkvBias: z.boolean().default(true),
  dropPath,
});

export const vit = family({
  schema,
  presets: {
    deit_tiny: { kind: "vit", dim: 192, depth: 12, heads: 3, dropPath: 0.1 },
    deit_small: { kind: "vit", dim: 384, depth: 12, heads: 6, dropPath: 0.1 },
    vit_base: { kind: "vit", dim: 768, depth: 12, heads: 12, dropPath: 0.1 },
  },
  misfits(backbone) {
    const misfits: Misfit[] = [];
    if (backbone.dim % backbone.heads !== 0) misfits.push({ path: ["heads"], message: `a divisor of the ${backbone.dim} channels`, input: backbone.heads });
    if (backbone.imageSize % backbone.patchSize !== 0) {
      misfits.push({ path: ["imageSize"], message: `a multiple of patchSize (${backbone.patchSize})`, input: backbone.imageSize });
    }
    return misfits;
  },
  patch: ({ patchSize }) => ({ name: "backbone.patchSize", size: patchSize }),
  spec: (backbone) => backbone,
  patchSizeFlag: true,
});
