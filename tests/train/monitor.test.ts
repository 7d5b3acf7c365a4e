import { describe, expect, test } from "vitest";
import { CollapseMonitor } from "../../ts/src/train/collapse.js";
import type { TrainerSpec } from "../../ts/src/native/index.js";
import { MemoryError } from "../../ts/src/train/index.js";
import { largestBatch, requireMemory, runMemory } from "../../ts/src/train/memory.js";
import { completeConfig } from "../../ts/src/config/index.js";
import { FakeNative } from "./fake-native.js";

describe("the collapse monitor", () => {
  const healthy = { teacherEntropy: 5, featureDeviation: 0.9 };
  const uniform = { teacherEntropy: Math.log(1024) * 0.9995, featureDeviation: 0.9 };

  test("warns once, after the sign has lasted", () => {
    const monitor = new CollapseMonitor(1024);
    const warnings = Array.from({ length: 300 }, () => monitor.observe(uniform));
    expect(warnings.findIndex((warning) => warning !== undefined)).toBe(99);
    expect(warnings.filter((warning) => warning !== undefined)).toHaveLength(1);
    expect(warnings[99]).toMatch(/collapsed.*entropy/);
  });

  test("is quiet when the sign comes and goes, or stays outside of its margin", () => {
    const monitor = new CollapseMonitor(1024);
    for (let step = 0; step < 1000; step++) {
      expect(monitor.observe(step % 90 === 0 ? healthy : uniform)).toBeUndefined();
    }
    const near = new CollapseMonitor(1024);
    for (let step = 0; step < 300; step++) expect(near.observe({ ...healthy, teacherEntropy: Math.log(1024) * 0.998 })).toBeUndefined();
  });

  test("sees features that are all equal", () => {
    const monitor = new CollapseMonitor(1024);
    const warnings = Array.from({ length: 100 }, () => monitor.observe({ teacherEntropy: 5, featureDeviation: 0.001 }));
    expect(warnings[99]).toMatch(/collapsed.*features/);
  });
});

describe("memory", () => {
  const gib = 2 ** 30;
  const mib = 2 ** 20;

  test("counts one batch more than are kept ready, and of a checkpoint one tensor", () => {
    const plan = { arena: 10, parameters: 20, workspace: 1, largestTensor: 2 };
    const loader = { batchBytes: 100, depth: 2 };
    expect(runMemory(plan, loader, "cpu")).toEqual({ arena: 10, parameters: 20, workspace: 1, loader: 300, checkpoint: 2, gpu: 0, total: 333 });
    expect(runMemory(plan, loader, "gpu")).toEqual({ arena: 0, parameters: 20, workspace: 1, loader: 300, checkpoint: 2, gpu: 30, total: 323 });
  });

  test("of a run that goes on holds its checkpoint and a copy of it first, or activations if they are more", () => {
    const plan = { arena: 10, parameters: 20, workspace: 1, largestTensor: 2 };
    expect(runMemory(plan, { batchBytes: 0, depth: 2 }, "cpu", true)).toMatchObject({ checkpoint: 29, total: 60 });
    expect(runMemory({ ...plan, arena: 70 }, { batchBytes: 0, depth: 2 }, "cpu", true)).toMatchObject({ checkpoint: 2, total: 93 });
  });

  const config = completeConfig({ batchSize: 64 });
  const planner = {
    planTrainer: ({ crops }: TrainerSpec) => ({
      memory: { arena: 1000 * mib + 100 * mib * crops.batch, parameters: 100 * mib, workspace: 0, largestTensor: 10 * mib }, parameterCount: 1, gflop: 1,
    }),
  };

  test("that does not suffice is an error with the largest batch that fits", () => {
    expect(requireMemory(config, 16 * gib, planner, "cpu").arena).toBe(7400 * mib);
    const fits = largestBatch(config, 4 * gib, planner, "cpu");
    expect(() => requireMemory(config, 4 * gib, planner, "cpu")).toThrow(new RegExp(`^the run needs \\d+ MiB of memory and 4096 MiB are free; batchSize ${fits} would fit$`));
    expect(() => requireMemory({ ...config, batchSize: fits }, 4 * gib, planner, "cpu")).not.toThrow();
    expect(() => requireMemory({ ...config, batchSize: fits + 1 }, 4 * gib, planner, "cpu")).toThrow(MemoryError);
    // 4096 MiB less 128 for Node, 1000 that do not depend on the batch, 110 for parameters and a copy of the largest, and 105 an image.
    expect(fits).toBe(27);
    expect(() => requireMemory(config, gib, planner, "cpu")).toThrow("not even one image a step would fit");
  });

  test("of a batch whose images do not fit is not planned at all", () => {
    const engine = new FakeNative();
    expect(() => requireMemory({ ...config, batchSize: 1e9 }, gib, engine, "cpu")).toThrow(/^the run needs more memory for its images alone than there is and 1024 MiB are free; batchSize \d+ would fit$/);
    expect(Math.max(...engine.planned)).toBeLessThan(5000);
  });
});
