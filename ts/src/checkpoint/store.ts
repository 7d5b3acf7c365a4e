/**
 * Checkpoints on disk: a file appears whole or not at all, and a write that fails leaves the earlier file as
 * it was.
 *
 * A write goes to a hidden file in the same folder, is forced to disk and then renamed. Those left by processes that
 * died are removed by the next write into the folder.
 */
import * as nodeFs from "node:fs";
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { CheckpointError, reason } from "./errors.js";
import { CallSink, type Sink } from "./files.js";

/** The system calls of a write; Node's own unless a test brings a disk that is full. */
export type FileSystem = Pick<
  typeof nodeFs,
  "openSync" | "writeSync" | "fsyncSync" | "closeSync" | "renameSync" | "unlinkSync" | "linkSync" | "readdirSync" | "statSync"
>;

/** A write on another machine may still be under way; after a day it is not. */
const FOREIGN_AGE_MS = 24 * 3600 * 1000;

/**
 * Writes `file` through `fill`, atomically. Throws `CheckpointError` of kind `write` when anything fails; then an
 * earlier `file` is intact and nothing is left behind. `copies`: further names in the same folder for the same
 * contents, which appear before `file` does, each atomically.
 */
export function writeAtomically(file: string, fill: (sink: Sink) => void, copies: readonly string[] = [], fs: FileSystem = nodeFs): void {
  const folder = dirname(file);
  const failed = (thrown: unknown, what: string): CheckpointError => (
    thrown instanceof CheckpointError ? thrown : new CheckpointError(file, "write", `${what} (${reason(thrown)})`, { cause: thrown })
  );
  const temporary = join(folder, temporaryName(basename(file)));
  try {
    removeStaleTemporaries(folder, fs);
    writeDurably(temporary, fill, fs);
    for (const copy of copies) placeCopy(temporary, join(folder, copy), fill, fs);
    fs.renameSync(temporary, file);
  } catch (thrown) {
    discard(temporary, fs);
    throw failed(thrown, "could not be written; an earlier file is unchanged");
  }
  try {
    syncFolder(folder, fs);
  } catch (thrown) {
    throw failed(thrown, "was written, but may not survive a loss of power");
  }
}

/**
 * Removes temporary files in `folder` whose writers are gone: processes of this machine that no longer run, and
 * files of other machines that are a day old. Returns their names.
 */
export function removeStaleTemporaries(folder: string, fs: FileSystem = nodeFs): string[] {
  return fs.readdirSync(folder).filter((name) => {
    const match = /^\..+\.([0-9a-f]+)-(\d+)-[0-9a-f]{12}\.tmp$/.exec(name);
    if (!match) return false;
    const path = join(folder, name);
    const isStale = match[1] === hostTag() ? !isRunning(Number(match[2])) : isOlderThan(path, FOREIGN_AGE_MS, fs);
    return isStale && discard(path, fs);
  });
}

/** Writes a new file and forces it to disk. */
function writeDurably(path: string, fill: (sink: Sink) => void, fs: FileSystem): void {
  const descriptor = fs.openSync(path, "wx");
  try {
    fill(new CallSink((bytes, offset, length) => fs.writeSync(descriptor, bytes, offset, length)));
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** A second name for the contents of `source`: a hard link, or a second write where the file system has none. */
function placeCopy(source: string, target: string, fill: (sink: Sink) => void, fs: FileSystem): void {
  const temporary = join(dirname(target), temporaryName(basename(target)));
  try {
    try {
      fs.linkSync(source, temporary);
    } catch {
      writeDurably(temporary, fill, fs);
    }
    fs.renameSync(temporary, target);
  } catch (thrown) {
    discard(temporary, fs);
    throw thrown;
  }
}

/** Makes a rename durable. Windows cannot open folders, and needs no such call. */
function syncFolder(folder: string, fs: FileSystem): void {
  if (process.platform === "win32") return;
  const descriptor = fs.openSync(folder, "r");
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** `.NAME.MACHINE-PROCESS-RANDOM.tmp` */
function temporaryName(name: string): string {
  return `.${name}.${hostTag()}-${process.pid}-${randomBytes(6).toString("hex")}.tmp`;
}

function hostTag(): string {
  return Buffer.from(hostname() || "localhost", "utf8").toString("hex").slice(0, 32);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    // A process of another user exists, but may not be signalled.
    return (thrown as NodeJS.ErrnoException).code === "EPERM";
  }
}

function isOlderThan(path: string, ms: number, fs: FileSystem): boolean {
  try {
    return Date.now() - fs.statSync(path).mtimeMs > ms;
  } catch {
    return false;
  }
}

/** Removes a file; false when it is not there or may not be removed. */
function discard(path: string, fs: FileSystem): boolean {
  try {
    fs.unlinkSync(path);
    return true;
  } catch {
    return false;
  }
}
