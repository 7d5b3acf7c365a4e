import { DataError, findSplits, openDataset, subset, type Dataset } from "../data/index.js";

/** Labeled images in two parts: the bank of neighbors, and the query set. */
export interface LabeledSplit {
  bank: Dataset;
  queries: Dataset;
  /** `val`: a folder of its own. `held out`: every fifth image of each class of the one folder there is. */
  kind: "val" | "held out";
}

/** Distance between held-out images of a class, in order of their names: the last of so many is held out. */
const heldOutEvery = 5;

/**
 * Finds the two parts below `path`: `train` and `val`, or one folder of classes, of which every fifth image of each
 * class (in the order of the file names: the 5th, 10th ...) is a query and the others are the bank.
 * @param options `val` is the query set, when it is somewhere else.
 * @returns undefined when the images have no classes, or only one.
 * @throws {DataError} when a folder does not exist or holds no image, or `val` has a class that `train` has not.
 */
export async function openLabeledSplit(path: string, options: { maxFileMiB: number; val?: string | undefined }): Promise<LabeledSplit | undefined> {
  const splits = await findSplits(path);
  const { maxFileMiB, val = splits.val } = options;
  const bank = await openDataset(splits.train, { maxFileMiB });
  if (bank.classes === null || bank.classes.length < 2) return undefined;
  if (val === null) return holdOut(bank);
  const queries = await openDataset(val, { maxFileMiB, classes: bank.classes });
  if (queries.classes === null) throw new DataError(`${val}: the images have no classes, but those of ${splits.train} have`);
  return { bank, queries, kind: "val" };
}

function holdOut(dataset: Dataset): LabeledSplit | undefined {
  const seen = new Map<number | null, number>();
  const bank: number[] = [];
  const queries: number[] = [];
  for (let index = 0; index < dataset.length; index++) {
    const label = dataset.label(index);
    const count = (seen.get(label) ?? 0) + 1;
    seen.set(label, count);
    (count % heldOutEvery === 0 ? queries : bank).push(index);
  }
  if (queries.length === 0) return undefined;
  return { bank: subset(dataset, bank), queries: subset(dataset, queries), kind: "held out" };
}
