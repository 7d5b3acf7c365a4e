/**
 * Reader of the format that `torch.save` wrote before version 1.6: five pickles (magic number, protocol version,
 * facts about the machine, the object, the keys of its storages), then each storage as a count of elements (8 bytes) and the elements.
 *
 * Source: `_legacy_load` in PyTorch's `torch/serialization.py`.
 */
import { CheckpointError } from "./errors.js";
import type { FileSource } from "./files.js";
import { readPickle, type PickleContext } from "./pickle/read.js";
import type { Value } from "./value.js";

const MAGIC = 0x1950a86a20f9469cfc6cn;
const PROTOCOL = 1001;
/** Bytes that hold the first pickle, whatever its protocol. */
export const LEGACY_HEAD = 64;

/** Whether the file's first `LEGACY_HEAD` bytes are those of this format. */
export function isLegacy(head: Uint8Array): boolean {
  try {
    return readPickle(head, 0, withoutStorages("")).value === MAGIC;
  } catch (thrown) {
    if (thrown instanceof CheckpointError) return false;
    throw thrown;
  }
}

/** For pickles that hold no tensors. */
function withoutStorages(file: string): PickleContext {
  return {
    file,
    copyBytes: 0,
    storage: () => {
      throw new CheckpointError(file, "format", "refers to a storage outside its object");
    },
  };
}

/** The object in the file. `maxPickle`: bytes that the five pickles may take together. */
export function readLegacy(source: FileSource, maxPickle: number): Value {
  const { file } = source;
  const error = (detail: string): CheckpointError => new CheckpointError(file, "format", detail);
  const bytes = source.read(0, Math.min(source.size, maxPickle));
  const plain = withoutStorages(file);
  const magic = readPickle(bytes, 0, plain);
  const protocol = readPickle(bytes, magic.end, plain);
  if (protocol.value !== PROTOCOL) throw error(`has version ${String(protocol.value)} of the format before zip; ${PROTOCOL} is read`);
  const machine = readPickle(bytes, protocol.end, plain);
  if (machine.value instanceof Map && machine.value.get("little_endian") === false) throw error("was written by a big-endian machine");

  // Storages are only announced here; their bytes follow. All of them together fit in the rest of the file.
  const storages = new Map<string, { count: number; bytes: Uint8Array }>();
  let announced = 0;
  const object = readPickle(bytes, machine.end, {
    file,
    copyBytes: source.size,
    storage: (key, count, size) => {
      const known = storages.get(key);
      if (known) {
        if (known.bytes.byteLength !== count * size) throw error(`storage ${show(key)} is announced with two sizes`);
        return known.bytes;
      }
      announced += count * size;
      if (announced > source.size) throw error("announces more data than the file is long");
      const bytes = new Uint8Array(count * size);
      storages.set(key, { count, bytes });
      return bytes;
    },
  });

  const keys = readPickle(bytes, object.end, plain);
  if (!Array.isArray(keys.value) || new Set(keys.value).size !== storages.size || keys.value.length !== storages.size) {
    throw error("lists other storages than its object refers to");
  }
  let at = keys.end;
  for (const key of keys.value) {
    const storage = typeof key === "string" ? storages.get(key) : undefined;
    if (!storage) throw error("lists other storages than its object refers to");
    const count = new DataView(source.read(at, 8).buffer).getBigInt64(0, true);
    if (count !== BigInt(storage.count)) throw error(`storage ${show(key)} has ${count} elements, not ${storage.count}`);
    source.readInto(at + 8, storage.bytes);
    at += 8 + storage.bytes.byteLength;
  }
  object.finish();
  return object.value;
}

function show(key: Value): string {
  return typeof key === "string" ? JSON.stringify(key.slice(0, 80)) : "without a name";
}
