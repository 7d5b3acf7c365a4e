/**
 * Between a trainer's state and a checkpoint in the original's layout, both ways.
 *
 * PyTorch's optimizers know parameters by number: those with weight decay first, in the order of the state dict,
 * then those without. A checkpoint of ours also lists their names; for any other they follow from the student.
 */
import type { LossScaler, OptimizerState, StoredTensor, TensorData, TrainerState } from "../native/index.js";
import { bareNames, section, tensorData, type Checkpoint, type CheckpointContents, type OptimizerSection, type StateDict } from "./checkpoint.js";
import { CheckpointError } from "./errors.js";
import { elementCount, f32Tensor, isFloat, Tensor, toFloat32 } from "./tensor.js";
import { fromPlain, Tuple, type Key, type Plain, type Value } from "./value.js";

/** Facts of a run that a checkpoint keeps beside its tensors. */
export interface RunFacts {
  /** The epoch to go on with. */
  epoch: number;
  /** Options, as the original names them. */
  args: Readonly<Record<string, Plain>>;
  /** Values of the last step. */
  learningRate: number;
  weightDecay: number;
  /** Our own facts (position within the epoch, seed, configuration …), kept under `esvit`. */
  progress: Readonly<Record<string, Plain>>;
}

/** Keys of `esvit` that belong to this file. */
const NAMES_KEY = "optimizer_parameters";
const STEPS_KEY = "optimizer_steps";

type Kind = OptimizerState["kind"];

/** Moment tensors of each optimizer, in PyTorch's order. */
const SLOTS: Record<Kind, readonly string[]> = {
  adamw: ["exp_avg", "exp_avg_sq"],
  sgd: ["momentum_buffer"],
  lars: ["mu"],
};

/** Options beside `lr` and `weight_decay`, as PyTorch (2.9) and the original's LARS write them. */
const OPTIONS: Record<Kind, readonly (readonly [string, Value])[]> = {
  adamw: [
    ["betas", new Tuple([0.9, 0.999])], ["eps", 1e-8], ["amsgrad", false], ["maximize", false], ["foreach", null],
    ["capturable", false], ["differentiable", false], ["fused", null], ["decoupled_weight_decay", true],
  ],
  sgd: [
    ["momentum", 0.9], ["dampening", 0], ["nesterov", false], ["maximize", false], ["foreach", null],
    ["differentiable", false], ["fused", null],
  ],
  lars: [["momentum", 0.9], ["eta", 0.001], ["weight_decay_filter", null], ["lars_adaptation_filter", null]],
};

/** Fields of PyTorch's `GradScaler`, in its order. */
const SCALER: readonly (readonly [string, keyof LossScaler])[] = [
  ["scale", "scale"], ["growth_factor", "growthFactor"], ["backoff_factor", "backoffFactor"],
  ["growth_interval", "growthInterval"], ["_growth_tracker", "growthTracker"],
];

/** A tensor of a state: in memory, or stored elsewhere until it is written. */
export type StateTensor = TensorData | StoredTensor;

/** The checkpoint of a trainer's state. The tensors are shared with it, not copied: those that are stored elsewhere are read when it is written. */
export function fromTrainerState(state: TrainerState<StateTensor>, run: RunFacts): CheckpointContents {
  const { optimizer } = state;
  const names = [...optimizer.decayed, ...optimizer.notDecayed];
  const esvit = fromPlain(run.progress) as Map<Key, Value>;
  esvit.set(NAMES_KEY, names);
  // PyTorch counts AdamW's steps only.
  if (optimizer.kind !== "adamw") esvit.set(STEPS_KEY, new Map(Object.entries(optimizer.steps)));
  return {
    student: stateDict(state.student, "module."),
    teacher: stateDict(state.teacher, hasBatchNorm(state.teacher) ? "module." : ""),
    optimizer: optimizerSection(optimizer, names, run),
    epoch: run.epoch,
    args: fromPlain(run.args) as Map<Key, Value>,
    loss: stateDict(state.loss, ""),
    ...(state.scaler && { fp16Scaler: new Map<Key, Value>(SCALER.map(([key, field]) => [key, state.scaler![field]])) }),
    esvit,
  };
}

/** The original wraps the teacher for several GPUs only to synchronize its batch norms. */
function hasBatchNorm(tensors: readonly StateTensor[]): boolean {
  return tensors.some(({ name }) => name.endsWith(".running_mean"));
}

function stateDict(tensors: readonly StateTensor[], prefix: string): StateDict {
  return new Map(tensors.map((tensor) => [prefix + tensor.name, asTensor(tensor)]));
}

function asTensor(tensor: StateTensor): Tensor {
  return new Tensor(tensor.dtype, tensor.shape, "data" in tensor ? tensor.data : tensor.read);
}

