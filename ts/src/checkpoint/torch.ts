/**
 * Objects as `torch.save` writes them and `torch.load` reads them, in the zip format and the one before it.
 *
 * A zip archive holds one folder: `data.pkl` (the object), `byteorder`, `data/0`, `data/1`, … (the storages) and
 * `version`. Source: `_save` and `_load` in PyTorch's `torch/serialization.py`.
 */
import { CheckpointError } from "./errors.js";
import { FileSource, type Sink } from "./files.js";
import { isLegacy, LEGACY_HEAD, readLegacy } from "./legacy.js";
import { readPickle } from "./pickle/read.js";
import { writePickle } from "./pickle/write.js";
import type { Value, Writable } from "./value.js";
import { ZipReader } from "./zip/read.js";
import { ZipWriter } from "./zip/write.js";

/** Bytes of a pickle; those of checkpoints have a few hundred kilobytes. */
const MAX_PICKLE = 64 * 2 ** 20;
const ZIP_HEAD = Uint8Array.from([0x50, 0x4b, 3, 4]);
/** Format version of the archive that today's PyTorch writes by default. */
const VERSION = "3\n";

/**
 * The object in a file of `torch.save`. Its tensors take the file's size in memory once (twice at most, when
 * they are views with gaps). Throws `CheckpointError`.
 */
export function readTorch(file: string): Value {
  return FileSource.with(file, (source) => {
    const head = source.read(0, Math.min(LEGACY_HEAD, source.size));
    if (isLegacy(head)) return readLegacy(source, MAX_PICKLE);
    if (ZIP_HEAD.every((byte, i) => head[i] === byte)) return readZip(source);
    throw new CheckpointError(file, "format", "is not a PyTorch checkpoint");
  });
}

function readZip(source: FileSource): Value {
  const { file } = source;
  const zip = new ZipReader(source);
  const pickleName = [...zip.entries.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
  const pickleEntry = pickleName === undefined ? undefined : zip.entries.get(pickleName);
  if (pickleName === undefined || !pickleEntry) throw new CheckpointError(file, "format", "is a zip archive without a data.pkl, not a PyTorch checkpoint");
  if (pickleEntry.size > MAX_PICKLE) throw new CheckpointError(file, "refused", `its data.pkl has ${pickleEntry.size} bytes; at most ${MAX_PICKLE} are read`);
  const folder = pickleName.slice(0, -"data.pkl".length);

  const order = zip.entries.get(`${folder}byteorder`);
  if (order && order.size < 16 && Buffer.from(zip.read(order)).toString("latin1") !== "little") {
    throw new CheckpointError(file, "format", "was written by a big-endian machine");
  }

  const storages = new Map<string, Uint8Array>();
  const pickle = readPickle(zip.read(pickleEntry), 0, {
    file,
    copyBytes: source.size,
    storage: (key, count, size) => {
      let bytes = storages.get(key);
      if (!bytes) {
        const entry = zip.entries.get(`${folder}data/${key}`);
        if (!entry) throw new CheckpointError(file, "format", `has no entry for storage ${JSON.stringify(key.slice(0, 80))}`);
        bytes = zip.read(entry);
        storages.set(key, bytes);
      }
      if (bytes.byteLength < count * size) throw new CheckpointError(file, "format", `storage ${key} has ${bytes.byteLength} bytes, not ${count * size}`);
      return bytes;
    },
  });
  pickle.finish();
  return pickle.value;
}

/** Writes `value` to `sink` in the zip format. `file` is named in errors. Nothing but the pickle and one tensor is held in memory. */
export function writeTorch(sink: Sink, value: Writable, file: string): void {
  const { pickle, storages } = writePickle(value, file);
  const zip = new ZipWriter(sink);
  zip.add("archive/data.pkl", pickle);
  zip.add("archive/byteorder", Buffer.from("little"));
  const buffer = new Uint8Array(Math.max(0, ...storages.filter(({ held }) => !held).map(({ byteLength }) => byteLength)));
  storages.forEach((tensor, index) => zip.add(`archive/data/${index}`, tensor.into(buffer)));
  zip.add("archive/version", Buffer.from(VERSION));
  zip.finish();
}
