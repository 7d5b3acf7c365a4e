/** Residual network (He et al., 2015), ResNeXt (Xie et al., 2017) included, as torchvision builds it. */
import { z } from "zod";
import { family, type Misfit } from "./family.js";
import { positive } from "./fields.js";

const schema = z.strictObject({
  kind: z.literal("resnet"),
  depths: z.array(positive).length(4).default([3, 4, 6, 3]).describe("blocks of each stage"),
  bottleneck: z.boolean().default(true).describe("blocks of three convolutions; else of two"),
  dim: positive.default(64).describe("channels of the stem and, before expansion, of the first stage; each next one doubles them"),
  width: positive.default(64).describe("channels of a group of a bottleneck's 3x3 convolution where a stage has 64; 128 in the wide variants"),
  groups: positive.default(1).describe("groups of the 3x3 convolutions of bottlenecks: ResNeXt"),
});

export const resnet = family({
  schema,
  // torchvision's names.
  presets: {
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
  },
  misfits(backbone) {
    const misfits: Misfit[] = [];
    if (!backbone.bottleneck) {
      if (backbone.width !== 64) misfits.push({ path: ["width"], message: "64 where bottleneck is false", input: backbone.width });
      if (backbone.groups !== 1) misfits.push({ path: ["groups"], message: "1 where bottleneck is false", input: backbone.groups });
    }
    if (backbone.dim * backbone.width < 64) {
      misfits.push({ path: ["width"], message: `at least ${Math.ceil(64 / backbone.dim)} where dim is ${backbone.dim}`, input: backbone.width });
    }
    return misfits;
  },
  patch: () => ({ name: "backbone", size: 1 }),
  spec: (backbone) => backbone,
});
