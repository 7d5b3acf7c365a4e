/** Between a trainer's state and the original's layout, for every optimizer and both kinds of nets. */
import { deepStrictEqual } from "node:assert/strict";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readCheckpoint, section, weightsFor, writeCheckpoint, type Checkpoint, type CheckpointContents } from "../../ts/src/checkpoint/checkpoint.js";
import { CheckpointError } from "../../ts/src/checkpoint/errors.js";
import { f32Tensor, Tensor, toFloat32 } from "../../ts/src/checkpoint/tensor.js";
import { fromTrainerState, toTrainerState, type RunFacts } from "../../ts/src/checkpoint/trainer-state.js";
import { toPlain } from "../../ts/src/checkpoint/value.js";
import type { OptimizerState, TensorData, TrainerState } from "../../ts/src/native/index.js";
import { fill } from "../support/fill.js";
import { temporaryFolder } from "../support/temporary.js";

const folder = temporaryFolder();
const file = join(folder, "x.pth");
const run: RunFacts = {
  epoch: 3, args: { arch: "swin_tiny", lr: 0.0005, local_crops_number: [8] }, learningRate: 1, weightDecay: 0,
  progress: { step: 17, seed: 5, config: "{}" },
};

function data(name: string, shape: number[], as = name): TensorData {
  return { name: as, shape, dtype: "f32", data: new Uint8Array(fill(name, shape, "raw").buffer) };
}

const index: TensorData = { name: "attn.index", shape: [2], dtype: "i64", data: new Uint8Array(BigInt64Array.of(3n, -1n).buffer) };
const batchNorm: TensorData[] = [
  data("head.mlp.1.weight", [4]), data("head.mlp.1.bias", [4]), data("head.mlp.1.running_mean", [4]), data("head.mlp.1.running_var", [4]),
  { name: "head.mlp.1.num_batches_tracked", shape: [], dtype: "i64", data: new Uint8Array(BigInt64Array.of(9n).buffer) },
];
const SLOTS = { adamw: ["exp_avg", "exp_avg_sq"], sgd: ["momentum_buffer"], lars: ["mu"] } as const;

/** A small state: one updated weight, one frozen gain, one last layer that was never updated. */
function state(kind: OptimizerState["kind"], withBatchNorm = false): TrainerState {
  const student = [
    data("attn.weight", [3, 2]), data("attn.bias", [3]), index, ...(withBatchNorm ? batchNorm : []),
    data("head.last_layer.weight_g", [5, 1]), data("head.last_layer.weight_v", [5, 2]),
  ];
  const decayed = ["attn.weight", "head.last_layer.weight_v"];
  const notDecayed = ["attn.bias", ...(withBatchNorm ? ["head.mlp.1.weight", "head.mlp.1.bias"] : [])];
  const updated = student.filter(({ name }) => name.startsWith("attn") && name !== "attn.index");
  return {
    student,
    teacher: student.map((tensor) => ({ ...tensor, data: tensor.data.map((byte) => byte ^ 1) })),
    loss: [data("center", [1, 5])],
    optimizer: {
      kind, decayed, notDecayed,
      steps: Object.fromEntries(updated.map(({ name }, i) => [name, 17 + i])),
      // In the order of the parameters' numbers.
      slots: updated.flatMap(({ name, shape }) => SLOTS[kind].map((slot) => data(`${slot}.${name}`, shape, `${slot}/${name}`))),
    },
  };
}

function stored(contents: CheckpointContents): Checkpoint {
  writeCheckpoint(file, contents);
  return readCheckpoint(file);
}

function errorOf(use: () => unknown): CheckpointError {
  try {
    use();
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(CheckpointError);
    return thrown as CheckpointError;
  }
  throw new Error("did not throw");
}

describe.each(["adamw", "sgd", "lars"] as const)("the state of %s", (kind) => {
  it.each([false, true])("is the same after a file (batch norm: %s)", (withBatchNorm) => {
    const before = state(kind, withBatchNorm);
    deepStrictEqual(toTrainerState(stored(fromTrainerState(before, run))), before);
  });

  it("is the same without our own notes, where the frozen gain follows from the numbers", () => {
    const before = state(kind);
    const { esvit, ...theirs } = fromTrainerState(before, run);
    expect(esvit).toBeDefined();
    const after = toTrainerState(stored(theirs));
    expect(after.optimizer.decayed).toEqual(before.optimizer.decayed);
    expect(after.optimizer.notDecayed).toEqual(before.optimizer.notDecayed);
    deepStrictEqual(after.optimizer.slots, before.optimizer.slots);
  });

  it("before the first step has no moments, and its kind all the same", () => {
    const before = state(kind);
    before.optimizer.steps = {};
    before.optimizer.slots = [];
    deepStrictEqual(toTrainerState(stored(fromTrainerState(before, run))), before);
  });
});

