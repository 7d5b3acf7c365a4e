import { describe, expect, test } from "vitest";
import { completeConfig } from "../../ts/src/config/index.js";
import { cosine, trainingSchedule } from "../../ts/src/schedule/index.js";

describe("cosine", () => {
  test("refuses a warm-up longer than the run", () => {
    expect(() => cosine({ base: 1, final: 0, epochs: 2, stepsPerEpoch: 5, warmupEpochs: 3 })).toThrow(/warm-up/);
  });

  test("a warm-up of one step stays at its start", () => {
    const schedule = cosine({ base: 1, final: 0, epochs: 3, stepsPerEpoch: 1, warmupEpochs: 1 });
    expect(schedule(0)).toBe(0);
    expect(schedule(1)).toBe(1);
  });
});

describe("trainingSchedule", () => {
  const config = completeConfig({
    epochs: 4,
    batchSize: 32,
    optimizer: { warmupEpochs: 1, freezeLastLayer: 2 },
    loss: { teacherTemperature: { warmup: 0.04, value: 0.07, warmupEpochs: 2 } },
  });

  test("scales the learning rate with the batch and the devices, and nothing else", () => {
    const one = trainingSchedule(config, 10, 1);
    const sixteen = trainingSchedule(config, 10, 16);
    expect(one(9).learningRate).toBe((0.0005 * 32) / 256);
    expect(sixteen(9).learningRate).toBe(0.001);
    expect(sixteen(25).weightDecay).toBe(one(25).weightDecay);
    expect(sixteen(25).momentum).toBe(one(25).momentum);
  });

  test("sees the images of all passes of a step", () => {
    expect(trainingSchedule({ ...config, accumulate: 4 }, 10)(9).learningRate).toBe((0.0005 * 128) / 256);
  });

  test("changes by epoch what goes by epoch, and by step the rest", () => {
    const at = trainingSchedule(config, 10);
    expect([0, 9, 10, 19, 20].map((step) => at(step).teacherTemperature)).toEqual([0.04, 0.04, 0.07, 0.07, 0.07]);
    expect([19, 20].map((step) => at(step).freezeLastLayer)).toEqual([true, false]);
    expect(at(0).learningRate).toBe(0);
    expect(at(1).learningRate).toBeGreaterThan(0);
    expect(at(0).weightDecay).toBeCloseTo(0.04, 12);
    expect(at(0).momentum).toBeCloseTo(0.996, 12);
    expect(at(39).momentum).toBeLessThan(1);
    expect(at(39).momentum).toBeGreaterThan(at(38).momentum);
    expect(at(39).weightDecay).toBeGreaterThan(0.39);
    expect(at(17).step).toBe(17);
  });
});
