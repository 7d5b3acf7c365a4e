import { open } from "node:fs/promises";
import type { CropPlan } from "../native/index.js";
import { BadImageError } from "./error.js";

/** What reading images needs of the engine. */
export interface ImageEngine {
  imageInfo(encoded: Uint8Array): { width: number; height: number };
  renderCrops(encoded: Uint8Array, crops: CropPlan[]): Promise<Uint8Array>;
}

/** Bytes of a file. @throws {BadImageError} when it cannot be read or is larger than `maxBytes`. */
async function readBounded(path: string, maxBytes: number): Promise<Uint8Array> {
  try {
    const file = await open(path, "r");
    try {
      const { size } = await file.stat();
      if (size > maxBytes) throw new BadImageError(path, `${size} bytes are more than data.maxFileMiB allows`);
      if (size === 0) throw new BadImageError(path, "the file is empty");
      return await file.readFile();
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof BadImageError) throw error;
    throw new BadImageError(path, `cannot be read (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`, error);
  }
}

/**
 * Reads one file and renders the crops that `plan` asks for, given the image's size in pixels.
 * @returns pixels of the crops, one behind the other.
 * @throws {BadImageError} when the file cannot be read or decoded. Other errors of the engine pass through.
 */
export async function renderFile(
  path: string, maxBytes: number, engine: ImageEngine, plan: (image: { width: number; height: number }) => CropPlan[],
): Promise<Uint8Array> {
  const encoded = await readBounded(path, maxBytes);
  let size: { width: number; height: number };
  try {
    size = engine.imageInfo(encoded);
  } catch (error) {
    throw new BadImageError(path, (error as Error).message, error);
  }
  const plans = plan(size);
  try {
    return await engine.renderCrops(encoded, plans);
  } catch (error) {
    if ((error as { code?: unknown }).code !== "IMAGE") throw error;
    throw new BadImageError(path, (error as Error).message, error);
  }
}