describe("the loss scaler", () => {
  const scaler = { scale: 32768, growthFactor: 2, backoffFactor: 0.5, growthInterval: 2000, growthTracker: 17 };

  it("is PyTorch's, and the same after a file", () => {
    const checkpoint = stored(fromTrainerState({ ...state("adamw"), scaler }, run));
    expect([...checkpoint.fp16Scaler!]).toEqual([
      ["scale", 32768], ["growth_factor", 2], ["backoff_factor", 0.5], ["growth_interval", 2000], ["_growth_tracker", 17],
    ]);
    expect(toTrainerState(checkpoint).scaler).toEqual(scaler);
  });

  it("is absent in single precision and where PyTorch's is turned off", () => {
    const contents = fromTrainerState(state("adamw"), run);
    expect("fp16Scaler" in contents).toBe(false);
    expect(toTrainerState(stored({ ...contents, fp16Scaler: new Map() })).scaler).toBeUndefined();
  });

  it("without its scale is refused", () => {
    const contents = { ...fromTrainerState(state("adamw"), run), fp16Scaler: new Map([["growth_factor", 2]]) };
    expect(errorOf(() => toTrainerState(stored(contents))).message).toContain('has no number "fp16_scaler/scale"');
  });

  it("counts whole steps", () => {
    const scaler = new Map<string, number>([["scale", 2], ["growth_factor", 2], ["backoff_factor", 0.5], ["growth_interval", 2000], ["_growth_tracker", -1]]);
    const contents = { ...fromTrainerState(state("adamw"), run), fp16Scaler: scaler };
    expect(errorOf(() => toTrainerState(stored(contents))).message).toContain('"fp16_scaler/_growth_tracker" must be a whole number, got -1');
  });
});

describe("the layout", () => {
  it("prefixes the student, and the teacher only with batch norm", () => {
    const plain = stored(fromTrainerState(state("adamw"), run));
    expect([...plain.student!.keys()][0]).toBe("module.attn.weight");
    expect([...plain.teacher!.keys()][0]).toBe("attn.weight");
    const withBatchNorm = stored(fromTrainerState(state("adamw", true), run));
    expect([...withBatchNorm.teacher!.keys()][0]).toBe("module.attn.weight");
  });

  it("holds options, epoch and our facts", () => {
    const checkpoint = stored(fromTrainerState(state("adamw"), run));
    expect(checkpoint.epoch).toBe(3);
    expect({ ...(toPlain(checkpoint.args!) as object) }).toEqual(run.args);
    expect(checkpoint.esvit?.get("step")).toBe(17);
    expect(checkpoint.optimizer!.groups.map((group) => group.get("params"))).toEqual([[0, 1], [2]]);
    expect(checkpoint.optimizer!.groups.map((group) => group.get("lr"))).toEqual([1, 1]);
  });

  it("reads the 2020-era optimizer: an integer step", () => {
    const contents = fromTrainerState(state("adamw"), run);
    for (const slots of contents.optimizer!.state.values()) slots.set("step", toFloat32(slots.get("step") as Tensor)[0]!);
    expect(toTrainerState(stored(contents)).optimizer.steps).toEqual(state("adamw").optimizer.steps);
  });

  it("counts a tensor under two names once, under the first", () => {
    const shared = f32Tensor([2, 2], [1, 2, 3, 4]);
    const moments = new Map<string, Tensor | number>([["mu", f32Tensor([2, 2], [0, 0, 0, 0])]]);
    const net = new Map([["module.query.weight", shared], ["module.query_global.weight", shared]]);
    const contents: CheckpointContents = {
      student: net, teacher: net, loss: new Map(),
      optimizer: { state: new Map([[0, moments]]), groups: [new Map([["params", [0]]]), new Map([["params", []]])] },
    };
    expect(toTrainerState(stored(contents)).optimizer.decayed).toEqual(["query.weight"]);
  });
});

