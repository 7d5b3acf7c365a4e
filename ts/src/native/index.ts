/**
 * The only import of the addon. Everything the engine does for TypeScript goes through the
 * types below; each mirrors one struct of `bindings/node`, with camel-case names.
 *
 * Pixels are 8-bit RGB, rows top to bottom, three bytes a pixel (height, width, channel).
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { EncoderSpec, TrainerSpec } from "./spec.js";
import type { BenchReport, BenchRequest } from "./bench.js";
import type { CropPlan } from "./crop-plan.js";
import type { Device, GpuAdapter } from "./device.js";
import { EngineError } from "./error.js";

export { chooseDevice, type ChosenDevice, type Device, type DeviceChoice, type GpuAdapter } from "./device.js";
export { EngineError } from "./error.js";
export { storedState } from "./state.js";
export type * from "./bench.js";
export type * from "./spec.js";
export type * from "./crop-plan.js";

/** One tensor of a checkpoint. `data` holds little-endian values, row-major. */
export interface TensorData {
  name: string;
  shape: number[];
  dtype: "f32" | "i64";
  data: Uint8Array;
}

/** A tensor whose values stay where they are until somebody reads them. */
export interface StoredTensor extends Omit<TensorData, "data"> {
  /** Copies the values into an array of exactly their size. */
  read(target: Uint8Array): void;
}

/** Everything a run needs to continue bit for bit, apart from the position in the data. */
export interface TrainerState<T = TensorData> {
  /** The student's state dict in the reference's order and names, without `module.`. */
  student: T[];
  teacher: T[];
  /** `center` and, with the region loss, `center_grid`; each `[1, K]`. */
  loss: T[];
  optimizer: OptimizerState<T>;
  /** Of mixed precision on a GPU. */
  scaler?: LossScaler;
}

/** Loss scaling as PyTorch's `GradScaler`. */
export interface LossScaler {
  scale: number;
  growthFactor: number;
  backoffFactor: number;
  growthInterval: number;
  /** Good steps in a row. */
  growthTracker: number;
}

/** The lists of tensors in a state. */
export type StatePart = "student" | "teacher" | "loss" | "slots";

export interface OptimizerState<T = TensorData> {
  kind: "adamw" | "sgd" | "lars";
  /** Names of trainable parameters: those with weight decay, then those without. */
  decayed: string[];
  notDecayed: string[];
  /** Updates made to each parameter, by name; last layers lag while they are frozen. */
  steps: Record<string, number>;
  /**
   * Moment tensors named `<slot>/<parameter>`: slots `exp_avg` and `exp_avg_sq` (AdamW),
   * `momentum_buffer` (SGD), `mu` (LARS). Parameters never updated are absent.
   */
  slots: T[];
}

/** Values of the schedules for one step. */
export interface StepParameters {
  /** Global step, from 0: keys the random numbers of stochastic depth and of neighbors that are drawn. */
  step: number;
  /** Share of the run that is done, from 0 to 1: decides how long neighbors are drawn. */
  progress: number;
  learningRate: number;
  weightDecay: number;
  /** Momentum of the teacher's moving average. */
  momentum: number;
  teacherTemperature: number;
  /** True while `epoch < freeze_last_layer`. */
  freezeLastLayer: boolean;
}

export interface StepStats {
  loss: number;
  /** The two terms of `loss`, already weighted (their sum is `loss`); region is 0 without it. */
  viewLoss: number;
  regionLoss: number;
  /** Mean entropy of the teacher's view distribution, in nats; ln K means uniform. */
  teacherEntropy: number;
  /** Mean over channels of the standard deviation of l2-normalized teacher view features, times sqrt(C): 0 is collapse. */
  featureDeviation: number;
  /** L2 norm over all gradients before clipping. */
  gradientNorm: number;
  /** False when the loss is not finite: then no parameter, moment or center was changed. */
  finite: boolean;
  /** True when the optimizer passed over the step, because gradients overflowed in half precision: the loss is then scaled by less. */
  skipped: boolean;
  /** What the loss was scaled with: 1 but for mixed precision on a GPU. */
  lossScale: number;
  elapsedMs: number;
}

/** Memory of a trainer, known before its first step. Bytes. */
export interface MemoryPlan {
  /** Activations and gradients, in the device's memory: the arena of the static program. */
  arena: number;
  /** Student, teacher, moments, centers. */
  parameters: number;
  /** Staging of pixels, and on the CPU scratch memory of the operators. */
  workspace: number;
  /** The largest tensor of a state. */
  largestTensor: number;
}

