/**
 * Pickle writer, protocol 2 as `torch.save` uses it: plain containers, tensors and namespaces.
 *
 * Tensors are written as references to storages, numbered from "0"; their bytes follow outside the pickle.
 * Tensors over the very same memory share a storage, as tied parameters do in PyTorch.
 */
import { CheckpointError } from "../errors.js";
import { elementCount, Tensor, type Dtype } from "../tensor.js";
import { Float, kindOf, Namespace, OrderedDict, Tuple, type Writable } from "../value.js";

/** Deeper values are our own mistake: a reader refuses them too. */
const MAX_DEPTH = 64;

const STORAGE_CLASS: Record<Dtype, string> = {
  f32: "Float", f16: "Half", bf16: "BFloat16", f64: "Double", i64: "Long", i32: "Int", i16: "Short", i8: "Char", u8: "Byte", bool: "Bool",
};

/** The pickle of `value`, and tensors that are storage 0, 1, … in order. `file` is named in errors (kind `write`). */
export function writePickle(value: Writable, file: string): { pickle: Uint8Array; storages: Tensor[] } {
  const writer = new Writer(file);
  writer.save(value, 0);
  return { pickle: writer.finish(), storages: writer.storages };
}

class Writer {
  readonly storages: Tensor[] = [];
  private readonly parts: Buffer[] = [Buffer.from([0x80, 2])];
  /** Storage number by memory: buffer, then offset, length and type. */
  private readonly known = new Map<ArrayBufferLike, Map<string, number>>();

  constructor(private readonly file: string) {}

  finish(): Uint8Array {
    this.op(".");
    return Buffer.concat(this.parts);
  }

  save(value: Writable, depth: number): void {
    if (depth > MAX_DEPTH) throw this.error(`cannot hold containers nested more than ${MAX_DEPTH} deep`);
    if (value === null) return this.op("N");
    if (value instanceof Float) return this.float(value.value);
    if (value instanceof Tensor) return this.tensor(value);
    if (value instanceof Uint8Array) {
      this.global("_codecs", "encode");
      this.string(Buffer.from(value).toString("latin1"));
      this.string("latin1");
      return this.op("\x86R");
    }
    if (value instanceof Tuple) return this.tuple(value.items, depth);
    if (value instanceof Namespace) {
      this.global("argparse", "Namespace");
      this.op(")\x81");
      this.dict(value.fields, depth, "}");
      return this.op("b");
    }
    if (value instanceof Map) {
      if (!(value instanceof OrderedDict)) return this.dict(value, depth, "}");
      this.global("collections", "OrderedDict");
      return this.dict(value, depth, ")R");
    }
    if (Array.isArray(value)) {
      this.op("](");
      for (const item of value as readonly Writable[]) this.save(item, depth + 1);
      return this.op("e");
    }
    switch (typeof value) {
      case "boolean": return this.op(value ? "\x88" : "\x89");
      case "string": return this.string(value);
      case "bigint": return this.long(value);
      case "number": return Number.isSafeInteger(value) && !Object.is(value, -0) ? this.integer(value) : this.float(value);
      default: throw this.error(`cannot hold ${kindOf(value)}`);
    }
  }

  private dict(entries: ReadonlyMap<Writable, Writable>, depth: number, empty: string): void {
    this.op(`${empty}(`);
    for (const [key, value] of entries) {
      this.save(key, depth + 1);
      this.save(value, depth + 1);
    }
    this.op("u");
  }

  private tuple(items: readonly Writable[], depth: number): void {
    this.op("(");
    for (const item of items) this.save(item, depth + 1);
    this.op("t");
  }

  /** `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`. */
  private tensor(tensor: Tensor): void {
    const { dtype, shape } = tensor;
    this.global("torch._utils", "_rebuild_tensor_v2");
    this.op("((");
    this.string("storage");
    this.global("torch", `${STORAGE_CLASS[dtype]}Storage`);
    this.string(String(this.storageOf(tensor)));
    this.string("cpu");
    this.integer(elementCount(shape));
    this.op("tQ");
    this.integer(0);
    const strides = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
    this.tuple(shape, 0);
    this.tuple(strides, 0);
    this.op("\x89");
    this.global("collections", "OrderedDict");
    this.op(")RtR");
  }

  private storageOf(tensor: Tensor): number {
    const data = tensor.held;
    if (!data) return this.storages.push(tensor) - 1;
    let ranges = this.known.get(data.buffer);
    if (!ranges) this.known.set(data.buffer, (ranges = new Map()));
    const range = `${data.byteOffset} ${data.byteLength} ${tensor.dtype}`;
    const known = ranges.get(range);
    if (known !== undefined) return known;
    const number = this.storages.push(tensor) - 1;
    ranges.set(range, number);
    return number;
  }

  private global(module: string, name: string): void {
    this.op(`c${module}\n${name}\n`);
  }

  private string(text: string): void {
    const utf8 = Buffer.from(text, "utf8");
    const head = Buffer.alloc(5);
    head.write("X", "latin1");
    head.writeUInt32LE(utf8.byteLength, 1);
    this.parts.push(head, utf8);
  }

  private integer(value: number): void {
    if (value >= 0 && value < 256) return void this.parts.push(Buffer.from([0x4b, value]));
    if (value < -(2 ** 31) || value >= 2 ** 31) return this.long(BigInt(value));
    const bytes = Buffer.alloc(5);
    bytes.write("J", "latin1");
    bytes.writeInt32LE(value, 1);
    this.parts.push(bytes);
  }

  /** LONG1: two's complement, little-endian, with room for the sign. */
  private long(value: bigint): void {
    const bytes: number[] = [];
    let rest = value;
    do {
      bytes.push(Number(rest & 255n));
      rest >>= 8n;
    } while (rest !== (bytes[bytes.length - 1]! >= 128 ? -1n : 0n));
    if (bytes.length > 255) throw this.error(`cannot hold an integer of ${bytes.length} bytes`);
    this.parts.push(Buffer.from([0x8a, bytes.length, ...bytes]));
  }

  private float(value: number): void {
    const bytes = Buffer.alloc(9);
    bytes.write("G", "latin1");
    bytes.writeDoubleBE(value, 1);
    this.parts.push(bytes);
  }

  private op(codes: string): void {
    this.parts.push(Buffer.from(codes, "latin1"));
  }

  private error(detail: string): CheckpointError {
    return new CheckpointError(this.file, "write", detail);
  }
}
