import { describe, expect, test } from "vitest";
import { runTime, showSeconds } from "../../ts/src/train/index.js";

describe("runTime", () => {
  test("grows with the arithmetic and shrinks with the machine", () => {
    const time = runTime(120, 100, { epoch: 10, run: 25 });
    expect(time.step).toBeCloseTo(2, 12);
    expect(time.epoch).toBeCloseTo(20, 12);
    expect(time.run).toBeCloseTo(50, 12);
    expect(runTime(60, 200)).toEqual({ step: 0.5, epoch: undefined, run: undefined });
  });
});

test("times are shown in the unit a person would choose", () => {
  expect([0.0421, 1.94, 90, 119, 7200, 40 * 3600, 14 * 86_400].map(showSeconds)).toEqual(["0.042 s", "1.9 s", "90 s", "119 s", "2.0 h", "40 h", "14 days"]);
});
