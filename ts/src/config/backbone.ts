import { z } from "zod";

const positive = z.int().positive();

/** Swin transformer (Liu et al., 2021), as EsViT uses it: any number of stages from one to four. */
export const Swin = z.strictObject({
  kind: z.literal("swin"),
  imageSize: positive.default(224).describe("nominal side in pixels: decides windows and shifts of each stage; crops may differ"),
  patchSize: positive.default(4).describe("side of a patch in pixels"),
  dim: positive.default(96).describe("channels of the first stage; each next one doubles them"),
  depths: z.array(positive).min(1).max(4).default([2, 2, 6, 2]).describe("blocks of each stage"),
  heads: z.array(positive).min(1).max(4).default([3, 6, 12, 24]).describe("attention heads of each stage"),
  window: positive.default(7).describe("side of an attention window in tokens"),
  mlpRatio: z.number().positive().default(4).describe("hidden width of a block's MLP over its channels"),
  qkvBias: z.boolean().default(true),
  absolutePosition: z.boolean().default(false).describe("adds a learned position table; then every crop has the nominal size"),
  patchNorm: z.boolean().default(true).describe("layer norm after the patch embedding"),
  dropPath: z.number().min(0).lt(1).default(0.1).describe("stochastic depth of the last block; earlier blocks rise to it linearly"),
});

/** The backbones there are. A new one is one member here. */
export const Backbone = z.discriminatedUnion("kind", [Swin]);
export type Backbone = z.output<typeof Backbone>;

/** What the names of `--arch` stand for, below the values of a file. Window and sizes are not part of a name. */
export const presets = {
  swin_tiny: { kind: "swin", dim: 96, depths: [2, 2, 6, 2], heads: [3, 6, 12, 24], dropPath: 0.1 },
  swin_small: { kind: "swin", dim: 96, depths: [2, 2, 18, 2], heads: [3, 6, 12, 24], dropPath: 0.2 },
  swin_base: { kind: "swin", dim: 128, depths: [2, 2, 18, 2], heads: [4, 8, 16, 32], dropPath: 0.2 },
  swin_large: { kind: "swin", dim: 192, depths: [2, 2, 18, 2], heads: [6, 12, 24, 48], dropPath: 0.2 },
} as const satisfies Record<string, z.input<typeof Backbone>>;

export type Arch = keyof typeof presets;

/** A field of a backbone that does not fit the others. */
export interface Misfit {
  path: string[];
  /** What the field must be. */
  message: string;
  /** What it is. */
  input: unknown;
}

/** What a schema of single fields cannot see. `crops` are the sides of the images the backbone will get. */
export function backboneMisfits(backbone: Backbone, crops: { name: string; size: number }[]): Misfit[] {
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
}
