import type { Io } from "./io.js";

/** State that all commands share. */
export interface Context {
  io: Io;
  /** Set by the command that ran. */
  exitCode: number;
}
