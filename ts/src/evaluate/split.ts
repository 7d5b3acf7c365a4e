import { DataError, findSplits, openImageFolder, type ImageFolder } from "../data/index.js";

/** Labeled images in two parts: those that answer, and those that are asked about. */
export interface LabeledSplit {
  bank: ImageFolder;
  queries: ImageFolder;
  /** `val`: a folder of its own. `held out`: every fifth image of each class of the one folder there is. */
  kind: "val" | "held out";
}

/** Of so many images of a class, in order of their names, the last one is held out. */
const heldOutEvery = 5;

/**
 * Finds the two parts below `path`: `train` and `val`, or one folder of classes, of which every fifth image of each
 * class (in the order of the file names: the 5th, 10th ...) asks and the others answer.
 * @param val the folder of the images that are asked about, when it is somewhere else.
 * @returns undefined when the images have no classes, or only one.
 * @throws {DataError} when a folder does not exist or holds no image, or `val` has a class that `train` has not.
 */
export async function openLabeledSplit(path: string, val?: string): Promise<LabeledSplit | undefined> {
  const splits = await findSplits(path);
  const bank = await openImageFolder(splits.train);
  const queryFolder = val ?? splits.val;
  if (bank.classes.length < 2) return undefined;
  if (queryFolder === null) return holdOut(bank);
  const queries = await openImageFolder(queryFolder, bank.classes);
  if (queries.classes.length === 0) throw new DataError(`${queryFolder}: the images have no classes, but those of ${splits.train} have`);
  return { bank, queries, kind: "val" };
}

function holdOut(folder: ImageFolder): LabeledSplit | undefined {
  const seen = new Map<number | null, number>();
  const isQuery = folder.files.map(({ label }) => {
    const count = (seen.get(label) ?? 0) + 1;
    seen.set(label, count);
    return count % heldOutEvery === 0;
  });
  if (!isQuery.includes(true)) return undefined;
  return {
    bank: { ...folder, files: folder.files.filter((_, index) => !isQuery[index]) },
    queries: { ...folder, files: folder.files.filter((_, index) => isQuery[index]) },
    kind: "held out",
  };
}
