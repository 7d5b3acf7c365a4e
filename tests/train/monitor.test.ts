import { describe, expect, test } from "vitest";
import { CollapseMonitor } from "../../ts/src/train/collapse.js";
import { mayBeTooLarge, memoryLine, requireMemory, runMemory } from "../../ts/src/train/memory.js";
import { completeConfig, toTrainerSpec } from "../../ts/src/config/index.js";
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

  test("counts one batch more than are kept ready, and two copies of the state", () => {
    expect(runMemory({ arena: 10, parameters: 5, workspace: 1 }, { batchBytes: 100, depth: 2 })).toEqual(
      { arena: 10, parameters: 5, workspace: 1, loader: 300, batch: 100, checkpoint: 10, total: 326 },
    );
  });

  test("that does not suffice is an error with the batch that would fit", () => {
    const line = (batch: number) => ({ arena: 1000 * mib + 100 * mib * batch, parameters: 100 * mib, workspace: 0 });
    const memory = runMemory(line(64), { batchBytes: 0, depth: 1 });
    expect(() => requireMemory(memory, 64, 8 * gib, () => line)).not.toThrow();
    // 4096 MiB less 128 for Node, 1000 that do not depend on the batch and 300 for the parameters and their copies, with a reserve.
    expect(() => requireMemory(memory, 64, 4 * gib, () => line)).toThrow("the run needs 7828 MiB of memory and 4096 MiB are free; batchSize 24 would fit");
    expect(() => requireMemory(memory, 64, gib, () => line)).toThrow("not even one image a step would fit");
  });

  test("of a batch that is too large to be tried follows from smaller ones", () => {
    const engine = new FakeNative();
    const spec = toTrainerSpec(completeConfig({ batchSize: 5000 }));
    expect(mayBeTooLarge(spec, gib)).toBe(true);
    expect(mayBeTooLarge(spec, 10_000 * gib)).toBe(false);
    expect(memoryLine(spec, engine)(5000)).toEqual({ arena: 1000 + 100 * 5000, parameters: 500, workspace: 10 * 5000 });
    expect(engine.specs.map(({ crops }) => crops.batch)).toEqual([2, 4]);
    expect(engine.trainers.every(({ disposed }) => disposed)).toBe(true);
  });
});
