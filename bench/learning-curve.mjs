/**
 * k-NN accuracy over training time: the network drawn at random, then its teacher every so many steps, with several seeds, on
 * queries in color and in gray. Prints one JSON line for each point, then a table. Training time alone is counted.
 *
 *   node bench/learning-curve.mjs <images> [--config configs/nano.yaml] [--seeds 0,1,2] [--every 150] [--steps 900] [-- settings, over the file's]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { knn, native, networkOf, openLabeledSplit, pretrain, readCheckpoint, resolveConfig } from "../dist/index.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    config: { type: "string", default: fileURLToPath(new URL("../configs/nano.yaml", import.meta.url)) },
    seeds: { type: "string", default: "0,1,2" },
    every: { type: "string", default: "150" },
    steps: { type: "string", default: "900" },
  },
});
const [images, ...words] = positionals;
if (images === undefined) throw new Error("name the folder of images");
const every = Number(values.every);
const steps = Number(values.steps);
const seeds = values.seeds.split(",").map(Number);
const split = await openLabeledSplit(images, { maxFileMiB: 128 });
if (!split) throw new Error(`${images} has no class folders`);

/** Accuracy with 20 neighbors, in color and in gray. */
async function accuracy(config, features) {
  const at20 = async (gray) => (await knn({ split, config: { ...config, evaluate: { ...config.evaluate, ks: [20] } }, features, gray }, native())).results[0].top1;
  return { color: await at20(false), gray: await at20(true) };
}

const points = [];
function report(point) {
  points.push(point);
  process.stdout.write(`${JSON.stringify(point)}\n`);
}

for (const seed of seeds) {
  const folder = mkdtempSync(join(tmpdir(), "esvit-curve-"));
  try {
    const { config } = resolveConfig([...words, "--seed", String(seed), "--output-dir", folder], values.config);
    const run = { ...config, data: { ...config.data, path: images }, evaluate: { ...config.evaluate, enabled: false } };
    if (seed === seeds[0]) report({ seed: "pixels", step: 0, seconds: 0, ...(await accuracy(run, "pixels")) });
    report({ seed, step: 0, seconds: 0, ...(await accuracy(run, { random: { seed } })) });
    let seconds = 0;
    for (let step = every; step <= steps; step += every) {
      let last;
      const result = await pretrain({ ...run, maxSteps: step }, { onStep: (event) => (last = event) });
      seconds += result.seconds;
      const { weights } = networkOf(readCheckpoint(result.checkpoint), "teacher");
      report({ seed, step, seconds: Math.round(seconds), loss: last.stats.loss, deviation: last.stats.featureDeviation, ...(await accuracy(run, { weights })) });
      if (result.status === "finished") break;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const at = (step) => points.filter((point) => point.step === step && point.seed !== "pixels");
const cell = (point) => `${point.color.toFixed(1)} / ${point.gray.toFixed(1)}`;
process.stdout.write(`\nk-NN (k = 20) in %, color / gray; pixels ${cell(points[0])}\n| step | seconds | ${seeds.map((seed) => `seed ${seed}`).join(" | ")} |\n`);
for (const step of new Set(points.slice(1).map((point) => point.step))) {
  const row = at(step);
  process.stdout.write(`| ${step} | ${Math.round(row.reduce((sum, { seconds }) => sum + seconds, 0) / row.length)} | ${row.map(cell).join(" | ")} |\n`);
}
