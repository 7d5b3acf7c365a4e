import { availableParallelism } from "node:os";
import type { Command } from "commander";
import type { Measurement } from "../../native/index.js";
import type { Config } from "../../config/index.js";
import type { Context } from "../context.js";
import { mebibytes, table } from "../table.js";
import { benchConfig, measure, positiveNumbers, takesBenchSettings, type BenchFlags } from "./settings.js";

interface ScalingFlags extends BenchFlags {
  images: number[];
  localCrops: number[];
  threadCounts: number[];
}

/** A step at one size. */
interface ScalingPoint extends Measurement {
  localCrops: number;
}

/** `esvit bench scaling [settings]` */
export function addScaling(bench: Command, context: Context): void {
  const cores = availableParallelism();
  const command = bench
    .command("scaling")
    .description("a training step over the number of images, threads and local crops: whether its cost grows as they do")
    .option("--images <n,n>", "batches", positiveNumbers, [1, 2, 4, 8])
    .option("--thread-counts <n,n>", "threads of the engine, for each batch", positiveNumbers, cores > 1 ? [1, cores] : [1])
    .option("--local-crops <n,n>", "local crops an image, with the first batch and the most threads", positiveNumbers, [1, 2, 4, 8]);
  takesBenchSettings(command, 3).action(async () => {
    const { io } = context;
    const flags = command.opts<ScalingFlags>();
    const config = benchConfig(command, context, 2);
    const point = async (change: Partial<Config>): Promise<ScalingPoint> => {
      const sized = { ...config, ...change };
      const { cases } = await measure(sized, context, { subject: "step", runs: flags.runs });
      if (!flags.json) io.stderr(`${sized.batchSize} images, ${sized.crops.localCount} local crops, ${sized.threads} threads: ${cases[0]!.medianMs.toFixed(0)} ms\n`);
      return { ...cases[0]!, localCrops: sized.crops.localCount };
    };
    const batches: ScalingPoint[] = [];
    for (const threads of flags.threadCounts) for (const batchSize of flags.images) batches.push(await point({ threads, batchSize }));
    const crops: ScalingPoint[] = [];
    const fewest = { threads: Math.max(...flags.threadCounts), batchSize: flags.images[0]! };
    for (const localCount of flags.localCrops) crops.push(await point({ ...fewest, crops: { ...config.crops, localCount } }));
    io.stdout(flags.json ? `${JSON.stringify({ batches, crops })}\n` : scalingText(batches, crops));
  });
}

function scalingText(batches: readonly ScalingPoint[], crops: readonly ScalingPoint[]): string {
  const first = (threads: number): ScalingPoint => batches.find((point) => point.threads === threads)!;
  const alone = (batch: number): ScalingPoint => batches.find((point) => point.batch === batch)!;
  const overBatches = table(
    ["threads", "images", "ms", "ms an image", "of the first", "speed-up", "GFLOP/s", "memory"],
    batches.map((m) => [
      m.threads, m.batch, m.medianMs.toFixed(0), (m.medianMs / m.batch).toFixed(0),
      (m.medianMs / m.batch / (first(m.threads).medianMs / first(m.threads).batch)).toFixed(2), (alone(m.batch).medianMs / m.medianMs).toFixed(2),
      m.gflops.toFixed(1), mebibytes(m.plannedBytes),
    ]),
  );
  const overCrops = table(
    ["local crops", "images", "ms", "GFLOP", "GFLOP/s", "memory"],
    crops.map((m) => [m.localCrops, m.batch, m.medianMs.toFixed(0), m.gflop.toFixed(1), m.gflops.toFixed(1), mebibytes(m.plannedBytes)]),
  );
  return `${overBatches}\n${overCrops}`;
}
