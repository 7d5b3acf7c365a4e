/** `esvit bench` on the GPU that is there, a software one included. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { native, type BenchReport } from "../../ts/src/native/index.js";
import { json, notBuilt, run, writeTinyConfig } from "../e2e/program.js";
import { temporaryFolder } from "../support/temporary.js";

const config = writeTinyConfig(join(temporaryFolder(), "tiny.yaml"));
const adapter = notBuilt ? undefined : native().adapters()[0];
if (!notBuilt && !adapter) {
  if (process.env["REQUIRE_GPU"] === "1") throw new Error("REQUIRE_GPU is set, and there is no GPU");
  console.warn("skipped: this machine has no GPU that Vulkan, Metal or DirectX 12 can use");
}

describe.skipIf(!adapter)("bench on a GPU", () => {
  test("ops and loss run there and say where", async () => {
    const measured = async (...words: string[]): Promise<BenchReport> =>
      json(await run("bench", ...words, "--config", config, "-d", "gpu", "--batch-size", "1", "--runs", "1", "--json")) as unknown as BenchReport;
    const ops = await measured("ops", "--only", "linear");
    expect(ops.device).toBe(adapter!.name);
    expect(ops.operators.length).toBeGreaterThan(10);
    expect(ops.operators.every(({ ms, gflop }) => ms > 0 && gflop > 0)).toBe(true);
    const [loss] = (await measured("loss")).cases;
    expect(loss).toMatchObject({ case: "loss", device: adapter!.name, batch: 1 });
    expect(loss!.deviceBytes).toBe(loss!.plannedBytes);
  });
});
