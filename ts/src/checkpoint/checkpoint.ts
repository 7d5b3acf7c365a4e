/**
 * The training script's checkpoint, in the original's layout: one dict with the keys
 *
 * - `student`, `teacher`: state dicts. A net that was wrapped for several GPUs has `module.` before each name;
 *   the student always is, the teacher only with batch norm
 * - `optimizer`: `state` (by number of the parameter) and `param_groups`
 * - `epoch`: the epoch to go on with
 * - `args`: the options of the run, an argparse namespace
 * - `dino_loss`: `center` and, with the region loss, `center_grid`
 * - `fp16_scaler`: only after mixed precision on a GPU
 * - `esvit`: our own facts, which the original ignores
 *
 * Plain state dicts (a dict of tensors, alone or under `model` or `state_dict`) are read too.
 */
import { join } from "node:path";
import type { TensorData } from "../native/index.js";
import { CheckpointError } from "./errors.js";
import { writeAtomically, type FileSystem } from "./store.js";
import { asF32, asI64, isFloat, Tensor } from "./tensor.js";
import { readTorch, writeTorch } from "./torch.js";
import { Float, kindOf, Namespace, OrderedDict, Tuple, type Key, type Value, type Writable } from "./value.js";

/** Tensors by name, in order. */
export type StateDict = Map<string, Tensor>;

/** PyTorch's `Optimizer.state_dict()`. */
export interface OptimizerSection {
  /** Moments and counters by the parameter's number; a parameter that was never updated is absent. */
  state: Map<number, Map<string, Tensor | number>>;
  /** Options of each group; `params` lists the numbers of its parameters. */
  groups: Map<string, Value>[];
}

/** Contents of a checkpoint, each part that is there. Names of tensors are the file's, prefixes included. */
export interface CheckpointContents {
  student?: StateDict;
  teacher?: StateDict;
  optimizer?: OptimizerSection;
  epoch?: number;
  args?: Map<Key, Value>;
  loss?: StateDict;
  fp16Scaler?: Map<Key, Value>;
  esvit?: Map<Key, Value>;
  /** A plain state dict: then nothing else is there. */
  weights?: StateDict;
  /** Top-level keys other than these. */
  extra?: Map<Key, Value>;
}

export interface Checkpoint extends CheckpointContents {
  /** Where it was read from; named in errors. */
  readonly file: string;
}

/** The name of the file that a run continues from. */
export const CHECKPOINT_NAME = "checkpoint.pth";

/** Reads a checkpoint. Throws `CheckpointError`, which names the file and the key. */
export function readCheckpoint(file: string): Checkpoint {
  const root = readTorch(file);
  if (!(root instanceof Map)) throw new CheckpointError(file, "mismatch", `must hold a dict, got ${kindOf(root)}`);
  const at = new Reader(file);
  if (!root.has("student") && !root.has("teacher")) return { file, weights: at.bareWeights(root) };

  const checkpoint: Checkpoint = { file };
  for (const [key, value] of root) {
    switch (key) {
      case "student": checkpoint.student = at.stateDict(value, key); break;
      case "teacher": checkpoint.teacher = at.stateDict(value, key); break;
      case "dino_loss": checkpoint.loss = at.stateDict(value, key); break;
      case "optimizer": checkpoint.optimizer = at.optimizer(value); break;
      case "epoch": checkpoint.epoch = at.count(value, key); break;
      case "args": checkpoint.args = value instanceof Namespace ? value.fields : at.dict(value, key); break;
      case "fp16_scaler": if (value !== null) checkpoint.fp16Scaler = at.dict(value, key); break;
      case "esvit": checkpoint.esvit = at.dict(value, key); break;
      default: (checkpoint.extra ??= new Map<Key, Value>()).set(key, value);
    }
  }
  return checkpoint;
}

