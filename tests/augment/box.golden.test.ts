import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { randomResizedBox, type Draws } from "../../ts/src/augment/index.js";
import { fixtures, hasGolden } from "../support/golden.js";

interface Recorded {
  image_wh: [number, number];
  scale: [number, number];
  draws: ["uniform" | "randint", number, number, number][];
  box_top_left_height_width: [number, number, number, number];
}

/** Hands out recorded draws, and insists that they are asked for as they were. */
class Replay implements Draws {
  private next = 0;
  private readonly draws: Recorded["draws"];

  constructor(draws: Recorded["draws"]) {
    this.draws = draws;
  }

  get left(): number {
    return this.draws.length - this.next;
  }

  uniform(low: number, high: number): number {
    return this.take("uniform", low, high);
  }

  integer(low: number, high: number): number {
    return this.take("randint", low, high);
  }

  private take(kind: string, low: number, high: number): number {
    const draw = this.draws[this.next++];
    expect(kind).toBe(draw?.[0]);
    // PyTorch's logarithm of a 32-bit float may be off by a unit in the last place, 3e-8 here.
    const tolerance = kind === "uniform" ? 1e-7 : 0;
    expect(Math.abs(low - draw![1])).toBeLessThanOrEqual(tolerance);
    expect(Math.abs(high - draw![2])).toBeLessThanOrEqual(tolerance);
    return draw![3];
  }
}

const golden = hasGolden("augment/random_resized_crop_boxes.json");

const files = fixtures("augment", "crop_boxes.json");

describe.skipIf(!golden)("boxes of random resized crops", () => {
  const sets = files.map((path) => JSON.parse(readFileSync(path, "utf8")) as { ratio: [number, number]; cases: Recorded[] });
  const cases = sets.flatMap(({ ratio, cases: recorded }) => recorded.map((one) => ({ ratio, ...one })));

  test("there are cases", () => expect(cases.length).toBeGreaterThan(0));

  test.each(cases.map((one) => [one.image_wh.join("x"), one.scale.join("-"), one] as const))("%s, area %s", (_, __, one) => {
    const replay = new Replay(one.draws);
    const box = randomResizedBox(...one.image_wh, one.scale, one.ratio, replay);
    expect([box.top, box.left, box.height, box.width]).toEqual(one.box_top_left_height_width);
    expect(replay.left).toBe(0);
  });
});
