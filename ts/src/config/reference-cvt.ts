/** Keys of the reference's files below `MODEL.SPEC` for CvT. */
import { nearest, show } from "./error.js";
import type { Layers } from "./layers.js";
import { didYouMean } from "./parse.js";

/** Fields that are ours under another name. */
const renamed: Record<string, string> = {
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
};

/** Fields with one possible value, and why. */
const fixed: Record<string, { accept: (value: unknown) => boolean; reason: string }> = {
  INIT: { accept: (value) => value === "trunc_norm", reason: "must be trunc_norm, as in every published experiment" },
  NUM_STAGES: { accept: (value) => typeof value === "number", reason: "must be a number; the lists say how many stages there are" },
  PADDING_QKV: { accept: (value) => Array.isArray(value), reason: "must be half of KERNEL_QKV, which it follows from" },
};

/**
 * Lays `MODEL.SPEC.…` over `layers`; `path` is what follows SPEC.
 * @returns the reason why it cannot be, or undefined.
 */
export function translateCvt(path: readonly string[], value: unknown, source: string, layers: Layers): string | undefined {
  const name = path.join(".");
  const field = renamed[name];
  if (field !== undefined) return layers.set(["backbone", field], value, source) as undefined;
  const only = fixed[name];
  if (only) return only.accept(value) ? undefined : `${only.reason}, got ${show(value)}`;
  return `does not exist for CvT${didYouMean(nearest(name, [...Object.keys(renamed), ...Object.keys(fixed)]))}`;
}
