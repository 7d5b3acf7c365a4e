/** The loop of pre-training: batches in, steps of the engine, checkpoints and a log out. */
import { accessSync, constants, mkdirSync } from "node:fs";
import { join } from "node:path";
import { drawMixup } from "../augment/index.js";
import { saveCheckpoint, CHECKPOINT_NAME, Tensor, writeCheckpoint } from "../checkpoint/index.js";
import { imagesPerStep, toTrainerSpec, type Config } from "../config/index.js";
import { DataError, findSplits, openDataset, openLoader, type BadImage, type Dataset, type Loader } from "../data/index.js";
import { backboneOf, knn, openLabeledSplit, type KnnReport } from "../evaluate/index.js";
import {
  chooseDevice, type ChosenDevice, native, type Native, type StepParameters, type StepStats, storedState, type TensorData, type Trainer,
} from "../native/index.js";
import { stream } from "../random/index.js";
import { trainingSchedule } from "../schedule/index.js";
import { addStep, emptySums, logLine, type LogLine } from "./averages.js";
import { CollapseMonitor } from "./collapse.js";
import { DivergedError, OutputError } from "./errors.js";
import { appendLog, rewindLog } from "./log.js";
import { memoryLimit, requireMemory, type RunMemory } from "./memory.js";
import { toCheckpoint, type Position, type Progress } from "./snapshot.js";
import { checkpointToResume, prepareStart } from "./start.js";

/** Facts of a run that are known before its first step. */
export interface RunPlan {
  memory: RunMemory;
  device: ChosenDevice;
  parameterCount: number;
  images: number;
  classes: number;
  stepsPerEpoch: number;
  /** Steps of the whole run; less than its epochs have when `maxSteps` ends it. */
  totalSteps: number;
  /** Global step the run begins with. */
  firstStep: number;
  /** The checkpoint it goes on from. */
  resumedFrom: string | undefined;
}

/** One step that is done. */
export interface StepEvent {
  epoch: number;
  /** Within the epoch, from 0. */
  step: number;
  globalStep: number;
  stats: StepStats;
  parameters: StepParameters;
  /** Wall time since the step before, waiting for images included. */
  seconds: number;
}

/** Hooks to watch, end and test a run. All optional. */
export interface PretrainHooks {
  /** The engine; the addon unless a test brings another. */
  engine?: Native;
  /** Ends the run after the current step, with a checkpoint. */
  signal?: AbortSignal;
  /** Milliseconds, for rates and `maxMinutes`; any origin. */
  now?: () => number;
  /** Bytes the run may use; what is free unless it is given. */
  memoryLimit?: number;
  onPlan?(plan: RunPlan): void;
  onStep?(event: StepEvent): void;
  onEpoch?(line: LogLine): void;
  /** Something worth knowing, in one sentence. */
  onNote?(sentence: string): void;
  /** Something that is probably wrong, in one sentence. */
  onWarning?(sentence: string): void;
}

/** Result of a run. */
export interface PretrainResult {
  /** `finished`: all epochs are done; `stopped`: `maxSteps` or `maxMinutes`; `interrupted`: the signal. */
  status: "finished" | "stopped" | "interrupted";
  /** The step that comes next. */
  position: Position;
  /** Steps done by this call, and their wall time. */
  steps: number;
  seconds: number;
  imagesPerSecond: number;
  /** Loss of the last step of this call. */
  loss: number | undefined;
  checkpoint: string;
  plan: RunPlan;
  bad: BadImage[];
  /** k-NN accuracy of the teacher; undefined when it was not evaluated. */
  knn: KnnReport | undefined;
}

/**
 * Pre-trains on the images of `config.data.path`, or goes on with the run in `config.outputDir`.
 *
 * A run that was interrupted and resumed computes what the uninterrupted one would have, bit for bit, when the
 * configuration, the images and the number of threads are the same.
 * @throws {DataError} no images, or too many unreadable ones. {CheckpointError} a checkpoint cannot be read, written or does not
 * fit. {OutputError} the folder cannot be used. {MemoryError} the run does not fit. {DivergedError} the loss is not finite.
 */
