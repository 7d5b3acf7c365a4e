/** A position in a pickle's bytes; every read is checked against what is left. */
import { CheckpointError } from "../errors.js";

/** Longest line of a text opcode (numbers, names); PyTorch's are under 100. */
const MAX_LINE = 65536;

// `ignoreBOM` keeps a leading U+FEFF, which belongs to the string.
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class Cursor {
  private readonly view: DataView;

  constructor(private readonly bytes: Uint8Array, public position: number, private readonly file: string) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(): number {
    return this.view.getUint8(this.advance(1));
  }

  u16(): number {
    return this.view.getUint16(this.advance(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.advance(4), true);
  }

  i32(): number {
    return this.view.getInt32(this.advance(4), true);
  }

  /** Beyond 2⁵³ the number is rounded, and far larger than any length that is left. */
  u64(): number {
    return Number(this.view.getBigUint64(this.advance(8), true));
  }

  /** Pickle's floats are big-endian, alone of all its numbers. */
  f64(): number {
    return this.view.getFloat64(this.advance(8), false);
  }

  take(length: number): Uint8Array {
    const start = this.advance(length);
    return this.bytes.subarray(start, start + length);
  }

  text(length: number): string {
    try {
      return UTF8.decode(this.take(length));
    } catch (cause) {
      if (cause instanceof CheckpointError) throw cause;
      throw new CheckpointError(this.file, "format", "holds a string that is not UTF-8", { cause });
    }
  }

  /** The characters up to the next line feed, which is passed over. Text opcodes are latin-1. */
  line(): string {
    const end = this.bytes.subarray(this.position, this.position + MAX_LINE).indexOf(10);
    if (end < 0) throw new CheckpointError(this.file, "format", "its pickle has a line without an end");
    const line = Buffer.from(this.take(end)).toString("latin1");
    this.position += 1;
    return line;
  }

  /** A little-endian two's complement integer. */
  long(length: number): bigint {
    // BigInt's conversion takes quadratic time in the worst case, and no count has 8000 bits.
    if (length > 1000) throw new CheckpointError(this.file, "refused", `its pickle holds an integer of ${length} bytes`);
    const bytes = this.take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
    return length > 0 && bytes[length - 1]! >= 128 ? value - (1n << BigInt(8 * length)) : value;
  }

  private advance(length: number): number {
    const start = this.position;
    if (!(length <= this.bytes.byteLength - start)) {
      throw new CheckpointError(this.file, "format", "its pickle ends in the middle of a value");
    }
    this.position = start + length;
    return start;
  }
}
