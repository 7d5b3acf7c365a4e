/** The flags of the original's `main_esvit.py`: what each one is here. */
import { ConfigError, show } from "./error.js";

/** Turns a flag's words into a value; throws an `Error` that says what was expected. */
export type FlagParser = (words: readonly string[]) => unknown;

/** Use of the words after a flag. `words`: how many there are, `any` for one or more numbers. */
export type Flag = { words: 0 | 1 | "any" } & (
  | { kind: "field"; path: string; parse: FlagParser }
  /** Chooses the preset below the file. */
  | { kind: "arch" }
  /** Names the configuration file. */
  | { kind: "file" }
  /** Has no effect here; `note` says why, unless `silent` accepts the value as what happens anyway. */
  | { kind: "noted"; note: string; silent?: (word: string) => boolean }
  /** Side of a patch, for backbones that take it from there. */
  | { kind: "patch" }
  /** Only these values are possible here. */
  | { kind: "only"; accept: (word: string) => boolean; reason: string }
  /** Kept until all flags are read: CutMix matters only together with `--use_mixup`. */
  | { kind: "mixup" }
);

const one = (words: readonly string[]): string => words[0] ?? "";

const number: FlagParser = (words) => {
  const value = Number(one(words));
  if (one(words).trim() === "" || Number.isNaN(value)) throw new Error("a number");
  return value;
};

const text: FlagParser = (words) => one(words);

const isTrue = (word: string): boolean => /^(on|true|1|yes)$/i.test(word);
const isFalse = (word: string): boolean => /^(off|false|0|no)$/i.test(word);
const isZero = (word: string): boolean => Number(word) === 0;
const isWord = (...words: string[]) => (word: string): boolean => words.includes(word);

const boolean: FlagParser = (words) => {
  if (isTrue(one(words))) return true;
  if (isFalse(one(words))) return false;
  throw new Error("true or false");
};

const pair: FlagParser = (words) => {
  const values = words.map((word) => number([word]));
  if (values.length !== 2) throw new Error("two numbers");
  return values;
};

/** The original takes a list, one number for each local size; its losses know one local size only. */
const single: FlagParser = (words) => {
  if (words.length !== 1) throw new Error("one number, because there is one size of local crops");
  return number(words);
};

const field = (path: string, parse: FlagParser, words: 1 | "any" = 1): Flag => ({ kind: "field", path, parse, words });
const noted = (note: string, silent?: (word: string) => boolean): Flag => ({ kind: "noted", words: 1, note, ...(silent && { silent }) });
const only = (accept: (word: string) => boolean, reason: string): Flag => ({ kind: "only", words: 1, accept, reason });

const forDeit = "belongs to deit_aug and has no effect with dino_aug, as in the original";
const forLaunch = "is not needed: one process uses all cores of this machine";