export async function pretrain(config: Config, hooks: PretrainHooks = {}): Promise<PretrainResult> {
  const images = await openTrainingImages(config);
  prepareOutput(config.outputDir);
  const engine = hooks.engine ?? native();
  const loader = openLoader(images, config, engine);
  let trained: Trained;
  try {
    const chosen = chooseDevice(config.device, engine);
    if (chosen.note !== undefined) hooks.onNote?.(chosen.note);
    const resumes = checkpointToResume(config) !== undefined;
    const memory = requireMemory(config, hooks.memoryLimit ?? memoryLimit(), engine, chosen.device, resumes);
    const trainer = engine.createTrainer(toTrainerSpec(config), chosen.device);
    try {
      trained = await train(trainer, { memory, device: chosen }, loader, images, config, hooks);
    } finally {
      trainer.dispose();
    }
  } finally {
    await loader.close();
  }
  const { result, teacher } = trained;
  // The trainer's memory is free again before the encoder takes its own.
  if (teacher) await evaluate(result, teacher, config, engine, hooks);
  return result;
}

/** The images of `config.data.path`: its `train` folder when it has parts. @throws {DataError} */
export async function openTrainingImages(config: Pick<Config, "data">): Promise<Dataset> {
  const { path, maxFileMiB } = config.data;
  if (path === null) throw new DataError("there are no images to train on: name their folder");
  return openDataset((await findSplits(path)).train, { maxFileMiB });
}

/** @throws {OutputError} before any work is done for results that could not be kept. */
function prepareOutput(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw new OutputError(`${folder}: the results cannot be written there (${(error as Error).message})`, { cause: error });
  }
}

interface Trained {
  result: PretrainResult;
  /** The teacher's backbone, where it is to be evaluated. */
  teacher: TensorData[] | undefined;
}

async function train(trainer: Trainer, where: Pick<RunPlan, "memory" | "device">, loader: Loader, images: Dataset, config: Config, hooks: PretrainHooks): Promise<Trained> {
  const { stepsPerEpoch } = loader;
  const start = await prepareStart(trainer, config, stepsPerEpoch);
  const { progress } = start;
  for (const note of start.notes) hooks.onNote?.(note);
  if (start.resumedFrom !== undefined) rewindLog(config.outputDir, progress.position.epoch, progress.lastLine);

  const lastStep = config.epochs * stepsPerEpoch;
  const plan: RunPlan = {
    ...where,
    parameterCount: trainer.plan.parameterCount,
    images: images.length,
    classes: images.classes?.length ?? 0,
    stepsPerEpoch,
    totalSteps: Math.min(lastStep, config.maxSteps ?? lastStep),
    firstStep: globalStep(progress),
    resumedFrom: start.resumedFrom,
  };
  hooks.onPlan?.(plan);

  const run = new Run(trainer, config, progress, plan, hooks);
  await run.steps(loader);
  await run.finish();
  const status = globalStep(progress) >= lastStep ? "finished" : hooks.signal?.aborted ? "interrupted" : "stopped";
  const { stepCount: steps, seconds, loss } = run;
  return {
    teacher: status !== "interrupted" && config.evaluate.enabled ? await backboneOfTeacher(trainer) : undefined,
    result: {
      status, position: progress.position, steps, seconds, loss, plan, bad: loader.bad, knn: undefined,
      imagesPerSecond: steps === 0 ? 0 : (steps * imagesPerStep(config)) / Math.max(seconds, 1e-9),
      checkpoint: join(config.outputDir, CHECKPOINT_NAME),
    },
  };
}

async function backboneOfTeacher(trainer: Trainer): Promise<TensorData[]> {
  const { teacher } = await storedState(trainer);
  return backboneOf(teacher).map(({ name, shape, dtype, read }) => ({ name, shape, dtype, data: new Tensor(dtype, shape, read).data }));
}

function globalStep({ position, stepsPerEpoch }: Progress): number {
  return position.epoch * stepsPerEpoch + position.step;
}

/** The loop's state. */
class Run {
  stepCount = 0;
  seconds = 0;
  loss: number | undefined;
  private readonly schedule: (step: number) => StepParameters;
  private readonly monitor: CollapseMonitor;
  private readonly now: () => number;
  private knownBad = 0;
  /** Global step of the newest checkpoint. */
  private savedAt: number | undefined;

  constructor(
    private readonly trainer: Trainer,
    private readonly config: Config,
    private readonly progress: Progress,
    private readonly plan: RunPlan,
    private readonly hooks: PretrainHooks,
  ) {
    this.schedule = trainingSchedule(config, progress.stepsPerEpoch);
    this.monitor = new CollapseMonitor(config.head.outDim);
    this.now = hooks.now ?? (() => performance.now());
    if (plan.resumedFrom !== undefined) this.savedAt = plan.firstStep;
  }

