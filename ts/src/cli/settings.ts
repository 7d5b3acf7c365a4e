import type { Command } from "commander";
import { ConfigError, parseArguments, resolveConfig, type Config } from "../config/index.js";

/** A command's configuration. */
export interface Settings {
  config: Config;
  notes: string[];
}

/**
 * The configuration of a command that takes a folder of images, which replaces `data.path`.
 * @throws {ConfigError}
 */
export function readSettings(words: readonly string[], defaultFile?: string): Settings {
  const { config, notes, positional } = resolveConfig(words, defaultFile);
  const [images, ...more] = positional;
  if (more.length > 0) throw new ConfigError(`one folder of images is expected, got ${positional.join(", ")}`);
  return { config: images === undefined ? config : { ...config, data: { ...config.data, path: images } }, notes };
}

/** Words that are no settings: folders and files. */
export function positionalWords(words: readonly string[]): string[] {
  return parseArguments(words).positional;
}

/** Lets a command take all settings of a configuration: as flags, ours and the original's, and as `KEY VALUE`. */
export function takesSettings(command: Command): Command {
  return command.allowUnknownOption().allowExcessArguments().addHelpText("after", settingsHelp);
}

const settingsHelp = `
Settings, over those of the file:
  --config FILE          a file such as configs/nano.yaml, or one of microsoft/esvit's (also --cfg)
  --arch NAME            swin_tiny, vil_2262, deit_small …: an unknown one lists them all
  --output-dir FOLDER    where checkpoint.pth and log.txt are, or will be
  --seed N               --epochs N  --batch-size N
  --max-steps N          stops after so many steps of the schedule
  --max-minutes N        stops after so many minutes
  --save-every N         writes the checkpoint every N steps, not only after each epoch
  --threads N            threads of the engine; 0 for all cores
Every field of the configuration is a setting too (--optimizer.lr 0.001, or optimizer.lr 0.001), and so are the
flags and keys of microsoft/esvit (--batch_size_per_gpu 32, MODEL.SPEC.WINDOW_SIZE 14).
`;
