/** The commands on a GPU: the adapter that is there, a software one included. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { digestCheckpoint, readCheckpoint } from "../../ts/src/checkpoint/index.js";
import { resolveConfig, toTrainerSpec } from "../../ts/src/config/index.js";
import { native, type CropPlan } from "../../ts/src/native/index.js";
import { temporaryFolder } from "../support/temporary.js";
import { json, notBuilt, run, writeImages, writeTinyConfig } from "./program.js";

const scratch = temporaryFolder();
const config = writeTinyConfig(join(scratch, "tiny.yaml"));

/** Why these tests cannot run here, or undefined. With `REQUIRE_GPU=1` the absence of an adapter is a failure. */
function noGpu(): string | undefined {
  if (notBuilt) return notBuilt;
  if (native().adapters().length > 0 || process.env["REQUIRE_GPU"] === "1") return undefined;
  return "skipped: this machine has no GPU, not even one in software";
}
const reason = noGpu();
if (reason) console.warn(reason);

describe.skipIf(reason)("on a GPU", { timeout: 240_000 }, () => {
  let images = "";
  const train = (device: string, folder: string, ...words: string[]) =>
    run("pretrain", join(images, "train"), "--config", config, "--output-dir", folder, "--device", device, "--seed", "3", "--epochs", "2", "--json", ...words);
  const losses = (folder: string): number[] =>
    readFileSync(join(folder, "log.txt"), "utf8").trimEnd().split("\n").map((line) => (JSON.parse(line) as { train_loss: number }).train_loss);

  beforeAll(async () => {
    // 24 images, six steps an epoch, 12 steps.
    images = await writeImages(join(scratch, "images"), 3);
  });

  test("pretrain follows the CPU's losses, repeats its own bits, and goes on where it was", async () => {
    const [cpu, gpu, parts] = [join(scratch, "cpu"), join(scratch, "gpu"), join(scratch, "parts")];
    json(await train("cpu", cpu));
    const report = json(await train("gpu", gpu));
    expect(report).toMatchObject({ status: "finished", stepsDone: 12, device: native().adapters()[0]!.name });
    for (const [epoch, loss] of losses(gpu).entries()) expect(loss).toBeCloseTo(losses(cpu)[epoch]!, 3);
    json(await train("gpu", parts, "--max-steps", "8"));
    json(await train("gpu", parts));
    expect(digestCheckpoint(join(parts, "checkpoint.pth")).sha256).toBe(digestCheckpoint(join(gpu, "checkpoint.pth")).sha256);
  });

  test("steps of several passes follow the CPU's, and go on where they were", async () => {
    const words = ["--batch-size", "2", "--accumulate", "2"];
    const [cpu, gpu, parts] = [join(scratch, "cpu-passes"), join(scratch, "gpu-passes"), join(scratch, "parts-passes")];
    json(await train("cpu", cpu, ...words));
    expect(json(await train("gpu", gpu, ...words))).toMatchObject({ status: "finished", stepsDone: 12 });
    for (const [epoch, loss] of losses(gpu).entries()) expect(loss).toBeCloseTo(losses(cpu)[epoch]!, 3);
    json(await train("gpu", parts, ...words, "--max-steps", "8"));
    json(await train("gpu", parts, ...words));
    expect(digestCheckpoint(join(parts, "checkpoint.pth")).sha256).toBe(digestCheckpoint(join(gpu, "checkpoint.pth")).sha256);
  });

  test("mixed precision runs, keeps its loss scale in the checkpoint, and goes on to the bit where it was", async () => {
    const [whole, parts] = [join(scratch, "mixed"), join(scratch, "mixed-parts")];
    json(await train("gpu", whole, "--precision", "mixed"));
    const single = losses(join(scratch, "gpu"));
    for (const [epoch, loss] of losses(whole).entries()) expect(Math.abs(loss / single[epoch]! - 1)).toBeLessThan(0.1);
    json(await train("gpu", parts, "--precision", "mixed", "--max-steps", "8"));
    json(await train("gpu", parts, "--precision", "mixed"));
    expect(digestCheckpoint(join(parts, "checkpoint.pth")).sha256).toBe(digestCheckpoint(join(whole, "checkpoint.pth")).sha256);
    const scaler = readCheckpoint(join(whole, "checkpoint.pth")).fp16Scaler!;
    expect([...scaler.keys()]).toEqual(["scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"]);
    expect(scaler.get("scale")).toBeGreaterThan(0);
    expect(readCheckpoint(join(scratch, "gpu", "checkpoint.pth")).fp16Scaler).toBeUndefined();
  });

  test("64 calls at once on a trainer and an encoder all end", async () => {
    const { config: settings } = resolveConfig(["--config", config, "--batch-size", "1", "--output-dir", join(scratch, "concurrent")]);
    const spec = toTrainerSpec(settings);
    const trainer = native().createTrainer(spec, "gpu");
    const encoder = native().createEncoder({ backbone: spec.backbone, imageSize: 32, batch: 2, precision: "mixed", threads: 1, output: "view" }, "gpu");
    try {
      await encoder.initialize(1);
      const { globalSize, localSize, localCount } = settings.crops;
      const pixels = (images: number, side: number) => new Uint8Array(images * 3 * side * side).fill(100);
      const batch = native().createBatch({ batch: 1, passes: 1, globalSize, localSize, localCount });
      const image = native().encodePng(pixels(1, globalSize), globalSize, globalSize);
      const crop = (side: number): CropPlan => ({
        left: 0, top: 0, width: globalSize, height: globalSize, outWidth: side, outHeight: side, filter: "bilinear", flip: false, operations: [],
      });
      await batch.renderInto(image, 0, Array.from({ length: 2 + localCount }, (_, i) => crop(i < 2 ? globalSize : localSize)));
      const parameters = { progress: 0, learningRate: 1e-4, weightDecay: 0, momentum: 0.99, teacherTemperature: 0.05, freezeLastLayer: false };
      const calls = Array.from({ length: 64 }, (_, i) => i % 2 ? encoder.encode(pixels(2, 32), 2) : trainer.step(batch, { step: i, ...parameters }));
      expect(await Promise.all(calls)).toHaveLength(64);
      expect((await trainer.state()).scaler).toBeUndefined();
    } finally {
      trainer.dispose();
      encoder.dispose();
    }
  });

  test("knn gives the CPU's accuracy of the same weights", async () => {
    const checkpoint = join(scratch, "cpu", "checkpoint.pth");
    const [cpu, gpu] = [json(await run("knn", checkpoint, images, "--json")), json(await run("knn", checkpoint, images, "--device", "gpu", "--json"))];
    expect(gpu["results"]).toEqual(cpu["results"]);
  });

  test("doctor lists it; plan says what goes where; bench step splits its time", async () => {
    const name = native().adapters()[0]!.name;
    expect(json(await run("doctor", "--json"))["adapters"]).toEqual(native().adapters());
    expect((await run("doctor")).stdout).toContain(name);
    expect((await run("doctor")).stdout).toMatch(/mixed: (cooperative matrices|shader arithmetic), f(16|32)/);
    const { device, memory } = json(await run("plan", "--config", config, "--device", "gpu", "--json")) as { device: string; memory: { gpu: number; arena: number } };
    expect(device).toBe(name);
    expect(memory.arena).toBe(0);
    expect(memory.gpu).toBeGreaterThan(0);
    const bench = json(await run("bench", "step", "--config", config, "--device", "gpu", "--steps", "1", "--json")) as { device: string; rows: { phase: string; ms: number }[] };
    expect(bench.device).toBe(name);
    expect(new Set(bench.rows.map(({ phase }) => phase))).toEqual(new Set(["teacher", "student", "loss", "backward", "update"]));
  });
});
