import { drawCrops } from "../augment/index.js";
import { imagesPerStep, type Config } from "../config/index.js";
import { stream } from "../random/index.js";
import { BadImages, type BadImage } from "./bad-images.js";
import { BadImageError, DataError } from "./error.js";
import type { Dataset } from "./dataset.js";
import { Limiter, readAhead, settleAll } from "./pipeline.js";
import { renderImage, type ImageEngine } from "./render.js";
import { epochOrder, requireBatch, stepsPerEpoch } from "./sampler.js";

/** Pixels of one step. */
export interface Batch {
  epoch: number;
  /** Position in the epoch, from 0. */
  index: number;
  /** Crop c of image b at position c·B + b: `[2·B, globalSize, globalSize, 3]`. */
  global: Uint8Array;
  /** The same for local crops: `[localCount·B, localSize, localSize, 3]`. */
  local: Uint8Array;
  /** Index in the data set of each of the B images. */
  indices: Uint32Array;
  /** Images that were left out of this batch; others took their places. */
  bad: BadImage[];
  /** Gives the pixels back for a later batch. Optional; call it when nobody reads them any more. */
  release(): void;
}

/** Batches of a run. */
export interface Loader {
  readonly stepsPerEpoch: number;
  /** Images found unusable so far, each once. */
  readonly bad: BadImage[];
  /**
   * Batches from one of an epoch on, over the ends of epochs. Batch i of epoch e is a function of (data set, config, e, i) alone.
   * The iterator throws `DataError` when too many images are unusable; it ends after `epochs` or on `close`.
   */
  batches(from: { epoch: number; index: number }): AsyncGenerator<Batch, void, undefined>;
  /** Ends all iterators and waits for the images being decoded. */
  close(): Promise<void>;
}

/** More batches than this ready at once gain nothing. */
const maxDepth = 8;

interface Buffers {
  global: Uint8Array;
  local: Uint8Array;
}

/** Memory of a loader's batches. */
export interface LoaderPlan {
  /** Pixels of one batch, in bytes. */
  batchBytes: number;
  /** Finished batches that are kept ready. */
  depth: number;
}

/** What the loader of a configuration keeps in memory. */
export function planLoader({ crops, data, ...batch }: Pick<Config, "batchSize" | "accumulate" | "crops" | "data">): LoaderPlan {
  const batchBytes = 3 * imagesPerStep(batch) * (2 * crops.globalSize ** 2 + crops.localCount * crops.localSize ** 2);
  return { batchBytes, depth: Math.max(1, Math.min(maxDepth, Math.floor((data.prefetchMiB * 2 ** 20) / batchBytes))) };
}

/**
 * Reads, augments and batches the images of a data set, ahead of the training loop.
 * @param engine the native addon, or what stands in for it.
 * @throws {DataError} when there are fewer images than a batch holds.
 */
export function openLoader(
  dataset: Dataset,
  config: Pick<Config, "seed" | "batchSize" | "accumulate" | "epochs" | "crops" | "augmentation" | "data">,
  engine: ImageEngine,
): Loader {
  const { seed, crops } = config;
  const batchSize = imagesPerStep(config);
  requireBatch(dataset.length, batchSize, dataset.root);
  const steps = stepsPerEpoch(dataset.length, batchSize);
  const globalBytes = crops.globalSize ** 2 * 3;
  const localBytes = crops.localSize ** 2 * 3;
  const { batchBytes, depth } = planLoader(config);

  const bad = new BadImages(dataset.length, config.data.maxBadImages);
  const limiter = new Limiter(config.data.workers);
  const stop = new AbortController();
  const running = new Set<Promise<unknown>>();
  const pool: Buffers[] = [];
  const orders = new Map<number, Uint32Array>();

  const orderOf = (epoch: number): Uint32Array => {
    let order = orders.get(epoch);
    if (!order) {
      order = epochOrder(seed, epoch, dataset.length);
      // Reading ahead touches two epochs at a time.
      for (const old of [...orders.keys()].slice(0, -1)) orders.delete(old);
      orders.set(epoch, order);
    }
    return order;
  };

  /** Fills place `b`: with the image at its position in the epoch's order, or the first usable one behind it. */
  async function fillPlace(batch: Batch, b: number): Promise<void> {
    const order = orderOf(batch.epoch);
    const position = batch.index * batchSize + b;
    for (let offset = 0; offset < dataset.length; offset++) {
      if (stop.signal.aborted) return;
      const index = order[(position + offset) % dataset.length]!;
      const known = bad.get(index);
      if (known) {
        batch.bad.push(known);
        continue;
      }
      try {
        // The stream belongs to the place, not to the image: a replacement that is also in its own place looks different there.
        const draws = stream(seed, "crops", batch.epoch, position);
        const pixels = await renderImage(dataset, index, engine, (size) => drawCrops(size, config, draws), stop.signal);
        let offsetBytes = 0;
        for (let crop = 0; crop < 2 + crops.localCount; crop++) {
          const isGlobal = crop < 2;
          const bytes = isGlobal ? globalBytes : localBytes;
          const place = ((isGlobal ? crop : crop - 2) * batchSize + b) * bytes;
          (isGlobal ? batch.global : batch.local).set(pixels.subarray(offsetBytes, offsetBytes + bytes), place);
          offsetBytes += bytes;
        }
        batch.indices[b] = index;
        return;
      } catch (error) {
        if (!(error instanceof BadImageError)) throw error;
        batch.bad.push(bad.add(index, error));
      }
    }
    throw new DataError(`${dataset.root}: none of the ${dataset.length} images can be read`);
  }

  async function makeBatch(epoch: number, index: number): Promise<Batch> {
    const buffers = pool.pop() ?? {
      global: new Uint8Array(batchSize * 2 * globalBytes),
      local: new Uint8Array(batchSize * crops.localCount * localBytes),
    };
    let released = false;
    const release = (): void => {
      if (!released && pool.length <= depth) pool.push(buffers);
      released = true;
    };
    const batch: Batch = { epoch, index, ...buffers, indices: new Uint32Array(batchSize), bad: [], release };
    const places = Array.from({ length: batchSize }, (_, b) => limiter.run(() => fillPlace(batch, b)));
    await settleAll(places);
    // Places finish in any order; the report of a batch is the same every time.
    batch.bad = [...new Map(batch.bad.map((image) => [image.index, image])).values()].sort((x, y) => x.index - y.index);
    return batch;
  }

  async function* batches(from: { epoch: number; index: number }): AsyncGenerator<Batch, void, undefined> {
    const first = from.epoch * steps + from.index;
    const count = Math.max(0, config.epochs * steps - first);
    yield* readAhead(count, depth, stop.signal, (offset) => {
      const step = first + offset;
      const task = makeBatch(Math.floor(step / steps), step % steps);
      running.add(task);
      const done = (): boolean => running.delete(task);
      task.then(done, done);
      return task;
    });
  }

  return {
    stepsPerEpoch: steps,
    get bad() {
      return bad.all;
    },
    batches,
    async close() {
      stop.abort();
      await Promise.allSettled([...running]);
      pool.length = 0;
    },
  };
}
