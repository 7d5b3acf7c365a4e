/** Keys of the reference's files below `MODEL.SPEC` for Vision Longformer. */
import { nearest, show } from "./error.js";
import type { Layers } from "./layers.js";
import { didYouMean } from "./parse.js";

/** Fields that are ours under another name. */
const renamed: Record<string, string> = {
  AVG_POOL: "averagePool",
  DROP_PATH: "dropPath",
  NORM_EMBED: "normEmbed",
  "MSVIT.ARCH": "arch",
  "MSVIT.SHARE_W": "shareWeights",
  "MSVIT.ONLY_GLOBAL": "onlyGlobal",
  "MSVIT.VIL_MODE_SWITCH": "drawUntil",
  "MSVIT.SE_MLP_RATIO": "gateRatio",
  "MSVIT.SE_MLP_BALANCE": "gateBalance",
};

/** Fields whose values have names here, and those names. */
const named: Record<string, { field: string; values: Record<string, string> }> = {
  "MSVIT.ATTN_TYPE": { field: "attention", values: { longformerhand: "sliding", longformerauto: "sliding", full: "full" } },
  "MSVIT.SW_EXACT": { field: "border", values: { "0": "open", "-1": "cyclic", "1": "exact" } },
  "MSVIT.POOL_METHOD": { field: "pool", values: { fc: "learned", mean: "mean", None: "mean", null: "mean" } },
  "MSVIT.WITH_SE": { field: "gate", values: { SE: "squeeze", ECA: "convolution", None: "none", null: "none", false: "none" } },
};

/** Fields with one possible value, and why. */
const fixed: Record<string, { accept: (value: unknown) => boolean; reason: string }> = {
  DROP: { accept: (value) => value === 0, reason: "must be 0, as in every published experiment" },
  "MSVIT.LN_EPS": { accept: (value) => Number(value) === 1e-6, reason: "must be 1e-6, what the reference computes with whatever it says" },
  "MSVIT.SHARE_KV": { accept: (value) => typeof value === "boolean", reason: "must be true or false; it belongs to attention that is not here" },
};

/**
 * Lays `MODEL.SPEC.…` over `layers`; `path` is what follows SPEC.
 * @returns the reason why it cannot be, or undefined.
 */
export function translateVil(path: readonly string[], value: unknown, source: string, layers: Layers): string | undefined {
  const name = path.join(".");
  const set = (field: string, ours: unknown): undefined => layers.set(["backbone", field], ours, source) as undefined;
  const field = renamed[name];
  if (field !== undefined) return set(field, value);
  if (name === "MSVIT.MODE") {
    if (typeof value !== "number" || !Number.isInteger(value) || value < -1) return `must be 0, -1 or a number above 0, got ${show(value)}`;
    return set("neighbors", value === 0 ? "all" : value < 0 ? "none" : "drawn");
  }
  const choice = named[name];
  if (choice) {
    const ours = choice.values[String(value)];
    if (ours === undefined) return `must be one of ${Object.keys(choice.values).join(", ")}, got ${show(value)}`;
    return set(choice.field, ours);
  }
  const only = fixed[name];
  if (only) return only.accept(value) ? undefined : `${only.reason}, got ${show(value)}`;
  const known = [...Object.keys(renamed), ...Object.keys(named), ...Object.keys(fixed), "MSVIT.MODE"];
  return `does not exist for Vision Longformer${didYouMean(nearest(name, known))}`;
}
