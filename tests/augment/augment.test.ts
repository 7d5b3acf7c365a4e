import { describe, expect, test } from "vitest";
import { drawCrops, drawLinearCrop, drawMixup, evaluationPlan, randomResizedBox } from "../../ts/src/augment/index.js";
import { completeConfig } from "../../ts/src/config/index.js";
import type { CropPlan, PixelOperation } from "../../ts/src/native/index.js";
import { stream } from "../../ts/src/random/index.js";

const config = completeConfig({});
const image = { width: 500, height: 375 };
const runs = 4000;
const drawn: CropPlan[][] = Array.from({ length: runs }, (_, i) => drawCrops(image, config, stream(0, "crops", i)));

/** Share of the plans at `crop` for which `holds` is true. */
function share(crop: number, holds: (plan: CropPlan) => boolean): number {
  return drawn.filter((plans) => holds(plans[crop]!)).length / runs;
}

/** Five standard deviations of a share estimated from all runs. */
function about(expected: number, actual: number): void {
  expect(Math.abs(actual - expected)).toBeLessThanOrEqual(5 * Math.sqrt((expected * (1 - expected)) / runs) + 1e-9);
}

const has = (...kinds: PixelOperation["kind"][]) => (plan: CropPlan): boolean => plan.operations.some(({ kind }) => kinds.includes(kind));

describe("drawCrops", () => {
  test("is a function of the stream", () => {
    expect(drawCrops(image, config, stream(0, "crops", 17))).toEqual(drawn[17]);
    expect(drawn[18]).not.toEqual(drawn[17]);
    expect(drawn[17]![0]).not.toEqual(drawn[17]![1]);
  });

  test("gives two global crops and the local ones, inside the image, of the area and ratio asked for", () => {
    for (const plans of drawn.slice(0, 500)) {
      expect(plans.map(({ outWidth }) => outWidth)).toEqual([224, 224, ...new Array<number>(8).fill(96)]);
      for (const [crop, plan] of plans.entries()) {
        expect(plan.left).toBeGreaterThanOrEqual(0);
        expect(plan.top).toBeGreaterThanOrEqual(0);
        expect(plan.left + plan.width).toBeLessThanOrEqual(image.width);
        expect(plan.top + plan.height).toBeLessThanOrEqual(image.height);
        const area = (plan.width * plan.height) / (image.width * image.height);
        const [low, high] = crop < 2 ? [0.4, 1] : [0.05, 0.4];
        // Sides are rounded to whole pixels.
        expect(area).toBeGreaterThan(low - 0.01);
        expect(area).toBeLessThan(high + 0.01);
        expect(plan.width / plan.height).toBeGreaterThan(0.73);
        expect(plan.width / plan.height).toBeLessThan(1.37);
        expect(plan.filter).toBe("bicubic");
      }
    }
  });

  test.each([
    // crop, blur, solarize
    [0, 1, 0],
    [1, 0.1, 0.2],
    [2, 0.5, 0],
    [9, 0.5, 0],
  ])("crop %i has the original's probabilities", (crop, blur, solarize) => {
    about(0.5, share(crop, ({ flip }) => flip));
    about(0.8, share(crop, has("brightness")));
    about(0.2, share(crop, has("grayscale")));
    about(blur, share(crop, has("blur")));
    about(solarize, share(crop, has("solarize")));
  });

  test("the four adjustments come together, in every order, before the rest", () => {
    const orders = new Map<string, number>();
    for (const [plan] of drawn) {
      const kinds = plan!.operations.map(({ kind }) => kind);
      const adjustments = kinds.filter((kind) => ["brightness", "contrast", "saturation", "hue"].includes(kind));
      expect([0, 4]).toContain(adjustments.length);
      expect(kinds.slice(0, adjustments.length)).toEqual(adjustments);
      const rest = ["grayscale", "blur", "solarize"];
      expect(kinds.slice(adjustments.length)).toEqual(rest.filter((kind) => kinds.includes(kind as never)));
      if (adjustments.length === 4) orders.set(adjustments.join(), (orders.get(adjustments.join()) ?? 0) + 1);
    }
    expect(orders.size).toBe(24);
    // 3200 jitters over 24 orders: 133 each, deviation 11.
    expect(Math.min(...orders.values())).toBeGreaterThan(80);
  });

  test("factors, shifts and radii fill their intervals", () => {
    const values = new Map<string, number[]>();
    for (const operation of drawn.flat(2).map((plan) => plan.operations).flat()) {
      const value = "factor" in operation ? operation.factor : "shift" in operation ? operation.shift : "radius" in operation ? operation.radius : undefined;
      if (value === undefined) continue;
      const list = values.get(operation.kind) ?? [];
      list.push(value);
      values.set(operation.kind, list);
    }
    for (const [kind, low, high] of [["brightness", 0.6, 1.4], ["contrast", 0.6, 1.4], ["saturation", 0.8, 1.2], ["hue", -0.1, 0.1], ["blur", 0.1, 2]] as const) {
      const list = values.get(kind)!;
      let [least, most] = [Infinity, -Infinity];
      for (const value of list) [least, most] = [Math.min(least, value), Math.max(most, value)];
      expect(least).toBeGreaterThanOrEqual(low);
      expect(most).toBeLessThan(high);
      expect(least).toBeLessThan(low + (high - low) * 0.01);
      expect(most).toBeGreaterThan(high - (high - low) * 0.01);
    }
  });

  test("every setting acts", () => {
    const bare = completeConfig({
      crops: { localCount: 0, globalSize: 64, globalScale: [1, 1], aspectRatio: [1, 1] },
      augmentation: {
        flip: 1, interpolation: "bilinear", grayscale: 1, jitter: { probability: 1, brightness: 0, contrast: 0, saturation: 0, hue: 0.5 },
        blur: { firstGlobal: 0, secondGlobal: 0 }, solarize: { secondGlobal: 1, threshold: 7 },
      },
    });
    const plans = drawCrops({ width: 300, height: 300 }, bare, stream(0, "crops"));
    expect(plans).toHaveLength(2);
    const hue = { kind: "hue", shift: expect.any(Number) as number };
    const common = { left: 0, top: 0, width: 300, height: 300, outWidth: 64, outHeight: 64, filter: "bilinear", flip: true };
    expect(plans[0]).toEqual({ ...common, operations: [hue, { kind: "grayscale" }] });
    expect(plans[1]).toEqual({ ...common, operations: [hue, { kind: "grayscale" }, { kind: "solarize", threshold: 7 }] });
  });
});

