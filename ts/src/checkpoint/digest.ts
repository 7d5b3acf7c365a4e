/** One number for all tensors of a checkpoint, to compare runs. */
import { createHash } from "node:crypto";
import { Tensor } from "./tensor.js";
import { readTorch } from "./torch.js";
import { Namespace, Tuple, type Key, type Value } from "./value.js";

export interface CheckpointDigest {
  /** SHA-256, in hexadecimal digits. */
  sha256: string;
  /** Number of tensors it covers. */
  tensors: number;
}

/** The digest of every tensor in a file of `torch.save`. Throws `CheckpointError`. */
export function digestCheckpoint(file: string): CheckpointDigest {
  return digestValue(readTorch(file));
}

/**
 * The digest of every tensor within `value`. It covers each tensor's path, element type, shape and bytes, and depends on
 * nothing else: not on the order of keys, the file format, or values that are no tensors.
 */
export function digestValue(value: Value): CheckpointDigest {
  const tensors: { path: string; tensor: Tensor }[] = [];
  collect(value, [], tensors);
  tensors.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  const hash = createHash("sha256");
  for (const { path, tensor } of tensors) {
    hash.update(`${path} ${tensor.dtype} [${tensor.shape.join(",")}]\n`);
    hash.update(tensor.data);
  }
  return { sha256: hash.digest("hex"), tensors: tensors.length };
}

/** Paths are JSON arrays of keys, so that no two places share one. */
function collect(value: Value, path: readonly (string | number)[], into: { path: string; tensor: Tensor }[]): void {
  if (value instanceof Tensor) into.push({ path: JSON.stringify(path), tensor: value });
  else if (Array.isArray(value)) value.forEach((item, i) => collect(item, [...path, i], into));
  else if (value instanceof Tuple) value.items.forEach((item, i) => collect(item, [...path, i], into));
  else if (value instanceof Namespace) collect(value.fields, path, into);
  else if (value instanceof Map) for (const [key, item] of value) collect(item, [...path, keyText(key)], into);
}

function keyText(key: Key): string | number {
  return typeof key === "string" || typeof key === "number" ? key : String(key);
}
