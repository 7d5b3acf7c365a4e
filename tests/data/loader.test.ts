import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { completeConfig, type Config } from "../../ts/src/config/index.js";
import { DataError, epochOrder, openDataset, openLoader, planLoader, type Dataset, type TrainingBatch } from "../../ts/src/data/index.js";
import { temporaryFolder } from "../support/temporary.js";
import { collect, FakeBatch, FakeEngine } from "./fake-engine.js";

const scratch = temporaryFolder();
let made = 0;

/** A flat folder of `count` images; some replaced by other contents. */
async function images(count: number, replaced: Record<number, string> = {}, maxFileMiB = 1): Promise<Dataset> {
  const root = join(scratch, `set${made++}`);
  mkdirSync(root);
  for (let i = 0; i < count; i++) {
    writeFileSync(join(root, `${String(i).padStart(3, "0")}.png`), replaced[i] ?? `${i} ${20 + i} 30`);
  }
  return openDataset(root, { maxFileMiB });
}

function config(changes: Partial<Record<"batchSize" | "accumulate" | "epochs" | "seed", number>> & { data?: Partial<Config["data"]>; localCount?: number } = {}): Config {
  const { data = {}, localCount = 3, ...rest } = changes;
  return completeConfig({
    batchSize: 4, epochs: 3, ...rest, data: { workers: 3, ...data },
    optimizer: { warmupEpochs: 0 }, crops: { globalSize: 8, localSize: 4, localCount },
  });
}

interface Seen {
  epoch: number;
  index: number;
  global: number[];
  local: number[];
  indices: number[];
  bad: number[];
}

/** One byte of each crop says everything about it. */
function see(batch: TrainingBatch): Seen {
  const { global, local, full } = batch.pixels as FakeBatch;
  expect(full).toBe(true);
  const everyNth = (pixels: Uint8Array, size: number): number[] => [...pixels].filter((_, i) => i % (size * size * 3) === 0);
  return {
    epoch: batch.epoch, index: batch.index, global: everyNth(global, 8), local: everyNth(local, 4),
    indices: [...batch.indices], bad: batch.bad.map(({ index }) => index),
  };
}

async function run(folder: Dataset, settings: Config, from = { epoch: 0, index: 0 }, engine = new FakeEngine()): Promise<Seen[]> {
  const loader = openLoader(folder, settings, engine);
  const seen: Seen[] = [];
  for await (const batch of loader.batches(from)) {
    seen.push(see(batch));
    batch.release();
  }
  await loader.close();
  return seen;
}