/** Sizes of a training run. */
export interface TrainerPlan {
  memory: MemoryPlan;
  /** Trained values of the student. */
  parameterCount: number;
  /** Matrix-product arithmetic of one step, in 10⁹ operations. */
  gflop: number;
}

/** Time and arithmetic of one step, by phase and operator. */
export interface ProfileRow {
  phase: string;
  operator: string;
  calls: number;
  ms: number;
  gflop: number;
}

/** Numbers that decide where each crop of a batch lies. */
export interface BatchLayout {
  batch: number;
  passes: number;
  globalSize: number;
  localSize: number;
  localCount: number;
}

/** Pixels of one step in the engine's memory: a place for each image, with all its crops. */
export interface Batch {
  /** Decodes an image and renders crop i by `crops[i]` into the place `image`, which is free again after a failure. */
  renderInto(encoded: Uint8Array, image: number, crops: CropPlan[]): Promise<void>;
  /** Makes all places free again. Throws while a trainer has the batch or an image is being rendered. */
  clear(): void;
  /** Frees the memory, as soon as no task uses it. */
  dispose(): void;
}

export interface Trainer {
  readonly plan: TrainerPlan;
  /** Shapes and names of the state dict, in order, without values. */
  describe(): { name: string; shape: number[]; dtype: "f32" | "i64" }[];
  /**
   * One step. With `mixup`, the student's crops are mixed and matched with soft targets; the teacher's stay as they are.
   * The batch is the trainer's until the promise settles.
   */
  step(batch: Batch, parameters: StepParameters, mixup?: Mixup): Promise<StepStats>;
  /** The same, with the time of every operator. */
  profile(batch: Batch, parameters: StepParameters, mixup?: Mixup): Promise<ProfileRow[]>;
  /** A copy of everything. */
  state(): Promise<TrainerState>;
  /** The state without values, each `data` empty; `storedState` gives it with values that are read when they are needed. */
  outline(): Promise<TrainerState>;
  /** Copies the values of a tensor, by its place in the last outline, into an array of exactly their size; waits for steps under way. */
  read(part: StatePart, index: number, target: Uint8Array): void;
  /** Replaces the whole state. Names, shapes or slots that do not fit reject, and nothing is changed. */
  load(state: TrainerState): Promise<void>;
  /** Replaces parameters of both nets only (a pre-trained start); names and shapes must all fit unless `partial`. */
  loadWeights(weights: TensorData[], partial: boolean): Promise<{ loaded: number; missing: string[]; unexpected: string[] }>;
  /** Ends the engine's thread and frees its memory. Later calls reject. */
  dispose(): void;
}

/** Mixing of the student's crops within the batch (view loss only). */
export interface Mixup {
  /** One factor for each crop: `x ← λ·x + (1 − λ)·x[reversed batch]`; 1 leaves the crop alone. */
  lambda: number[];
}

export interface Encoder {
  /** Width of `view` features. */
  readonly width: number;
  /** Replaces the weights; every parameter of the backbone must be there. */
  load(weights: TensorData[]): Promise<void>;
  /** Weights drawn as at the start of a training run with this seed. */
  initialize(seed: number): Promise<void>;
  /** `count` images of size², pixels as u8 → `[count, width]` pooled features, not normalized. */
  encode(pixels: Uint8Array, count: number): Promise<Float32Array>;
  dispose(): void;
}

export interface KnnResult {
  k: number;
  /** Per cent. */
  top1: number;
  top5: number;
}

export interface ImageInfo {
  width: number;
  height: number;
}