describe("boxes of awkward images", () => {
  test.each([[1, 1], [1, 4000], [4000, 1], [2, 3], [10_000, 7]])("%i x %i has a box", (width, height) => {
    for (let i = 0; i < 50; i++) {
      const box = randomResizedBox(width, height, [0.05, 0.4], [3 / 4, 4 / 3], stream(5, "box", i));
      expect(Math.min(box.left, box.top)).toBeGreaterThanOrEqual(0);
      expect(Math.min(box.width, box.height)).toBeGreaterThanOrEqual(1);
      expect(box.left + box.width).toBeLessThanOrEqual(width);
      expect(box.top + box.height).toBeLessThanOrEqual(height);
    }
  });
});

describe("evaluation", () => {
  test.each([
    // Python: int(256 * 500 / 375) = 341; round((341 - 224) / 2) = round(58.5) = 58
    [500, 375, 341, 256, 58, 16],
    // int(256 * 320 / 213) = 384; (384 - 224) / 2 = 80
    [320, 213, 384, 256, 80, 16],
    // int(256 * 319 / 256) = 319; round(47.5) = 48
    [256, 319, 256, 319, 16, 48],
    [64, 64, 256, 256, 16, 16],
    // A strip: its center is exact too, for the rest of 256 x 20480 is never made.
    [30, 2400, 256, 20_480, 16, 10_128],
    [100_000, 10, 2_560_000, 256, 1_279_888, 16],
    // Longer than a plan can name.
    [170_000_000, 1, 2 ** 32 - 1, 256, 2 ** 31 - 112, 16],
  ])("%i x %i is resized to %i x %i and the window begins at %i, %i", (width, height, fullWidth, fullHeight, left, top) => {
    expect(evaluationPlan({ width, height }, { resize: 256, crop: 224 })).toEqual({
      left: 0, top: 0, width, height, outWidth: 224, outHeight: 224, window: { fullWidth, fullHeight, left, top },
      filter: "bicubic", flip: false, operations: [],
    });
  });

  test("a center larger than the resized image is refused", () => {
    expect(() => evaluationPlan({ width: 6, height: 4 }, { resize: 4, crop: 5 })).toThrow(RangeError);
  });

  test("linear training crops are bilinear and flipped half of the time", () => {
    const plans = Array.from({ length: 1000 }, (_, i) => drawLinearCrop(image, 224, stream(0, "linear", i)));
    expect(new Set(plans.map(({ filter }) => filter))).toEqual(new Set(["bilinear"]));
    expect(Math.abs(plans.filter(({ flip }) => flip).length - 500)).toBeLessThan(80);
  });
});

describe("drawMixup", () => {
  test("mixes the first views only, with factors of the beta distribution", () => {
    const mixup = { enabled: true, views: 3, alpha: 0.8, probability: 1 };
    const lambdas = Array.from({ length: 2000 }, (_, i) => drawMixup(mixup, 10, stream(0, "mixup", i)).lambda);
    for (const lambda of lambdas) {
      expect(lambda).toHaveLength(10);
      expect(lambda.slice(3)).toEqual(new Array<number>(7).fill(1));
      for (const factor of lambda.slice(0, 3)) expect(factor > 0 && factor < 1).toBe(true);
    }
    const all = lambdas.flatMap((lambda) => lambda.slice(0, 3));
    const mean = all.reduce((a, b) => a + b) / all.length;
    const variance = all.reduce((sum, v) => sum + (v - mean) ** 2, 0) / all.length;
    expect(Math.abs(mean - 0.5)).toBeLessThan(0.02);
    // ab / ((a + b)² (a + b + 1)) = 0.64 / (2.56 · 2.6)
    expect(Math.abs(variance - 0.0962)).toBeLessThan(0.006);
  });

  test("the probability acts", () => {
    expect(drawMixup({ enabled: true, views: 10, alpha: 1, probability: 0 }, 4, stream(0, "mixup")).lambda).toEqual([1, 1, 1, 1]);
  });
});
