/** `esvit bench` with the addon, at the smallest sizes: what is measured, and the form it has. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { BenchReport } from "../../ts/src/native/index.js";
import { json, notBuilt, run, writeTinyConfig } from "../e2e/program.js";
import { temporaryFolder } from "../support/temporary.js";

const config = writeTinyConfig(join(temporaryFolder(), "tiny.yaml"));
const measured = async (...words: string[]): Promise<BenchReport> => json(await run("bench", ...words, "--config", config, "--runs", "1", "--json")) as unknown as BenchReport;

describe.skipIf(notBuilt)("bench", () => {
  test("ops lists every operator of the step with its shapes and rates", async () => {
    const report = await measured("ops");
    const step = json(await run("bench", "step", "--config", config, "--steps", "1", "--json")) as unknown as { gflop: number; rows: BenchReport["rows"] };
    const updates = ["optimizer_and_teacher"];
    const names = new Set(step.rows.map(({ operator }) => operator).filter((name) => !updates.includes(name)));
    expect(new Set(report.operators.map(({ operator }) => operator))).toEqual(names);
    expect(report.operators.reduce((sum, { calls, gflop }) => sum + calls * gflop, 0)).toBeCloseTo(step.gflop, 9);
    for (const { ms, minMs, maxMs, operands } of report.operators) {
      expect(minMs).toBeGreaterThan(0);
      expect(ms).toBeGreaterThanOrEqual(minMs);
      expect(maxMs).toBeGreaterThanOrEqual(ms);
      expect(operands.flat().every((size) => size > 0)).toBe(true);
    }
    expect(report).toMatchObject({ tool: "esvit", device: "cpu", peaks: [{ threads: 2 }], cases: [] });
    const some = await measured("ops", "--only", "window_attention");
    expect(new Set(some.operators.map(({ operator }) => operator))).toEqual(new Set(["window_attention", "window_attention_dx"]));
  });

  test("loss, attention and inference measure their cases at the sizes that were asked for", async () => {
    const [loss, attention, inference] = [await measured("loss", "--threads", "1"), await measured("attention", "--batch-size", "3"), await measured("inference", "--precision", "mixed")];
    expect(loss.cases).toMatchObject([{ case: "loss", batch: 4, threads: 1, precision: "f32", device: "cpu", deviceBytes: null }]);
    expect(attention.cases.map(({ case: name, batch }) => [name, batch])).toEqual([
      ["window_attention", 3], ["window_attention_forward", 3], ["window_attention_core", 3], ["window_attention_core_forward", 3],
    ]);
    expect(inference.cases).toMatchObject([{ case: "inference", precision: "mixed", batch: 4 }]);
    for (const { medianMs, runMs, gflop, gflops, imagesPerSecond, batch, plannedBytes } of [...loss.cases, ...attention.cases, ...inference.cases]) {
      expect(runMs).toEqual([medianMs]);
      expect(gflops).toBeCloseTo((1e3 * gflop) / medianMs, 6);
      expect(imagesPerSecond).toBeCloseTo((1e3 * batch) / medianMs, 6);
      expect(plannedBytes).toBeGreaterThan(0);
    }
    // The loss without its region term is another, smaller measurement; arithmetic of the formula, not of the kernels.
    const view = await measured("loss", "--loss.region", "false");
    const rows = (students: number, teachers: number): number => (6 * students + 2 * teachers) * 16 * 64;
    expect(1e9 * view.cases[0]!.gflop).toBeCloseTo(rows(4 * 4, 4 * 2), 3);
  });

  test("scaling measures every combination, and prints tables", async () => {
    const words = ["bench", "scaling", "--config", config, "--images", "1,2", "--thread-counts", "1,2", "--local-crops", "1,3", "--runs", "1"];
    const { batches, crops } = json(await run(...words, "--json")) as { batches: { threads: number; batch: number }[]; crops: { localCrops: number; gflop: number }[] };
    expect(batches.map(({ threads, batch }) => [threads, batch])).toEqual([[1, 1], [1, 2], [2, 1], [2, 2]]);
    expect(crops.map(({ localCrops }) => localCrops)).toEqual([1, 3]);
    expect(crops[1]!.gflop).toBeGreaterThan(crops[0]!.gflop);
    const { stdout } = await run("bench", "ops", "--config", config, "--only", "linear", "--runs", "1");
    expect(stdout).toMatch(/^a large matrix product: \d+ GFLOP\/s \(2 threads, \w+\)\n\noperator +operands +calls +ms +ms a step +GFLOP\/s +% of peak +GB\/s\nlinear/);
  });
});
