import { drawLinearCrop, evaluationPlan } from "../augment/index.js";
import { stream } from "../random/index.js";
import { BadImages, type BadImage } from "./bad-images.js";
import { BadImageError } from "./error.js";
import type { Dataset } from "./dataset.js";
import { Limiter, readAhead, settleAll } from "./pipeline.js";
import { renderImage, type ImageEngine, type PlanCrops } from "./render.js";

/** Some images of an ordered pass. */
export interface LabeledBatch {
  /** `[count, crop, crop, 3]`. */
  pixels: Uint8Array;
  count: number;
  /** Class of each image; 0 where the set has no classes. */
  labels: Uint32Array;
  /** Index of each image in its set. */
  indices: Uint32Array;
  /** Images that were left out; nothing takes their places. */
  bad: BadImage[];
}

/** Settings of a pass, among them how images are brought to a common size. */
export interface LabeledOptions {
  batchSize: number;
  /** Length of the shorter side before the center is cut, in pixels. */
  resize: number;
  /** Side of the result. */
  crop: number;
  workers: number;
  maxBadImages: number;
  /** Instead of the center, random resized crops in shuffled order: the training transform of linear evaluation. */
  random?: { seed: number; epoch: number };
}

/** Batches that are worked on while one is used. */
const depth = 2;

/**
 * Passes once over a data set, in order, with the evaluation transform; a batch is short when images are unusable, and at the end.
 * @throws {DataError} from the iterator, when too many images are unusable.
 */
export async function* labeledImages(
  dataset: Dataset, options: LabeledOptions, engine: ImageEngine,
): AsyncGenerator<LabeledBatch, void, undefined> {
  const { batchSize, crop, random } = options;
  const order = random && stream(random.seed, "linear-shuffle", random.epoch).permutation(dataset.length);
  const bad = new BadImages(dataset.length, options.maxBadImages);
  const limiter = new Limiter(options.workers);
  const bytes = crop * crop * 3;

  /** Writes one image to `offset`. */
  async function render(index: number, position: number, into: Uint8Array, offset: number): Promise<void> {
    const draws = random && stream(random.seed, "linear-crops", random.epoch, position);
    const plan: PlanCrops = (size) => [draws ? drawLinearCrop(size, crop, draws) : evaluationPlan(size, options)];
    into.set(await renderImage(dataset, index, engine, plan), offset);
  }

  async function make(batchIndex: number): Promise<LabeledBatch> {
    const start = batchIndex * batchSize;
    const places = Math.min(batchSize, dataset.length - start);
    const pixels = new Uint8Array(places * bytes);
    const usable = new Array<boolean>(places).fill(false);
    const left: BadImage[] = [];
    const indexOf = (place: number): number => order?.[start + place] ?? start + place;
    const tasks = usable.map((_, place) =>
      limiter.run(async () => {
        const index = indexOf(place);
        try {
          await render(index, start + place, pixels, place * bytes);
          usable[place] = true;
        } catch (error) {
          if (!(error instanceof BadImageError)) throw error;
          left.push(bad.add(index, error));
        }
      }),
    );
    await settleAll(tasks);
    const kept = usable.flatMap((isUsable, place) => (isUsable ? [place] : []));
    // Close the gaps; places only move to the front.
    for (const [to, from] of kept.entries()) {
      if (to !== from) pixels.copyWithin(to * bytes, from * bytes, (from + 1) * bytes);
    }
    return {
      pixels: pixels.subarray(0, kept.length * bytes),
      count: kept.length,
      labels: Uint32Array.from(kept, (place) => dataset.label(indexOf(place)) ?? 0),
      indices: Uint32Array.from(kept, indexOf),
      bad: left.sort((a, b) => a.index - b.index),
    };
  }

  yield* readAhead(Math.ceil(dataset.length / batchSize), depth, new AbortController().signal, make);
}
