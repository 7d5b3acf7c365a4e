/** Facts of a run in its checkpoint: where the run is, and how it was configured. */
import { CheckpointError, fromTrainerState, toPlain, type Checkpoint, type CheckpointContents, type Plain, type StateTensor } from "../checkpoint/index.js";
import { presets, originalFlags, type Config } from "../config/index.js";
import { CONFIG_KEY, recordedConfig } from "../evaluate/index.js";
import type { StepParameters, TrainerState } from "../native/index.js";
import { emptySums, type EpochSums, type LogLine } from "./averages.js";

/** Where a run is: the step it will take next. */
export interface Position {
  epoch: number;
  /** Within the epoch, from 0. */
  step: number;
}

/** The facts of a run that a checkpoint keeps. */
export interface Progress {
  position: Position;
  stepsPerEpoch: number;
  /** Sums over the epoch that is under way. */
  sums: EpochSums;
  /** The log's line of the last complete epoch. */
  lastLine: LogLine | undefined;
}

/** A checkpoint of a trainer's state. `parameters` are those of the last step. */
export function toCheckpoint(
  state: TrainerState<StateTensor>, config: Config, progress: Progress, parameters: Pick<StepParameters, "learningRate" | "weightDecay">,
): CheckpointContents {
  const { position, stepsPerEpoch, sums, lastLine } = progress;
  return fromTrainerState(state, {
    epoch: position.epoch,
    args: originalArguments(config),
    learningRate: parameters.learningRate,
    weightDecay: parameters.weightDecay,
    progress: {
      version: 1,
      epoch: position.epoch,
      step: position.step,
      steps_per_epoch: stepsPerEpoch,
      seed: config.seed,
      sums: { ...sums },
      last_line: lastLine ? JSON.stringify(lastLine) : null,
      [CONFIG_KEY]: JSON.stringify(config),
    },
  });
}

/** Reads the facts of a run back. A checkpoint of the original stands at the beginning of its `epoch`. */
export function readProgress(checkpoint: Checkpoint): { progress: Omit<Progress, "stepsPerEpoch"> & { stepsPerEpoch?: number }; config?: string } {
  const { esvit } = checkpoint;
  if (!esvit) {
    const position = { epoch: checkpoint.epoch ?? 0, step: 0 };
    return { progress: { position, sums: emptySums(), lastLine: undefined } };
  }
  const wrong = (key: string, wanted: string): CheckpointError =>
    new CheckpointError(checkpoint.file, "mismatch", `"esvit/${key}" must be ${wanted}`);
  const count = (key: string): number => {
    const value = esvit.get(key);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw wrong(key, "a whole number");
    return value;
  };
  const stored = toPlain(esvit.get("sums") ?? null) as Record<string, Plain> | null | undefined;
  const sums = emptySums();
  for (const key of Object.keys(sums) as (keyof EpochSums)[]) {
    const value = stored?.[key];
    if (typeof value !== "number") throw wrong(`sums/${key}`, "a number");
    sums[key] = value;
  }
  const line = esvit.get("last_line");
  let lastLine: LogLine | undefined;
  try {
    if (typeof line === "string") lastLine = JSON.parse(line) as LogLine;
  } catch {
    throw wrong("last_line", "JSON");
  }
  const config = recordedConfig(checkpoint);
  return {
    progress: { position: { epoch: count("epoch"), step: count("step") }, stepsPerEpoch: count("steps_per_epoch"), sums, lastLine },
    ...(config !== undefined && { config }),
  };
}

/** The options of the run under the original's names, which its own evaluation reads. */
export function originalArguments(config: Config): Record<string, Plain> {
  const args: Record<string, Plain> = { arch: archOf(config), rank: 0, world_size: 1 };
  for (const [name, flag] of Object.entries(originalFlags)) {
    if (flag.kind !== "field") continue;
    const value = valueAt(config, flag.path);
    // Those that take several words are lists there.
    if (flag.words === "any" && !Array.isArray(value)) args[name] = [value];
    else args[name] = value ?? "";
  }
  return { ...args, use_fp16: config.precision === "mixed" };
}

function valueAt(config: Config, path: string): Plain {
  let node: unknown = config;
  for (const key of path.split(".")) node = (node as Record<string, unknown>)[key];
  return node as Plain;
}

/** The preset that the backbone is, or its kind. */
function archOf(config: Config): string {
  const { backbone } = config;
  const written: Record<string, unknown> = backbone;
  // Stochastic depth is no part of a network, and a name without a size is the kind itself.
  const isPreset = (preset: object): boolean => {
    const fields = Object.entries(preset).filter(([field]) => field !== "dropPath");
    return fields.length > 1 && fields.every(([field, value]) => JSON.stringify(written[field]) === JSON.stringify(value));
  };
  return Object.entries(presets).find(([, preset]) => isPreset(preset))?.[0] ?? backbone.kind;
}
