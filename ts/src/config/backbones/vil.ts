/** Vision Longformer (Zhang et al., 2021): stages of sliding windows with global tokens, then of full attention. */
import { z } from "zod";
import { show } from "../error.js";
import { family, renamedKeys } from "./family.js";
import { dropPath, positive } from "./fields.js";
import { parseVilArch } from "./vil-arch.js";

const vil2262 =
  "l1,h3,d96,n2,s1,g1,p4,f7,a0_l2,h6,d192,n2,s1,g1,p2,f7,a0_l3,h12,d384,n6,s0,g1,p2,f7,a0_l4,h24,d768,n2,s0,g0,p2,f7,a0";

/** The published stages with other numbers of blocks. */
function vilOfDepths(...depths: number[]): string {
  return vil2262.split("_").map((stage, s) => stage.replace(/n\d+/, `n${depths[s]}`)).join("_");
}

const schema = z.strictObject({
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
    .describe("stages as the original writes them: l stage, h heads, d channels, n blocks, s sliding, g global tokens, p patch, f window, a absolute positions, r pooled keys"),
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
  dropPath,
});

export const vil = family({
  schema,
  // Plain `vil` says the family alone: the original takes its network from `--cfg`.
  presets: {
    vil: { kind: "vil" },
    vil_1281: { kind: "vil", arch: vilOfDepths(1, 2, 8, 1) },
    vil_2262: { kind: "vil", arch: vil2262 },
    vil_14121: { kind: "vil", arch: vilOfDepths(1, 4, 12, 1) },
  },
  misfits(backbone) {
    if (backbone.border !== "exact" || backbone.neighbors === "all") return [];
    return [{ path: ["neighbors"], message: "all where border is exact", input: backbone.neighbors }];
  },
  patch: ({ arch }) => ({ name: "backbone.arch's first stage", size: parseVilArch(arch)[0]?.patchSize ?? 1 }),
  spec({ arch, attention, ...fields }) {
    const stages = parseVilArch(arch);
    return { ...fields, stages: attention === "full" ? stages.map((stage) => ({ ...stage, sparse: false })) : stages };
  },
  original: {
    title: "Vision Longformer",
    names: ["vision_longformer", "cls_vil"],
    keys: {
      ...renamedKeys({
        AVG_POOL: "averagePool",
        DROP_PATH: "dropPath",
        NORM_EMBED: "normEmbed",
        "MSVIT.ARCH": "arch",
        "MSVIT.SHARE_W": "shareWeights",
        "MSVIT.ONLY_GLOBAL": "onlyGlobal",
        "MSVIT.VIL_MODE_SWITCH": "drawUntil",
        "MSVIT.SE_MLP_RATIO": "gateRatio",
        "MSVIT.SE_MLP_BALANCE": "gateBalance",
      }),
      "MSVIT.ATTN_TYPE": { field: "attention", values: { longformerhand: "sliding", longformerauto: "sliding", full: "full" } },
      "MSVIT.SW_EXACT": { field: "border", values: { "0": "open", "-1": "cyclic", "1": "exact" } },
      "MSVIT.POOL_METHOD": { field: "pool", values: { fc: "learned", mean: "mean", None: "mean", null: "mean" } },
      "MSVIT.WITH_SE": { field: "gate", values: { SE: "squeeze", ECA: "convolution", None: "none", null: "none", false: "none" } },
      DROP: { accept: (value) => value === 0, reason: "must be 0, as in every published experiment" },
      "MSVIT.LN_EPS": { accept: (value) => Number(value) === 1e-6, reason: "must be 1e-6, what the original computes with whatever it says" },
      "MSVIT.SHARE_KV": { accept: (value) => typeof value === "boolean", reason: "must be true or false; it belongs to attention that is not here" },
      "MSVIT.MODE": {
        field: "neighbors",
        read(value) {
          if (typeof value !== "number" || !Number.isInteger(value) || value < -1) throw new Error(`must be 0, -1 or a number above 0, got ${show(value)}`);
          return value === 0 ? "all" : value < 0 ? "none" : "drawn";
        },
      },
    },
  },
  // Files and checkpoints of version 0.1.0.
  formerNames: { neighbours: "neighbors" },
});
