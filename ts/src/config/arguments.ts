/** Reads a command line, ours or the original's, into assignments; looks at no file. */
import { parse as parseYaml } from "yaml";
import { presets, type Arch } from "./backbones/index.js";
import { ConfigError, nearest, show } from "./error.js";
import { didYouMean, leafPaths, rootKeys, suggestPath } from "./parse.js";
import { ownFlags, originalFlags, type Flag } from "./original-flags.js";
import { isOriginalKey, isOriginalPath } from "./original-yaml.js";

/** `path` gets `value`; `source` is how the user wrote it. Paths of the original's files are in upper case. */
export interface Assignment {
  path: string[];
  value: unknown;
  source: string;
}

/** A command line, read. */
export interface Arguments {
  /** File of `--cfg` or `--config`. */
  file: string | undefined;
  arch: Arch | undefined;
  /** Value of `--patch_size`, which the original reads for ViT alone. */
  patchSize: number | undefined;
  /** In the order they were written; a later one wins. */
  assignments: Assignment[];
  /** Words of timm's mixup flags, by name without dashes. */
  mixup: Map<string, readonly string[]>;
  /** Words that are neither flags nor overrides, for instance the folder of images. */
  positional: string[];
  /** Meaning of accepted flags where it is not what they say; to be shown to the user. */
  notes: string[];
}

/** Flags under other names than before. */
const formerFlags: Readonly<Record<string, string>> = { grey: "gray" };

/** `batchSize` → `batch_size`, `loss.region` stays. */
function flagName(path: string): string {
  return path.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

let fieldFlags: Map<string, string> | undefined;

/** Our flags for every field: `--batch-size`, `--optimizer.lr`, `--loss.teacher-temperature.value`. */
function fieldOf(name: string): string | undefined {
  fieldFlags ??= new Map(leafPaths().map((path) => [flagName(path), path]));
  return fieldFlags.get(flagName(name));
}

/**
 * A value as it is written on the command line: YAML, or a Python literal such as `True`, `None`, `(1, 2)`.
 * What is neither is text.
 */
export function parseValue(text: string): unknown {
  if (text === "None") return null;
  const python = /^\(.*\)$/.test(text) ? `[${text.slice(1, -1)}]` : text;
  try {
    const value: unknown = parseYaml(python, { maxAliasCount: 0 });
    return value ?? (/^(null|~)$/.test(text) ? null : text);
  } catch {
    return text;
  }
}

const overrideKey = /^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$/;

/** True for the first word of a pair `optimizer.lr 0.001` or `MODEL.SPEC.WINDOW_SIZE 14`; folders may have any other name. */
function isOverrideKey(word: string): boolean {
  if (!overrideKey.test(word) || !word.includes(".")) return false;
  const path = word.split(".");
  return isOriginalPath(path) || rootKeys().includes(path[0] ?? "");
}

function assign(key: string, text: string, source: string, flag?: boolean): Assignment {
  const path = key.split(".");
  const original = path.every(isOriginalKey);
  if (!original && !leafPaths().includes(key)) {
    const suggestion = suggestPath(path);
    throw new ConfigError(`${source}: unknown ${flag ? "flag" : "field"} ${flag ? "--" : ""}${key}${didYouMean(suggestion)}`);
  }
  return { path, value: parseValue(text), source };
}

/** Words after a flag that belong to it. */
function take(words: readonly string[], start: number, wanted: Flag["words"], name: string): string[] {
  if (wanted === 0) return [];
  const taken: string[] = [];
  for (let at = start; at < words.length; at++) {
    const word = words[at] ?? "";
    // A negative number is a value, not a flag.
    const isValue = wanted === 1 ? !word.startsWith("--") : /^-?[.\d][-+.\deE]*$/.test(word);
    if (!isValue || (wanted === 1 && taken.length === 1)) break;
    taken.push(word);
  }
  if (taken.length === 0) throw new ConfigError(`--${name} needs a value`);
  return taken;
}

/**
 * Reads a command line: flags of the original (`--batch_size_per_gpu 32`), ours (`--batch-size 32`,
 * `--optimizer.lr 0.001`), overrides (`MODEL.SPEC.WINDOW_SIZE 14`, `optimizer.lr 0.001`, `optimizer.lr=0.001`) and the rest.
 * `-` and `_` are the same in flags, and `--flag=value` is `--flag value`.
 * @throws {ConfigError} for unknown flags and for values a flag does not take.
 */
export function parseArguments(words: readonly string[]): Arguments {
  const result: Arguments = { file: undefined, arch: undefined, patchSize: undefined, assignments: [], mixup: new Map(), positional: [], notes: [] };
  const spread = words.flatMap((word) => {
    const equals = /^(--[^=]+)=(.*)$/s.exec(word);
    return equals ? [equals[1] ?? "", equals[2] ?? ""] : [word];
  });

  let at = 0;
  while (at < spread.length) {
    const word = spread[at++] ?? "";
    if (word.startsWith("--")) {
      const name = word.slice(2);
      const normal = name.replaceAll("-", "_");
      const own = fieldOf(name.includes(".") ? name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase()) : normal);
      const flag = originalFlags[normal] ?? ownFlags[normal];
      if (!flag && !own) {
        const known = [...Object.keys(originalFlags), ...Object.keys(ownFlags), ...leafPaths()];
        const guess = formerFlags[normal] ?? nearest(normal, known) ?? suggestPath([normal]);
        throw new ConfigError(`unknown flag --${name}${didYouMean(guess && `--${guess}`)}`);
      }
      if (!flag && own) {
        const taken = take(spread, at, 1, name);
        at += taken.length;
        result.assignments.push(assign(own, taken[0] ?? "", word));
      } else if (flag) {
        const taken = take(spread, at, flag.words, name);
        at += taken.length;
        applyFlag(normal, flag, taken, result);
      }
      continue;
    }
    const equals = /^([^=/\\]+)=(.*)$/s.exec(word);
    if (equals && overrideKey.test(equals[1] ?? "")) {
      result.assignments.push(assign(equals[1] ?? "", equals[2] ?? "", word));
    } else if (isOverrideKey(word)) {
      const value = spread[at++];
      if (value === undefined) throw new ConfigError(`${word} needs a value`);
      result.assignments.push(assign(word, value, `${word} ${value}`));
    } else {
      result.positional.push(word);
    }
  }
  return result;
}

function applyFlag(name: string, flag: Flag, words: string[], result: Arguments): void {
  const first = words[0] ?? "";
  switch (flag.kind) {
    case "file":
      result.file = first;
      break;
    case "arch":
      if (!Object.hasOwn(presets, first)) {
        throw new ConfigError(`--arch must be one of ${Object.keys(presets).join(", ")}, got ${show(first)}`);
      }
      result.arch = first as Arch;
      break;
    case "patch":
      result.patchSize = Number(first);
      if (!Number.isInteger(result.patchSize) || result.patchSize < 1) throw new ConfigError(`--${name} must be a whole number above 0, got ${show(first)}`);
      break;
    case "field":
      try {
        result.assignments.push({ path: flag.path.split("."), value: flag.parse(words), source: `--${name}` });
      } catch (error) {
        throw new ConfigError(`--${name} must be ${(error as Error).message}, got ${show(words.join(" "))}`, { cause: error });
      }
      break;
    case "noted":
      if (!flag.silent?.(first)) result.notes.push(`--${name} ${flag.note}`);
      break;
    case "only":
      if (!flag.accept(first)) throw new ConfigError(`--${name} ${first}: ${flag.reason}`);
      break;
    case "mixup":
      result.mixup.set(name, words);
      break;
  }
}
