import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { describe, expect, test } from "vitest";
import { cosine, linearEvaluationRate, scaledLearningRate, teacherTemperature } from "../../ts/src/schedule/index.js";
import { fixtures, hasGolden } from "../support/golden.js";

type Case = Record<string, number> & { values: number[]; lr_used_in_epoch: number[] };

/** Values of our schedules for one recorded case, next to the recorded ones. */
const readers: Record<string, (recorded: Case) => { ours: number[]; golden: number[] }> = {
  "cosine_scheduler.json": (c) => {
    const schedule = cosine({
      base: c["base_value"]!, final: c["final_value"]!, epochs: c["epochs"]!, stepsPerEpoch: c["niter_per_ep"]!,
      warmupEpochs: c["warmup_epochs"]!, start: c["start_warmup_value"]!,
    });
    expect(c.values).toHaveLength(c["epochs"]! * c["niter_per_ep"]!);
    return { ours: c.values.map((_, step) => schedule(step)), golden: c.values };
  },
  "teacher_temp.json": (c) => {
    const schedule = teacherTemperature({
      warmup: c["warmup_teacher_temp"]!, value: c["teacher_temp"]!, warmupEpochs: c["warmup_teacher_temp_epochs"]!,
    });
    expect(c.values).toHaveLength(c["nepochs"]!);
    return { ours: c.values.map((_, epoch) => schedule(epoch)), golden: c.values };
  },
  "lr_scaling.json": (c) => ({
    ours: [scaledLearningRate(c["lr"]!, c["batch_size_per_gpu"]!, c["world_size"]!)],
    golden: [c["peak_lr"]!],
  }),
  "linear_eval_lr.json": (c) => {
    const schedule = linearEvaluationRate(c["lr"]!, c["epochs"]!);
    return { ours: c.lr_used_in_epoch.map((_, epoch) => schedule(epoch)), golden: c.lr_used_in_epoch };
  },
};

/** Names of parameters, not schedules; the engine's tests read them. */
const elsewhere = ["param_groups.json"];

const golden = hasGolden("schedules");
const files = fixtures("schedules", ".json").filter((path) => !elsewhere.includes(basename(path)));

describe.skipIf(!golden).each(files.map((path) => [basename(path), path] as const))("%s", (name, path) => {
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: Case[] };

  test("is read, and has cases", () => {
    expect(readers[name], `no reader for ${name}`).toBeDefined();
    expect(cases.length).toBeGreaterThan(0);
  });

  test.each(cases.map((recorded, index) => [index, recorded] as const))("case %i agrees to 1e-12", (_, recorded) => {
    const { ours, golden } = readers[name]!(recorded);
    expect(golden.length).toBeGreaterThan(0);
    for (const [index, value] of golden.entries()) {
      expect(Math.abs(ours[index]! - value), `value ${index}`).toBeLessThanOrEqual(1e-12 * Math.abs(value));
    }
  });
});
