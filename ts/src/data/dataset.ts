/** Encoded images by index, in whatever format they are stored. `formats/` holds the formats. */
export interface Dataset {
  /** Folder or file the images come from; it begins messages about the whole set. */
  readonly root: string;
  /** Number of images. */
  readonly length: number;
  /** Names of the classes; null when the images are not labeled. */
  readonly classes: readonly string[] | null;
  /** Name of an image in messages: for an image file its path. */
  name(index: number): string;
  /** Position of an image's class in `classes`; null when the images are not labeled. */
  label(index: number): number | null;
  /**
   * Bytes of an encoded image, never more than the limit the set was opened with.
   * @throws {BadImageError} when this image cannot be read. `signal.reason` when the signal was aborted.
   */
  read(index: number, signal?: AbortSignal): Promise<Uint8Array>;
}

/** Settings every format is opened with. */
export interface DatasetOptions {
  /** A larger image cannot be read; in MiB of its encoded bytes. */
  maxFileMiB: number;
  /** Names of the classes, when they are known from another part of the set; others are then an error. */
  classes?: readonly string[];
}

/** Some images of a set, in the order of `indices`; names and classes stay. */
export function subset(dataset: Dataset, indices: readonly number[]): Dataset {
  const at = (index: number): number => {
    const original = indices[index];
    if (original === undefined) throw new RangeError(`${dataset.root}: no image ${index} among ${indices.length}`);
    return original;
  };
  return {
    root: dataset.root,
    length: indices.length,
    classes: dataset.classes,
    name: (index) => dataset.name(at(index)),
    label: (index) => dataset.label(at(index)),
    read: (index, signal) => dataset.read(at(index), signal),
  };
}
