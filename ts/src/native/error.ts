/** A failure inside the engine, told in one sentence. */
export class EngineError extends Error {
  constructor(
    /**
     * `CONFIG` a specification that cannot be built, `STATE` weights that do not fit, `IMAGE` an image that cannot be decoded, `DEVICE` a GPU that is
     * not there, has too little memory or was lost, `ENGINE` anything else.
     */
    readonly code: "CONFIG" | "STATE" | "IMAGE" | "DEVICE" | "ENGINE",
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "EngineError";
  }
}
