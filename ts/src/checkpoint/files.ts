/** Positional reading and sequential writing of large files. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { CheckpointError, reason } from "./errors.js";

/** Bytes in one system call: Linux moves at most 2 GiB a call, and smaller calls cost nothing measurable. */
const CALL_BYTES = 64 * 2 ** 20;

/** An open file that is read at positions. `read` never returns fewer bytes than asked for. */
export class FileSource {
  private constructor(
    readonly file: string,
    readonly size: number,
    private readonly descriptor: number,
  ) {}

  /** Opens `file`, hands it to `use` and closes it. Throws `CheckpointError` of kind `io` when it is no readable file. */
  static with<T>(file: string, use: (source: FileSource) => T): T {
    let descriptor: number;
    try {
      descriptor = openSync(file, "r");
    } catch (cause) {
      throw new CheckpointError(file, "io", `cannot be opened (${reason(cause)})`, { cause });
    }
    try {
      const stat = fstatSync(descriptor);
      if (!stat.isFile()) throw new CheckpointError(file, "io", "is not a file");
      return use(new FileSource(file, stat.size, descriptor));
    } finally {
      closeSync(descriptor);
    }
  }

  /** Bytes `[offset, offset + length)`; an error of kind `format` when the file ends before. */
  read(offset: number, length: number): Uint8Array {
    this.check(offset, length);
    const target = new Uint8Array(length);
    this.readInto(offset, target);
    return target;
  }

  /** Fills `target` with the bytes from `offset` on. */
  readInto(offset: number, target: Uint8Array): void {
    this.check(offset, target.byteLength);
    let done = 0;
    while (done < target.byteLength) {
      let count: number;
      try {
        count = readSync(this.descriptor, target, done, Math.min(CALL_BYTES, target.byteLength - done), offset + done);
      } catch (cause) {
        throw new CheckpointError(this.file, "io", `cannot be read (${reason(cause)})`, { cause });
      }
      if (count === 0) throw new CheckpointError(this.file, "io", "became shorter while it was read");
      done += count;
    }
  }

  private check(offset: number, length: number): void {
    if (!(Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new CheckpointError(this.file, "format", `ends at byte ${this.size}, but its contents claim to go on`);
    }
  }
}

/** Where a writer puts its bytes, one after the other. */
export interface Sink {
  /** Bytes written so far. */
  readonly position: number;
  write(bytes: Uint8Array): void;
}

/** A sink over `writeSome`, a system call that may write only a part and returns how many bytes it took. */
export class CallSink implements Sink {
  position = 0;

  constructor(private readonly writeSome: (bytes: Uint8Array, offset: number, length: number) => number) {}

  write(bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.byteLength) {
      done += this.writeSome(bytes, done, Math.min(CALL_BYTES, bytes.byteLength - done));
    }
    this.position += done;
  }
}