describe("openLoader", () => {
  test("gives full batches of every epoch, each image at most once an epoch, crop-major", async () => {
    const folder = await images(11);
    const settings = config();
    const loader = openLoader(folder, settings, new FakeEngine());
    expect(loader.stepsPerEpoch).toBe(2);
    expect(planLoader(settings).batchBytes).toBe(4 * (2 * 192 + 3 * 48));
    const seen = await run(folder, settings);
    expect(seen.map(({ epoch, index }) => [epoch, index])).toEqual([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]);
    for (const epoch of [0, 1, 2]) {
      const used = seen.filter((batch) => batch.epoch === epoch).flatMap(({ indices }) => indices);
      expect(used).toEqual([...epochOrder(settings.seed, epoch, 11)].slice(0, 8));
      expect(new Set(used).size).toBe(8);
    }
    for (const batch of seen) {
      expect(batch.global).toHaveLength(8);
      expect(batch.local).toHaveLength(12);
    }
    // Every place of the batch has plans of its own: a layout that mixed images up would repeat or lose bytes.
    const alone = await run(folder, config({ batchSize: 1, epochs: 1 }));
    const plain = seen.filter(({ epoch }) => epoch === 0);
    for (const [position, single] of alone.slice(0, 8).entries()) {
      const batch = plain[Math.floor(position / 4)]!;
      const b = position % 4;
      expect([batch.indices[b]]).toEqual(single.indices);
      expect([batch.global[b], batch.global[4 + b]]).toEqual(single.global);
      expect([batch.local[b], batch.local[4 + b], batch.local[8 + b]]).toEqual(single.local);
    }
  });

  test("is the same whatever the number of workers, the read-ahead and the speed of single images", async () => {
    const folder = await images(13, { 4: "broken", 9: "666 30 30" });
    const expected = await run(folder, config({ data: { workers: 1, maxBadImages: 0.5 } }));
    const slow = new FakeEngine();
    slow.delay = (id) => (id * 7) % 5;
    expect(await run(folder, config({ data: { workers: 7, prefetchMiB: 0.000001, maxBadImages: 0.5 } }), undefined, slow)).toEqual(expected);
    expect(await run(folder, config({ seed: 1, data: { maxBadImages: 0.5 } }))).not.toEqual(expected);
  });

  test("a step's batch holds the images of all its passes", async () => {
    const folder = await images(11);
    expect(await run(folder, config({ batchSize: 2, accumulate: 2 }))).toEqual(await run(folder, config()));
    expect(planLoader(config({ batchSize: 2, accumulate: 2 })).batchBytes).toBe(planLoader(config()).batchBytes);
  });

  test("starts at any batch of any epoch with the very same series", async () => {
    const folder = await images(13, { 4: "broken" });
    const whole = await run(folder, config({ data: { maxBadImages: 0.5 } }));
    const later = await run(folder, config({ data: { maxBadImages: 0.5 } }), { epoch: 1, index: 2 });
    expect(later).toEqual(whole.slice(5));
    expect(await run(folder, config(), { epoch: 3, index: 0 })).toEqual([]);
  });

  test("replaces an unusable image by the next one of the order, drawn anew, and names it", async () => {
    const bad = 5;
    const folder = await images(8, { [bad]: "666 30 30" });
    const settings = config({ batchSize: 8, epochs: 1 });
    const order = [...epochOrder(settings.seed, 0, 8)];
    const loader = openLoader(folder, settings, new FakeEngine());
    const [batch] = await collect(loader.batches({ epoch: 0, index: 0 }));
    const place = order.indexOf(bad);
    const next = order[(place + 1) % 8]!;
    expect([...batch!.indices]).toEqual(order.map((index) => (index === bad ? next : index)));
    expect(batch!.bad).toEqual([{ index: bad, name: folder.name(bad), message: `${folder.name(bad)}: the scan ends early` }]);
    expect(loader.bad).toEqual(batch!.bad);
    const { global } = see(batch!);
    expect(global[place]).not.toBe(global[(place + 1) % 8]);
  });

  test("missing, empty and oversized files are unusable too", async () => {
    const folder = await images(8, { 1: "", 2: `2 30 30 ${" ".repeat(2000)}` }, 0.001);
    rmSync(folder.name(3));
    const loader = openLoader(folder, config({ epochs: 1, data: { maxBadImages: 0.5 } }), new FakeEngine());
    await collect(loader.batches({ epoch: 0, index: 0 }));
    expect(loader.bad.map(({ message }) => message).sort()).toEqual([
      expect.stringMatching(/001.png: the file is empty/), expect.stringMatching(/002.png: 2008 bytes are more than/), expect.stringMatching(/003.png: cannot be read \(ENOENT\)/),
    ]);
  });

  test("stops above the limit, with names; an engine's own failure stops at once", async () => {
    const broken = { 0: "broken", 1: "broken", 2: "broken" };
    const folder = await images(16, broken);
    await expect(run(folder, config({ data: { maxBadImages: 0.125 } }))).rejects.toThrow(/3 of 16 images cannot be read[^]*00[012].png: this is no image/);
    await expect(run(await images(4, { 0: "broken" }), config({ data: { maxBadImages: 0 } }))).rejects.toThrow(DataError);
    await expect(run(await images(4, { 0: "broken", 1: "broken", 2: "broken", 3: "broken" }), config({ data: { maxBadImages: 1 } }))).rejects.toThrow(/none of the 4 images/);
    await expect(run(await images(4, { 2: "667 9 9" }), config())).rejects.toThrow("a bug in the engine");
  });

  test("fewer images than a batch are refused; one image is enough for a batch of one", async () => {
    const folder = await images(1);
    expect(() => openLoader(folder, config(), new FakeEngine())).toThrow(/1 image is fewer than a step's 4; set batchSize times accumulate to 1 or less/);
    expect(await run(folder, config({ batchSize: 1 }))).toHaveLength(3);
  });

  test("works at most `workers` images at once and no further ahead than its budget", async () => {
    const folder = await images(64);
    const settings = config({ data: { workers: 5, prefetchMiB: (3 * 4 * (2 * 192 + 3 * 48)) / 2 ** 20 } });
    const engine = new FakeEngine();
    const loader = openLoader(folder, settings, engine);
    expect(planLoader(settings).depth).toBe(3);
    const batches = loader.batches({ epoch: 0, index: 0 });
    await batches.next();
    // One is with the reader, three are ready; nothing more is begun.
    await expect.poll(() => engine.rendered, { timeout: 20_000 }).toBe(4 * 4);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(engine.rendered).toBe(4 * 4);
    expect(engine.most).toBe(5);
    await loader.close();
    expect((await batches.next()).done).toBe(true);
  });

  test("memory is reused only after release", async () => {
    const folder = await images(32);
    const engine = new FakeEngine();
    const loader = openLoader(folder, config({ data: { prefetchMiB: 0.000001 } }), engine);
    const kept = new Map<FakeBatch, number[]>();
    const released = new Set<FakeBatch>();
    let reused = false;
    for await (const batch of loader.batches({ epoch: 0, index: 0 })) {
      const pixels = batch.pixels as FakeBatch;
      expect(pixels.full).toBe(true);
      if (batch.index % 2 === 0) {
        expect(kept.has(pixels)).toBe(false);
        kept.set(pixels, [...pixels.global]);
      } else {
        reused ||= released.has(pixels);
        released.add(pixels);
        batch.release();
        batch.release();
      }
    }
    for (const [pixels, copy] of kept) expect([...pixels.global]).toEqual(copy);
    expect(reused).toBe(true);
    await loader.close();
    expect(engine.batches.every(({ disposed }) => disposed)).toBe(true);
  });

  test("a reader that releases its batches needs no more than those kept ready and its own", async () => {
    const settings = config({ epochs: 4, data: { prefetchMiB: (3 * 4 * (2 * 192 + 3 * 48)) / 2 ** 20 } });
    const engine = new FakeEngine();
    await run(await images(64), settings, undefined, engine);
    expect(engine.batches.length).toBeLessThanOrEqual(planLoader(settings).depth + 1);
    expect(engine.batches.every(({ disposed }) => disposed)).toBe(true);
  });

  test("leaving the loop and closing end everything", async () => {
    const folder = await images(64);
    const engine = new FakeEngine();
    engine.delay = () => 5;
    const loader = openLoader(folder, config(), engine);
    for await (const batch of loader.batches({ epoch: 0, index: 0 })) {
      if (batch.index === 1) break;
    }
    await loader.close();
    expect(engine.running).toBe(0);
    const rendered = engine.rendered;
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(engine.rendered).toBe(rendered);
  });

  test("closing while a batch is awaited ends the series", async () => {
    const folder = await images(8);
    const engine = new FakeEngine();
    engine.delay = () => 30;
    const loader = openLoader(folder, config(), engine);
    const batches = loader.batches({ epoch: 0, index: 0 });
    const first = batches.next();
    await loader.close();
    expect((await first).done).toBe(true);
    expect(engine.running).toBe(0);
  });

  test("no local crops, no local pixels", async () => {
    const [batch] = await run(await images(4), config({ localCount: 0, epochs: 1 }));
    expect(batch!.local).toEqual([]);
    expect(batch!.global).toHaveLength(8);
  });
});