describe("a checkpoint that does not fit", () => {
  const base = (): CheckpointContents => {
    const { esvit: _, ...contents } = fromTrainerState(state("adamw"), run);
    return contents;
  };

  it.each([["student", "student"], ["teacher", "teacher"], ["optimizer", "optimizer"], ["loss", "dino_loss"]] as const)("names its missing %s", (key, name) => {
    const contents = base();
    delete contents[key];
    expect(errorOf(() => toTrainerState(stored(contents)))).toMatchObject({ kind: "missing", file, message: `${file}: has no "${name}"` });
  });

  it("names an optimizer for another net", () => {
    const contents = base();
    contents.optimizer!.groups[1]!.set("params", [2, 3]);
    expect(errorOf(() => toTrainerState(stored(contents))).message).toMatch(/2 parameters with weight decay and 2 without, but the student has 2 and 1/);
  });

  it("names moments of another shape, or that are absent", () => {
    const contents = base();
    contents.optimizer!.state.get(0)!.set("exp_avg", f32Tensor([2], [1, 2]));
    expect(errorOf(() => toTrainerState(stored(contents))).message).toMatch(/"optimizer\/state\/0\/exp_avg" must have the shape \[3, 2\] of attn\.weight, got \[2\]/);
    contents.optimizer!.state.get(0)!.delete("exp_avg");
    expect(errorOf(() => toTrainerState(stored(contents)))).toMatchObject({ kind: "missing" });
  });

  it("names a state of no parameter, groups that are not two, and a step that is no number", () => {
    const orphan = base();
    orphan.optimizer!.state.set(99, new Map(orphan.optimizer!.state.get(0)!));
    expect(errorOf(() => toTrainerState(stored(orphan))).message).toMatch(/state\/99" belongs to no parameter/);
    const single = base();
    single.optimizer!.groups.pop();
    expect(errorOf(() => toTrainerState(stored(single))).message).toMatch(/two groups/);
    const half = base();
    half.optimizer!.state.get(0)!.set("step", 1.5);
    expect(errorOf(() => toTrainerState(stored(half))).message).toMatch(/step" must be a whole number/);
  });
});

describe("weights", () => {
  const weights = (...names: string[]): Map<string, Tensor> => new Map(names.map((name) => [name, f32Tensor([1], [1])]));
  const namesOf = (contents: CheckpointContents): string[] => weightsFor(stored(contents), "teacher").map(({ name }) => name);

  it("lose the prefixes of wrappers, and only those", () => {
    expect(namesOf({ teacher: weights("module.a.w", "module.head.mlp.0.weight") })).toEqual(["a.w", "head.mlp.0.weight"]);
    expect(namesOf({ teacher: weights("module.backbone.a.w", "module.head.mlp.0.weight") })).toEqual(["a.w", "head.mlp.0.weight"]);
    expect(namesOf({ teacher: weights("backbone.a", "backbone.b", "head_dense.x") })).toEqual(["a", "b", "head_dense.x"]);
    expect(namesOf({ teacher: weights("backbone.backbone.conv1.weight", "head.x") })).toEqual(["backbone.backbone.conv1.weight", "head.x"]);
    expect(namesOf({ teacher: weights("backbone.a", "norm.b") })).toEqual(["backbone.a", "norm.b"]);
  });

  it("come from plain state dicts too", () => {
    expect(namesOf({ weights: weights("module.a", "b") })).toEqual(["a", "b"]);
    expect(namesOf({ student: weights("s"), teacher: weights("t") })).toEqual(["t"]);
  });

  it("become f32, and integers i64", () => {
    const half = new Tensor("f16", [1], Uint8Array.of(0, 0x3c));
    const [a, b] = weightsFor(stored({ weights: new Map([["a", half], ["b", new Tensor("i32", [1], Uint8Array.of(7, 0, 0, 0))]]) }), "student");
    expect(a).toEqual({ name: "a", shape: [1], dtype: "f32", data: f32Tensor([1], [1]).data });
    expect(b).toEqual({ name: "b", shape: [1], dtype: "i64", data: Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0) });
  });

  it("of a net that is not there are an error that names it", () => {
    const checkpoint = stored({ student: weights("s") });
    expect(errorOf(() => weightsFor(checkpoint, "teacher"))).toMatchObject({ kind: "missing", message: `${file}: has no "teacher"` });
    expect(section(checkpoint, "student").size).toBe(1);
  });
});
