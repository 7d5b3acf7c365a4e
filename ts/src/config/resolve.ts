import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse as parseYaml } from "yaml";
import { parseArguments, type Arguments } from "./arguments.js";
import { defaultKind, formerNames, presets, takesPatchSize, type Arch } from "./backbones/index.js";
import { ConfigError } from "./error.js";
import { isTree, Layers, type Tree } from "./layers.js";
import { parseConfig } from "./parse.js";
import { addOriginalOverride, addOriginalTree, isOriginalKey, isOriginalPath } from "./original-yaml.js";
import { settleMixup } from "./original-flags.js";
import type { Config } from "./schema.js";

/** A resolved configuration. */
export interface Resolved {
  config: Config;
  /** Meaning of accepted settings where it is not what they say; to be shown to the user. */
  notes: string[];
  /** Words of the command line that were not settings. */
  positional: string[];
}

/** No configuration is larger; a file that is was given by mistake. */
const maxFileBytes = 1 << 20;
const maxBases = 8;

function readTree(path: string, depth: number): { path: string; tree: Tree }[] {
  let text: string;
  try {
    if (statSync(path).size > maxFileBytes) throw new ConfigError(`${path}: a configuration file is at most 1 MiB`);
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const reason = (error as NodeJS.ErrnoException).code === "ENOENT" ? "there is no such file" : (error as Error).message;
    throw new ConfigError(`${path}: the configuration cannot be read: ${reason}`, { cause: error });
  }
  const tree = parseText(text, path);
  // The original's files may lay themselves over others, named relative to the file.
  const bases = Array.isArray(tree["BASE"]) ? tree["BASE"].filter((base): base is string => typeof base === "string" && base !== "") : [];
  if (bases.length > 0 && depth >= maxBases) throw new ConfigError(`${path}: BASE is nested more than ${maxBases} files deep`);
  return [...bases.flatMap((base) => readTree(resolve(dirname(path), base), depth + 1)), { path, tree }];
}

function parseText(text: string, source: string): Tree {
  let tree: unknown;
  try {
    tree = parseYaml(text, { maxAliasCount: 0 });
  } catch (error) {
    throw new ConfigError(`${source}: ${(error as Error).message.split("\n")[0]?.replace(/:$/, "")}`, { cause: error });
  }
  if (tree === null) return {};
  if (!isTree(tree)) throw new ConfigError(`${source}: a configuration holds named fields (key: value)`);
  return tree;
}

/**
 * The tree with the present names of a backbone's fields, where it has former ones.
 * @throws {ConfigError} when it has both.
 */
export function withPresentNames(tree: Tree, source: string): Tree {
  const { backbone } = tree;
  if (!isTree(backbone)) return tree;
  const renamed = Object.entries(backbone).map(([field, value]): [string, unknown] => {
    const name = Object.hasOwn(formerNames, field) ? formerNames[field] : undefined;
    if (name !== undefined && Object.hasOwn(backbone, name)) {
      throw new ConfigError(`${source}: backbone.${field} is the former name of backbone.${name}; only one of them can be set`);
    }
    return [name ?? field, value];
  });
  return { ...tree, backbone: Object.fromEntries(renamed) };
}

function addTree(tree: Tree, source: string, layers: Layers): string[] {
  const entries = Object.entries(tree);
  const notes = addOriginalTree(Object.fromEntries(entries.filter(([key]) => isOriginalKey(key))), source, layers);
  layers.add(withPresentNames(Object.fromEntries(entries.filter(([key]) => !isOriginalKey(key))), source), source);
  return notes;
}

function addPreset(arch: Arch, layers: Layers, notes: string[]): void {
  const written = layers.get(["backbone"]);
  for (const [field, value] of Object.entries(presets[arch])) {
    const present = isTree(written) ? written[field] : undefined;
    if (present === undefined) layers.set(["backbone", field], value, `--arch ${arch}`);
    else if (JSON.stringify(present) !== JSON.stringify(value)) {
      notes.push(`--arch ${arch}: backbone.${field} is ${JSON.stringify(present)} in ${layers.sourceOf(["backbone", field])}, which counts, as in the original`);
    }
  }
}

function finish(layers: Layers, parsed: Arguments, notes: string[]): Resolved {
  if (parsed.arch) addPreset(parsed.arch, layers, notes);
  if (layers.get(["backbone", "kind"]) === undefined) layers.set(["backbone", "kind"], defaultKind, "the defaults");
  if (parsed.patchSize !== undefined) {
    const kind = layers.get(["backbone", "kind"]);
    if (takesPatchSize(kind)) layers.set(["backbone", "patchSize"], parsed.patchSize, "--patch_size");
    else notes.push(`--patch_size is for ViT; ${String(kind)} takes its patch size from the configuration`);
  }
  for (const { path, value, source } of parsed.assignments) {
    if (isOriginalPath(path)) notes.push(...addOriginalOverride(path, value, source, layers));
    else layers.set(path, value, source);
  }
  const byFlag = layers.sourceOf(["mixup", "enabled"]) === "--use_mixup";
  const mixup = settleMixup(parsed.mixup, layers.get(["mixup", "enabled"]) === true, byFlag);
  if (mixup.alpha !== undefined) layers.set(["mixup", "alpha"], mixup.alpha, "--mixup");
  notes.push(...parsed.notes, ...mixup.notes);
  return { config: parseConfig(layers.values, layers.sourceOf), notes, positional: parsed.positional };
}

/**
 * The configuration of a command line: defaults, over them the preset of `--arch`, over it the file, over it the rest.
 * @param words the command line behind the command's name, ours or the original's.
 * @param defaultFile the configuration file when the words name none.
 * @throws {ConfigError} one line for each problem, naming source and field.
 */
export function resolveConfig(words: readonly string[], defaultFile?: string): Resolved {
  const parsed = parseArguments(words);
  const layers = new Layers("the defaults");
  const notes: string[] = [];
  const file = parsed.file ?? defaultFile;
  if (file !== undefined) {
    for (const { path, tree } of readTree(file, 0)) notes.push(...addTree(tree, path, layers));
  }
  return finish(layers, parsed, notes);
}

/**
 * The configuration of a YAML text, of this project or of the original, with overrides over it.
 * @param source what messages call the text.
 * @throws {ConfigError}
 */
export function parseConfigText(text: string, source: string, words: readonly string[] = []): Resolved {
  const layers = new Layers(source);
  const notes = addTree(parseText(text, source), source, layers);
  return finish(layers, parseArguments(words), notes);
}

/**
 * A configuration given as an object, as the programming interface takes it.
 * @throws {ConfigError}
 */
export function completeConfig(input: object): Config {
  const layers = new Layers("the configuration");
  layers.add(withPresentNames(input as Tree, "the configuration"), "the configuration");
  if (layers.get(["backbone", "kind"]) === undefined) layers.set(["backbone", "kind"], defaultKind, "the defaults");
  return parseConfig(layers.values, layers.sourceOf);
}
