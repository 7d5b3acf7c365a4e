import { labeledImages, type BadImage, type Dataset, type ImageEngine } from "../data/index.js";
import type { Config } from "../config/index.js";

/** Rows of features, one for each image that could be read. */
export interface Features {
  /** `[rows, width]`, row-major, not normalized. */
  values: Float32Array;
  /** Class of each row. */
  labels: Uint32Array;
  rows: number;
  width: number;
  /** Images that were left out. */
  bad: BadImage[];
}

/** Turns the pixels of `count` images, `[count, crop, crop, 3]`, into features, `[count, width]`. */
export interface FeatureSource {
  readonly width: number;
  encode(pixels: Uint8Array, count: number): Promise<Float32Array>;
}

/** Part of the configuration that a pass needs. */
export type PassConfig = Pick<Config, "evaluate" | "data">;

/** An engine that sees every image in gray: color is taken away after the resize. */
export function grayEngine(engine: ImageEngine): ImageEngine {
  return {
    imageInfo: (encoded) => engine.imageInfo(encoded),
    renderCrops: (encoded, crops) =>
      engine.renderCrops(encoded, crops.map((plan) => ({ ...plan, operations: [...plan.operations, { kind: "grayscale" }] }))),
  };
}

/**
 * Features of all images of a data set, in order, with the evaluation transform.
 * @param signal ends the pass early, by the signal's reason.
 * @throws {DataError} when more images are unusable than `data.maxBadImages` allows.
 */
export async function extractFeatures(
  dataset: Dataset, source: FeatureSource, config: PassConfig, engine: ImageEngine, signal?: AbortSignal,
): Promise<Features> {
  const { width } = source;
  const { batchSize, resize, crop } = config.evaluate;
  const { workers, maxBadImages } = config.data;
  const values = new Float32Array(dataset.length * width);
  const labels = new Uint32Array(dataset.length);
  const bad: BadImage[] = [];
  let rows = 0;
  for await (const batch of labeledImages(dataset, { batchSize, resize, crop, workers, maxBadImages }, engine)) {
    signal?.throwIfAborted();
    bad.push(...batch.bad);
    if (batch.count === 0) continue;
    values.set(await source.encode(batch.pixels, batch.count), rows * width);
    labels.set(batch.labels, rows);
    rows += batch.count;
  }
  return { values: values.subarray(0, rows * width), labels: labels.subarray(0, rows), rows, width, bad };
}