/** Writes a checkpoint, atomically. Throws `CheckpointError` of kind `write`; an earlier file is then intact. */
export function writeCheckpoint(file: string, contents: CheckpointContents, fs?: FileSystem): void {
  write(file, contents, [], fs);
}

/**
 * Writes `checkpoint.pth` into `folder` and, with `numbered`, the same contents as `checkpoint{numbered:04}.pth`.
 * Each appears whole or not at all.
 */
export function saveCheckpoint(folder: string, contents: CheckpointContents, numbered?: number, fs?: FileSystem): void {
  const copies = numbered === undefined ? [] : [`checkpoint${String(numbered).padStart(4, "0")}.pth`];
  write(join(folder, CHECKPOINT_NAME), contents, copies, fs);
}

function write(file: string, contents: CheckpointContents, copies: readonly string[], fs?: FileSystem): void {
  const root = layout(contents);
  writeAtomically(file, (sink) => writeTorch(sink, root, file), copies, fs);
}

/** The section `key` of a checkpoint; an error of kind `missing` when it is not there. */
export function section<K extends keyof CheckpointContents>(checkpoint: Checkpoint, key: K): NonNullable<CheckpointContents[K]> {
  const value = checkpoint[key];
  if (value === undefined) {
    throw new CheckpointError(checkpoint.file, "missing", `has no ${JSON.stringify(FILE_KEYS[key] ?? key)}`);
  }
  return value;
}

/** Keys of the file that are called otherwise here. */
const FILE_KEYS: { [K in keyof CheckpointContents]?: string } = { loss: "dino_loss", fp16Scaler: "fp16_scaler" };

/**
 * The weights of one net, with the names of the net alone, floats as f32 and integers as i64. A plain state dict stands for either net.
 *
 * `module.` is removed, and so is `backbone.` where a wrapper put it: every name but the heads' begins with it.
 * A second `backbone.` behind it belongs to the net (the original's ResNet has one), and then both stay.
 */
export function weightsFor(checkpoint: Checkpoint, net: "teacher" | "student"): TensorData[] {
  const weights = checkpoint.weights ?? section(checkpoint, net);
  return bareNames(weights).map(([name, tensor]) => tensorData(name, tensor));
}

/** The tensors of a state dict with the prefixes of wrappers removed; see `weightsFor`. */
export function bareNames(weights: StateDict): [string, Tensor][] {
  const entries = [...weights].map(([name, tensor]) => [name.replace(/^(module\.)+/, ""), tensor] as [string, Tensor]);
  const ofBackbone = entries.filter(([name]) => !/^head(_dense)?\./.test(name));
  const isWrapped = ofBackbone.length > 0 && ofBackbone.every(([name]) => /^backbone\.(?!backbone\.)/.test(name));
  return isWrapped ? entries.map(([name, tensor]) => [name.replace(/^backbone\./, ""), tensor]) : entries;
}

/** A tensor as the engine takes it. */
export function tensorData(name: string, tensor: Tensor): TensorData {
  const converted = isFloat(tensor.dtype) ? asF32(tensor) : asI64(tensor);
  return { name, shape: [...tensor.shape], dtype: isFloat(tensor.dtype) ? "f32" : "i64", data: converted.data };
}

/** The dict that is written. */
function layout(contents: CheckpointContents): Writable {
  if (contents.weights) return new OrderedDict(contents.weights);
  const root = new Map<Key, Writable>();
  if (contents.student) root.set("student", new OrderedDict(contents.student));
  if (contents.teacher) root.set("teacher", new OrderedDict(contents.teacher));
  if (contents.optimizer) {
    const { state, groups } = contents.optimizer;
    root.set("optimizer", new Map<Key, Writable>([["state", state], ["param_groups", groups.map(floatOptions)]]));
  }
  if (contents.epoch !== undefined) root.set("epoch", contents.epoch);
  if (contents.args) root.set("args", new Namespace(contents.args));
  if (contents.loss) root.set("dino_loss", new OrderedDict(contents.loss));
  if (contents.fp16Scaler) root.set("fp16_scaler", floatOptions(contents.fp16Scaler));
  if (contents.esvit) root.set("esvit", contents.esvit);
  for (const [key, value] of contents.extra ?? []) root.set(key, value);
  return root;
}

