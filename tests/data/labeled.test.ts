import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { labeledImages, openDataset, type Dataset, type LabeledBatch } from "../../ts/src/data/index.js";
import { temporaryFolder } from "../support/temporary.js";
import { collect, FakeEngine } from "./fake-engine.js";

const scratch = temporaryFolder();
let made = 0;

/** Two classes; `broken` names positions that cannot be read. */
async function images(count: number, broken: number[] = []): Promise<Dataset> {
  const root = join(scratch, `set${made++}`);
  for (let i = 0; i < count; i++) {
    const folder = join(root, i < count / 2 ? "a" : "b");
    if (!existsSync(folder)) mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `${String(i).padStart(3, "0")}.png`), broken.includes(i) ? "broken" : `${i} ${20 + i} 30`);
  }
  return openDataset(root, { maxFileMiB: 1 });
}

const options = { batchSize: 3, resize: 10, crop: 8, workers: 4, maxBadImages: 0.5 };

async function all(folder: Dataset, changes: object = {}, engine = new FakeEngine()): Promise<LabeledBatch[]> {
  return collect(labeledImages(folder, { ...options, ...changes }, engine));
}

const firstBytes = (batch: LabeledBatch): number[] => Array.from({ length: batch.count }, (_, i) => batch.pixels[i * 8 * 8 * 3]!);

describe("labeledImages", () => {
  test("passes over all images in order, with labels; the last batch is what is left", async () => {
    const batches = await all(await images(8));
    expect(batches.map(({ count }) => count)).toEqual([3, 3, 2]);
    expect(batches.map(({ indices }) => [...indices])).toEqual([[0, 1, 2], [3, 4, 5], [6, 7]]);
    expect(batches.map(({ labels }) => [...labels])).toEqual([[0, 0, 0], [0, 1, 1], [1, 1]]);
    for (const batch of batches) expect(batch.pixels).toHaveLength(batch.count * 8 * 8 * 3);
  });

  test("leaves unusable images out and closes the gap", async () => {
    const whole = (await all(await images(8))).flatMap(firstBytes);
    const slow = new FakeEngine();
    slow.delay = (id) => (7 - id) * 2;
    const batches = await all(await images(8, [0, 4]), {}, slow);
    expect(batches.map(({ indices }) => [...indices])).toEqual([[1, 2], [3, 5], [6, 7]]);
    expect(batches.map(({ labels }) => [...labels])).toEqual([[0, 0], [0, 1], [1, 1]]);
    expect(batches.map(({ bad }) => bad.map(({ index }) => index))).toEqual([[0], [4], []]);
    expect(batches.flatMap(firstBytes)).toEqual([1, 2, 3, 5, 6, 7].map((index) => whole[index]));
    await expect(all(await images(8, [0, 4]), { maxBadImages: 0.1 })).rejects.toThrow(/2 of 8 images/);
  });

  test("random crops come shuffled and differ by epoch, not by chance", async () => {
    const folder = await images(8);
    const first = await all(folder, { random: { seed: 3, epoch: 0 } });
    const again = await all(folder, { random: { seed: 3, epoch: 0 } });
    const other = await all(folder, { random: { seed: 3, epoch: 1 } });
    const order = (batches: LabeledBatch[]): number[] => batches.flatMap(({ indices }) => [...indices]);
    expect(first).toEqual(again);
    expect(order(other)).not.toEqual(order(first));
    expect(order(first)).not.toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(order(first).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    for (const batch of first) expect([...batch.labels]).toEqual([...batch.indices].map((index) => folder.label(index)));
  });
});
