import { drawLinearCrop, evaluationPlan } from "../augment/index.js";
import { stream } from "../random/index.js";
import { BadImages, type BadImage } from "./bad-images.js";
import { BadImageError } from "./error.js";
import type { ImageFile, ImageFolder } from "./image-folder.js";
import { renderFile, type ImageEngine } from "./image-file.js";
import { Limiter, readAhead, settleAll } from "./pipeline.js";

/** Some images of an ordered pass. */
export interface LabeledBatch {
  /** `[count, crop, crop, 3]`. */
  pixels: Uint8Array;
  count: number;
  /** Of each image; 0 where the folder has no classes. */
  labels: Uint32Array;
  /** Which file each image came from. */
  indices: Uint32Array;
  /** Images that were left out; nothing takes their places. */
  bad: BadImage[];
}

/** How images are brought to a common size. */
export interface LabeledOptions {
  batchSize: number;
  /** Length of the shorter side before the center is cut, in pixels. */
  resize: number;
  /** Side of the result. */
  crop: number;
  workers: number;
  maxBadImages: number;
  maxFileMiB: number;
  /** Instead of the center, random resized crops in shuffled order: the training transform of linear evaluation. */
  random?: { seed: number; epoch: number };
}

/** Batches that are worked on while one is used. */
const depth = 2;

/**
 * Passes once over a folder, in order, with the evaluation transform; a batch is short when images are unusable, and at the end.
 * @throws {DataError} from the iterator, when too many images are unusable.
 */
export async function* labeledImages(
  folder: ImageFolder, options: LabeledOptions, engine: ImageEngine,
): AsyncGenerator<LabeledBatch, void, undefined> {
  const { files } = folder;
  const { batchSize, crop, random } = options;
  const order = random && stream(random.seed, "linear-shuffle", random.epoch).permutation(files.length);
  const bad = new BadImages(files.length, options.maxBadImages);
  const limiter = new Limiter(options.workers);
  const bytes = crop * crop * 3;
  const maxFileBytes = options.maxFileMiB * 2 ** 20;

  /** Writes one image to `offset`. */
  async function render(file: ImageFile, position: number, into: Uint8Array, offset: number): Promise<void> {
    const draws = random && stream(random.seed, "linear-crops", random.epoch, position);
    into.set(await renderFile(file.path, maxFileBytes, engine, (size) => [draws ? drawLinearCrop(size, crop, draws) : evaluationPlan(size, options)]), offset);
  }

  async function make(batchIndex: number): Promise<LabeledBatch> {
    const start = batchIndex * batchSize;
    const places = Math.min(batchSize, files.length - start);
    const pixels = new Uint8Array(places * bytes);
    const usable = new Array<boolean>(places).fill(false);
    const left: BadImage[] = [];
    const indexOf = (place: number): number => order?.[start + place] ?? start + place;
    const tasks = usable.map((_, place) =>
      limiter.run(async () => {
        const index = indexOf(place);
        try {
          await render(files[index]!, start + place, pixels, place * bytes);
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
      labels: Uint32Array.from(kept, (place) => files[indexOf(place)]!.label ?? 0),
      indices: Uint32Array.from(kept, indexOf),
      bad: left.sort((a, b) => a.index - b.index),
    };
  }

  yield* readAhead(Math.ceil(files.length / batchSize), depth, new AbortController().signal, make);
}
