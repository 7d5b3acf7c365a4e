import { join } from "node:path";
import { InvalidArgumentError, type Command } from "commander";
import type { Config } from "../config/index.js";
import { patterns, writeDemoImages } from "../demo/index.js";
import { knn, openLabeledSplit, type FeatureKind, type KnnReport } from "../evaluate/index.js";
import { native } from "../native/index.js";
import type { Context } from "./context.js";
import { packageRoot } from "./package-root.js";
import { readSettings, takesSettings } from "./settings.js";
import { withSignals } from "./signals.js";
import { table } from "./table.js";
import { knnReport, runReport, trainWatched } from "./training.js";

/** Below what the user says: long enough to see it learn, short enough to wait for. */
const demoWords = ["--output-dir", join("output", "demo"), "--max-minutes", "3"];

interface DemoFlags {
  imagesPerClass: number;
  json?: true;
}

function imageCount(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 4) throw new InvalidArgumentError("It must be a whole number from 4.");
  return value;
}

/** `esvit demo` */
export function addDemo(program: Command, context: Context): void {
  const command = program
    .command("demo")
    .description("make a small set of images, pre-train on it (a minute and a half on two fast cores, at most three), and show what was learned; again goes on")
    .usage("[--output-dir FOLDER] [settings]")
    .argument("[words...]", "settings, over those of configs/nano.yaml")
    .option("--images-per-class <n>", "training images in each of the eight classes", imageCount, 128)
    .option("--json", "print one JSON object at the end");
  takesSettings(command).action(async () => {
    const { io } = context;
    const flags = command.opts<DemoFlags>();
    const settings = readSettings([...demoWords, ...command.args], join(packageRoot(), "configs", "nano.yaml"));
    const images = join(settings.config.outputDir, "images");
    const config: Config = { ...settings.config, data: { ...settings.config.data, path: images } };
    const engine = native();
    const options = { seed: 0, trainPerClass: flags.imagesPerClass, valPerClass: Math.ceil(flags.imagesPerClass / 3) };
    const isNew = await writeDemoImages(images, options, (pixels, width, height) => engine.encodePng(pixels, width, height));
    io.stderr(`${isNew ? "wrote" : "found"} ${patterns.length * (options.trainPerClass + options.valPerClass)} images in ${images}\n`);

    context.exitCode = await withSignals(io, async (signal) => {
      const split = await openLabeledSplit(images, { maxFileMiB: config.data.maxFileMiB });
      if (!split) throw new Error(`${images}: the demo's images have no classes`);
      const measure = (features: FeatureKind): Promise<KnnReport> => knn({ split, config, features, signal }, engine);
      const pixels = await untilSignal(signal, () => measure("pixels"));
      const before = pixels && (await untilSignal(signal, () => measure({ random: { seed: config.seed } })));
      if (!pixels || !before) return { interrupted: true };

      const result = await trainWatched(config, settings.notes, io, signal);
      const after = result.knn;
      const chance = 100 / patterns.length;
      if (flags.json) {
        const baselines = { chance, pixels: knnReport(pixels), before: knnReport(before) };
        io.stdout(`${JSON.stringify({ ...baselines, after: after ? knnReport(after) : null, run: runReport(result) })}\n`);
      } else {
        const ks = before.results.map(({ k }) => k);
        const row = (name: string, report: KnnReport): string[] => [name, ...report.results.map(({ top1 }) => top1.toFixed(1))];
        const done = result.position.epoch * result.plan.stepsPerEpoch + result.position.step;
        io.stdout(table([`k-NN accuracy in %, ${before.queries} queries`, ...ks.map((k) => `k=${k}`)], [
          ["chance", ...ks.map(() => chance.toFixed(1))],
          row("pixels", pixels),
          row("random network", before),
          ...(after ? [row(`after ${done} steps`, after)] : []),
        ]));
      }
      return { interrupted: result.status === "interrupted" };
    });
  });
}

/** The result of `work`, or undefined when the signal ended it. */
async function untilSignal<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}
