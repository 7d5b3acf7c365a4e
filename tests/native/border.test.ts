/** The addon itself: plain data through serde, errors with their codes. */
import { describe, expect, test } from "vitest";
import { completeConfig, toEncoderSpec, toTrainerSpec } from "../../ts/src/config/index.js";
import { EngineError, native, type CropPlan, type Device, type StepParameters, type TrainerSpec } from "../../ts/src/native/index.js";
import { notBuilt } from "../e2e/program.js";

const config = completeConfig({
  threads: 1, batchSize: 1, backbone: { kind: "swin", dim: 8, depths: [1, 1], heads: [1, 2], window: 4, imageSize: 32 },
  head: { outDim: 16, hiddenDim: 8, bottleneckDim: 8 }, crops: { globalSize: 32, localCount: 0 }, evaluate: { crop: 32, resize: 32 },
});
const spec = toTrainerSpec(config);
const parameters: StepParameters = {
  step: 0, progress: 0, learningRate: 1e-4, weightDecay: 0, momentum: 0.99, teacherTemperature: 0.05, freezeLastLayer: false,
};

function failure(action: () => unknown): EngineError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    return error as EngineError;
  }
  throw new Error("nothing was thrown");
}

describe.skipIf(notBuilt !== undefined)("the addon", () => {
  test("reads specifications strictly, and names what is wrong", () => {
    const wrong = { ...spec, crops: { ...spec.crops, localSiz: 8 } } as unknown as TrainerSpec;
    expect(failure(() => native().planTrainer(wrong, "cpu"))).toMatchObject({ code: "CONFIG", message: expect.stringMatching(/the trainer's specification: unknown field `localSiz`/) });
    const { seed: _, ...incomplete } = spec;
    expect(failure(() => native().createTrainer(incomplete as TrainerSpec, "cpu"))).toMatchObject({ code: "CONFIG", message: expect.stringMatching(/missing field `seed`/) });
    expect(failure(() => native().createEncoder(toEncoderSpec(config), "tpu" as Device))).toMatchObject({ code: "CONFIG", message: expect.stringMatching(/the device: unknown variant `tpu`/) });
  });

  test("gives byte counts as numbers", () => {
    const { memory, parameterCount, gflop } = native().planTrainer({ ...spec, head: { ...spec.head, outDim: 1 << 24, bottleneckDim: 256 } }, "cpu");
    expect(memory.largestTensor).toBe(4 * 256 * 2 ** 24);
    for (const value of [...Object.values(memory), parameterCount, gflop]) expect(value).toBeTypeOf("number");
  });

  test("a step takes its parameters field for field, and a loss that is not a number arrives as one", async () => {
    const trainer = native().createTrainer(spec, "cpu");
    const batch = native().createBatch({ batch: 1, passes: 1, globalSize: 32, localSize: config.crops.localSize, localCount: 0 });
    const plan: CropPlan = { left: 0, top: 0, width: 32, height: 32, outWidth: 32, outHeight: 32, filter: "bicubic", flip: false, operations: [] };
    await batch.renderInto(native().encodePng(new Uint8Array(3 * 32 * 32).map((_, i) => (i * 31) % 256), 32, 32), 0, [plan, { ...plan, flip: true }]);
    try {
      expect(failure(() => trainer.step(batch, { ...parameters, lr: 1 } as StepParameters))).toMatchObject({ code: "ENGINE", message: expect.stringMatching(/unknown field `lr`/) });
      expect(await trainer.step(batch, { ...parameters, learningRate: 1e38 })).toMatchObject({ finite: true, skipped: false, lossScale: 1 });
      const stats = await trainer.step(batch, { ...parameters, step: 1 });
      expect(stats.loss).toBeNaN();
      expect(stats.finite).toBe(false);
      const rows = await trainer.profile(batch, { ...parameters, step: 2 });
      expect(rows[0]).toEqual({ phase: expect.any(String), operator: expect.any(String), calls: expect.any(Number), ms: expect.any(Number), gflop: expect.any(Number) });
      const { optimizer } = await trainer.outline();
      expect(optimizer.kind).toBe("adamw");
    } finally {
      trainer.dispose();
    }
    expect(failure(() => trainer.step(batch, parameters))).toMatchObject({ code: "ENGINE", message: "the engine was disposed of" });
  });

  test("images and crop plans have errors of their own", async () => {
    expect(failure(() => native().imageInfo(new Uint8Array(9))).code).toBe("IMAGE");
    const png = native().encodePng(new Uint8Array(12).fill(7), 2, 2);
    expect(native().imageInfo(png)).toEqual({ width: 2, height: 2 });
    const plan = { left: 0, top: 0, width: 2, height: 2, outWidth: 1, outHeight: 1, filter: "bilinear" as const, flip: false, operations: [] };
    expect(await native().renderCrops(png, [plan])).toEqual(Uint8Array.of(7, 7, 7));
    await expect(native().renderCrops(png, [{ ...plan, width: 3 }])).rejects.toMatchObject({ code: "IMAGE" });
    await expect(native().renderCrops(png, [{ ...plan, filter: "box" as "bilinear" }])).rejects.toMatchObject({ code: "ENGINE" });
  });
});
