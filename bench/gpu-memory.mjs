/**
 * The memory of a process over many steps of a micro network on the GPU. A GPU in software has its memory in the process, so that this counts both.
 * Prints the resident memory every so many steps, and the largest deviation after the first quarter, in which Node settles.
 *
 *   node bench/gpu-memory.mjs [--steps 2000] [--precision f32|mixed]
 */
import { parseArgs } from "node:util";
import { native } from "../dist/index.js";

const { values } = parseArgs({ options: { steps: { type: "string", default: "2000" }, precision: { type: "string", default: "mixed" } } });
const steps = Number(values.steps);
const crops = { batch: 1, globalSize: 32, localSize: 16, localCount: 1 };
const trainer = native().createTrainer({
  backbone: {
    kind: "swin", imageSize: 32, patchSize: 4, dim: 16, depths: [1, 1], heads: [1, 2], window: 4, mlpRatio: 2,
    qkvBias: true, absolutePosition: false, patchNorm: true, dropPath: 0.1,
  },
  head: { outDim: 64, hiddenDim: 16, bottleneckDim: 16, layers: 2, batchNorm: false, normLastLayer: false },
  crops,
  loss: { region: true, studentTemperature: 0.1, centerMomentum: 0.9, mixup: false },
  accumulate: 1, checkpointing: false, optimizer: "adamw", clipGrad: 1, precision: values.precision, seed: 0, threads: 1,
}, "gpu");
const side = crops.globalSize;
const image = native().encodePng(Uint8Array.from({ length: 3 * side * side }, (_, i) => (i * 31) % 256), side, side);
const batch = native().createBatch({ batch: 1, passes: 1, globalSize: side, localSize: crops.localSize, localCount: crops.localCount });
const crop = (out) => ({ left: 0, top: 0, width: side, height: side, outWidth: out, outHeight: out, filter: "bilinear", flip: false, operations: [] });
await batch.renderInto(image, 0, [crop(side), crop(side), crop(crops.localSize)]);

const every = steps / 20;
const points = [];
for (let step = 0; step < steps; step++) {
  await trainer.step(batch, {
    step, progress: step / steps, learningRate: 1e-4, weightDecay: 0.04, momentum: 0.99, teacherTemperature: 0.05, freezeLastLayer: false,
  });
  if ((step + 1) % every === 0) {
    globalThis.gc?.();
    points.push(process.memoryUsage().rss);
    process.stdout.write(`${JSON.stringify({ step: step + 1, mib: points.at(-1) / 2 ** 20 })}\n`);
  }
}
trainer.dispose();
const settled = points.slice(points.length / 4);
process.stdout.write(`${JSON.stringify({ deviation: Math.max(...settled.map((bytes) => Math.abs(bytes / settled[0] - 1))) })}\n`);
