import { BadImageError, DataError } from "./error.js";

/** An image that was left out, and why. */
export interface BadImage {
  /** Index of the image in its set. */
  index: number;
  /** Name of the image in its set: for an image file its path. */
  name: string;
  /** One sentence that begins with the name. */
  message: string;
}

/** Counts the distinct images of a set that cannot be used, and stops the run above a limit. */
export class BadImages {
  private readonly byIndex = new Map<number, BadImage>();
  private readonly total: number;
  private readonly limit: number;

  /** `share` of the `total` images may be bad, rounded up, so that one always may. */
  constructor(total: number, share: number) {
    this.total = total;
    this.limit = share === 0 ? 0 : Math.ceil(total * share);
  }

  /** All found so far, in the order they were found. */
  get all(): BadImage[] {
    return [...this.byIndex.values()];
  }

  /** The image, when it is known to be bad. */
  get(index: number): BadImage | undefined {
    return this.byIndex.get(index);
  }

  /** Remembers one. @throws {DataError} above the limit, with the first few by name. */
  add(index: number, error: BadImageError): BadImage {
    const known = this.byIndex.get(index);
    if (known) return known;
    const bad = { index, name: error.image, message: error.message };
    this.byIndex.set(index, bad);
    if (this.byIndex.size > this.limit) {
      const named = this.all.slice(0, 5).map(({ message }) => `\n  ${message}`).join("");
      const counted = `${this.byIndex.size} of ${this.total} images cannot be read, more than data.maxBadImages allows`;
      throw new DataError(`${counted}:${named}${this.byIndex.size > 5 ? "\n  ..." : ""}`);
    }
    return bad;
  }
}
