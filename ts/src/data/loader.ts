import { drawCrops } from "../augment/index.js";
import { imagesPerStep, type Config } from "../config/index.js";
import type { Batch, BatchLayout } from "../native/index.js";
import { stream } from "../random/index.js";
import { BadImages, type BadImage } from "./bad-images.js";
import { BadImageError, DataError } from "./error.js";
import type { Dataset } from "./dataset.js";
import { Limiter, readAhead, settleAll } from "./pipeline.js";
import { renderIntoBatch, type BatchEngine } from "./render.js";
import { epochOrder, requireBatch, stepsPerEpoch } from "./sampler.js";

/** A full batch on its way to a step. */
export interface TrainingBatch {
  epoch: number;
  /** Position in the epoch, from 0. */
  index: number;
  /** Handle of the pixels, in the engine's memory. */
  pixels: Batch;
  /** Index in the data set of each of the B images. */
  indices: Uint32Array;
  /** Images that were left out of this batch; others took their places. */
  bad: BadImage[];
  /** Gives the pixels back for a later batch. Call it when the step has ended. */
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
  batches(from: { epoch: number; index: number }): AsyncGenerator<TrainingBatch, void, undefined>;
  /** Ends all iterators, waits for the images being decoded and frees the memory of all batches. */
  close(): Promise<void>;
}

/** More batches than this ready at once gain nothing. */
const maxDepth = 8;

/** Memory of a loader's batches. */
export interface LoaderPlan {
  /** Pixels of one batch, in bytes. */
  batchBytes: number;
  /** Finished batches that are kept ready. */
  depth: number;
}

/** Memory that the loader of a configuration keeps. */
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
  engine: BatchEngine,
): Loader {
  const { seed, crops } = config;
  const batchSize = imagesPerStep(config);
  requireBatch(dataset.length, batchSize, dataset.root);
  const steps = stepsPerEpoch(dataset.length, batchSize);
  const { depth } = planLoader(config);
  const layout: BatchLayout = {
    batch: config.batchSize, passes: config.accumulate, globalSize: crops.globalSize, localSize: crops.localSize, localCount: crops.localCount,
  };

  const bad = new BadImages(dataset.length, config.data.maxBadImages);
  const limiter = new Limiter(config.data.workers);
  const stop = new AbortController();
  const running = new Set<Promise<unknown>>();
  /** All batches whose memory is not freed, and those among them that wait to be used again. */
  const live = new Set<Batch>();
  const pool: Batch[] = [];
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
  async function fillPlace(batch: TrainingBatch, b: number): Promise<void> {
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
        await renderIntoBatch(batch.pixels, b, dataset, index, engine, (size) => drawCrops(size, config, draws), stop.signal);
        batch.indices[b] = index;
        return;
      } catch (error) {
        if (!(error instanceof BadImageError)) throw error;
        batch.bad.push(bad.add(index, error));
      }
    }
    throw new DataError(`${dataset.root}: none of the ${dataset.length} images can be read`);
  }

  function takeBatch(): Batch {
    const pixels = pool.pop() ?? engine.createBatch(layout);
    live.add(pixels);
    return pixels;
  }

  function free(pixels: Batch): void {
    live.delete(pixels);
    pixels.dispose();
  }

  async function makeBatch(epoch: number, index: number): Promise<TrainingBatch> {
    const pixels = takeBatch();
    let released = false;
    const release = (): void => {
      if (released || !live.has(pixels)) return;
      pixels.clear();
      released = true;
      if (pool.length <= depth) pool.push(pixels);
      else free(pixels);
    };
    const batch: TrainingBatch = { epoch, index, pixels, indices: new Uint32Array(batchSize), bad: [], release };
    const places = Array.from({ length: batchSize }, (_, b) => limiter.run(() => fillPlace(batch, b)));
    await settleAll(places);
    // Places finish in any order; the report of a batch is the same every time.
    batch.bad = [...new Map(batch.bad.map((image) => [image.index, image])).values()].sort((x, y) => x.index - y.index);
    return batch;
  }

  async function* batches(from: { epoch: number; index: number }): AsyncGenerator<TrainingBatch, void, undefined> {
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
      for (const pixels of [...live]) free(pixels);
      pool.length = 0;
    },
  };
}
