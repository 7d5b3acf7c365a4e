/**
 * Kinds of failures with a checkpoint file:
 *
 * - `io`: the file could not be opened or read
 * - `format`: the bytes are not what their format promises (cut off, damaged, not a checkpoint)
 * - `refused`: well formed, but it asks for more than tensors and plain containers, or for more memory than it may
 * - `missing`: a key that is needed is not there
 * - `mismatch`: a key is there, but holds something else than it should
 * - `write`: the file could not be written (no space left, no permission); an earlier one is intact
 */
export type CheckpointErrorKind = "io" | "format" | "refused" | "missing" | "mismatch" | "write";

/** The one error of this folder. Its message is one sentence that begins with the file. */
export class CheckpointError extends Error {
  override readonly name = "CheckpointError";

  constructor(
    readonly file: string,
    readonly kind: CheckpointErrorKind,
    detail: string,
    options?: ErrorOptions,
  ) {
    super(`${file}: ${detail}`, options);
  }
}

/** The text of whatever was thrown, for the end of a sentence. */
export function reason(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
