import type { Io } from "./io.js";

/** What the commands share. */
export interface Context {
  io: Io;
  /** Set by the command that ran. */
  exitCode: number;
}