export interface Native {
  /** What `createTrainer` would need; takes milliseconds and no memory to speak of. */
  planTrainer(spec: TrainerSpec, device: Device): TrainerPlan;
  /** Seconds of a step, from its operators timed alone; null on a GPU in software. Takes as long as a step of one image or two. */
  estimateStep(spec: TrainerSpec, device: Device): Promise<number | null>;
  createTrainer(spec: TrainerSpec, device: Device): Trainer;
  createEncoder(spec: EncoderSpec, device: Device): Encoder;
  /** The machine's GPUs, best first. */
  adapters(): GpuAdapter[];
  /** Weighted k-NN (votes exp(cosine / temperature)) of test rows against train rows; rows are l2-normalized first. */
  knn(
    train: Float32Array, trainLabels: Uint32Array, test: Float32Array, testLabels: Uint32Array,
    width: number, classes: number, ks: number[], temperature: number,
  ): Promise<KnnResult[]>;
  /** Makes a batch whose places are free. */
  createBatch(layout: BatchLayout): Batch;
  /** Decodes once, renders every crop; the crops' pixels follow each other in the result. Rejects with `code: "IMAGE"`. */
  renderCrops(encoded: Uint8Array, crops: CropPlan[]): Promise<Uint8Array>;
  /** Size of an encoded image without decoding its pixels. */
  imageInfo(encoded: Uint8Array): ImageInfo;
  /** Lossless PNG of 8-bit RGB pixels. */
  encodePng(pixels: Uint8Array, width: number, height: number): Uint8Array;
  /** Measures something on this machine, off Node's event loop. */
  bench(request: BenchRequest, device: Device): Promise<BenchReport>;
  /** Single-precision GEMM rate of this machine with `threads` threads, GFLOP/s: what shares of peak refer to. */
  gemmPeak(threads: number): Promise<number>;
  /** Instruction set chosen at start: `avx512`, `avx2`, `neon` or `plain`. */
  cpuFeatures(): string;
  /** Whether `mixed` multiplies bf16 on this CPU; otherwise it is single precision. */
  cpuMultipliesBf16(): boolean;
}

/** The addon's errors are `[CODE] sentence`. */
function asEngineError(cause: unknown): unknown {
  const match = cause instanceof Error ? /^\[(CONFIG|STATE|IMAGE|DEVICE|ENGINE)\] ([^]*)$/.exec(cause.message) : null;
  return match ? new EngineError(match[1] as EngineError["code"], match[2] as string, { cause }) : cause;
}

/** Objects of the addon behind those that {@link guarded} made: the addon takes no others as arguments. */
const unguarded = new WeakMap<object, object>();

/** An object of the addon whose calls fail with {@link EngineError}, at once or in their promise. */
function guarded<T extends object>(object: T): T {
  const proxy = new Proxy(object, {
    get(target, key) {
      const member: unknown = Reflect.get(target, key, target);
      if (typeof member !== "function") return member;
      return (...args: unknown[]): unknown => {
        try {
          const plain = args.map((arg) => (typeof arg === "object" && arg !== null && unguarded.get(arg)) || arg);
          const result: unknown = Reflect.apply(member, target, plain);
          if (!(result instanceof Promise)) return result;
          return result.catch((cause: unknown) => {
            throw asEngineError(cause);
          });
        } catch (cause) {
          throw asEngineError(cause);
        }
      };
    },
  });
  unguarded.set(proxy, object);
  return proxy;
}

/** The addon's file, from `dist/native` as from `ts/src/native`; `ESVIT_ADDON` names another one. */
function addonPath(): string {
  const named = process.env["ESVIT_ADDON"];
  if (named) return named;
  const candidates = ["../..", "../../.."].map((up) => fileURLToPath(new URL(`${up}/bindings/node/esvit.node`, import.meta.url)));
  return candidates.find((path) => existsSync(path)) ?? (candidates[0] as string);
}

/** What the addon's file holds: nested results come as JSON. */
type Addon = Omit<Native, "bench"> & { bench(request: BenchRequest, device: Device): Promise<string> };

let loaded: Native | undefined;

/** The engine. Throws one sentence when the addon was not built for this machine. */
export function native(): Native {
  if (loaded) return loaded;
  const path = addonPath();
  // Mesa's layer that reorders GPUs complains on stderr where there is no desktop; the engine orders them itself.
  process.env["NODEVICE_SELECT"] ??= "1";
  let addon: Addon;
  try {
    addon = createRequire(import.meta.url)(path) as Addon;
  } catch (cause) {
    throw new Error(`the engine could not be loaded from ${path}; run \`npm run build\` first`, { cause });
  }
  const functions = guarded(addon);
  loaded = {
    ...Object.fromEntries(Object.keys(addon).map((name) => [name, Reflect.get(functions, name)])),
    createTrainer: (spec, device) => guarded(functions.createTrainer(spec, device)),
    createBatch: (layout) => guarded(functions.createBatch(layout)),
    createEncoder: (spec, device) => guarded(functions.createEncoder(spec, device)),
    bench: async (request, device) => JSON.parse(await functions.bench(request, device)) as BenchReport,
  } as Native;
  return loaded;
}
