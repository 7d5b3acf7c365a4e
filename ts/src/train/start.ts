/** Where a run begins: at its own checkpoint, at the weights of another one, or at nothing. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CHECKPOINT_NAME, CheckpointError, readCheckpoint, toTrainerState, weightsFor, type Checkpoint } from "../checkpoint/index.js";
import { withPresentNames, type Config } from "../config/index.js";
import type { TensorData, Trainer } from "../native/index.js";
import { emptySums } from "./averages.js";
import { readProgress, type Progress } from "./snapshot.js";

/** A trainer that is ready for its first step. */
export interface Start {
  progress: Progress;
  /** The checkpoint the run goes on from. */
  resumedFrom: string | undefined;
  /** Differences from the run that was interrupted, or from what might be expected; to be shown to the user. */
  notes: string[];
}

/**
 * Loads what the run begins with into the trainer: `checkpoint.pth` in the output folder when there is one; otherwise the
 * teacher's weights in `config.pretrained`; otherwise nothing.
 * @throws {CheckpointError} a checkpoint cannot be read, or belongs to another architecture.
 */
export async function prepareStart(trainer: Trainer, config: Config, stepsPerEpoch: number): Promise<Start> {
  const file = checkpointToResume(config);
  if (file !== undefined) return resume(trainer, readCheckpoint(file), config, stepsPerEpoch);
  const progress: Progress = { position: { epoch: 0, step: 0 }, stepsPerEpoch, sums: emptySums(), lastLine: undefined };
  const notes = config.pretrained === null ? [] : await loadPretrained(trainer, config.pretrained, config.allowPartial);
  return { progress, resumedFrom: undefined, notes };
}

/** The checkpoint that a run in this output folder goes on from. */
export function checkpointToResume({ outputDir }: Pick<Config, "outputDir">): string | undefined {
  const file = join(outputDir, CHECKPOINT_NAME);
  return existsSync(file) ? file : undefined;
}

async function resume(trainer: Trainer, checkpoint: Checkpoint, config: Config, stepsPerEpoch: number): Promise<Start> {
  const { file } = checkpoint;
  const state = toTrainerState(checkpoint);
  requireSameArchitecture(file, trainer.describe(), state.student);
  if (state.optimizer.kind !== config.optimizer.kind) {
    throw new CheckpointError(file, "mismatch", `was written with the optimizer ${state.optimizer.kind}, and optimizer.kind is ${config.optimizer.kind}`);
  }
  const { progress: stored, config: recorded } = readProgress(checkpoint);
  const notes = recorded === undefined ? [] : changes(recorded, config, file);
  const progress: Progress = { ...stored, stepsPerEpoch };
  if (stored.stepsPerEpoch !== undefined && stored.stepsPerEpoch !== stepsPerEpoch && stored.position.step > 0) {
    notes.push(`${file}: an epoch had ${stored.stepsPerEpoch} steps and has ${stepsPerEpoch} now, so epoch ${stored.position.epoch} starts again`);
    progress.position = { epoch: stored.position.epoch, step: 0 };
    progress.sums = emptySums();
  }
  try {
    await trainer.load(state);
  } catch (error) {
    throw new CheckpointError(file, "mismatch", `does not fit the engine's trainer: ${(error as Error).message}`, { cause: error });
  }
  return { progress, resumedFrom: file, notes };
}

/** The teacher is the better network of the two; both nets of the new run start from it. */
async function loadPretrained(trainer: Trainer, file: string, allowPartial: boolean): Promise<string[]> {
  const weights = weightsFor(readCheckpoint(file), "teacher");
  if (!allowPartial) requireSameArchitecture(file, trainer.describe(), weights, "; --allow-partial true takes what fits");
  const { loaded, missing, unexpected } = await trainer.loadWeights(weights, true);
  if (loaded === 0) throw new CheckpointError(file, "mismatch", "has no tensor of this network; its names or shapes all differ");
  const list = (names: string[], what: string): string =>
    names.length === 0 ? "" : `; ${what} ${names.length}: ${names.slice(0, 3).join(", ")}${names.length > 3 ? " ..." : ""}`;
  return [`${file}: ${loaded} tensors loaded${list(missing, "not there")}${list(unexpected, "not used")}`];
}

/** @throws {CheckpointError} listing the first tensors whose names or shapes differ. */
export function requireSameArchitecture(
  file: string, wanted: readonly { name: string; shape: number[] }[], found: readonly Pick<TensorData, "name" | "shape">[], advice = "",
): void {
  const show = (shape: readonly number[]): string => `[${shape.join(", ")}]`;
  const there = new Map(found.map(({ name, shape }) => [name, shape]));
  const here = new Map(wanted.map(({ name, shape }) => [name, shape]));
  const differences = [
    ...wanted.flatMap(({ name, shape }) => {
      const other = there.get(name);
      if (!other) return [`${name} ${show(shape)} is not there`];
      return other.join() === shape.join() ? [] : [`${name} is ${show(other)} there and ${show(shape)} here`];
    }),
    ...found.flatMap(({ name, shape }) => (here.has(name) ? [] : [`${name} ${show(shape)} is not here`])),
  ];
  if (differences.length === 0) return;
  const more = differences.length > 3 ? `, and ${differences.length - 3} more` : "";
  throw new CheckpointError(file, "mismatch", `holds another architecture than the configuration: ${differences.slice(0, 3).join("; ")}${more}${advice}`);
}

/** Fields that do not change what is computed. */
const harmless = /^(outputDir|pretrained|allowPartial|maxSteps|maxMinutes|saveSteps|saveEpochs|threads|evaluate\..*|data\.(path|workers|prefetchMiB))$/;

/** One note for each field of the configuration that differs from the run's record. */
export function changes(recorded: string, config: Config, file: string): string[] {
  let before: Map<string, string>;
  try {
    before = leaves(withPresentNames(JSON.parse(recorded) as Record<string, unknown>, file));
  } catch {
    throw new CheckpointError(file, "mismatch", "\"esvit/config\" must be JSON");
  }
  const now = leaves(config);
  return [...new Set([...before.keys(), ...now.keys()])].flatMap((path) => {
    const [was, is] = [before.get(path), now.get(path)];
    return harmless.test(path) || was === is ? [] : [`${path} is ${is ?? "not set"} now and was ${was ?? "not set"} when ${file} was written`];
  });
}

/** JSON of each value by its dotted path; lists count as values. */
function leaves(tree: unknown, path = "", into = new Map<string, string>()): Map<string, string> {
  if (typeof tree === "object" && tree !== null && !Array.isArray(tree)) {
    for (const [key, value] of Object.entries(tree)) leaves(value, path ? `${path}.${key}` : key, into);
  } else into.set(path, JSON.stringify(tree));
  return into;
}
