/** Data that cannot be trained on. The message names the folder or file. */
export class DataError extends Error {
  override readonly name = "DataError";
}

/** One image that cannot be used; the loader goes on without it. */
export class BadImageError extends Error {
  override readonly name = "BadImageError";
  /** The image's file. */
  readonly path: string;

  constructor(path: string, reason: string, cause?: unknown) {
    super(`${path}: ${reason}`, { cause });
    this.path = path;
  }
}
