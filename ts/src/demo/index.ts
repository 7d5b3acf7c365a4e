/**
 * A small labeled image set made from nothing: eight classes that differ by the pattern of an object, with colors, place,
 * size, background and light drawn independently of the class. It shows within minutes whether training learns more than color.
 */
import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { drawPicture, pictureSize } from "./picture.js";
import { patterns } from "./patterns.js";

export { drawPicture, pictureSize } from "./picture.js";
export { patterns, type Pattern } from "./patterns.js";

/** The folder for the demo's images cannot be used. */
export class DemoError extends Error {
  override readonly name = "DemoError";
}

/** Which images there are. */
export interface DemoOptions {
  seed: number;
  trainPerClass: number;
  valPerClass: number;
}

/** A lossless PNG of 8-bit RGB pixels. */
export type EncodePng = (pixels: Uint8Array, width: number, height: number) => Uint8Array;

/** Written last; its presence says that the set is complete. A change of the pictures changes `version`. */
const markerName = "demo.json";
const version = 1;

/** True when `folder` holds the whole set with these options. */
async function isComplete(folder: string, marker: string, options: DemoOptions): Promise<boolean> {
  const written = await readFile(join(folder, markerName), "utf8").catch(() => undefined);
  if (written !== marker) return false;
  for (const [part, count] of [["train", options.trainPerClass], ["val", options.valPerClass]] as const) {
    for (const pattern of patterns) {
      const names = await readdir(join(folder, part, pattern)).catch(() => []);
      if (names.length !== count) return false;
    }
  }
  return true;
}

/** @throws {DemoError} when `folder` holds something that this module did not make. */
async function requireOurs(folder: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw new DemoError(`${folder}: the demo's images cannot be written there: ${(error as Error).message}`, { cause: error });
  }
  if (names.length > 0 && !names.includes(markerName)) {
    throw new DemoError(`${folder}: the folder holds other files (no ${markerName}); choose another one for the demo's images`);
  }
}

/**
 * Writes the set as `train/<class>/<number>.png` and `val/<class>/<number>.png`, unless it is there already. The same options
 * give the same pixels. The folder appears at once when all is written; an older set in it is replaced.
 * @returns whether images were written.
 * @throws {DemoError} when the folder holds other files.
 */
export async function writeDemoImages(folder: string, options: DemoOptions, encode: EncodePng): Promise<boolean> {
  const target = resolve(folder);
  const marker = `${JSON.stringify({ version, ...options, size: pictureSize, classes: patterns }, null, 2)}\n`;
  if (await isComplete(target, marker, options)) return false;
  await requireOurs(target);

  const unfinished = join(dirname(target), `.${randomBytes(6).toString("hex")}.demo`);
  try {
    for (const [part, count] of [["train", options.trainPerClass], ["val", options.valPerClass]] as const) {
      for (const pattern of patterns) {
        const into = join(unfinished, part, pattern);
        await mkdir(into, { recursive: true });
        for (let index = 0; index < count; index++) {
          const png = encode(drawPicture(options.seed, part, pattern, index), pictureSize, pictureSize);
          await writeFile(join(into, `${String(index).padStart(3, "0")}.png`), png);
        }
      }
    }
    const file = await open(join(unfinished, markerName), "w");
    try {
      await file.writeFile(marker);
      await file.sync();
    } finally {
      await file.close();
    }
    await rm(target, { recursive: true, force: true });
    await rename(unfinished, target);
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
  return true;
}
