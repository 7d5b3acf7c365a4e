import { writeSync } from "node:fs";

/** Where the program writes: data to `stdout`, all else to `stderr`. */
export interface Io {
  stdout(text: string): void;
  stderr(text: string): void;
  /** Whether somebody watches `stderr` on a terminal. */
  isTerminal: boolean;
  env: Readonly<Record<string, string | undefined>>;
}

/** The process's own streams, written at once: nothing is lost when the process ends. */
export function processIo(): Io {
  return {
    stdout: (text) => writeAll(1, text),
    stderr: (text) => writeAll(2, text),
    isTerminal: process.stderr.isTTY === true,
    env: process.env,
  };
}

/** Writes to a descriptor; a reader that went away (`| head`) is no error, and a slow one is waited for. */
function writeAll(descriptor: number, text: string): void {
  let bytes = Buffer.from(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(descriptor, bytes));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EPIPE") return;
      if (code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

/** A sentence that something is probably wrong; in color on a terminal, unless `NO_COLOR` is set. */
export function warn(io: Io, sentence: string): void {
  const isColored = io.isTerminal && !io.env["NO_COLOR"];
  io.stderr(`${isColored ? "\u001b[33mwarning:\u001b[39m" : "warning:"} ${sentence}\n`);
}
