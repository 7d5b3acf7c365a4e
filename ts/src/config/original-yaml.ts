/**
 * The YAML files of microsoft/esvit (yacs, keys in upper case) and their `KEY VALUE` overrides.
 * Its pre-training reads the model's specification and the nominal image size from them and nothing
 * else; the rest belongs to the supervised training the files were written for.
 */
import { ConfigError, nearest, show } from "./error.js";
import { originalKinds, originalNames, type OriginalKey } from "./backbones/index.js";
import { isTree, type Layers, type Tree } from "./layers.js";
import { didYouMean } from "./parse.js";

/** Root keys of the original's defaults. Those that are not handled below have no effect on pre-training. */
const rootNames = [
  "BASE", "NAME", "DATA_DIR", "DIST_BACKEND", "GPUS", "MULTIPROCESSING_DISTRIBUTED", "OUTPUT_DIR", "PIN_MEMORY", "PRINT_FREQ",
  "RANK", "VERBOSE", "WORKERS", "MODEL_SUMMARY", "AMP", "CUDNN", "MODEL", "LOSS", "DATASET", "INPUT", "AUG", "SWA", "TRAIN",
  "TEST", "FINETUNE", "DEBUG",
];

const modelNames = ["NAME", "INIT_WEIGHTS", "PRETRAINED", "PRETRAINED_LAYERS", "NUM_CLASSES", "SPEC"];

/** True for a key of the original's files. */
export function isOriginalKey(key: string): boolean {
  return /^[A-Z][A-Z0-9_]*$/.test(key);
}

/** True when the first part of `MODEL.SPEC.WINDOW_SIZE` is a root key of the original's files. */
export function isOriginalPath(path: readonly string[]): boolean {
  return rootNames.includes(path[0] ?? "");
}

/**
 * Translates one value of the original into ours and lays it over `layers`.
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
    if (originalNames(layers.get(["backbone", "kind"])).nominalSize !== false) layers.set(["backbone", "imageSize"], value[0], source);
    return true;
  }
  if (root !== "MODEL") return false;
  if (second === undefined || !modelNames.includes(second)) {
    return refuse(`does not exist${didYouMean(nearest(second ?? "", modelNames))}`);
  }
  if (second === "NAME") {
    const kind = originalKinds.get(value);
    if (kind === undefined) return refuse(`must be one of ${[...originalKinds.keys()].join(", ")}, got ${show(value)}`);
    layers.set(["backbone", "kind"], kind, source);
    return true;
  }
  if (second === "PRETRAINED") {
    if (value) return refuse("is not read; name the checkpoint to start from with --pretrained_weights_ckpt");
    return false;
  }
  if (second !== "SPEC") return false;
  if (third === undefined) return refuse(`must hold named fields, got ${show(value)}`);
  const { title, keys } = originalNames(layers.get(["backbone", "kind"]));
  const within = path.slice(2).join(".");
  const key = Object.hasOwn(keys, within) ? keys[within] : undefined;
  if (key === undefined) return refuse(`does not exist for ${title}${didYouMean(nearest(within, Object.keys(keys)))}`);
  try {
    setField(key, value, source, layers);
  } catch (error) {
    return refuse((error as Error).message);
  }
  return true;
}

/** Lays a value below `MODEL.SPEC` over `layers`. @throws {Error} that says what it must be. */
function setField(key: OriginalKey, value: unknown, source: string, layers: Layers): void {
  if ("accept" in key) {
    if (!key.accept(value)) throw new Error(`${key.reason}, got ${show(value)}`);
    return;
  }
  let ours = value;
  if ("read" in key) ours = key.read(value);
  else if ("values" in key) {
    ours = key.values[String(value)];
    if (ours === undefined) throw new Error(`must be one of ${Object.keys(key.values).join(", ")}, got ${show(value)}`);
  }
  layers.set(["backbone", key.field], ours, source);
}

/** Lays the upper-case part of a file over `layers`. Returns one note when parts of it have no effect. */
export function addOriginalTree(tree: Tree, source: string, layers: Layers): string[] {
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
  return [`${source}: ${names.join(", ")} describe supervised training; pre-training does not read them, as in the original`];
}

/** Lays one override such as `MODEL.SPEC.WINDOW_SIZE 14` over `layers`; returns a note when it has no effect. */
export function addOriginalOverride(path: readonly string[], value: unknown, source: string, layers: Layers): string[] {
  return translate(path, value, source, layers) ? [] : [`${source}: has no effect on pre-training, as in the original`];
}
