import { basename, dirname, join } from "node:path";
import { realpath, stat } from "node:fs/promises";
import type { Dataset, DatasetOptions } from "./dataset.js";
import { openImageFolder } from "./formats/image-folder.js";
import { listFolder } from "./listing.js";

/**
 * Opens the images at `path`. A folder of image files is the one format there is; another one is a file in `formats/` and a line here
 * that recognizes it.
 * @throws {DataError} when there is nothing at `path`, it holds no image, or has a class that is not in `options.classes`.
 */
export async function openDataset(path: string, options: DatasetOptions): Promise<Dataset> {
  return openImageFolder(path, options);
}

/** Paths of the parts of a data set; `val` is null when there is none. */
export interface Splits {
  train: string;
  val: string | null;
}

/**
 * Finds `train` and `val`: both below the folder, or, as the original is called with `.../train`, `val` beside it.
 * A folder without these is all training images. A lone `train` below it counts when there is no other folder (else it
 * may be a class of that name).
 * @throws {DataError} when the folder does not exist.
 */
export async function findSplits(path: string): Promise<Splits> {
  const { images, folders } = await listFolder(path);
  if (folders.includes("train") && images.length === 0 && (folders.includes("val") || folders.length === 1)) {
    return { train: join(path, "train"), val: folders.includes("val") ? join(path, "val") : null };
  }
  const real = await realpath(path);
  if (basename(real) === "train") {
    const beside = join(dirname(real), "val");
    if ((await stat(beside).catch(() => undefined))?.isDirectory()) return { train: path, val: beside };
  }
  return { train: path, val: null };
}
