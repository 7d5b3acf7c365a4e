import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { drawPicture, patterns, pictureSize, writeDemoImages } from "../../ts/src/demo/index.js";
import { openDataset } from "../../ts/src/data/index.js";
import { temporaryFolder } from "../support/temporary.js";

const scratch = temporaryFolder();

/** Stands in for the addon's PNG: the pixels as they are. */
const encode = (pixels: Uint8Array): Uint8Array => pixels;

/** Mean of each color. */
function meanColor(pixels: Uint8Array): number[] {
  const sums = [0, 0, 0];
  for (const [i, value] of pixels.entries()) sums[i % 3]! += value;
  return sums.map((sum) => sum / (pixels.length / 3));
}

/** Share of the val features whose nearest class mean of the train features is their own. */
function nearestMeanAccuracy(train: number[][][], val: number[][][]): number {
  const means = train.map((features) => features[0]!.map((_, d) => features.reduce((sum, f) => sum + f[d]!, 0) / features.length));
  const distance = (a: number[], b: number[]): number => a.reduce((sum, v, d) => sum + (v - b[d]!) ** 2, 0);
  let right = 0;
  let total = 0;
  for (const [label, features] of val.entries()) {
    for (const feature of features) {
      const distances = means.map((mean) => distance(mean, feature));
      if (distances.indexOf(Math.min(...distances)) === label) right++;
      total++;
    }
  }
  return right / total;
}

function features(part: "train" | "val", count: number, of: (pixels: Uint8Array) => number[]): number[][][] {
  return patterns.map((pattern) => Array.from({ length: count }, (_, i) => of(drawPicture(0, part, pattern, i))));
}

/**
 * Agreement of the middle of a picture with itself at growing distances: the least, the mean and the largest agreement over eight
 * directions. Color, contrast and turn do not count.
 */
function selfAgreement(pixels: Uint8Array): number[] {
  const gray = (x: number, y: number): number => {
    const at = (y * pictureSize + x) * 3;
    return pixels[at]! + pixels[at + 1]! + pixels[at + 2]!;
  };
  const places = Array.from({ length: 36 * 36 }, (_, i) => [30 + (i % 36), 30 + Math.floor(i / 36)] as const);
  const mean = places.reduce((sum, [x, y]) => sum + gray(x, y), 0) / places.length;
  const variance = places.reduce((sum, [x, y]) => sum + (gray(x, y) - mean) ** 2, 1e-9);
  return [3, 5, 7, 9, 11, 14, 17].flatMap((distance) => {
    const agreements = Array.from({ length: 8 }, (_, direction) => {
      const dx = Math.round(distance * Math.cos((direction * Math.PI) / 8));
      const dy = Math.round(distance * Math.sin((direction * Math.PI) / 8));
      return places.reduce((sum, [x, y]) => sum + (gray(x, y) - mean) * (gray(x + dx, y + dy) - mean), 0) / variance;
    });
    return [Math.min(...agreements), agreements.reduce((sum, v) => sum + v) / 8, Math.max(...agreements)];
  });
}

describe("the demo's pictures", () => {
  test("are a function of seed, part, class and number", () => {
    const one = drawPicture(0, "train", "dots", 3);
    expect(one).toHaveLength(pictureSize * pictureSize * 3);
    expect(drawPicture(0, "train", "dots", 3)).toEqual(one);
    for (const other of [drawPicture(1, "train", "dots", 3), drawPicture(0, "val", "dots", 3), drawPicture(0, "train", "rings", 3), drawPicture(0, "train", "dots", 4)]) {
      expect(other).not.toEqual(one);
    }
  });

  test("there are eight classes; their mean colors do not tell them apart, their structure does", () => {
    expect(patterns).toHaveLength(8);
    expect([...patterns].sort()).toEqual(patterns);
    const byColor = nearestMeanAccuracy(features("train", 40, meanColor), features("val", 25, meanColor));
    // Chance is 12.5 %; 200 pictures leave a deviation of 2.3 points.
    expect(byColor).toBeLessThan(0.25);
    const byStructure = nearestMeanAccuracy(features("train", 25, selfAgreement), features("val", 15, selfAgreement));
    expect(byStructure).toBeGreaterThan(0.3);
  });
});

describe("writeDemoImages", () => {
  const options = { seed: 0, trainPerClass: 3, valPerClass: 2 };

  test("writes folders the data set reader understands, once", async () => {
    const folder = join(scratch, "demo");
    expect(await writeDemoImages(folder, options, encode)).toBe(true);
    const train = await openDataset(join(folder, "train"), { maxFileMiB: 1 });
    const val = await openDataset(join(folder, "val"), { maxFileMiB: 1, classes: train.classes! });
    expect(train.classes).toEqual(patterns);
    expect([train.length, val.length]).toEqual([24, 16]);
    expect(readFileSync(join(folder, "train", "net", "002.png"))).toEqual(Buffer.from(drawPicture(0, "train", "net", 2)));
    expect(await writeDemoImages(folder, options, () => { throw new Error("drawn again"); })).toBe(false);
    expect(readdirSync(scratch)).toEqual(["demo"]);
  });

  test("writes again when the options changed or something is missing", async () => {
    const folder = join(scratch, "changed");
    await writeDemoImages(folder, options, encode);
    expect(await writeDemoImages(folder, { ...options, valPerClass: 1 }, encode)).toBe(true);
    expect(readdirSync(join(folder, "val", "dots"))).toEqual(["000.png"]);
    rmSync(join(folder, "val", "dots", "000.png"));
    expect(await writeDemoImages(folder, { ...options, valPerClass: 1 }, encode)).toBe(true);
    expect(readdirSync(join(folder, "val", "dots"))).toEqual(["000.png"]);
  });

  test("never touches a folder with other files, and leaves nothing behind when it fails", async () => {
    const folder = join(scratch, "mine");
    mkdirSync(folder);
    writeFileSync(join(folder, "thesis.txt"), "x");
    await expect(writeDemoImages(folder, options, encode)).rejects.toThrow(/mine: the folder holds other files/);
    expect(readdirSync(folder)).toEqual(["thesis.txt"]);
    const before = readdirSync(scratch);
    await expect(writeDemoImages(join(scratch, "failing"), options, () => { throw new Error("no PNG today"); })).rejects.toThrow("no PNG today");
    expect(readdirSync(scratch)).toEqual(before);
  });

  test("draws the whole demo in seconds", () => {
    const start = performance.now();
    const count = 40;
    for (let i = 0; i < count; i++) drawPicture(0, "train", patterns[i % 8]!, i);
    // 1120 pictures in 30 s at the very most, on a machine that is busy with other things.
    expect((performance.now() - start) / count).toBeLessThan(27);
  });
});
