import { readdir, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import { DataError } from "./error.js";

/** Extensions of image files, in small letters. */
export const imageExtensions: ReadonlySet<string> = new Set([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"]);

/** Names of the images and folders right in a folder. */
export interface FolderListing {
  images: string[];
  folders: string[];
}

/** Sorts as the original's Python does: by code points, which is the order of the UTF-8 bytes. */
function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Lists the images and folders right in `folder`, sorted; hidden ones are skipped, links are followed. @throws {DataError} */
export async function listFolder(folder: string): Promise<FolderListing> {
  let entries;
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === "ENOENT" ? "there is no such folder" : code === "ENOTDIR" ? "this is a file, not a folder" : (error as Error).message;
    throw new DataError(`${folder}: ${reason}`, { cause: error });
  }
  const listing: FolderListing = { images: [], folders: [] };
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
    else if (isFile && imageExtensions.has(extname(entry.name).toLowerCase())) listing.images.push(entry.name);
  }
  listing.images.sort(byBytes);
  listing.folders.sort(byBytes);
  return listing;
}
