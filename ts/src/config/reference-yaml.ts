/**
 * The YAML files of microsoft/esvit (yacs, keys in upper case) and their `KEY VALUE` overrides.
 * Its pre-training reads the model's specification and the nominal image size from them and nothing
 * else; the rest belongs to the supervised training the files were written for.
 */
import { ConfigError, nearest, show } from "./error.js";
import { didYouMean } from "./parse.js";
import { translateCvt } from "./reference-cvt.js";
import { translateVil } from "./reference-vil.js";
import { isTree, type Layers, type Tree } from "./layers.js";

/** Fields of `MODEL.SPEC` for Swin, and ours. */
const swinSpec: Record<string, string> = {
  PATCH_SIZE: "patchSize",
  DIM_EMBED: "dim",
  DEPTHS: "depths",
  NUM_HEADS: "heads",
  WINDOW_SIZE: "window",
  MLP_RATIO: "mlpRatio",
  QKV_BIAS: "qkvBias",
  DROP_PATH_RATE: "dropPath",
  USE_APE: "absolutePosition",
  PATCH_NORM: "patchNorm",
};

/** Dropout rates of the reference that are 0 in every published file and do not exist here. */
const onlyZero = ["DROP_RATE", "ATTN_DROP_RATE"];

/** Root keys of the reference's defaults. Those that are not handled below have no effect on pre-training. */
const rootNames = [
  "BASE", "NAME", "DATA_DIR", "DIST_BACKEND", "GPUS", "MULTIPROCESSING_DISTRIBUTED", "OUTPUT_DIR", "PIN_MEMORY", "PRINT_FREQ",
  "RANK", "VERBOSE", "WORKERS", "MODEL_SUMMARY", "AMP", "CUDNN", "MODEL", "LOSS", "DATASET", "INPUT", "AUG", "SWA", "TRAIN",
  "TEST", "FINETUNE", "DEBUG",
];

const modelNames = ["NAME", "INIT_WEIGHTS", "PRETRAINED", "PRETRAINED_LAYERS", "NUM_CLASSES", "SPEC"];

/** `MODEL.NAME` of each backbone. */
const kinds: Record<string, string> = { cls_cvt: "cvt", cls_cvt_v4: "cvt", cvt_v4_transformer: "cvt", swin_transformer: "swin", vision_longformer: "vil", cls_vil: "vil" };

/** True for a key of the reference's files. */
export function isReferenceKey(key: string): boolean {
  return /^[A-Z][A-Z0-9_]*$/.test(key);
}

/** True when the first part of `MODEL.SPEC.WINDOW_SIZE` is a root key of the reference's files. */
export function isReferencePath(path: readonly string[]): boolean {
  return rootNames.includes(path[0] ?? "");
}

/**
 * Translates one value of the reference into ours and lays it over `layers`.
 * @returns whether pre-training uses the value.
 * @throws {ConfigError} when the key does not exist, or asks for something this engine cannot do.
 */
function translate(path: readonly string[], value: unknown, source: string, layers: Layers): boolean {
  const name = path.join(".");
  const [root, second, third] = path;
  const refuse = (reason: string): never => {
    throw new ConfigError(`${source}: ${name} ${reason}`);
  };

  if (root === "TRAIN" && second === "IMAGE_SIZE") {
    if (!Array.isArray(value) || value.length !== 2 || value[0] !== value[1]) {
      return refuse(`must be two equal numbers, got ${show(value)}`);
    }
    // CvT has no nominal size: its windows follow from the crops.
    if (layers.get(["backbone", "kind"]) === "cvt") return true;
    layers.set(["backbone", "imageSize"], value[0], source);
    return true;
  }
  if (root !== "MODEL") return false;
  if (second === undefined || !modelNames.includes(second)) {
    return refuse(`does not exist${didYouMean(nearest(second ?? "", modelNames))}`);
  }
  if (second === "NAME") {
    const kind = typeof value === "string" && Object.hasOwn(kinds, value) ? kinds[value] : undefined;
    if (kind === undefined) return refuse(`must be one of ${Object.keys(kinds).join(", ")}, got ${show(value)}`);
    layers.set(["backbone", "kind"], kind, source);
    return true;
  }
  if (second === "PRETRAINED") {
    if (value) return refuse("is not read; name the checkpoint to start from with --pretrained_weights_ckpt");
    return false;
  }
  if (second !== "SPEC") return false;
  if (third === undefined) return refuse(`must hold named fields, got ${show(value)}`);
  if (layers.get(["backbone", "kind"]) === "vil") {
    const reason = translateVil(path.slice(2), value, source, layers);
    return reason === undefined || refuse(reason);
  }
  if (layers.get(["backbone", "kind"]) === "cvt") {
    const reason = translateCvt(path.slice(2), value, source, layers);
    return reason === undefined || refuse(reason);
  }
  const ours = path.length === 3 ? swinSpec[third] : undefined;
  if (ours) {
    layers.set(["backbone", ours], value, source);
    return true;
  }
  if (onlyZero.includes(third)) {
    if (value !== 0) return refuse(`must be 0, as in every published experiment, got ${show(value)}`);
    return true;
  }
  return refuse(`does not exist for Swin${didYouMean(nearest(third, [...Object.keys(swinSpec), ...onlyZero]))}`);
}

/** Lays the upper-case part of a file over `layers`. Returns one note when parts of it have no effect. */
export function addReferenceTree(tree: Tree, source: string, layers: Layers): string[] {
  const unused = new Set<string>();
  const walk = (node: Tree, path: string[]): void => {
    for (const [key, value] of Object.entries(node)) {
      const here = [...path, key];
      if (isTree(value)) walk(value, here);
      else if (!translate(here, value, source, layers)) unused.add(here[0] === "MODEL" ? here.join(".") : here[0] ?? key);
    }
  };
  for (const key of Object.keys(tree)) {
    if (!rootNames.includes(key)) throw new ConfigError(`${source}: unknown field ${key}${didYouMean(nearest(key, rootNames))}`);
  }
  // Which fields the specification has depends on the name, wherever that stands.
  const model = tree["MODEL"];
  if (isTree(model) && model["NAME"] !== undefined) translate(["MODEL", "NAME"], model["NAME"], source, layers);
  walk(tree, []);
  unused.delete("BASE");
  if (unused.size === 0) return [];
  // TRAIN is half used: its image size counts.
  const names = [...unused].map((name) => (name === "TRAIN" ? "TRAIN (but for IMAGE_SIZE)" : name));
  return [`${source}: ${names.join(", ")} describe supervised training; pre-training does not read them, as in the reference`];
}

/** Lays one override such as `MODEL.SPEC.WINDOW_SIZE 14` over `layers`; returns a note when it has no effect. */
export function addReferenceOverride(path: readonly string[], value: unknown, source: string, layers: Layers): string[] {
  return translate(path, value, source, layers) ? [] : [`${source}: has no effect on pre-training, as in the reference`];
}
