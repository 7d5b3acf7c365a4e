/** The network a checkpoint holds: its own record, what the original wrote beside it, or what the user says. */
import { parseConfigText, presets, resolveConfig, type Config } from "../config/index.js";
import { CheckpointError, toPlain, weightsFor, type Checkpoint } from "../checkpoint/index.js";
import type { TensorData } from "../native/index.js";

/** A network read from a checkpoint, with the configuration it was built from. */
export interface Network {
  config: Config;
  weights: TensorData[];
  /** Assumptions that were made; to be shown to the user. */
  notes: string[];
}

/** Key of our configuration (JSON) within a checkpoint's `esvit`. */
export const CONFIG_KEY = "config";

/** The configuration in a checkpoint of ours as JSON text; undefined in any other. */
export function recordedConfig(checkpoint: Checkpoint): string | undefined {
  const text = checkpoint.esvit?.get(CONFIG_KEY);
  return typeof text === "string" ? text : undefined;
}

/**
 * The network of a checkpoint. Its configuration is, in this order: the file that `words` name (`--config`, `--cfg`) or the
 * `--arch` among them; the configuration in the checkpoint; the `arch` in the original's options. Other settings in `words` lie
 * over it.
 * @throws {CheckpointError} when nothing says which network it is, or the net is not in the file. {ConfigError} for wrong words.
 */
export function networkOf(checkpoint: Checkpoint, net: "teacher" | "student", words: readonly string[] = []): Network {
  const { config, notes } = configOf(checkpoint, words);
  return { config, weights: weightsFor(checkpoint, net), notes };
}

function configOf(checkpoint: Checkpoint, words: readonly string[]): { config: Config; notes: string[] } {
  if (words.some((word) => /^--(config|cfg|arch)(=|$)/.test(word))) return resolveConfig(words);
  const recorded = recordedConfig(checkpoint);
  if (recorded !== undefined) return parseConfigText(recorded, `${checkpoint.file}: "esvit/${CONFIG_KEY}"`, words);
  const arch = toPlain(checkpoint.args?.get("arch") ?? null);
  if (typeof arch === "string" && Object.hasOwn(presets, arch)) {
    const resolved = resolveConfig([...words, "--arch", arch]);
    return { ...resolved, notes: [`${checkpoint.file}: taken for ${arch}, the "arch" of its options; --config names another network`, ...resolved.notes] };
  }
  throw new CheckpointError(checkpoint.file, "missing", "does not say which network it holds; name its configuration with --config");
}
