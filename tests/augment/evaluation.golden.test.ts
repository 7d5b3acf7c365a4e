import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { evaluationPlan } from "../../ts/src/augment/index.js";
import { native, type Native } from "../../ts/src/native/index.js";
import { fixtures, hasGolden } from "../support/golden.js";

interface Recorded {
  source: string;
  output: string;
  op: string;
}

function engine(): Native | undefined {
  try {
    return native();
  } catch (error) {
    console.warn(`skipped: ${(error as Error).message}`);
    return undefined;
  }
}

const loaded = engine();
const golden = hasGolden("augment/cases.json");

describe.skipIf(!golden || !loaded)("the evaluation transform", () => {
  const cases = fixtures("augment", "cases.json").flatMap((path) =>
    (JSON.parse(readFileSync(path, "utf8")) as { cases: Recorded[] }).cases
      .filter(({ op }) => op === "resize(256)+center_crop(224)")
      .map((one) => ({ ...one, folder: dirname(path) })),
  );

  test("has fixtures", () => expect(cases.length).toBeGreaterThan(0));

  test.each(cases.map((one) => [basename(one.source), one] as const))("of %s is the original's", async (_, { folder, source, output }) => {
    const image = readFileSync(join(folder, source));
    const expected = join(folder, output);
    expect(existsSync(expected)).toBe(true);
    const whole = { left: 0, top: 0, width: 224, height: 224, outWidth: 224, outHeight: 224, filter: "bicubic", flip: false, operations: [] } as const;
    const golden = await loaded!.renderCrops(readFileSync(expected), [{ ...whole, operations: [] }]);

    const pixels = await loaded!.renderCrops(image, [evaluationPlan(loaded!.imageInfo(image), { resize: 256, crop: 224 })]);

    let off = 0;
    for (const [i, value] of pixels.entries()) {
      const difference = Math.abs(value - golden[i]!);
      if (difference > 0) off++;
      if (difference > 1) throw new Error(`sample ${i} is ${value}, not ${golden[i]}`);
    }
    // The fixtures' tolerance for resampling: off by one level in at most 1 % of the samples.
    expect(off / pixels.length).toBeLessThanOrEqual(0.01);
  });
});
