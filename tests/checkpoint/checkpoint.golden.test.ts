/** The original's own checkpoints, in both formats, against the listing of their contents. */
import { deepStrictEqual } from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { bareNames, readCheckpoint, weightsFor, writeCheckpoint, type Checkpoint } from "../../ts/src/checkpoint/checkpoint.js";
import { digestCheckpoint } from "../../ts/src/checkpoint/digest.js";
import { CheckpointError } from "../../ts/src/checkpoint/errors.js";
import { Tensor, toFloat32 } from "../../ts/src/checkpoint/tensor.js";
import { fromTrainerState, toTrainerState } from "../../ts/src/checkpoint/trainer-state.js";
import { toPlain, type Plain } from "../../ts/src/checkpoint/value.js";
import { digestOf, fixtures, hasGolden, groupDigest, groupRows, readFixture } from "../support/golden.js";
import { temporaryFolder } from "../support/temporary.js";

type Listed = [name: string, shape: number[], dtype: string][];

interface Listing {
  epoch: number;
  args: Record<string, Plain>;
  groups: Record<string, [name: string, shape: number[]][]>;
  "student.state_dict": Listed;
  "teacher.state_dict": Listed;
  "dino_loss.state_dict": Listed;
  "optimizer.param_index_to_name": string[];
  "optimizer.step": Record<string, number>;
  "optimizer.param_groups_checkpoint": Record<string, Plain>[];
  "optimizer.param_groups_legacy": Record<string, Plain>[];
}

const golden = hasGolden("checkpoint/listing.json");
const files = fixtures("checkpoint", ".pth");
const folder = temporaryFolder();

