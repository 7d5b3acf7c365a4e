/** Exit codes of the program; described for users in `docs/exit-codes.md`. */
import { CommanderError } from "commander";
import { CheckpointError } from "../checkpoint/index.js";
import { ConfigError } from "../config/index.js";
import { DataError } from "../data/index.js";
import { DemoError } from "../demo/index.js";
import { DivergedError, MemoryError, OutputError } from "../train/index.js";

export const exitCodes = {
  ok: 0,
  /** The training diverged, or something unexpected happened. */
  failure: 1,
  /** The command line or the configuration is wrong. */
  usage: 2,
  data: 3,
  /** A checkpoint or the folder of the results cannot be read, written, or does not fit. */
  checkpoint: 4,
  /** Not enough memory or room on the disk; a GPU that is not there, or was lost. */
  resources: 5,
  SIGINT: 130,
  SIGTERM: 143,
} as const;

/** Codes that the engine gives its errors. */
const engineCodes: Record<string, number> = {
  CONFIG: exitCodes.usage,
  IMAGE: exitCodes.data,
  STATE: exitCodes.checkpoint,
  DEVICE: exitCodes.resources,
  ENGINE: exitCodes.failure,
};

/** The exit code for an error. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  if (isOutOfRoom(error)) return exitCodes.resources;
  if (error instanceof ConfigError) return exitCodes.usage;
  if (error instanceof DataError || error instanceof DemoError) return exitCodes.data;
  if (error instanceof CheckpointError || error instanceof OutputError) return exitCodes.checkpoint;
  if (error instanceof DivergedError) return exitCodes.failure;
  return engineCodes[String((error as { code?: unknown } | undefined)?.code)] ?? exitCodes.failure;
}

function isOutOfRoom(error: unknown): boolean {
  if (error instanceof MemoryError) return true;
  if (error instanceof RangeError && /allocation failed|array length/i.test(error.message)) return true;
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if (["ENOSPC", "EDQUOT", "ENOMEM", "ERR_MEMORY_ALLOCATION_FAILED"].includes(String((cause as NodeJS.ErrnoException).code))) return true;
  }
  return false;
}
