/** Error of data that cannot be trained on. The message names the folder or file. */
export class DataError extends Error {
  override readonly name = "DataError";
}

/** Error of one image that cannot be used; the loader goes on without it. */
export class BadImageError extends Error {
  override readonly name = "BadImageError";
  /** Name of the image in its data set. */
  readonly image: string;

  constructor(image: string, reason: string, cause?: unknown) {
    super(`${image}: ${reason}`, { cause });
    this.image = image;
  }
}
