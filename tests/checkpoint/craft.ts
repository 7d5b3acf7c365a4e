/** Builds pickles and archives byte by byte, also such as no writer would write. */
import { crc32, deflateRawSync } from "node:zlib";

/** Bytes from text (one byte a character), numbers and bytes. */
export function bytes(...parts: (string | number | Uint8Array)[]): Buffer {
  return Buffer.concat(parts.map((part) => (
    typeof part === "string" ? Buffer.from(part, "latin1") : typeof part === "number" ? Buffer.from([part]) : Buffer.from(part)
  )));
}

export function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}

export function u64(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(value);
  return buffer;
}

/** BINUNICODE. */
export function text(value: string): Buffer {
  const utf8 = Buffer.from(value, "utf8");
  return bytes("X", u32(utf8.byteLength), utf8);
}

/** An int of any size (LONG1). */
export function long(value: bigint): Buffer {
  return bytes("\x8a", 9, u64(value & 0xffffffffffffffffn), value < 0n ? 255 : 0);
}

/** `_rebuild_tensor_v2` of a storage of floats: the opcodes of the numbers are given. */
export function tensor(key: string, count: bigint, offset: bigint, shape: Buffer[], strides: Buffer[], legacy = false): Buffer {
  return bytes(
    "ctorch._utils\n_rebuild_tensor_v2\n((", text("storage"), "ctorch\nFloatStorage\n", text(key), text("cpu"), long(count), legacy ? "N" : "", "tQ",
    long(offset), "(", ...shape, "t(", ...strides, "t\x89ccollections\nOrderedDict\n)RtR",
  );
}

export interface Entry {
  name: string;
  data: Uint8Array;
  deflate?: boolean;
  /** Values to write in place of the true ones. */
  crc?: number;
  size?: number;
  offset?: number;
  flags?: number;
  method?: number;
}

/** A zip archive of `entries`. */
export function archive(entries: Entry[]): Buffer {
  const body: Buffer[] = [];
  const directory: Buffer[] = [];
  let position = 0;
  for (const entry of entries) {
    const packed = entry.deflate ? deflateRawSync(entry.data) : Buffer.from(entry.data);
    const name = Buffer.from(entry.name);
    const header = Buffer.alloc(30);
    header.writeUInt32LE(0x04034b50, 0);
    header.writeUInt16LE(name.byteLength, 26);
    const record = Buffer.alloc(46);
    record.writeUInt32LE(0x02014b50, 0);
    record.writeUInt16LE(entry.flags ?? 0, 8);
    record.writeUInt16LE(entry.method ?? (entry.deflate ? 8 : 0), 10);
    record.writeUInt32LE(entry.crc ?? crc32(entry.data), 16);
    record.writeUInt32LE(entry.deflate ? packed.byteLength : entry.size ?? packed.byteLength, 20);
    record.writeUInt32LE(entry.size ?? entry.data.byteLength, 24);
    record.writeUInt16LE(name.byteLength, 28);
    record.writeUInt32LE(entry.offset ?? position, 42);
    body.push(header, name, packed);
    directory.push(record, name);
    position += header.byteLength + name.byteLength + packed.byteLength;
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(size, 12);
  end.writeUInt32LE(position, 16);
  return Buffer.concat([...body, ...directory, end]);
}

/** A checkpoint in the zip format with this pickle and these storages. */
export function checkpoint(pickle: Uint8Array, storages: Record<string, Uint8Array> = {}): Buffer {
  const data = Object.entries(storages).map(([key, stored]) => ({ name: `archive/data/${key}`, data: stored }));
  return archive([{ name: "archive/data.pkl", data: pickle }, ...data, { name: "archive/version", data: Buffer.from("3\n") }]);
}

/** A checkpoint in the format before zip. `storages` is what follows the list of keys. */
export function legacy(pickle: Uint8Array, keys: string[], storages: Uint8Array): Buffer {
  return bytes(
    "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "\x80\x02M", 0xe9, 3, ".", "\x80\x02}.",
    pickle, "\x80\x02](", ...keys.map(text), "e.", storages,
  );
}
