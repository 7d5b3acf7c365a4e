/**
 * Writes zip archives as `torch.save` does: stored entries, each beginning at a multiple of 64 bytes so that
 * it can be mapped into memory, CRC-32, zip64 where 32 bits are not enough.
 *
 * Bytes go to the sink one after the other and nothing is kept but the directory.
 */
import { crc32 } from "node:zlib";
import type { Sink } from "../files.js";

/** PyTorch's alignment of records. */
const ALIGNMENT = 64;
const U16 = 0xffff;
const U32 = 0xffffffff;
/** Version 4.5 of the format: zip64. Version 0 is what PyTorch asks for otherwise. */
const ZIP64_VERSION = 45;
/** Names are UTF-8. */
const FLAGS = 0x0800;

interface Written {
  name: Buffer;
  crc: number;
  size: number;
  offset: number;
}

export class ZipWriter {
  private readonly written: Written[] = [];

  /** The archive begins at the sink's position 0. */
  constructor(private readonly sink: Sink) {}

  /** Appends an entry. */
  add(name: string, data: Uint8Array): void {
    const entry: Written = { name: Buffer.from(name, "utf8"), crc: crc32(data), size: data.byteLength, offset: this.sink.position };
    const wide = entry.size >= U32 ? wideField([entry.size, entry.size]) : Buffer.alloc(0);
    // An extra field of PyTorch's own, id "FB", whose length brings the data to the next boundary.
    const unpadded = entry.offset + 30 + entry.name.byteLength + wide.byteLength + 4;
    const padding = (ALIGNMENT - (unpadded % ALIGNMENT)) % ALIGNMENT;
    const pad = Buffer.alloc(4 + padding, "Z", "latin1");
    pad.write("FB", "latin1");
    pad.writeUInt16LE(padding, 2);

    const header = Buffer.alloc(30);
    header.writeUInt32LE(0x04034b50, 0);
    header.writeUInt16LE(wide.byteLength > 0 ? ZIP64_VERSION : 0, 4);
    header.writeUInt16LE(FLAGS, 6);
    header.writeUInt32LE(entry.crc, 14);
    header.writeUInt32LE(Math.min(entry.size, U32), 18);
    header.writeUInt32LE(Math.min(entry.size, U32), 22);
    header.writeUInt16LE(entry.name.byteLength, 26);
    header.writeUInt16LE(wide.byteLength + pad.byteLength, 28);
    this.sink.write(Buffer.concat([header, entry.name, wide, pad]));
    this.sink.write(data);
    this.written.push(entry);
  }

  /** Writes the directory. Nothing can be added afterwards. */
  finish(): void {
    const offset = this.sink.position;
    for (const entry of this.written) this.sink.write(directoryRecord(entry));
    const size = this.sink.position - offset;
    const count = this.written.length;
    if (count >= U16 || size >= U32 || offset >= U32) this.sink.write(wideEnd(count, size, offset));

    const end = Buffer.alloc(22);
    end.writeUInt32LE(0x06054b50, 0);
    end.writeUInt16LE(Math.min(count, U16), 8);
    end.writeUInt16LE(Math.min(count, U16), 10);
    end.writeUInt32LE(Math.min(size, U32), 12);
    end.writeUInt32LE(Math.min(offset, U32), 16);
    this.sink.write(end);
  }
}

function directoryRecord({ name, crc, size, offset }: Written): Buffer {
  const values = [...(size >= U32 ? [size, size] : []), ...(offset >= U32 ? [offset] : [])];
  const wide = values.length > 0 ? wideField(values) : Buffer.alloc(0);
  const record = Buffer.alloc(46);
  record.writeUInt32LE(0x02014b50, 0);
  record.writeUInt16LE(wide.byteLength > 0 ? ZIP64_VERSION : 0, 6);
  record.writeUInt16LE(FLAGS, 8);
  record.writeUInt32LE(crc, 16);
  record.writeUInt32LE(Math.min(size, U32), 20);
  record.writeUInt32LE(Math.min(size, U32), 24);
  record.writeUInt16LE(name.byteLength, 28);
  record.writeUInt16LE(wide.byteLength, 30);
  record.writeUInt32LE(Math.min(offset, U32), 42);
  return Buffer.concat([record, name, wide]);
}

/** The zip64 extra field (id 1). */
function wideField(values: number[]): Buffer {
  const field = Buffer.alloc(4 + 8 * values.length);
  field.writeUInt16LE(1, 0);
  field.writeUInt16LE(8 * values.length, 2);
  values.forEach((value, i) => field.writeBigUInt64LE(BigInt(value), 4 + 8 * i));
  return field;
}

/** The zip64 end record, 56 bytes, and its locator, 20. It stands right behind the directory. */
function wideEnd(count: number, size: number, offset: number): Buffer {
  const end = Buffer.alloc(76);
  end.writeUInt32LE(0x06064b50, 0);
  end.writeBigUInt64LE(44n, 4);
  end.writeUInt16LE(ZIP64_VERSION, 12);
  end.writeUInt16LE(ZIP64_VERSION, 14);
  end.writeBigUInt64LE(BigInt(count), 24);
  end.writeBigUInt64LE(BigInt(count), 32);
  end.writeBigUInt64LE(BigInt(size), 40);
  end.writeBigUInt64LE(BigInt(offset), 48);
  end.writeUInt32LE(0x07064b50, 56);
  end.writeBigUInt64LE(BigInt(offset + size), 64);
  end.writeUInt32LE(1, 72);
  return end;
}