function optimizerSection(optimizer: OptimizerState<StateTensor>, names: readonly string[], run: RunFacts): OptimizerSection {
  const slots = new Map(optimizer.slots.map((slot) => [slot.name, asTensor(slot)]));
  const state: OptimizerSection["state"] = new Map();
  names.forEach((name, index) => {
    const moments = SLOTS[optimizer.kind].flatMap((slot) => {
      const tensor = slots.get(`${slot}/${name}`);
      return tensor ? [[slot, tensor] as const] : [];
    });
    if (moments.length === 0) return;
    const counter = optimizer.kind === "adamw" ? [["step", f32Tensor([], [optimizer.steps[name] ?? 0])] as const] : [];
    state.set(index, new Map<string, Tensor | number>([...counter, ...moments]));
  });
  const group = (weightDecay: number, first: number, count: number): Map<string, Value> => new Map<string, Value>([
    ["lr", run.learningRate],
    ["weight_decay", weightDecay],
    ...OPTIONS[optimizer.kind],
    ["params", Array.from({ length: count }, (_, i) => first + i)],
  ]);
  return {
    state,
    groups: [group(run.weightDecay, 0, optimizer.decayed.length), group(0, optimizer.decayed.length, optimizer.notDecayed.length)],
  };
}

/**
 * The trainer's state in a checkpoint, of this project or of the original (either optimizer layout).
 * Throws `CheckpointError`: a section is missing, or the optimizer does not fit the student.
 */
export function toTrainerState(checkpoint: Checkpoint): TrainerState {
  const student = bareNames(section(checkpoint, "student"));
  return {
    student: student.map(([name, tensor]) => tensorData(name, tensor)),
    teacher: bareNames(section(checkpoint, "teacher")).map(([name, tensor]) => tensorData(name, tensor)),
    loss: [...section(checkpoint, "loss")].map(([name, tensor]) => tensorData(name, tensor)),
    optimizer: optimizerState(checkpoint, student),
    ...scalerState(checkpoint),
  };
}

/** Those that count steps. */
const WHOLE: ReadonlySet<string> = new Set(["growth_interval", "_growth_tracker"]);

/** PyTorch saves an empty dict for a scaler that is turned off. */
function scalerState({ file, fp16Scaler }: Checkpoint): { scaler?: LossScaler } {
  if (!fp16Scaler || fp16Scaler.size === 0) return {};
  const number = (key: string): number => {
    const value = fp16Scaler.get(key);
    if (typeof value !== "number") throw new CheckpointError(file, "missing", `has no number ${JSON.stringify(`fp16_scaler/${key}`)}`);
    if (WHOLE.has(key) && !(Number.isInteger(value) && value >= 0 && value < 2 ** 32)) {
      throw new CheckpointError(file, "format", `${JSON.stringify(`fp16_scaler/${key}`)} must be a whole number, got ${value}`);
    }
    return value;
  };
  return { scaler: Object.fromEntries(SCALER.map(([key, field]) => [field, number(key)])) as unknown as LossScaler };
}

function optimizerState(checkpoint: Checkpoint, student: readonly [string, Tensor][]): OptimizerState {
  const { state, groups } = section(checkpoint, "optimizer");
  const kind = kindOfOptimizer(state, groups);
  const numbers = groups.map((group, i) => parameterNumbers(checkpoint, group, i));
  const { decayed, notDecayed } = parameterNames(checkpoint, student, numbers);
  const names = [...decayed, ...notDecayed];
  const nameOf = new Map(numbers.flat().map((number, i) => [number, names[i]!]));
  const shapes = new Map(student.map(([name, tensor]) => [name, tensor.shape]));
  const keptSteps = checkpoint.esvit?.get(STEPS_KEY);

  const steps: [string, number][] = [];
  const slots: TensorData[] = [];
  // PyTorch lists parameters in the order of their first update.
  for (const [number, entry] of [...state].sort(([a], [b]) => a - b)) {
    const path = `optimizer/state/${number}`;
    const name = nameOf.get(number);
    if (name === undefined) throw mismatch(checkpoint, `${JSON.stringify(path)} belongs to no parameter of "optimizer/param_groups"`);
    for (const slot of SLOTS[kind]) {
      const tensor = entry.get(slot);
      if (!(tensor instanceof Tensor)) throw new CheckpointError(checkpoint.file, "missing", `has no tensor "${path}/${slot}"`);
      const shape = shapes.get(name)!;
      if (tensor.shape.join() !== shape.join()) {
        throw mismatch(checkpoint, `"${path}/${slot}" must have the shape [${shape.join(", ")}] of ${name}, got [${tensor.shape.join(", ")}]`);
      }
      slots.push(tensorData(`${slot}/${name}`, tensor));
    }
    // SGD's and LARS's updates do not depend on the count; the original does not keep it.
    const kept = keptSteps instanceof Map ? keptSteps.get(name) : undefined;
    steps.push([name, kind === "adamw" ? stepOf(checkpoint, entry.get("step"), path) : typeof kept === "number" ? kept : 1]);
  }
  return { kind, decayed, notDecayed, steps: Object.fromEntries(steps), slots };
}

