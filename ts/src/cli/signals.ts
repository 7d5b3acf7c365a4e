import { constants } from "node:os";
import { exitCodes } from "./exit-codes.js";
import type { Io } from "./io.js";

type Caught = "SIGINT" | "SIGTERM";

/**
 * Runs `work` with a signal that the first SIGINT or SIGTERM aborts; the second one ends the process at once.
 * @returns the exit code: that of the signal when one came and the work says it was interrupted, otherwise 0.
 */
export async function withSignals(io: Io, work: (signal: AbortSignal) => Promise<{ interrupted: boolean }>): Promise<number> {
  const controller = new AbortController();
  let caught: Caught | undefined;
  const onSignal = (name: Caught): void => {
    if (caught) {
      // The progress bar hides the cursor and turns wrapping off.
      if (io.isTerminal) io.stderr("\u001b[?25h\u001b[?7h\n");
      process.exit(128 + constants.signals[name]);
    }
    caught = name;
    io.stderr(`${io.isTerminal ? "\r\u001b[K" : ""}${name}: the step under way is finished and a checkpoint written; once more to end at once\n`);
    controller.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    const { interrupted } = await work(controller.signal);
    return interrupted && caught ? exitCodes[caught] : exitCodes.ok;
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}
