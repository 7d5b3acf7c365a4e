import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { fill, type FillKind } from "./fill.js";
import { digestOf, fixtures, hasGolden } from "./golden.js";

interface Vector {
  name: string;
  shape: number[];
  kind: FillKind;
  indices: number[];
  values: number[];
  digest: { sum: number; l2: number; absmax: number };
}

const golden = hasGolden("fill_vectors.json");

describe.skipIf(!golden)("fill", () => {
  const path = fixtures("", "fill_vectors.json")[0];
  const { vectors } = (path ? JSON.parse(readFileSync(path, "utf8")) : { vectors: [] }) as { vectors: Vector[] };

  it.each(vectors.map((vector) => [vector.name, vector] as const))("gives the published values of %s", (_, vector) => {
    const values = fill(vector.name, vector.shape, vector.kind);
    expect(vector.indices.map((index) => values[index])).toEqual(vector.values);
    const { sum, l2, absmax } = digestOf(values);
    expect(absmax).toBe(vector.digest.absmax);
    // Both are float64 sums, in another order.
    expect(l2).toBeCloseTo(vector.digest.l2, 9);
    expect(sum).toBeCloseTo(vector.digest.sum, 9);
  });

  it.each(vectors.filter(({ kind }) => !["input", "half", "raw"].includes(kind)).map((v) => [v.name, v] as const))("finds the kind of %s", (_, vector) => {
    expect(fill(vector.name, vector.shape)).toEqual(fill(vector.name, vector.shape, vector.kind));
  });
});