/** Every flag of the original, without the dashes, `_` for `-`. */
export const originalFlags: Readonly<Record<string, Flag>> = {
  cfg: { kind: "file", words: 1 },
  arch: { kind: "arch", words: 1 },
  patch_size: { kind: "patch", words: 1 },
  out_dim: field("head.outDim", number),
  norm_last_layer: field("head.normLastLayer", boolean),
  momentum_teacher: field("optimizer.momentumTeacher", number),
  use_bn_in_head: field("head.batchNorm", boolean),
  use_dense_prediction: field("loss.region", boolean),
  warmup_teacher_temp: field("loss.teacherTemperature.warmup", number),
  teacher_temp: field("loss.teacherTemperature.value", number),
  warmup_teacher_temp_epochs: field("loss.teacherTemperature.warmupEpochs", number),
  use_fp16: field("precision", (words) => (boolean(words) ? "mixed" : "f32")),
  weight_decay: field("optimizer.weightDecay", number),
  weight_decay_end: field("optimizer.weightDecayEnd", number),
  clip_grad: field("optimizer.clipGrad", number),
  batch_size_per_gpu: field("batchSize", number),
  epochs: field("epochs", number),
  freeze_last_layer: field("optimizer.freezeLastLayer", number),
  lr: field("optimizer.lr", number),
  warmup_epochs: field("optimizer.warmupEpochs", number),
  min_lr: field("optimizer.minLr", number),
  optimizer: field("optimizer.kind", text),
  global_crops_scale: field("crops.globalScale", pair, "any"),
  local_crops_number: field("crops.localCount", single, "any"),
  local_crops_scale: field("crops.localScale", pair, "any"),
  local_crops_size: field("crops.localSize", single, "any"),
  aug_opt: only(isWord("dino_aug"), "dino_aug is the augmentation there is"),
  color_jitter: noted(`${forDeit}; ours is augmentation.jitter`),
  aa: noted(forDeit),
  train_interpolation: noted(`${forDeit}; ours is augmentation.interpolation`),
  reprob: noted(forDeit),
  remode: noted(forDeit),
  recount: noted(forDeit),
  resplit: { kind: "noted", words: 0, note: forDeit },
  use_mixup: field("mixup.enabled", boolean),
  num_mixup_views: field("mixup.views", number),
  mixup: { kind: "mixup", words: 1 },
  cutmix: { kind: "mixup", words: 1 },
  cutmix_minmax: { kind: "mixup", words: "any" },
  mixup_prob: field("mixup.probability", number),
  mixup_switch_prob: { kind: "mixup", words: 1 },
  mixup_mode: { kind: "mixup", words: 1 },
  smoothing: { kind: "mixup", words: 1 },
  dataset: noted("names no format here: images are read from the folder of --data_path", isWord("imagenet1k")),
  zip_mode: only(isFalse, "zip archives are not read; unpack them into a folder"),
  tsv_mode: only(isFalse, "tsv archives are not read; unpack them into a folder"),
  sampler: only(isWord("distributed"), "every epoch is one shuffle of all images"),
  data_path: field("data.path", text),
  pretrained_weights_ckpt: field("pretrained", (words) => one(words) || null),
  output_dir: field("outputDir", text),
  saveckp_freq: field("saveEpochs", number),
  seed: field("seed", number),
  num_workers: field("data.workers", (words) => Math.max(1, number(words) as number)),
  dist_url: noted(forLaunch),
  local_rank: noted(forLaunch),
};

/** Ours that are not simply the path of a field in kebab case. */
export const ownFlags: Readonly<Record<string, Flag>> = {
  config: { kind: "file", words: 1 },
  data: field("data.path", text),
  output: field("outputDir", text),
  save_every: field("saveSteps", number),
};

/**
 * Reads the flags of timm's `Mixup` that concern CutMix and labels, once all are known.
 * @param given words of the flags of kind `mixup`, by name.
 * @returns the fields they set, and notes.
 * @throws {ConfigError} when mixup is on and they ask for something other than mixing whole images.
 */
export function settleMixup(
  given: ReadonlyMap<string, readonly string[]>, enabled: boolean, enabledByFlag: boolean,
): { alpha: number | undefined; notes: string[] } {
  const alpha = given.has("mixup") ? Number(one(given.get("mixup") ?? [])) : undefined;
  if (alpha !== undefined && Number.isNaN(alpha)) {
    throw new ConfigError(`--mixup must be a number, got ${show(one(given.get("mixup") ?? []))}`);
  }
  if (!enabled) {
    return { alpha: undefined, notes: [...given.keys()].map((name) => `--${name} has no effect without --use_mixup true, as in the original`) };
  }
  const refuse = (name: string, why: string): never => {
    throw new ConfigError(`--${name} ${show((given.get(name) ?? []).join(" "))}: ${why}`);
  };
  if (given.has("cutmix_minmax")) refuse("cutmix_minmax", "CutMix does not exist here, only whole images are mixed");
  if (given.has("cutmix") ? !isZero(one(given.get("cutmix") ?? [])) : enabledByFlag) {
    throw new ConfigError("--use_mixup true: the original then uses CutMix too (--cutmix is 1 unless set), which does not exist here; add --cutmix 0");
  }
  if (given.has("smoothing") && !isZero(one(given.get("smoothing") ?? []))) refuse("smoothing", "must be 0, labels are not smoothed");
  if (given.has("mixup_mode") && one(given.get("mixup_mode") ?? []) !== "batch") refuse("mixup_mode", "must be batch, one factor for a crop of the whole batch");
  const notes = given.has("mixup_switch_prob") ? ["--mixup_switch_prob has no effect without CutMix"] : [];
  return { alpha, notes };
}
