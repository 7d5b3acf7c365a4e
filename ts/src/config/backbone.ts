import { z } from "zod";
import { parseVilArch } from "./vil-arch.js";

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

/** Vision transformer (Dosovitskiy et al., 2021) with a class token, in DeiT's sizes or others. */
export const Vit = z.strictObject({
  kind: z.literal("vit"),
  imageSize: positive.default(224).describe("nominal side in pixels: decides the position table, which is resampled for other crops"),
  patchSize: positive.default(16).describe("side of a patch in pixels"),
  dim: positive.default(384).describe("channels"),
  depth: positive.default(12).describe("blocks"),
  heads: positive.default(6).describe("attention heads"),
  mlpRatio: z.number().positive().default(4).describe("hidden width of a block's MLP over its channels"),
  qkvBias: z.boolean().default(true),
  dropPath: z.number().min(0).lt(1).default(0.1).describe("stochastic depth of the last block; earlier blocks rise to it linearly"),
});

const vil2262 =
  "l1,h3,d96,n2,s1,g1,p4,f7,a0_l2,h6,d192,n2,s1,g1,p2,f7,a0_l3,h12,d384,n6,s0,g1,p2,f7,a0_l4,h24,d768,n2,s0,g0,p2,f7,a0";

/** Vision Longformer (Zhang et al., 2021): stages of sliding windows with global tokens, then of full attention. */
export const Vil = z.strictObject({
  kind: z.literal("vil"),
  imageSize: positive.default(224).describe("nominal side in pixels: decides the tables of positions, which are resampled for other crops"),
  arch: z
    .string()
    .default(vil2262)
    .superRefine((text, context) => {
      try {
        parseVilArch(text);
      } catch (error) {
        context.addIssue({ code: "custom", message: (error as Error).message, input: text, continue: false });
      }
    })
    .describe("stages as the reference writes them: l stage, h heads, d channels, n blocks, s sliding, g global tokens, p patch, f window, a absolute positions, r pooled keys"),
  normEmbed: z.boolean().default(true).describe("layer norm after each patch embedding"),
  averagePool: z.boolean().default(false).describe("the view is the mean over the tokens even where there is a global one"),
  attention: z.enum(["sliding", "full"]).default("sliding").describe("full makes every stage one of full attention"),
  shareWeights: z.boolean().default(true).describe("global tokens use the projections of the others"),
  onlyGlobal: z.boolean().default(false).describe("windows see global tokens alone"),
  border: z.enum(["open", "cyclic", "exact"]).default("open").describe("beyond the grid: nothing, the other end, or nothing and exact distances"),
  neighbors: z.enum(["all", "drawn", "none"]).default("all").describe("windows around the own one: all, one drawn at every step of training, or none"),
  drawUntil: z.number().min(0).max(1).default(0.75).describe("share of the training in which neighbors are drawn; then all count"),
  pool: z.enum(["mean", "learned"]).default("mean").describe("how windows become pooled keys"),
  gate: z.enum(["none", "squeeze", "convolution"]).default("none").describe("gate on the channels after each attention: SE or ECA"),
  gateRatio: z.number().min(0).lt(1).default(0.0625).describe("hidden width, or side of the convolution, over the channels"),
  gateBalance: z.boolean().default(false).describe("takes the gate's ratio off the MLP's"),
  dropPath: z.number().min(0).lt(1).default(0.1).describe("stochastic depth of the last block; earlier blocks rise to it linearly"),
});

const perStage = <Item extends z.ZodType>(item: Item) => z.array(item).min(1).max(4);

/** Convolutional vision transformer (Wu et al., 2021) as EsViT changed it, cvt_v4; lists hold a value for each stage. */
export const Cvt = z.strictObject({
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
  dropPath: z.number().min(0).lt(1).default(0.1).describe("stochastic depth of the last block; earlier blocks rise to it linearly"),
});

/** Residual network (He et al., 2015), ResNeXt (Xie et al., 2017) included, as torchvision builds it. */
export const Resnet = z.strictObject({
  kind: z.literal("resnet"),
  depths: z.array(positive).length(4).default([3, 4, 6, 3]).describe("blocks of each stage"),
  bottleneck: z.boolean().default(true).describe("blocks of three convolutions; else of two"),
  dim: positive.default(64).describe("channels of the stem and, before expansion, of the first stage; each next one doubles them"),
  width: positive.default(64).describe("channels of a group of a bottleneck's 3x3 convolution where a stage has 64; 128 in the wide variants"),
  groups: positive.default(1).describe("groups of the 3x3 convolutions of bottlenecks: ResNeXt"),
});

/** The backbones there are. A new one is one member here. */
export const Backbone = z.discriminatedUnion("kind", [Cvt, Resnet, Swin, Vil, Vit]);
export type Backbone = z.output<typeof Backbone>;

/** The published stages with other numbers of blocks. */
function vilOfDepths(...depths: number[]): string {
  return vil2262.split("_").map((stage, s) => stage.replace(/n\d+/, `n${depths[s]}`)).join("_");
}

/**
 * What the names of `--arch` stand for, below the values of a file. Window and sizes are not part of a name, and those of CvT and plain `swin` and
 * `vil` say the family alone: the reference takes their networks from `--cfg`. ResNets have torchvision's names.
 */
