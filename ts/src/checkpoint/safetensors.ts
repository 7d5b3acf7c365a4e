/**
 * The safetensors format: 8 bytes (length of the header), the header (JSON: name → dtype, shape, range of
 * bytes), then the tensors' bytes, without gaps or overlaps.
 *
 * Source: <https://github.com/huggingface/safetensors>, section "Format".
 */
import { CheckpointError, reason } from "./errors.js";
import { FileSource, type Sink } from "./files.js";
import { elementCount, itemSize, Tensor, type Dtype } from "./tensor.js";

/** The format's own limit. */
const MAX_HEADER = 100_000_000;
/** The header is filled with spaces up to a multiple of this, so that the data is aligned. */
const ALIGNMENT = 8;

const NAMES: Record<Dtype, string> = {
  f32: "F32", f16: "F16", bf16: "BF16", f64: "F64", i64: "I64", i32: "I32", i16: "I16", i8: "I8", u8: "U8", bool: "BOOL",
};
const DTYPES: ReadonlyMap<unknown, Dtype> = new Map((Object.keys(NAMES) as Dtype[]).map((dtype) => [NAMES[dtype], dtype]));

export interface Safetensors {
  /** In the order of their bytes. */
  tensors: Map<string, Tensor>;
  /** The header's `__metadata__`. */
  metadata: Map<string, string>;
}

interface Slot {
  name: string;
  dtype: Dtype;
  shape: number[];
  begin: number;
  end: number;
}

/** Reads every tensor of a file. Throws `CheckpointError`. */
export function readSafetensors(file: string): Safetensors {
  return FileSource.with(file, (source) => {
    const error = (detail: string): CheckpointError => new CheckpointError(file, "format", detail);
    const length = Number(new DataView(source.read(0, 8).buffer).getBigUint64(0, true));
    if (length > MAX_HEADER) throw new CheckpointError(file, "refused", `its header has ${length} bytes; at most ${MAX_HEADER} are read`);
    const { slots, metadata } = readHeader(source.read(8, length), error);

    slots.sort((a, b) => a.begin - b.begin || a.end - b.end);
    let at = 0;
    for (const { name, begin, end } of slots) {
      if (begin !== at) throw error(`tensor ${show(name)} begins at byte ${begin} of the data, not ${at}`);
      at = end;
    }
    const dataSize = source.size - 8 - length;
    if (at !== dataSize) throw error(`its tensors take ${at} bytes, but ${dataSize} are there`);
    const tensors = new Map(slots.map(({ name, dtype, shape, begin, end }) => (
      [name, new Tensor(dtype, shape, source.read(8 + length + begin, end - begin))] as const
    )));
    return { tensors, metadata };
  });
}

function readHeader(bytes: Uint8Array, error: (detail: string) => CheckpointError): { slots: Slot[]; metadata: Map<string, string> } {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw error(`its header is not JSON (${reason(cause).slice(0, 120)})`);
  }
  if (!isObject(header)) throw error("its header is not an object");
  const slots: Slot[] = [];
  const metadata = new Map<string, string>();
  for (const [name, entry] of Object.entries(header)) {
    if (!isObject(entry)) throw error(`tensor ${show(name)} has no description`);
    if (name === "__metadata__") {
      for (const [key, value] of Object.entries(entry)) {
        if (typeof value !== "string") throw error(`metadata ${show(key)} must be a string`);
        metadata.set(key, value);
      }
      continue;
    }
    const { dtype: dtypeName, shape, data_offsets: range } = entry;
    const dtype = DTYPES.get(dtypeName);
    if (!dtype) throw error(`tensor ${show(name)} has dtype ${show(String(dtypeName))}, which is not read`);
    if (!isCounts(shape)) throw error(`tensor ${show(name)} must have a shape of whole numbers`);
    if (!isCounts(range) || range.length !== 2) throw error(`tensor ${show(name)} must have two data_offsets`);
    const [begin, end] = range as [number, number];
    if (end - begin !== elementCount(shape) * itemSize(dtype)) {
      throw error(`tensor ${show(name)} has ${end - begin} bytes, which is not what its shape and dtype need`);
    }
    slots.push({ name, dtype, shape, begin, end });
  }
  return { slots, metadata };
}

/** Writes tensors in the order given. Larger elements first keep every tensor aligned; the format does not ask for it. */
export function writeSafetensors(sink: Sink, tensors: ReadonlyMap<string, Tensor>, metadata: ReadonlyMap<string, string> = new Map()): void {
  const header = new Map<string, unknown>();
  if (metadata.size > 0) header.set("__metadata__", Object.fromEntries(metadata));
  let at = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    header.set(name, { dtype: NAMES[dtype], shape, data_offsets: [at, at + data.byteLength] });
    at += data.byteLength;
  }
  // Object.fromEntries defines own properties, so a tensor may even be called `__proto__`.
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)), "utf8");
  const padding = (ALIGNMENT - (json.byteLength % ALIGNMENT)) % ALIGNMENT;
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength + padding));
  sink.write(Buffer.concat([length, json, Buffer.alloc(padding, " ")]));
  for (const { data } of tensors.values()) sink.write(data);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

function show(name: string): string {
  return JSON.stringify(name.slice(0, 80));
}
