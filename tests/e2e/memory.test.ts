import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { resolveConfig } from "../../ts/src/config/index.js";
import { pretrain } from "../../ts/src/train/index.js";
import { temporaryFolder } from "../support/temporary.js";
import { json, notBuilt, root, run, writeImages } from "./program.js";

const scratch = temporaryFolder();

interface Memory {
  total: number;
  peak: number;
}

describe.skipIf(notBuilt)("memory", () => {
  test("of a run stays within its plan", async () => {
    const images = await writeImages(join(scratch, "images"), 8);
    // Wider than the nano model, so that the plan and not Node is most of it.
    const settings = ["--config", join(root, "configs/nano.yaml"), "backbone.dim", "96", "--batch-size", "32"];
    const { baseMemory } = json(await run("doctor", "--json")) as { baseMemory: number };
    const planned = json(await run("plan", ...settings, "--json"))["memory"] as Memory;
    const { memory } = json(await run("pretrain", images, ...settings, "--max-steps", "4", "--output-dir", join(scratch, "run"), "--json")) as { memory: Memory };
    expect(memory.total).toBe(planned.total);
    // Without AVX-512 products go through the gemm crate, whose packing buffers are in no plan.
    const unplanned = 16 * 2 ** 20;
    expect(memory.peak).toBeLessThan(1.15 * (memory.total + baseMemory) + unplanned);
    // Most of the plan is used: it is no wild guess.
    expect(memory.peak).toBeGreaterThan(memory.total / 2);
  });

  test("that is not there is refused before the run, with the batch that fits", async () => {
    const { config } = resolveConfig(["--config", join(root, "configs/nano.yaml"), "--output-dir", join(scratch, "large"), "backbone.dim", "96", "--batch-size", "32"]);
    const images = await writeImages(join(scratch, "images"), 8);
    const options = { memoryLimit: 350 * 2 ** 20 };
    const run = pretrain({ ...config, data: { ...config.data, path: images } }, options);
    const message = await run.then(() => "it ran", (error: Error) => error.message);
    expect(message).toMatch(/^the run needs \d+ MiB of memory and 350 MiB are free; batchSize \d+ would fit$/);
    const fits = Number(/batchSize (\d+)/.exec(message)![1]);
    expect(fits).toBeLessThan(32);
    expect(fits).toBeGreaterThan(8);
    const smaller = { ...config, batchSize: fits, maxSteps: 1, evaluate: { ...config.evaluate, enabled: false }, data: { ...config.data, path: images } };
    expect((await pretrain(smaller, options)).steps).toBe(1);
  });
});
