import { describe, expect, test } from "vitest";
import { stream } from "../../ts/src/random/index.js";
import { philox } from "../../ts/src/random/philox.js";

const hex = (words: Uint32Array): string => [...words].map((word) => word.toString(16).padStart(8, "0")).join(" ");

describe("philox", () => {
  // Known answers of Random123 1.14 (kat_vectors, philox4x32 with 10 rounds).
  test.each([
    [[0, 0, 0, 0], [0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
    [[0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff], "408f276d 41c83b0e a20bc7c6 6d5451fd"],
    [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], "d16cfe09 94fdcceb 5001e420 24126ea1"],
  ])("gives the published block for counter %j", (counter, key, expected) => {
    const out = new Uint32Array(4);
    philox(Uint32Array.from(counter), Uint32Array.from(key), out);
    expect(hex(out)).toBe(expected);
  });
});

describe("stream", () => {
  const draw = (rng: ReturnType<typeof stream>, count = 16): number[] => Array.from({ length: count }, () => rng.uint32());

  test("is the same whatever was drawn before", () => {
    const expected = draw(stream(7, "crops", 3, 11));
    const other = stream(7, "crops", 3, 12);
    other.permutation(100);
    const again = stream(7, "crops", 3, 11);
    const interleaved = Array.from({ length: 16 }, () => (other.uint32(), again.uint32()));
    expect(interleaved).toEqual(expected);
  });

  test("differs by seed, purpose, every index, and the number of indices", () => {
    const keys = [
      stream(7, "crops", 3, 11), stream(8, "crops", 3, 11), stream(7 + 2 ** 32, "crops", 3, 11), stream(7, "shuffle", 3, 11),
      stream(7, "crops", 4, 11), stream(7, "crops", 3, 12), stream(7, "crops", 11, 3), stream(7, "crops", 3), stream(7, "crops", 3, 0), stream(7, "crops"),
    ];
    const drawn = keys.flatMap((rng) => draw(rng));
    expect(new Set(drawn).size).toBe(drawn.length);
  });

  test("refuses seeds and indices it cannot tell apart", () => {
    expect(() => stream(-1, "crops")).toThrow(RangeError);
    expect(() => stream(0.5, "crops")).toThrow(RangeError);
    expect(() => stream(0, "crops", 2 ** 32)).toThrow(RangeError);
  });

  test("integers are uniform, inside neighboring streams and across them", () => {
    const bins = 17;
    const count = 17_000;
    const within = new Array<number>(bins).fill(0);
    const across = new Array<number>(bins).fill(0);
    const rng = stream(1, "uniformity");
    for (let i = 0; i < count; i++) {
      within[rng.integer(0, bins)]! += 1;
      across[stream(1, "uniformity", i).integer(5, 5 + bins) - 5]! += 1;
    }
    const chiSquare = (counts: number[]): number => counts.reduce((sum, n) => sum + (n - count / bins) ** 2 / (count / bins), 0);
    // 16 degrees of freedom: below 39.3 with probability 0.999, above 3.9 likewise.
    for (const counts of [within, across]) {
      expect(chiSquare(counts)).toBeLessThan(39.3);
      expect(chiSquare(counts)).toBeGreaterThan(3.9);
    }
  });

  test("uniform stays in its half-open interval and has the right moments", () => {
    const rng = stream(2, "uniform");
    const values = Array.from({ length: 20_000 }, () => rng.uniform(-3, 5));
    expect(Math.min(...values)).toBeGreaterThanOrEqual(-3);
    expect(Math.max(...values)).toBeLessThan(5);
    const mean = values.reduce((a, b) => a + b) / values.length;
    // Deviation of the mean: 8/√12/√20000 = 0.016; four of them.
    expect(Math.abs(mean - 1)).toBeLessThan(0.066);
    expect(Array.from({ length: 100 }, () => rng.chance(0)).some(Boolean)).toBe(false);
    expect(Array.from({ length: 100 }, () => rng.chance(1)).every(Boolean)).toBe(true);
  });

  test("normal and beta have the moments of their distributions", () => {
    const rng = stream(3, "moments");
    const count = 20_000;
    const moments = (values: number[]): [number, number] => {
      const mean = values.reduce((a, b) => a + b) / count;
      return [mean, values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / count];
    };
    const [mean, variance] = moments(Array.from({ length: count }, () => rng.normal()));
    expect(Math.abs(mean)).toBeLessThan(0.03);
    expect(Math.abs(variance - 1)).toBeLessThan(0.05);
    for (const [a, b] of [[0.8, 0.8], [2, 5], [0.1, 0.3]] as const) {
      const [betaMean, betaVariance] = moments(Array.from({ length: count }, () => rng.beta(a, b)));
      expect(Math.abs(betaMean - a / (a + b))).toBeLessThan(0.012);
      expect(Math.abs(betaVariance - (a * b) / ((a + b) ** 2 * (a + b + 1)))).toBeLessThan(0.006);
    }
  });

  test("a permutation holds every number once, and first places are uniform", () => {
    const order = stream(4, "permutation").permutation(1000);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    expect([...order]).not.toEqual(Array.from({ length: 1000 }, (_, i) => i));
    const firsts = new Array<number>(6).fill(0);
    for (let i = 0; i < 6000; i++) firsts[stream(4, "permutation", i).permutation(6)[0]!]! += 1;
    const chiSquare = firsts.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
    // 5 degrees of freedom: below 20.5 with probability 0.999.
    expect(chiSquare).toBeLessThan(20.5);
  });
});