/** From the moments; from the options before the first step. */
function kindOfOptimizer(state: OptimizerSection["state"], groups: OptimizerSection["groups"]): Kind {
  const has = (slot: string): boolean => [...state.values()].some((entry) => entry.has(slot));
  if (has("exp_avg")) return "adamw";
  if (has("mu")) return "lars";
  if (has("momentum_buffer")) return "sgd";
  if (groups.some((group) => group.has("betas"))) return "adamw";
  return groups.some((group) => group.has("eta")) ? "lars" : "sgd";
}

function parameterNumbers(checkpoint: Checkpoint, group: ReadonlyMap<string, Value>, index: number): number[] {
  const params = group.get("params");
  if (!Array.isArray(params) || !params.every((n) => typeof n === "number")) {
    throw mismatch(checkpoint, `"optimizer/param_groups/${index}/params" must be a list of numbers`);
  }
  return params as number[];
}

/** An f32 scalar today, an int in 2020. */
function stepOf(checkpoint: Checkpoint, step: Tensor | number | undefined, path: string): number {
  const value = step instanceof Tensor && elementCount(step.shape) === 1 ? toFloat32(step)[0] : step;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw mismatch(checkpoint, `"${path}/step" must be a whole number`);
}

/** The names of the two groups' parameters, in the order of their numbers. */
function parameterNames(
  checkpoint: Checkpoint, student: readonly [string, Tensor][], numbers: readonly number[][],
): { decayed: string[]; notDecayed: string[] } {
  if (numbers.length !== 2) throw mismatch(checkpoint, `"optimizer/param_groups" must have two groups, with and without weight decay, got ${numbers.length}`);
  const [decayedCount, notDecayedCount] = [numbers[0]!.length, numbers[1]!.length];
  const kept = checkpoint.esvit?.get(NAMES_KEY);
  let names: { decayed: string[]; notDecayed: string[] };
  if (kept === undefined) {
    names = namesByRule(student, decayedCount);
  } else {
    const known = new Set(student.map(([name]) => name));
    if (!Array.isArray(kept) || !kept.every((name) => typeof name === "string" && known.has(name)) || new Set(kept).size !== kept.length) {
      throw mismatch(checkpoint, `"esvit/${NAMES_KEY}" must be a list of different names of the student`);
    }
    names = { decayed: (kept as string[]).slice(0, decayedCount), notDecayed: (kept as string[]).slice(decayedCount) };
  }
  if (names.decayed.length !== decayedCount || names.notDecayed.length !== notDecayedCount) {
    throw mismatch(checkpoint,
      `the optimizer has ${decayedCount} parameters with weight decay and ${notDecayedCount} without, `
      + `but the student has ${names.decayed.length} and ${names.notDecayed.length}`);
  }
  return names;
}

/**
 * The original's rule: biases and one-dimensional tensors are not decayed, all other parameters are. Buffers are
 * no parameters, and a tensor under two names counts once, under the first.
 */
function namesByRule(student: readonly [string, Tensor][], decayedCount: number): { decayed: string[]; notDecayed: string[] } {
  const seen = new Set<string>();
  const buffers = new Map<ArrayBufferLike, number>();
  const parameters = student.filter(([name, tensor]) => {
    if (!isFloat(tensor.dtype) || /(^|\.)running_(mean|var)$/.test(name)) return false;
    const { buffer, byteOffset, byteLength } = tensor.data;
    if (!buffers.has(buffer)) buffers.set(buffer, buffers.size);
    const place = `${buffers.get(buffer)} ${byteOffset} ${byteLength}`;
    if (byteLength > 0 && seen.has(place)) return false;
    seen.add(place);
    return true;
  });
  const isDecayed = ([name, tensor]: [string, Tensor]): boolean => !name.endsWith(".bias") && tensor.shape.length !== 1;
  const decayed = parameters.filter(isDecayed).map(([name]) => name);
  const notDecayed = parameters.filter((entry) => !isDecayed(entry)).map(([name]) => name);
  // `norm_last_layer` freezes the magnitudes of the last layers, and the optimizer then does not know them.
  const withoutMagnitudes = decayed.filter((name) => !name.endsWith("last_layer.weight_g"));
  return { decayed: decayed.length === decayedCount ? decayed : withoutMagnitudes, notDecayed };
}

function mismatch(checkpoint: Checkpoint, detail: string): CheckpointError {
  return new CheckpointError(checkpoint.file, "mismatch", detail);
}