/** Options that are floats in Python, also where they are whole (a weight decay of 0.0). */
const FLOAT_OPTIONS: ReadonlySet<string> = new Set(["lr", "betas", "eps", "weight_decay", "momentum", "dampening", "eta", "scale", "growth_factor", "backoff_factor"]);

function floatOptions<K extends Key>(group: ReadonlyMap<K, Value>): Map<K, Writable> {
  const asFloat = (value: Value): Writable => {
    if (value instanceof Tuple) return new Tuple(value.items.map(asFloat));
    return typeof value === "number" ? new Float(value) : value;
  };
  return new Map([...group].map(([name, value]) => [name, FLOAT_OPTIONS.has(String(name)) ? asFloat(value) : value]));
}

/** Turns plain values into sections, or says which key holds something else. */
class Reader {
  constructor(private readonly file: string) {}

  dict(value: Value | undefined, path: string): Map<Key, Value> {
    if (value instanceof Map) return value;
    throw this.mismatch(path, "a dict", value);
  }

  count(value: Value, path: string): number {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
    throw this.mismatch(path, "a whole number", value);
  }

  stateDict(value: Value, path: string): StateDict {
    const weights: StateDict = new Map();
    for (const [name, tensor] of this.dict(value, path)) {
      if (typeof name !== "string") throw new CheckpointError(this.file, "mismatch", `${JSON.stringify(path)} must have names as keys, got ${kindOf(name)}`);
      if (!(tensor instanceof Tensor)) throw this.mismatch(`${path}/${name}`, "a tensor", tensor);
      weights.set(name, tensor);
    }
    return weights;
  }

  optimizer(value: Value): OptimizerSection {
    const dict = this.dict(value, "optimizer");
    const state: OptimizerSection["state"] = new Map();
    for (const [key, entry] of this.dict(dict.get("state"), "optimizer/state")) {
      const path = `optimizer/state/${String(key)}`;
      const slots = new Map<string, Tensor | number>();
      for (const [slot, slotValue] of this.dict(entry, path)) {
        // SGD keeps None where it has no momentum yet.
        if (slotValue === null) continue;
        if (!(slotValue instanceof Tensor || typeof slotValue === "number")) throw this.mismatch(`${path}/${String(slot)}`, "a tensor or a number", slotValue);
        slots.set(String(slot), slotValue);
      }
      state.set(this.count(key, path), slots);
    }
    const list = dict.get("param_groups");
    if (!Array.isArray(list)) throw this.mismatch("optimizer/param_groups", "a list", list);
    const groups = list.map((group, i) => {
      const options = this.dict(group, `optimizer/param_groups/${i}`);
      return new Map([...options].map(([name, option]) => [String(name), option]));
    });
    return { state, groups };
  }

  /** A dict of tensors, or one under the keys that other projects use. */
  bareWeights(root: Map<Key, Value>): StateDict {
    for (const key of ["state_dict", "model"]) {
      const inner = root.get(key);
      if (inner instanceof Map) return this.stateDict(inner, key);
    }
    if (root.size > 0 && [...root.values()].every((value) => value instanceof Tensor)) return this.stateDict(root, "");
    throw new CheckpointError(this.file, "missing", "has neither \"student\" nor \"teacher\", and is no plain dict of tensors");
  }

  private mismatch(path: string, wanted: string, got: Value | undefined): CheckpointError {
    if (got === undefined) return new CheckpointError(this.file, "missing", `has no ${JSON.stringify(path)}`);
    return new CheckpointError(this.file, "mismatch", `${JSON.stringify(path)} must be ${wanted}, got ${kindOf(got)}`);
  }
}
