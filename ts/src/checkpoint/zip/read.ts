/**
 * Zip archives as PyTorch writes them, and as other tools repack them: stored and deflated entries, zip64.
 *
 * The central directory is believed only as far as it agrees with the local headers: entries may neither
 * overlap nor reach beyond the directory, names are unique, sizes are bounded, and CRC-32 is checked.
 *
 * Source: PKWARE's APPNOTE.TXT 6.3.10, <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>.
 */
import { crc32, inflateRawSync } from "node:zlib";
import { CheckpointError, reason } from "../errors.js";
import type { FileSource } from "../files.js";

export interface ZipEntry {
  name: string;
  deflated: boolean;
  crc: number;
  /** Bytes in the archive, and when unpacked. */
  packedSize: number;
  size: number;
  /** Position of the entry's first byte in the file. */
  offset: number;
}

/** A directory record is 46 bytes and a name: this many bytes hold about a million entries. */
const MAX_DIRECTORY = 64 * 2 ** 20;
/** Deflate shrinks weights by a few per cent; zeros may shrink a thousandfold, and this stops them. */
const MAX_EXPANSION = 16;
const U16 = 0xffff;
const U32 = 0xffffffff;

/** The entries of an archive, by name, and their contents. */
export class ZipReader {
  readonly entries: ReadonlyMap<string, ZipEntry>;
  private unpacked = 0;

  /** Reads the directory. Throws `CheckpointError`. */
  constructor(private readonly source: FileSource) {
    this.entries = this.readDirectory();
  }

  /** The contents of an entry, in memory of their own. */
  read(entry: ZipEntry): Uint8Array {
    let bytes = this.source.read(entry.offset, entry.packedSize);
    if (entry.deflated) {
      this.unpacked += entry.size;
      if (this.unpacked > MAX_EXPANSION * this.source.size) {
        throw this.error("refused", `its entries would unpack to more than ${MAX_EXPANSION} times the file's size`);
      }
      try {
        // Node wants a limit of at least 1.
        const unpacked = inflateRawSync(bytes, { maxOutputLength: Math.max(1, entry.size) });
        bytes = new Uint8Array(unpacked.buffer, unpacked.byteOffset, unpacked.byteLength);
      } catch (cause) {
        throw this.error("format", `entry ${show(entry.name)} cannot be unpacked (${reason(cause)})`, cause);
      }
      if (bytes.byteLength !== entry.size) throw this.error("format", `entry ${show(entry.name)} unpacks to ${bytes.byteLength} bytes, not ${entry.size}`);
    }
    if (crc32(bytes) !== entry.crc) throw this.error("format", `entry ${show(entry.name)} is damaged (CRC-32 differs)`);
    return bytes;
  }

  private readDirectory(): Map<string, ZipEntry> {
    const { count, size, offset } = this.findDirectory();
    if (size > MAX_DIRECTORY) throw this.error("refused", `its zip directory has ${size} bytes`);
    const bytes = this.source.read(offset, size);
    const view = viewOver(bytes);
    const entries = new Map<string, ZipEntry>();
    // Headers come first and are sorted by position afterwards, so that overlaps show.
    const spans: { name: string; start: number; end: number }[] = [];
    let at = 0;
    for (let index = 0; index < count; index++) {
      if (at + 46 > size || view.getUint32(at, true) !== 0x02014b50) throw this.error("format", "its zip directory is damaged");
      const flags = view.getUint16(at + 8, true);
      const method = view.getUint16(at + 10, true);
      const [nameLength, extraLength, commentLength] = [view.getUint16(at + 28, true), view.getUint16(at + 30, true), view.getUint16(at + 32, true)];
      const next = at + 46 + nameLength + extraLength + commentLength;
      if (next > size) throw this.error("format", "its zip directory is damaged");
      const name = Buffer.from(bytes.buffer, bytes.byteOffset + at + 46, nameLength).toString("utf8");
      if (flags & 1) throw this.error("refused", `entry ${show(name)} is encrypted`);
      if (method !== 0 && method !== 8) throw this.error("refused", `entry ${show(name)} has compression method ${method}; stored and deflated ones are read`);

      const extra = bytes.subarray(at + 46 + nameLength, at + 46 + nameLength + extraLength);
      const wide = new Zip64Fields(extra);
      const unpackedSize = wide.resolve(view.getUint32(at + 24, true));
      const packedSize = wide.resolve(view.getUint32(at + 20, true));
      const start = wide.resolve(view.getUint32(at + 42, true));
      if (unpackedSize === undefined || packedSize === undefined || start === undefined) throw this.error("format", `entry ${show(name)} has no zip64 sizes`);
      if (method === 0 && packedSize !== unpackedSize) throw this.error("format", `entry ${show(name)} is stored with two sizes`);
      if (entries.has(name)) throw this.error("format", `has two entries ${show(name)}`);

      const data = this.dataOffset(name, start, offset);
      if (data + packedSize > offset) throw this.error("format", `entry ${show(name)} reaches into the zip directory`);
      spans.push({ name, start, end: data + packedSize });
      entries.set(name, { name, deflated: method === 8, crc: view.getUint32(at + 16, true), packedSize, size: unpackedSize, offset: data });
      at = next;
    }
    spans.sort((a, b) => a.start - b.start);
    spans.forEach((span, i) => {
      const next = spans[i + 1];
      if (next && span.end > next.start) throw this.error("format", `entries ${show(span.name)} and ${show(next.name)} overlap`);
    });
    return entries;
  }

