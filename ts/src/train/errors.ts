/** The loss was not finite. Nothing was changed by that step; the state before it is in `checkpoint_NaN.pth`. */
export class DivergedError extends Error {
  override readonly name = "DivergedError";
}

/** The run needs more memory than there is. */
export class MemoryError extends Error {
  override readonly name = "MemoryError";
}

/** The folder for the results cannot be used. The message names it. */
export class OutputError extends Error {
  override readonly name = "OutputError";
}
