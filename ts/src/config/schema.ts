import { z } from "zod";
import { Backbone, backboneMisfits, patchSizeOf } from "./backbones/index.js";

const positive = z.int().positive();
const count = z.int().nonnegative();
const share = z.number().min(0).max(1);
const nonnegative = z.number().nonnegative();

/** Two numbers of which the first is not the larger. */
function range(item: z.ZodNumber, low: number, high: number) {
  return z
    .tuple([item, item])
    .refine(([a, b]) => a <= b, "two numbers, the smaller first")
    .default([low, high]);
}

const Head = z.strictObject({
  outDim: positive.default(65536).describe("prototypes, K"),
  hiddenDim: positive.default(2048),
  bottleneckDim: positive.default(256),
  layers: positive.default(3).describe("linear layers in front of the prototypes"),
  batchNorm: z.boolean().default(false),
  normLastLayer: z.boolean().default(true).describe("freezes the magnitudes of the prototypes at 1"),
});

/** Sides and number of the crops: what the engine must know of them. */
const EngineCrops = z.object({
  globalSize: positive.default(224).describe("side of the two global crops in pixels"),
  localSize: positive.default(96).describe("side of the local crops in pixels"),
  localCount: count.default(8).describe("local crops an image; 0 for none"),
});

const Crops = z.strictObject({
  ...EngineCrops.shape,
  globalScale: range(z.number().positive().max(1), 0.4, 1).describe("share of the image's area a global crop covers"),
  localScale: range(z.number().positive().max(1), 0.05, 0.4).describe("share of the image's area a local crop covers"),
  aspectRatio: range(z.number().positive(), 3 / 4, 4 / 3).describe("width over height of a crop's box"),
});

/** Loss terms of the engine. */
const EngineLoss = z.object({
  region: z.boolean().default(false).describe("EsViT's region-level term beside the view-level one, half and half"),
  studentTemperature: z.number().positive().default(0.1),
  centerMomentum: share.default(0.9),
});

const Loss = z.strictObject({
  ...EngineLoss.shape,
  teacherTemperature: z
    .strictObject({
      warmup: z.number().positive().default(0.04).describe("in the first epoch"),
      value: z.number().positive().default(0.04).describe("after the warm-up"),
      warmupEpochs: count.default(0),
    })
    .prefault({}),
});

const Optimizer = z.strictObject({
  kind: z.enum(["adamw", "sgd", "lars"]).default("adamw"),
  lr: nonnegative.default(0.0005).describe("peak learning rate for 256 images a step; it is scaled with the batch"),
  minLr: nonnegative.default(1e-6).describe("learning rate the cosine ends at, not scaled"),
  warmupEpochs: count.default(10),
  weightDecay: nonnegative.default(0.04),
  weightDecayEnd: nonnegative.default(0.4),
  clipGrad: nonnegative.default(3).describe("largest norm of one parameter's gradient; 0 turns clipping off"),
  freezeLastLayer: count.default(1).describe("epochs in which the prototypes are not updated"),
  momentumTeacher: share.default(0.996).describe("of the teacher's moving average at the start; 1 at the end"),
});

const Augmentation = z.strictObject({
  flip: share.default(0.5).describe("probability of mirroring left and right"),
  jitter: z
    .strictObject({
      probability: share.default(0.8),
      brightness: nonnegative.default(0.4).describe("factor drawn from 1 - this to 1 + this, not below 0"),
      contrast: nonnegative.default(0.4),
      saturation: nonnegative.default(0.2),
      hue: z.number().min(0).max(0.5).default(0.1).describe("shift drawn from minus to plus this, in turns"),
    })
    .prefault({}),
  grayscale: share.default(0.2).describe("probability"),
  blur: z
    .strictObject({
      firstGlobal: share.default(1).describe("probability for the first global crop"),
      secondGlobal: share.default(0.1),
      local: share.default(0.5),
      radius: range(nonnegative, 0.1, 2).describe("in pixels of the crop"),
    })
    .prefault({}),
  solarize: z
    .strictObject({
      secondGlobal: share.default(0.2).describe("probability; the other crops are never solarized"),
      threshold: z.int().min(0).max(255).default(128).describe("values at or above it are inverted"),
    })
    .prefault({}),
  interpolation: z.enum(["bicubic", "bilinear"]).default("bicubic"),
});

const Mixup = z.strictObject({
  enabled: z.boolean().default(false),
  views: count.default(10).describe("crops that are mixed, counted from the first global one"),
  alpha: z.number().positive().default(0.8).describe("the factor is drawn from Beta(alpha, alpha)"),
  probability: share.default(1).describe("for each of these crops"),
});

const Data = z.strictObject({
  path: z.string().nullable().default(null).describe("folder of images; the command line's folder replaces it"),
  maxBadImages: share.default(0.1).describe("share of the files that may be unreadable before the run stops"),
  maxFileMiB: z.number().positive().default(128).describe("a larger file counts as unreadable"),
  prefetchMiB: z.number().positive().default(256).describe("pixels of finished batches kept ready; at least one batch"),
  workers: positive.default(4).describe("images decoded at the same time"),
});