  /** Where the data of the entry whose local header is at `start` begins. */
  private dataOffset(name: string, start: number, directory: number): number {
    if (start + 30 > directory) throw this.error("format", `entry ${show(name)} lies outside the file`);
    const header = viewOver(this.source.read(start, 30));
    if (header.getUint32(0, true) !== 0x04034b50) throw this.error("format", `entry ${show(name)} has no header`);
    return start + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  }

  /** The end record is behind everything but a comment of up to 65,535 bytes. */
  private findDirectory(): { count: number; size: number; offset: number } {
    const tailSize = Math.min(this.source.size, 22 + U16);
    const tailStart = this.source.size - tailSize;
    const tail = viewOver(this.source.read(tailStart, tailSize));
    for (let at = tailSize - 22; at >= 0; at--) {
      if (tail.getUint32(at, true) !== 0x06054b50 || at + 22 + tail.getUint16(at + 20, true) !== tailSize) continue;
      const end = tailStart + at;
      const record = { count: tail.getUint16(at + 10, true), size: tail.getUint32(at + 12, true), offset: tail.getUint32(at + 16, true) };
      // Zip64 is asked for by a saturated field; PyTorch also writes the locator when no field needs it.
      const isWide = record.count === U16 || record.size === U32 || record.offset === U32;
      const directory = isWide ? this.findWideDirectory(end) : record;
      if (directory.offset + directory.size > end) throw this.error("format", "its zip directory lies outside the file");
      return directory;
    }
    throw this.error("format", "ends without a zip directory; it was probably cut off");
  }

  private findWideDirectory(end: number): { count: number; size: number; offset: number } {
    if (end < 20) throw this.error("format", "has no zip64 directory");
    const locator = viewOver(this.source.read(end - 20, 20));
    if (locator.getUint32(0, true) !== 0x07064b50) throw this.error("format", "has no zip64 directory");
    const record = viewOver(this.source.read(Number(locator.getBigUint64(8, true)), 56));
    if (record.getUint32(0, true) !== 0x06064b50) throw this.error("format", "has no zip64 directory");
    return {
      count: Number(record.getBigUint64(32, true)),
      size: Number(record.getBigUint64(40, true)),
      offset: Number(record.getBigUint64(48, true)),
    };
  }

  private error(kind: "format" | "refused", detail: string, cause?: unknown): CheckpointError {
    return new CheckpointError(this.source.file, kind, detail, { cause });
  }
}

/** The zip64 extra field (id 1): 8-byte values, in order, for the 4-byte fields that are saturated. */
class Zip64Fields {
  private readonly values: number[] = [];

  constructor(extra: Uint8Array) {
    const view = viewOver(extra);
    let at = 0;
    while (at + 4 <= extra.byteLength) {
      const [id, length] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
      const end = at + 4 + length;
      if (end > extra.byteLength) return;
      if (id === 1) {
        for (let value = at + 4; value + 8 <= end; value += 8) this.values.push(Number(view.getBigUint64(value, true)));
        return;
      }
      at = end;
    }
  }

  /** `field`, or the next wide value in its place; undefined when there is none. */
  resolve(field: number): number | undefined {
    return field === U32 ? this.values.shift() : field;
  }
}

function viewOver(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function show(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}
