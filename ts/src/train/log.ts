/** `log.txt`: one JSON object an epoch. */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { writeAtomically } from "../checkpoint/index.js";
import { OutputError } from "./errors.js";
import type { LogLine } from "./averages.js";

/** The name of the log within the output folder. */
export const LOG_NAME = "log.txt";

/** Adds the line of an epoch. @throws {OutputError} */
export function appendLog(folder: string, line: LogLine): void {
  const file = join(folder, LOG_NAME);
  try {
    appendFileSync(file, `${JSON.stringify(line)}\n`);
  } catch (error) {
    throw new OutputError(`${file}: the log cannot be written (${(error as Error).message})`, { cause: error });
  }
}

/**
 * Makes the log fit a run that goes on at `epoch`: lines of epochs that will be run again go, and so does half a line from a
 * process that was killed; `last`, the line of the epoch before, is added when that process did not get to it.
 */
export function rewindLog(folder: string, epoch: number, last: LogLine | undefined): void {
  const file = join(folder, LOG_NAME);
  const old = existsSync(file) ? readFileSync(file, "utf8") : "";
  const kept = old.split("\n").filter((line) => {
    const logged = epochOf(line);
    return logged !== undefined && logged < epoch;
  });
  if (last && last.epoch < epoch && !kept.some((line) => epochOf(line) === last.epoch)) kept.push(JSON.stringify(last));
  const text = kept.map((line) => `${line}\n`).join("");
  if (text !== old) writeAtomically(file, (sink) => sink.write(Buffer.from(text)));
}

function epochOf(line: string): number | undefined {
  try {
    const { epoch } = JSON.parse(line) as { epoch?: unknown };
    return typeof epoch === "number" ? epoch : undefined;
  } catch {
    return undefined;
  }
}
