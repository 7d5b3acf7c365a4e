/** A nano model of each family through every command: a few steps with a falling loss, on a GPU too, a checkpoint, features from it, its costs. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../support/temporary.js";
import { native } from "../../ts/src/native/index.js";
import { json, notBuilt, run, writeImages } from "./program.js";

const families = {
  swin: "backbone: { kind: swin, imageSize: 32, dim: 16, depths: [1, 1], heads: [1, 2], window: 4, dropPath: 0.1 }",
  cvt: "backbone: { kind: cvt, dims: [16, 32], depths: [1, 1], heads: [1, 2], windows: [4, 4], embedKernels: [7, 3], embedStrides: [4, 2], embedPaddings: [2, 1], qkvKernels: [3, 3], qkvBias: [true, true], mlpRatios: [2, 2], shift: [false, false], relativePosition: true, dropPath: 0.1 }",
  resnet: "backbone: { kind: resnet, depths: [1, 1, 1, 1], dim: 16 }",
  resnext: "backbone: { kind: resnet, depths: [1, 1, 1, 1], dim: 16, width: 16, groups: 4 }",
  vit: "backbone: { kind: vit, imageSize: 32, patchSize: 8, dim: 24, depth: 2, heads: 3, dropPath: 0.1 }",
  vil: "backbone: { kind: vil, imageSize: 32, arch: 'l1,h1,d16,n1,s1,g1,p4,f3,a0_l2,h2,d32,n1,s0,g1,p2,f7,a0', neighbors: drawn, drawUntil: 0.5, dropPath: 0.1 }",
};

const scratch = temporaryFolder();
let images = "";

function lossesOf(output: string): number[] {
  return readFileSync(join(output, "log.txt"), "utf8").trim().split("\n").map((line) => (JSON.parse(line) as { train_loss: number }).train_loss);
}

const withGpu = !notBuilt && native().adapters().length > 0;
if (!withGpu) console.warn("skipped: without a GPU no family's steps are compared on one");

describe.skipIf(notBuilt)("a nano model", () => {
  beforeAll(async () => {
    images = await writeImages(join(scratch, "images"), 4);
  });

  test.each(Object.entries(families))("%s goes through every command", async (family, backbone) => {
    const config = join(scratch, `${family}.yaml`);
    writeFileSync(config, `${backbone}
head: { outDim: 64, hiddenDim: 32, bottleneckDim: 16, normLastLayer: true }
crops: { globalSize: 32, localSize: 16, localCount: 2, globalScale: [0.5, 1], localScale: [0.25, 0.6] }
loss: { region: true, teacherTemperature: { warmup: 0.03, value: 0.03, warmupEpochs: 0 } }
optimizer: { lr: 0.05, warmupEpochs: 1, freezeLastLayer: 1, momentumTeacher: 0.9 }
evaluate: { resize: 36, crop: 32, ks: [3] }
epochs: 8
batchSize: 8
threads: 2
`);
    const output = join(scratch, family);
    expect(json(await run("pretrain", images, "--config", config, "--output-dir", output, "--max-steps", "12", "--json"))).toMatchObject({ globalStep: 12 });
    const losses = lossesOf(output);
    // Until the center catches up, a network this small comes ever closer to a sharp teacher: a third and less after three epochs of four steps.
    expect(losses).toHaveLength(3);
    expect(losses[2]).toBeLessThan(0.6 * losses[0]!);
    const report = json(await run("knn", join(output, "checkpoint.pth"), images, "--json", "-k", "1"));
    expect(report).toMatchObject({ bank: 32, queries: 16, width: { swin: 32, cvt: 32, resnet: 512, resnext: 512, vit: 24, vil: 32 }[family] });
    const digest = await run("checkpoint", "digest", join(output, "checkpoint.pth"));
    expect(digest.code, digest.stderr).toBe(0);
    const plan = json(await run("plan", "--config", config, "--json")) as { parameterCount: number; memory: { total: number }; largestBatch: number };
    expect(plan.parameterCount).toBeGreaterThan(1000);
    expect(plan.largestBatch).toBeGreaterThanOrEqual(8);
    const bench = json(await run("bench", "step", "--config", config, "--steps", "1", "--json")) as { rows: { phase: string; gflop: number }[] };
    expect(new Set(bench.rows.map(({ phase }) => phase))).toEqual(new Set(["teacher", "student", "loss", "backward", "update"]));
    if (!withGpu) return;
    const onGpu = `${output}-gpu`;
    json(await run("pretrain", images, "--config", config, "--output-dir", onGpu, "--max-steps", "4", "--device", "gpu", "--json"));
    expect(Math.abs(lossesOf(onGpu)[0]! / losses[0]! - 1), "the loss of the first epoch on a GPU").toBeLessThan(1e-3);
  });
});
