import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { completeConfig } from "../../ts/src/config/index.js";
import type { Dataset } from "../../ts/src/data/index.js";
import { backboneOf, extractFeatures, grayEngine, knn, openLabeledSplit } from "../../ts/src/evaluate/index.js";
import type { CropPlan } from "../../ts/src/native/index.js";
import { temporaryFolder } from "../support/temporary.js";
import { FakeNative } from "../train/fake-native.js";

const scratch = temporaryFolder();
const config = completeConfig({ evaluate: { resize: 8, crop: 8, ks: [2], batchSize: 3 }, data: { maxBadImages: 0.5 } });

const limit = { maxFileMiB: 1 };
const each = <T>(set: Dataset, of: (index: number) => T): T[] => Array.from({ length: set.length }, (_, index) => of(index));
const labels = (set: Dataset): (number | null)[] => each(set, (index) => set.label(index));
const names = (set: Dataset): string[] => each(set, (index) => set.name(index));

/** Writes images that the fake engine reads; `broken` is the position of one that cannot be read. */
function write(folder: string, count: number, broken = -1): void {
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < count; i++) writeFileSync(join(folder, `${String(i).padStart(2, "0")}.png`), i === broken ? "broken" : `${i} 40 30`);
}

describe("openLabeledSplit", () => {
  test("takes train and val, with the classes of train", async () => {
    const root = join(scratch, "parts");
    write(join(root, "train", "a"), 2);
    write(join(root, "train", "b"), 2);
    write(join(root, "val", "b"), 3);
    for (const path of [root, join(root, "train")]) {
      const split = await openLabeledSplit(path, limit);
      expect(split).toMatchObject({ kind: "val", bank: { classes: ["a", "b"] } });
      expect(labels(split!.queries)).toEqual([1, 1, 1]);
    }
    write(join(scratch, "elsewhere", "a"), 1);
    expect(labels((await openLabeledSplit(root, { ...limit, val: join(scratch, "elsewhere") }))!.queries)).toEqual([0]);
    write(join(scratch, "strange", "c"), 1);
    await expect(openLabeledSplit(root, { ...limit, val: join(scratch, "strange") })).rejects.toThrow("no class of this name");
    write(join(scratch, "bare"), 1);
    await expect(openLabeledSplit(root, { ...limit, val: join(scratch, "bare") })).rejects.toThrow("have no classes");
  });

  test("holds out every fifth image of each class where there is no val", async () => {
    const root = join(scratch, "whole");
    write(join(root, "a"), 11);
    write(join(root, "b"), 4);
    const split = await openLabeledSplit(root, limit);
    expect(split!.kind).toBe("held out");
    expect(names(split!.queries)).toEqual([join(root, "a", "04.png"), join(root, "a", "09.png")]);
    expect(split!.bank).toHaveLength(13);
  });

  test("is undefined without classes, with one, and with too few images to hold any out", async () => {
    write(join(scratch, "flat"), 6);
    write(join(scratch, "single", "a"), 6);
    write(join(scratch, "few", "a"), 4);
    write(join(scratch, "few", "b"), 4);
    for (const name of ["flat", "single", "few"]) expect(await openLabeledSplit(join(scratch, name), limit)).toBeUndefined();
  });
});

describe("knn", () => {
  const root = join(scratch, "knn");
  write(join(root, "train", "a"), 4, 1);
  write(join(root, "train", "b"), 3);
  write(join(root, "val", "a"), 2);
  write(join(root, "val", "b"), 2, 0);

  test("gives the engine the features and labels of the images that can be read", async () => {
    const engine = new FakeNative();
    const split = (await openLabeledSplit(root, limit))!;
    const weights = [{ name: "patch.weight", shape: [1], dtype: "f32" as const, data: new Uint8Array(4) }];
    const report = await knn({ split, config, features: { weights } }, engine);
    expect(report).toMatchObject({ bank: 6, queries: 3, classes: 2, width: 1, split: "val", gray: false, results: [{ k: 2, top1: 50, top5: 100 }] });
    expect(report.bad.map(({ name }) => name)).toEqual([join(root, "train", "a", "01.png"), join(root, "val", "b", "00.png")]);
    const [call] = engine.knnCalls;
    expect([...call!.bankLabels]).toEqual([0, 0, 0, 1, 1, 1]);
    expect([...call!.queryLabels]).toEqual([0, 0, 1]);
    // The same picture has the same features, whichever part it is in.
    expect(call!.queries[0]).toBe(call!.bank[0]);
    expect(new Set(call!.bank).size).toBeGreaterThan(2);
    expect(engine.encoded).toEqual([{ weights, seed: undefined }]);
  });

  test("draws the weights of a random network from its seed", async () => {
    const engine = new FakeNative();
    await knn({ split: (await openLabeledSplit(root, limit))!, config, features: { random: { seed: 7 } } }, engine);
    expect(engine.encoded).toEqual([{ weights: undefined, seed: 7 }]);
  });

  test("compares pixels without their mean", async () => {
    const engine = new FakeNative();
    await knn({ split: (await openLabeledSplit(root, limit))!, config, features: "pixels" }, engine);
    const [call] = engine.knnCalls;
    expect(engine.encoded).toEqual([]);
    expect(call!.width).toBe(16 * 16 * 3);
    for (let column = 0; column < 3; column++) {
      const values = [...call!.bank].filter((_, i) => i % call!.width === column);
      expect(values.reduce((a, b) => a + b)).toBeCloseTo(0, 3);
      expect(values.some((value) => Math.abs(value) > 1)).toBe(true);
    }
  });

  test("ends when it is told to", async () => {
    const controller = new AbortController();
    controller.abort(new Error("enough"));
    const split = (await openLabeledSplit(root, limit))!;
    await expect(knn({ split, config, features: "pixels", signal: controller.signal }, new FakeNative())).rejects.toThrow("enough");
  });

  test("takes the color from the queries only", async () => {
    const seen: CropPlan[] = [];
    const engine = new FakeNative();
    const render = engine.renderCrops.bind(engine);
    engine.renderCrops = (encoded, crops) => {
      seen.push(...crops);
      return render(encoded, crops);
    };
    await knn({ split: (await openLabeledSplit(root, limit))!, config, features: "pixels", gray: true }, engine);
    expect(seen.map(({ operations }) => operations.length)).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1]);
    expect(seen.at(-1)!.operations).toEqual([{ kind: "grayscale" }]);
  });

  test("leaves the heads out", () => {
    const tensor = (name: string) => ({ name, shape: [1], dtype: "f32" as const, data: new Uint8Array(4) });
    const names = ["head.mlp.0.weight", "head_dense.last_layer.weight_v", "norm.weight", "layers.0.head_like"];
    expect(backboneOf(names.map(tensor)).map(({ name }) => name)).toEqual(["norm.weight", "layers.0.head_like"]);
  });
});

test("features of a gray engine and a plain one differ by the gray pixels alone", async () => {
  const { bank } = (await openLabeledSplit(join(scratch, "knn"), limit))!;
  const engine = new FakeNative();
  const plain = await extractFeatures(bank, engine.createEncoder(), config, engine);
  const gray = await extractFeatures(bank, engine.createEncoder(), config, grayEngine(engine));
  expect(gray.labels).toEqual(plain.labels);
  expect(gray.values).not.toEqual(plain.values);
});
