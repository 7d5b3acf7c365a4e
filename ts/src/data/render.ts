import type { Batch, CropPlan, Native } from "../native/index.js";
import type { Dataset } from "./dataset.js";
import { BadImageError } from "./error.js";

/** Part of the engine that renders single images into arrays of JavaScript. */
export type ImageEngine = Pick<Native, "imageInfo" | "renderCrops">;

/** Part of the engine that renders the batches of a training run. */
export type BatchEngine = Pick<Native, "imageInfo" | "createBatch">;

/** Size of an image in pixels. */
export type ImageSize = ReturnType<Native["imageInfo"]>;

/** Draws the plans of an image's crops, given its size. */
export type PlanCrops = (image: ImageSize) => CropPlan[];

/** Reads an image, plans its crops and has them rendered; what the image is to blame for becomes a {@link BadImageError}. */
async function readAndRender<T>(
  dataset: Dataset, index: number, engine: Pick<Native, "imageInfo">, plan: PlanCrops,
  render: (encoded: Uint8Array, crops: CropPlan[]) => Promise<T>, signal?: AbortSignal,
): Promise<T> {
  const encoded = await dataset.read(index, signal);
  let size: ImageSize;
  try {
    size = engine.imageInfo(encoded);
  } catch (error) {
    throw new BadImageError(dataset.name(index), (error as Error).message, error);
  }
  const crops = plan(size);
  try {
    return await render(encoded, crops);
  } catch (error) {
    if ((error as { code?: unknown }).code !== "IMAGE") throw error;
    throw new BadImageError(dataset.name(index), (error as Error).message, error);
  }
}

/**
 * Reads one image and renders its crops.
 * @returns pixels of the crops, one behind the other.
 * @throws {BadImageError} when the image cannot be read or decoded. Other errors of the engine pass through.
 */
export function renderImage(dataset: Dataset, index: number, engine: ImageEngine, plan: PlanCrops): Promise<Uint8Array> {
  return readAndRender(dataset, index, engine, plan, (encoded, crops) => engine.renderCrops(encoded, crops));
}

/**
 * Reads one image and renders its crops into a place of a batch, which stays free after a failure.
 * @throws as {@link renderImage}, and `signal.reason` when the signal was aborted.
 */
export function renderIntoBatch(
  batch: Batch, place: number, dataset: Dataset, index: number, engine: BatchEngine, plan: PlanCrops, signal: AbortSignal,
): Promise<void> {
  return readAndRender(dataset, index, engine, plan, (encoded, crops) => batch.renderInto(encoded, place, crops), signal);
}