describe.skipIf(!golden).each(files.map((file) => [basename(file), file] as const))("%s", (name, file) => {
  const { catalog, tensors } = readFixture<Listing>(fixtures("checkpoint", "listing.json")[0]!);
  const isLegacy = name.includes("legacy");
  const checkpoint = readCheckpoint(file);

  it("lists the state dicts in order, with shapes and types", () => {
    const types: Record<string, string> = { f32: "float32", i64: "int64" };
    for (const key of ["student", "teacher", "loss"] as const) {
      const listed = [...checkpoint[key]!].map(([tensorName, tensor]) => [tensorName, tensor.shape, types[tensor.dtype]]);
      expect(listed).toEqual(catalog[`${key === "loss" ? "dino_loss" : key}.state_dict`]);
    }
  });

  it("has the listed values in every tensor", () => {
    for (const [group, entries] of Object.entries(catalog.groups)) {
      expect(groupRows(tensors, group)).toBe(entries.length);
      entries.forEach(([tensorName, shape], row) => {
        const tensor = find(checkpoint, group, tensorName);
        const [got, wanted] = [digestOf(toFloat32(tensor)), groupDigest(tensors, group, row)];
        expect(tensor.shape, `${group} ${tensorName}`).toEqual(shape);
        expect(got.samples, `${group} ${tensorName}`).toEqual(wanted.samples);
        expect(got.absmax).toBe(wanted.absmax);
        // Float64 sums in another order: a few ulps of the largest partial sum.
        expect(Math.abs(got.l2 - wanted.l2)).toBeLessThanOrEqual(1e-13 * wanted.l2);
        expect(Math.abs(got.sum - wanted.sum)).toBeLessThanOrEqual(1e-13 * wanted.l2 * Math.sqrt(toFloat32(tensor).length));
      });
    }
  });

  it("has the listed epoch, options and optimizer groups", () => {
    expect(checkpoint.epoch).toBe(catalog.epoch);
    expect({ ...(toPlain(checkpoint.args!) as object) }).toEqual(catalog.args);
    const groups = checkpoint.optimizer!.groups.map((group) => ({ ...(toPlain(group as never) as object) }));
    expect(groups).toEqual(catalog[isLegacy ? "optimizer.param_groups_legacy" : "optimizer.param_groups_checkpoint"]);
  });

  it("becomes a trainer's state with the listed names and counters", () => {
    const state = toTrainerState(checkpoint);
    const { kind, decayed, notDecayed, steps } = state.optimizer;
    const names = catalog["optimizer.param_index_to_name"];
    expect(kind).toBe("adamw");
    expect([...decayed, ...notDecayed]).toEqual(names);
    const wanted = Object.entries(catalog["optimizer.step"]).map(([index, step]) => [names[Number(index)], step]);
    expect(steps).toEqual(Object.fromEntries(wanted));
    expect(state.student.map((tensor) => tensor.name)).toEqual(catalog["teacher.state_dict"].map(([tensorName]) => tensorName));
    expect(state.loss.map((tensor) => tensor.name)).toEqual(["center", "center_grid"]);
  });

  it("gives the weights of either net without prefixes", () => {
    const bare = catalog["teacher.state_dict"].map(([tensorName]) => tensorName);
    expect(weightsFor(checkpoint, "student").map((tensor) => tensor.name)).toEqual(bare);
    expect(weightsFor(checkpoint, "teacher").map((tensor) => tensor.name)).toEqual(bare);
  });

  it("is the same after it was written and read", () => {
    const copy = join(folder, `copy-${name}`);
    writeCheckpoint(copy, checkpoint);
    expect(digestCheckpoint(copy)).toEqual(digestCheckpoint(file));
    // Node's comparison is a hundred times faster than vitest's on tensors.
    deepStrictEqual(readCheckpoint(copy), { ...checkpoint, file: copy });
  });

  it("is the same after a trainer has held it", () => {
    const state = toTrainerState(checkpoint);
    const [group] = checkpoint.optimizer!.groups;
    const written = join(folder, `state-${name}`);
    writeCheckpoint(written, fromTrainerState(state, {
      epoch: checkpoint.epoch!,
      args: toPlain(checkpoint.args!) as Record<string, Plain>,
      learningRate: group!.get("lr") as number,
      weightDecay: group!.get("weight_decay") as number,
      progress: { note: "kept" },
    }));
    const again = readCheckpoint(written);
    deepStrictEqual(toTrainerState(again), state);
    expect(again.esvit?.get("note")).toBe("kept");
    // The listing of the current layout, whichever file the state came from.
    const groups = again.optimizer!.groups.map((options) => ({ ...(toPlain(options as never) as object) }));
    expect(groups).toEqual(catalog["optimizer.param_groups_checkpoint"]);
    // Options come back as JSON has them: tuples have become lists.
    deepStrictEqual(toPlain(again.args!), toPlain(checkpoint.args!));
    for (const key of ["student", "teacher", "loss", "epoch"] as const) deepStrictEqual(again[key], checkpoint[key]);
    if (!isLegacy) deepStrictEqual(again.optimizer!.state, checkpoint.optimizer!.state);
  });

  it("is refused wherever it is cut off", () => {
    const bytes = readFileSync(file);
    const cut = join(folder, `cut-${name}`);
    const started = performance.now();
    for (let i = 0; i < 200; i++) {
      // Dense near both ends, where the structure is, and spread over the data.
      const length = i < 50 ? i * 7 : i >= 150 ? bytes.length - 1 - (200 - i - 1) * 11 : Math.floor(((i - 49) / 101) * bytes.length);
      writeFileSync(cut, bytes.subarray(0, length));
      expect(errorOf(() => readCheckpoint(cut)), `cut at ${length}`).toBeInstanceOf(CheckpointError);
    }
    expect(performance.now() - started).toBeLessThan(50_000);
  });

  it("never brings down its reader when bytes are flipped", () => {
    const bytes = readFileSync(file);
    const flipped = join(folder, `flipped-${name}`);
    let refused = 0;
    for (let i = 0; i < 60; i++) {
      const copy = Buffer.from(bytes);
      // Within the first pickle for the most part; a multiplier that shares no factor with the length.
      const at = (i * 104729) % (i % 4 === 0 ? bytes.length : 60_000);
      copy[at] = copy[at]! ^ (1 << (i % 8));
      writeFileSync(flipped, copy);
      const error = errorOf(() => toTrainerState(readCheckpoint(flipped)));
      if (error === undefined) continue;
      expect(error, `flipped at ${at}`).toBeInstanceOf(CheckpointError);
      refused += 1;
    }
    expect(refused).toBeGreaterThan(10);
  });
});

describe.skipIf(!golden || files.length < 2)("both formats", () => {
  it("hold the same tensors", () => {
    const [first, ...others] = files.map((file) => readCheckpoint(file));
    for (const other of others) {
      for (const key of ["student", "teacher", "loss"] as const) deepStrictEqual(bareNames(other[key]!), bareNames(first![key]!));
    }
  });
});

function find(checkpoint: Checkpoint, group: string, name: string): Tensor {
  const slot = /^optimizer\.(.+)$/.exec(group)?.[1];
  const found = slot ? checkpoint.optimizer!.state.get(Number(name))?.get(slot)
    : (group === "dino_loss" ? checkpoint.loss : checkpoint[group as "student" | "teacher"])?.get(name);
  if (!(found instanceof Tensor)) throw new Error(`no tensor ${group} ${name}`);
  return found;
}

function errorOf(run: () => unknown): unknown {
  try {
    run();
    return undefined;
  } catch (thrown) {
    return thrown;
  }
}