  /** Steps until the run ends, for whatever reason. */
  async steps(loader: Loader): Promise<void> {
    const begun = this.now();
    if (this.mustStop(begun)) return;
    const { position } = this.progress;
    let before = begun;
    for await (const batch of loader.batches({ epoch: position.epoch, index: position.step })) {
      const parameters = this.schedule(globalStep(this.progress));
      const { epoch, index } = batch;
      const mixup = this.config.mixup.enabled
        ? drawMixup(this.config.mixup, 2 + this.config.crops.localCount, stream(this.config.seed, "mixup", epoch, index))
        : undefined;
      const stats = await this.trainer.step(batch.pixels, parameters, mixup);
      batch.release();
      this.reportBad(loader.bad);
      if (!stats.finite) await this.diverged(stats, parameters);

      const at = this.now();
      const seconds = (at - before) / 1000;
      before = at;
      this.stepCount += 1;
      this.seconds += seconds;
      this.loss = stats.loss;
      addStep(this.progress.sums, stats, parameters, imagesPerStep(this.config), seconds);
      this.hooks.onStep?.({ epoch, step: index, globalStep: parameters.step, stats, parameters, seconds });
      const warning = this.monitor.observe(stats);
      if (warning !== undefined) this.hooks.onWarning?.(warning);
      await this.advance(parameters, loader.bad.length);
      if (this.mustStop(begun)) return;
    }
  }

  /** A checkpoint of the last step, unless there is one. */
  async finish(): Promise<void> {
    const step = globalStep(this.progress);
    if (this.savedAt !== step) await this.save(this.schedule(Math.max(0, step - 1)));
  }

  /** Moves to the next step; at the end of an epoch with a line in the log and a checkpoint, else with one when it is time. */
  private async advance(parameters: StepParameters, badImages: number): Promise<void> {
    const { progress, config } = this;
    const { epoch, step } = progress.position;
    if (step + 1 < progress.stepsPerEpoch) {
      progress.position = { epoch, step: step + 1 };
      if (config.saveSteps > 0 && globalStep(progress) % config.saveSteps === 0) await this.save(parameters);
      return;
    }
    const line = logLine(epoch, progress.sums, badImages);
    progress.position = { epoch: epoch + 1, step: 0 };
    progress.sums = emptySums();
    progress.lastLine = line;
    const isKept = config.saveEpochs > 0 && epoch % config.saveEpochs === 0;
    // The checkpoint holds the line too: a process that is killed between the two writes loses nothing.
    await this.save(parameters, isKept ? epoch : undefined);
    appendLog(config.outputDir, line);
    this.hooks.onEpoch?.(line);
  }

  private async save(parameters: StepParameters, numbered?: number): Promise<void> {
    const state = await storedState(this.trainer);
    saveCheckpoint(this.config.outputDir, toCheckpoint(state, this.config, this.progress, parameters), numbered);
    this.savedAt = globalStep(this.progress);
  }

  private mustStop(begun: number): boolean {
    const { maxMinutes } = this.config;
    if (this.hooks.signal?.aborted) return true;
    if (globalStep(this.progress) >= this.plan.totalSteps) return true;
    return maxMinutes !== null && this.now() - begun >= maxMinutes * 60_000;
  }

  private reportBad(bad: readonly BadImage[]): void {
    for (const { message } of bad.slice(this.knownBad)) this.hooks.onNote?.(`left out ${message}`);
    this.knownBad = bad.length;
  }

  private async diverged(stats: StepStats, parameters: StepParameters): Promise<never> {
    const file = join(this.config.outputDir, "checkpoint_NaN.pth");
    writeCheckpoint(file, toCheckpoint(await storedState(this.trainer), this.config, this.progress, parameters));
    throw new DivergedError(
      `the loss is ${stats.loss} at step ${parameters.step}, so the training stopped; the state before this step is in ${file}`,
    );
  }
}

/** Adds the accuracy of the teacher's neighbors, when the images have classes. */
async function evaluate(result: PretrainResult, teacher: TensorData[], config: Config, engine: Native, hooks: PretrainHooks): Promise<void> {
  const split = config.data.path === null ? undefined : await openLabeledSplit(config.data.path, { maxFileMiB: config.data.maxFileMiB });
  if (!split) {
    hooks.onNote?.("the images have no classes, so k-NN accuracy is not measured");
    return;
  }
  try {
    result.knn = await knn({ split, config, features: { weights: teacher }, ...(hooks.signal && { signal: hooks.signal }) }, engine);
  } catch (error) {
    if (!hooks.signal?.aborted) throw error;
    result.status = "interrupted";
  }
}
