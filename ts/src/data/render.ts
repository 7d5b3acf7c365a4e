import type { CropPlan } from "../native/crop-plan.js";
import type { Dataset } from "./dataset.js";
import { BadImageError } from "./error.js";

/** Part of the engine that reading images needs. */
export interface ImageEngine {
  imageInfo(encoded: Uint8Array): { width: number; height: number };
  renderCrops(encoded: Uint8Array, crops: CropPlan[]): Promise<Uint8Array>;
}

/**
 * Reads one image and renders the crops that `plan` asks for, given the image's size in pixels.
 * @returns pixels of the crops, one behind the other.
 * @throws {BadImageError} when the image cannot be read or decoded. Other errors of the engine pass through.
 */
export async function renderImage(
  dataset: Dataset, index: number, engine: ImageEngine, plan: (image: { width: number; height: number }) => CropPlan[], signal?: AbortSignal,
): Promise<Uint8Array> {
  const encoded = await dataset.read(index, signal);
  let size: { width: number; height: number };
  try {
    size = engine.imageInfo(encoded);
  } catch (error) {
    throw new BadImageError(dataset.name(index), (error as Error).message, error);
  }
  const plans = plan(size);
  try {
    return await engine.renderCrops(encoded, plans);
  } catch (error) {
    if ((error as { code?: unknown }).code !== "IMAGE") throw error;
    throw new BadImageError(dataset.name(index), (error as Error).message, error);
  }
}
