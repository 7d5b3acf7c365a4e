import { readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { DataError } from "./error.js";

/** One image of a data set. */
export interface ImageFile {
  path: string;
  /** Position of its class in `classes`; null when the set has no classes. */
  label: number | null;
}

/** The images of a folder. */
export interface ImageFolder {
  root: string;
  files: ImageFile[];
  /** Names of the classes, sorted by bytes; empty when the images are not labeled. */
  classes: string[];
}

const extensions = new Set([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"]);

/** Sorts as the reference's Python does: by code points, which is the order of the UTF-8 bytes. */
function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

interface Listing {
  images: string[];
  folders: string[];
}

/** Images and folders right in `folder`, sorted; hidden ones are skipped, links are followed. */
async function list(folder: string): Promise<Listing> {
  let entries;
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === "ENOENT" ? "there is no such folder" : code === "ENOTDIR" ? "this is a file, not a folder" : (error as Error).message;
    throw new DataError(`${folder}: ${reason}`, { cause: error });
  }
  const listing: Listing = { images: [], folders: [] };
  for (const entry of entries) {
    if (entry.name.startsWith(".")) continue;
    let isFolder = entry.isDirectory();
    let isFile = entry.isFile();
    if (entry.isSymbolicLink()) {
      // A link to nothing is no image; it is skipped like any other file that is none.
      const target = await stat(join(folder, entry.name)).catch(() => undefined);
      isFolder = target?.isDirectory() ?? false;
      isFile = target?.isFile() ?? false;
    }
    if (isFolder) listing.folders.push(entry.name);
    else if (isFile && extensions.has(extname(entry.name).toLowerCase())) listing.images.push(entry.name);
  }
  listing.images.sort(byBytes);
  listing.folders.sort(byBytes);
  return listing;
}

/** All images below `folder`, by folder and then by name; `above` holds the real paths on the way, so that links cannot lead in circles. */
async function collect(folder: string, above: readonly string[]): Promise<string[]> {
  const real = await realpath(folder);
  if (above.includes(real)) return [];
  const { images, folders } = await list(folder);
  const paths = images.map((name) => join(folder, name));
  for (const name of folders) {
    for (const path of await collect(join(folder, name), [...above, real])) paths.push(path);
  }
  return paths;
}

/**
 * The images of a folder, recursively: jpg, jpeg, png, webp, bmp, tif, tiff and gif in any case.
 *
 * When all images lie in sub-folders, each sub-folder that has any is a class, and the classes are sorted by bytes, as in
 * torchvision's `ImageFolder`. When some lie right in the folder, the images have no labels.
 * @param classes names of the classes, when they are known from another part of the set; others are then an error.
 * @throws {DataError} when the folder does not exist, holds no image, or has a class that is not in `classes`.
 */
export async function openImageFolder(path: string, classes?: readonly string[]): Promise<ImageFolder> {
  const { images, folders } = await list(path);
  const real = await realpath(path);
  const found: { name: string; paths: string[] }[] = [];
  for (const name of folders) {
    const paths = await collect(join(path, name), [real]);
    if (paths.length > 0) found.push({ name, paths });
  }
  if (images.length === 0 && found.length === 0) {
    throw new DataError(`${path}: there is no image in this folder (${[...extensions].join(" ")})`);
  }
  if (images.length > 0) {
    const own = images.map((name) => join(path, name));
    const files = [...own, ...found.flatMap(({ paths }) => paths)].map((file) => ({ path: file, label: null }));
    return { root: path, files, classes: [] };
  }
  const names = classes ? [...classes] : found.map(({ name }) => name);
  const files: ImageFile[] = [];
  for (const { name, paths } of found) {
    const label = names.indexOf(name);
    if (label < 0) throw new DataError(`${join(path, name)}: there is no class of this name among the training images`);
    for (const file of paths) files.push({ path: file, label });
  }
  return { root: path, files, classes: names };
}

/** Folders of the parts of a data set; `val` is null when there is none. */
export interface Splits {
  train: string;
  val: string | null;
}

/**
 * Finds `train` and `val`: both below the folder, or, as the reference is called with `.../train`, `val` beside it.
 * A folder without these is all training images. A lone `train` below it counts when there is no other folder (else it
 * may be a class of that name).
 * @throws {DataError} when the folder does not exist.
 */
export async function findSplits(path: string): Promise<Splits> {
  const { images, folders } = await list(path);
  if (folders.includes("train") && images.length === 0 && (folders.includes("val") || folders.length === 1)) {
    return { train: join(path, "train"), val: folders.includes("val") ? join(path, "val") : null };
  }
  const parent = dirname(await realpath(path));
  if (basename(await realpath(path)) === "train") {
    const beside = join(parent, "val");
    if ((await stat(beside).catch(() => undefined))?.isDirectory()) return { train: path, val: beside };
  }
  return { train: path, val: null };
}