const Evaluate = z.strictObject({
  enabled: z.boolean().default(true).describe("k-NN at the end of a run on labeled images"),
  ks: z.array(positive).min(1).default([10, 20]).describe("numbers of neighbors"),
  temperature: z.number().positive().default(0.07).describe("of the neighbors' votes"),
  resize: positive.default(256).describe("length of the shorter side before the center is cut, in pixels"),
  crop: positive.default(224).describe("side of the center, in pixels"),
  batchSize: positive.default(64),
});

/** Options of the engine. */
const Engine = z.object({
  accumulate: positive.default(1).describe("passes of a step: their gradients are averaged, and the schedules see batchSize times this"),
  precision: z.enum(["f32", "mixed"]).default("f32").describe("of matrix products; mixed multiplies bf16 (CPU) or f16 (GPU) where that is faster"),
  checkpointing: z.boolean().default(false).describe("recomputes the blocks in the backward pass: less memory, more time, the same numbers"),
  seed: count.default(0),
  threads: count.default(0).describe("threads of the engine; 0 for all cores"),
});

/** The parts of a configuration that are the engine's own, field for field. Parsing drops what is around them. */
export const engineParts = { crops: EngineCrops, loss: EngineLoss, engine: Engine };

/** One pre-training run. Every field acts; an unknown field is an error. Defaults live here and nowhere else. */
export const Config = z
  .strictObject({
    ...Engine.shape,
    backbone: Backbone.prefault({ kind: "swin" }),
    head: Head.prefault({}),
    crops: Crops.prefault({}),
    loss: Loss.prefault({}),
    optimizer: Optimizer.prefault({}),
    augmentation: Augmentation.prefault({}),
    mixup: Mixup.prefault({}),
    data: Data.prefault({}),
    evaluate: Evaluate.prefault({}),
    epochs: positive.default(100),
    batchSize: positive.default(64).describe("images of a pass on one device"),
    saveEpochs: count.default(5).describe("keeps a numbered checkpoint every so many epochs; 0 keeps only the last"),
    saveSteps: count.default(0).describe("writes the checkpoint every so many steps too; 0 only at the end of an epoch"),
    device: z.enum(["cpu", "gpu", "auto"]).default("cpu").describe("where steps run; auto is the best GPU, or the CPU where there is none"),
    outputDir: z.string().min(1).default("."),
    pretrained: z.string().min(1).nullable().default(null).describe("checkpoint to start from when outputDir has none"),
    allowPartial: z.boolean().default(false).describe("starts from that checkpoint even if it lacks tensors of this network or has others"),
    maxSteps: positive.nullable().default(null).describe("stops after so many steps of the schedule"),
    maxMinutes: z.number().positive().nullable().default(null).describe("stops after so many minutes of this call"),
  })
  .superRefine((config, context) => {
    const refuse = (path: string[], message: string, input: unknown): void => context.addIssue({ code: "custom", path, message, input });

    const sizes = [{ name: "globalSize", size: config.crops.globalSize }];
    if (config.crops.localCount > 0) sizes.push({ name: "localSize", size: config.crops.localSize });
    for (const { path, message, input } of backboneMisfits(config.backbone, sizes)) refuse(["backbone", ...path], message, input);
    const patch = patchSizeOf(config.backbone);
    for (const { name, size } of sizes) {
      if (size % patch.size !== 0) refuse(["crops", name], `a multiple of ${patch.name} (${patch.size})`, size);
    }
    if (config.optimizer.warmupEpochs > config.epochs) {
      refuse(["optimizer", "warmupEpochs"], `at most epochs (${config.epochs})`, config.optimizer.warmupEpochs);
    }
    if (config.loss.teacherTemperature.warmupEpochs > config.epochs) {
      const { warmupEpochs } = config.loss.teacherTemperature;
      refuse(["loss", "teacherTemperature", "warmupEpochs"], `at most epochs (${config.epochs})`, warmupEpochs);
    }
    if (config.evaluate.crop > config.evaluate.resize) {
      refuse(["evaluate", "crop"], `at most evaluate.resize (${config.evaluate.resize})`, config.evaluate.crop);
    }
    // The mixed partner of image b is image B - 1 - b: with an odd batch the middle one would meet itself.
    if (config.mixup.enabled && config.batchSize % 2 !== 0) refuse(["batchSize"], "even, because mixup pairs images", config.batchSize);
  });

/** A complete configuration. */
export type Config = z.output<typeof Config>;
/** A configuration as written: every field with a default may be left out. */
export type ConfigInput = z.input<typeof Config>;

/** JSON schema (draft 2020-12) of a configuration file, with defaults and descriptions. */
export function configSchema(): Record<string, unknown> {
  return z.toJSONSchema(Config, { io: "input" }) as Record<string, unknown>;
}
