import { describe, expect, test } from "vitest";
import { runTime, showSeconds } from "../../ts/src/train/index.js";

describe("runTime", () => {
  test("is that of the steps", () => {
    expect(runTime(2, { epoch: 10, run: 25 })).toEqual({ step: 2, epoch: 20, run: 50 });
    expect(runTime(0.5)).toEqual({ step: 0.5, epoch: undefined, run: undefined });
  });
});

test("times are shown in the unit a person would choose", () => {
  expect([0.0421, 1.94, 90, 119, 7200, 40 * 3600, 14 * 86_400].map(showSeconds)).toEqual(["0.042 s", "1.9 s", "90 s", "119 s", "2.0 h", "40 h", "14 days"]);
});