export const presets = {
  swin: { kind: "swin" },
  swin_tiny: { kind: "swin", dim: 96, depths: [2, 2, 6, 2], heads: [3, 6, 12, 24], dropPath: 0.1 },
  swin_small: { kind: "swin", dim: 96, depths: [2, 2, 18, 2], heads: [3, 6, 12, 24], dropPath: 0.2 },
  swin_base: { kind: "swin", dim: 128, depths: [2, 2, 18, 2], heads: [4, 8, 16, 32], dropPath: 0.2 },
  swin_large: { kind: "swin", dim: 192, depths: [2, 2, 18, 2], heads: [6, 12, 24, 48], dropPath: 0.2 },
  cvt: { kind: "cvt" },
  cvt_tiny: { kind: "cvt" },
  cvt_small: { kind: "cvt" },
  resnet18: { kind: "resnet", depths: [2, 2, 2, 2], bottleneck: false, width: 64 },
  resnet34: { kind: "resnet", depths: [3, 4, 6, 3], bottleneck: false, width: 64 },
  resnet50: { kind: "resnet", depths: [3, 4, 6, 3], bottleneck: true, width: 64 },
  resnet101: { kind: "resnet", depths: [3, 4, 23, 3], bottleneck: true, width: 64 },
  resnet152: { kind: "resnet", depths: [3, 8, 36, 3], bottleneck: true, width: 64 },
  wide_resnet50_2: { kind: "resnet", depths: [3, 4, 6, 3], bottleneck: true, width: 128 },
  wide_resnet101_2: { kind: "resnet", depths: [3, 4, 23, 3], bottleneck: true, width: 128 },
  resnext50_32x4d: { kind: "resnet", depths: [3, 4, 6, 3], bottleneck: true, width: 4, groups: 32 },
  resnext101_32x8d: { kind: "resnet", depths: [3, 4, 23, 3], bottleneck: true, width: 8, groups: 32 },
  resnext101_64x4d: { kind: "resnet", depths: [3, 4, 23, 3], bottleneck: true, width: 4, groups: 64 },
  vil: { kind: "vil" },
  vil_1281: { kind: "vil", arch: vilOfDepths(1, 2, 8, 1) },
  vil_2262: { kind: "vil", arch: vil2262 },
  vil_14121: { kind: "vil", arch: vilOfDepths(1, 4, 12, 1) },
  deit_tiny: { kind: "vit", dim: 192, depth: 12, heads: 3, dropPath: 0.1 },
  deit_small: { kind: "vit", dim: 384, depth: 12, heads: 6, dropPath: 0.1 },
  vit_base: { kind: "vit", dim: 768, depth: 12, heads: 12, dropPath: 0.1 },
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

/** Side of the patches that pixels are cut in. */
export function patchSizeOf(backbone: Backbone): { name: string; size: number } {
  if (backbone.kind === "cvt" || backbone.kind === "resnet") return { name: "backbone", size: 1 };
  if (backbone.kind === "vil") return { name: "backbone.arch's first stage", size: parseVilArch(backbone.arch)[0]?.patchSize ?? 1 };
  return { name: "backbone.patchSize", size: backbone.patchSize };
}

/** What a schema of single fields cannot see. `crops` are the sides of the images the backbone will get. */
export function backboneMisfits(backbone: Backbone, crops: { name: string; size: number }[]): Misfit[] {
  switch (backbone.kind) {
    case "cvt": return cvtMisfits(backbone);
    case "resnet": return resnetMisfits(backbone);
    case "swin": return swinMisfits(backbone, crops);
    case "vil": return vilMisfits(backbone);
    case "vit": return vitMisfits(backbone);
  }
}

function cvtMisfits(backbone: z.output<typeof Cvt>): Misfit[] {
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
}

function resnetMisfits(backbone: z.output<typeof Resnet>): Misfit[] {
  const misfits: Misfit[] = [];
  if (!backbone.bottleneck) {
    if (backbone.width !== 64) misfits.push({ path: ["width"], message: "64 where bottleneck is false", input: backbone.width });
    if (backbone.groups !== 1) misfits.push({ path: ["groups"], message: "1 where bottleneck is false", input: backbone.groups });
  }
  if (backbone.dim * backbone.width < 64) {
    misfits.push({ path: ["width"], message: `at least ${Math.ceil(64 / backbone.dim)} where dim is ${backbone.dim}`, input: backbone.width });
  }
  return misfits;
}

function vitMisfits(backbone: z.output<typeof Vit>): Misfit[] {
  const misfits: Misfit[] = [];
  if (backbone.dim % backbone.heads !== 0) misfits.push({ path: ["heads"], message: `a divisor of the ${backbone.dim} channels`, input: backbone.heads });
  if (backbone.imageSize % backbone.patchSize !== 0) {
    misfits.push({ path: ["imageSize"], message: `a multiple of patchSize (${backbone.patchSize})`, input: backbone.imageSize });
  }
  return misfits;
}

function vilMisfits(backbone: z.output<typeof Vil>): Misfit[] {
  if (backbone.border !== "exact" || backbone.neighbors === "all") return [];
  return [{ path: ["neighbors"], message: "all where border is exact", input: backbone.neighbors }];
}

function swinMisfits(backbone: z.output<typeof Swin>, crops: { name: string; size: number }[]): Misfit[] {
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
