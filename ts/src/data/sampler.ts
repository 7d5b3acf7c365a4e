import { stream } from "../random/index.js";
import { DataError } from "./error.js";

/** Steps of an epoch: full batches only, what is left over waits for the next shuffle. */
export function stepsPerEpoch(images: number, batchSize: number): number {
  return Math.floor(images / batchSize);
}

/**
 * Order of the images in an epoch: a function of (seed, epoch) alone, so batch i of it is entries i·B to (i+1)·B.
 */
export function epochOrder(seed: number, epoch: number, images: number): Uint32Array {
  return stream(seed, "shuffle", epoch).permutation(images);
}

/** @throws {DataError} when a batch cannot be filled. `root` names the images in the message. */
export function requireBatch(images: number, batchSize: number, root: string): void {
  if (images < batchSize) {
    throw new DataError(`${root}: ${images} ${images === 1 ? "image is" : "images are"} fewer than a step's ${batchSize}; set batchSize times accumulate to ${images} or less`);
  }
}
