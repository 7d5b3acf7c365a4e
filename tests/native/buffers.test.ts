/** No task of the engine reads memory that JavaScript can take away or change. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { completeConfig, toTrainerSpec } from "../../ts/src/config/index.js";
import { native, type Batch, type CropPlan, type StepParameters, type Trainer } from "../../ts/src/native/index.js";
import { follow, notBuilt, root, writeTinyConfig } from "../e2e/program.js";
import { temporaryFolder } from "../support/temporary.js";

const scratch = temporaryFolder();

interface Touched {
  call: string;
  touch: string;
  refused: boolean;
  same: boolean;
  code?: string;
  message?: string;
}

describe.skipIf(notBuilt)("an array in a call", { timeout: 240_000 }, () => {
  test("is copied before the call returns, or refused with a typed error", async () => {
    const config = writeTinyConfig(join(scratch, "tiny.yaml"));
    const child = spawn(process.execPath, ["--expose-gc", join(root, "tests/native/touch-buffers.mjs"), config], { cwd: root });
    const { code, stdout, stderr } = await follow(child).ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const lines = stdout.trimEnd().split("\n").map((line) => JSON.parse(line) as Touched);
    expect(lines.length).toBe(13 * 11 + 1);
    for (const { call, touch, refused, same, code: failed, message } of lines) {
      const what = `${call}, ${touch}: ${message ?? "no error"}`;
      if (refused) expect(["CONFIG", "STATE", "IMAGE", "ENGINE"], what).toContain(failed);
      else expect({ same, failed }, what).toEqual({ same: true, failed: undefined });
    }
  });
});

describe.skipIf(notBuilt)("a batch", { timeout: 120_000 }, () => {
  const crops = { globalSize: 32, localSize: 16, localCount: 2 };
  const layout = { batch: 2, passes: 2, ...crops };
  const parameters: StepParameters = {
    step: 0, progress: 0, learningRate: 1e-3, weightDecay: 0, momentum: 0.9, teacherTemperature: 0.05, freezeLastLayer: false,
  };
  const pixels = Uint8Array.from({ length: 40 * 40 * 3 }, (_, i) => (i * 31) % 256);
  const plan = (side: number): CropPlan => ({
    left: 1, top: 2, width: 30, height: 33, outWidth: side, outHeight: side, filter: "bicubic", flip: false, operations: [],
  });
  const plans = [plan(32), plan(32), plan(16), plan(16)];

  function open(): { trainer: Trainer; batch: Batch; image: Uint8Array } {
    const config = completeConfig({
      backbone: { kind: "swin", imageSize: 32, patchSize: 4, dim: 16, depths: [1, 1], heads: [1, 2], window: 4 },
      head: { outDim: 64, hiddenDim: 32, bottleneckDim: 16 }, crops, batchSize: 2, accumulate: 2, threads: 1,
    });
    return { trainer: native().createTrainer(toTrainerSpec(config), "cpu"), batch: native().createBatch(layout), image: native().encodePng(pixels, 40, 40) };
  }

  /** Fails with the engine's code, at once or in the promise. */
  async function refused(call: () => unknown, code: string, message: RegExp): Promise<void> {
    await expect((async () => call())()).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  }

  test("is read only when all its images are written, and written only where it is free", async () => {
    const { trainer, batch, image } = open();
    await refused(() => trainer.step(batch, parameters), "ENGINE", /image 0 of the batch is not written yet/);
    for (const i of [0, 1, 2]) await batch.renderInto(image, i, plans);
    await refused(() => trainer.step(batch, parameters), "ENGINE", /image 3 of the batch is not written yet/);
    await refused(() => batch.renderInto(image, 2, plans), "ENGINE", /image 2 of the batch is written already/);
    await refused(() => batch.renderInto(image, 4, plans), "ENGINE", /no image 4/);
    await refused(() => batch.renderInto(image, 3, plans.slice(1)), "ENGINE", /4 crops of each image, got 3 plans/);
    await refused(() => batch.renderInto(image, 3, [...plans.slice(0, 3), plan(17)]), "IMAGE", /must have 768 bytes|867 bytes/);
    await refused(() => batch.renderInto(Buffer.from("no image"), 3, plans), "IMAGE", /not a JPEG/);
    // Large, so that it is still being decoded when the next lines run.
    const large = native().encodePng(new Uint8Array(3 * 2000 * 2000), 2000, 2000);
    const rendering = batch.renderInto(large, 3, plans);
    expect(() => batch.renderInto(image, 3, plans)).toThrow(/being written already/);
    expect(() => batch.clear()).toThrow(/being written/);
    expect(() => trainer.step(batch, parameters)).toThrow(/not written yet/);
    await rendering;
    const steps = Array.from({ length: 10 }, (_, step) => trainer.step(batch, { ...parameters, step }));
    expect(() => batch.clear()).toThrow(/being read/);
    for (const { finite } of await Promise.all(steps)) expect(finite).toBe(true);
    batch.clear();
    await refused(() => trainer.step(batch, parameters), "ENGINE", /not written yet/);
    trainer.dispose();
  });

  test("is read by several steps, and lives as long as one needs it", async () => {
    const { trainer, batch, image } = open();
    await Promise.all([0, 1, 2, 3].map((i) => batch.renderInto(image, i, plans)));
    const steps = [0, 1, 2].map((step) => trainer.step(batch, { ...parameters, step }));
    batch.dispose();
    for (const { finite } of await Promise.all(steps)) expect(finite).toBe(true);
    await refused(() => batch.clear(), "ENGINE", /disposed/);
    await refused(() => trainer.step(batch, parameters), "ENGINE", /disposed/);
    trainer.dispose();
  });

  test("of another layout is refused", async () => {
    const { trainer, image } = open();
    const other = native().createBatch({ ...layout, passes: 1 });
    for (const i of [0, 1]) await other.renderInto(image, i, plans);
    await refused(() => trainer.step(other, parameters), "ENGINE", /this trainer reads batches of/);
    await refused(() => native().createBatch({ ...layout, batch: 0 }), "CONFIG", /must have images and pixels/);
    await refused(() => native().createBatch({ ...layout, globalSize: 2 ** 32 - 1, localCount: 2 ** 32 - 1, localSize: 2 ** 32 - 1 }), "CONFIG", /too large/);
    await refused(() => native().createBatch({ ...layout, batch: -1 }), "ENGINE", /the batch's layout/);
    trainer.dispose();
  });
});
