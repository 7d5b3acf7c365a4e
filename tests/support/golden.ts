/** Where the golden fixtures are. Tests that need them are skipped, with the reason, where the folder is absent. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { readSafetensors } from "../../ts/src/checkpoint/safetensors.js";
import { elementCount, toFloat32, type Tensor } from "../../ts/src/checkpoint/tensor.js";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const wanted = resolve(root, process.env["ESVIT_GOLDEN"] ?? "../shared/golden");

/** True when the set has the part `sub` (a sub-folder or a file); says so where it has not: a set may be a part of the whole. */
export function hasGolden(sub: string): boolean {
  const path = join(wanted, sub);
  if (existsSync(path)) return true;
  console.warn(`skipped: no golden fixtures at ${path} (ESVIT_GOLDEN names another folder)`);
  return false;
}

/** Paths of the files in the sub-folder `sub`, sorted; those that end in `ending` when it is given. */
export function fixtures(sub: string, ending = ""): string[] {
  const folder = join(wanted, sub);
  if (!existsSync(folder)) return [];
  return readdirSync(folder).filter((name) => name.endsWith(ending)).sort().map((name) => join(folder, name));
}

/** A fixture's catalog (`X.json`) and the arrays beside it (`X.safetensors`). */
export function readFixture<T>(json: string): { catalog: T; tensors: Map<string, Tensor> } {
  return {
    catalog: JSON.parse(readFileSync(json, "utf8")) as T,
    tensors: readSafetensors(json.replace(/\.json$/, ".safetensors")).tensors,
  };
}

/** Digest the fixtures keep of a large array: float64 sums over its f32 values, and 64 of them. */
export interface Digest {
  sum: number;
  l2: number;
  absmax: number;
  samples: Float32Array;
}

/** The digest of an array, computed as the fixtures' README states. */
export function digestOf(values: ArrayLike<number>): Digest {
  let [sum, squares, absmax] = [0, 0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    sum += value;
    squares += value * value;
    absmax = Math.max(absmax, Math.abs(value));
  }
  const samples = Float32Array.from({ length: 64 }, (_, j) => values[Math.floor((j * (values.length - 1)) / 63)]!);
  return { sum, l2: Math.sqrt(squares), absmax, samples };
}

/** Row `row` of a group's digests; see the README, section 2. */
export function groupDigest(tensors: ReadonlyMap<string, Tensor>, group: string, row: number): Digest {
  const stats = tensors.get(`${group}#stats`);
  const samples = tensors.get(`${group}#samples`);
  if (!stats || !samples) throw new Error(`the fixture has no digests of ${group}`);
  const view = new DataView(stats.data.buffer, stats.data.byteOffset, stats.data.byteLength);
  const [sum, l2, absmax] = [0, 1, 2].map((column) => view.getFloat64(8 * (3 * row + column), true)) as [number, number, number];
  return { sum, l2, absmax, samples: toFloat32(samples).slice(64 * row, 64 * row + 64) };
}

/** Rows of a group's digests. */
export function groupRows(tensors: ReadonlyMap<string, Tensor>, group: string): number {
  const stats = tensors.get(`${group}#stats`);
  return stats ? elementCount(stats.shape) / 3 : 0;
}
