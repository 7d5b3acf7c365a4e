/** A folder of image files, with a sub-folder for each class. */
import { open, realpath } from "node:fs/promises";
import { join } from "node:path";
import type { Dataset, DatasetOptions } from "../dataset.js";
import { BadImageError, DataError } from "../error.js";
import { imageExtensions, listFolder } from "../listing.js";

/** Lists all images below `folder`, by folder and then by name; `above` holds the real paths on the way, so that links cannot lead in circles. */
async function collect(folder: string, above: readonly string[]): Promise<string[]> {
  const real = await realpath(folder);
  if (above.includes(real)) return [];
  const { images, folders } = await listFolder(folder);
  const paths = images.map((name) => join(folder, name));
  for (const name of folders) {
    for (const path of await collect(join(folder, name), [...above, real])) paths.push(path);
  }
  return paths;
}

/** Reads a file of at most `maxBytes`. @throws {BadImageError} when it cannot be read or is larger. */
async function readBounded(path: string, maxBytes: number, signal?: AbortSignal): Promise<Uint8Array> {
  try {
    signal?.throwIfAborted();
    const file = await open(path, "r");
    try {
      const { size } = await file.stat();
      if (size > maxBytes) throw new BadImageError(path, `${size} bytes are more than data.maxFileMiB allows`);
      if (size === 0) throw new BadImageError(path, "the file is empty");
      return await file.readFile({ signal });
    } finally {
      await file.close();
    }
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (error instanceof BadImageError) throw error;
    throw new BadImageError(path, `cannot be read (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`, error);
  }
}

/** One image file, and the position of its class. */
interface LabeledFile {
  path: string;
  label: number | null;
}

class ImageFolder implements Dataset {
  readonly root: string;
  readonly classes: readonly string[] | null;
  private readonly files: readonly LabeledFile[];
  private readonly maxBytes: number;

  constructor(root: string, classes: readonly string[] | null, files: readonly LabeledFile[], maxBytes: number) {
    this.root = root;
    this.classes = classes;
    this.files = files;
    this.maxBytes = maxBytes;
  }

  get length(): number {
    return this.files.length;
  }

  name(index: number): string {
    return this.at(index).path;
  }

  label(index: number): number | null {
    return this.at(index).label;
  }

  async read(index: number, signal?: AbortSignal): Promise<Uint8Array> {
    return readBounded(this.at(index).path, this.maxBytes, signal);
  }

  private at(index: number): LabeledFile {
    const file = this.files[index];
    if (!file) throw new RangeError(`${this.root}: no image ${index} among ${this.length}`);
    return file;
  }
}

/**
 * Opens the images of a folder, recursively: jpg, jpeg, png, webp, bmp, tif, tiff and gif in any case.
 *
 * When all images lie in sub-folders, each sub-folder that has any is a class, and the classes are sorted by bytes, as in
 * torchvision's `ImageFolder`. When some lie right in the folder, the images have no labels.
 * @throws {DataError} when the folder does not exist, holds no image, or has a class that is not in `options.classes`.
 */
export async function openImageFolder(path: string, { maxFileMiB, classes }: DatasetOptions): Promise<Dataset> {
  const { images, folders } = await listFolder(path);
  const real = await realpath(path);
  const found: { name: string; paths: string[] }[] = [];
  for (const name of folders) {
    const paths = await collect(join(path, name), [real]);
    if (paths.length > 0) found.push({ name, paths });
  }
  if (images.length === 0 && found.length === 0) {
    throw new DataError(`${path}: there is no image in this folder (${[...imageExtensions].join(" ")})`);
  }
  const maxBytes = maxFileMiB * 2 ** 20;
  if (images.length > 0) {
    const own = images.map((name) => join(path, name));
    const files = [...own, ...found.flatMap(({ paths }) => paths)].map((file) => ({ path: file, label: null }));
    return new ImageFolder(path, null, files, maxBytes);
  }
  const names = classes ? [...classes] : found.map(({ name }) => name);
  const files: LabeledFile[] = [];
  for (const { name, paths } of found) {
    const label = names.indexOf(name);
    if (label < 0) throw new DataError(`${join(path, name)}: there is no class of this name among the training images`);
    for (const file of paths) files.push({ path: file, label });
  }
  return new ImageFolder(path, names, files, maxBytes);
}
