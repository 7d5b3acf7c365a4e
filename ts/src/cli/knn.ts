import { Option, type Command } from "commander";
import { readCheckpoint } from "../checkpoint/index.js";
import { ConfigError, resolveConfig, type Config } from "../config/index.js";
import { DataError } from "../data/index.js";
import { knn, networkOf, openLabeledSplit, type FeatureKind, type KnnReport } from "../evaluate/index.js";
import { native } from "../native/index.js";
import type { Context } from "./context.js";
import { positionalWords, takesSettings } from "./settings.js";
import { withSignals } from "./signals.js";
import { table } from "./table.js";
import { knnReport } from "./training.js";

interface KnnFlags {
  val?: string;
  k?: string;
  resize?: string;
  crop?: string;
  batch?: string;
  net: "teacher" | "student";
  gray?: true;
  random?: true;
  pixels?: true;
  json?: true;
}

/** `esvit knn <checkpoint> <images> [settings]` */
export function addKnn(program: Command, context: Context): void {
  const command = program
    .command("knn")
    .description("k-nearest-neighbor accuracy of a checkpoint's features on labeled images")
    .usage("<checkpoint> <images> [settings]")
    .argument("[words...]", "the checkpoint, the folder of images, and settings")
    .option("--val <folder>", "the query images, when they are not in the folder's val")
    .option("-k <list>", "numbers of neighbors, for instance 10,20")
    .option("--resize <pixels>", "length of the shorter side before the center is cut")
    .option("--crop <pixels>", "side of the center")
    .option("--batch <images>", "images encoded at a time")
    .addOption(new Option("--net <name>", "which net of the checkpoint").choices(["teacher", "student"]).default("teacher"))
    .option("--gray", "take the color from the query images")
    .option("--random", "the same network with random weights instead, as a baseline (the checkpoint may be left out)")
    .option("--pixels", "pictures of 16 x 16 pixels instead of features, as a baseline (the checkpoint may be left out)")
    .option("--json", "print one JSON object");
  takesSettings(command).action(async () => {
    const { io } = context;
    const flags = command.opts<KnnFlags>();
    const words = [...command.args, ...evaluationWords(flags)];
    const { config, features, images, notes } = chooseFeatures(words, flags);
    for (const note of notes) io.stderr(`note: ${note}\n`);
    const split = await openLabeledSplit(images, { maxFileMiB: config.data.maxFileMiB, val: flags.val });
    if (!split) throw new DataError(`${images}: k-NN needs images in at least two classes (one folder each), several of them in each class`);
    context.exitCode = await withSignals(io, async (signal) => {
      let report: KnnReport;
      try {
        report = await knn({ split, config, features, signal, gray: flags.gray === true }, native());
      } catch (error) {
        if (signal.aborted) return { interrupted: true };
        throw error;
      }
      if (flags.json) io.stdout(`${JSON.stringify(knnReport(report))}\n`);
      else {
        const rows = report.results.map(({ k, top1, top5 }) => [k, top1.toFixed(2), top5.toFixed(2)]);
        io.stderr(`${report.bank} images in the bank, ${report.queries} queries (${report.split}), ${report.classes} classes, features of width ${report.width}\n`);
        io.stdout(table(["k", "top-1 %", "top-5 %"], rows));
      }
      return { interrupted: false };
    });
  });
}

/** Flags that are short for fields. */
function evaluationWords({ k, resize, crop, batch }: KnnFlags): string[] {
  const fields = { "evaluate.ks": k === undefined ? undefined : `[${k}]`, "evaluate.resize": resize, "evaluate.crop": crop, "evaluate.batchSize": batch };
  return Object.entries(fields).flatMap(([field, value]) => (value === undefined ? [] : [field, value]));
}

function chooseFeatures(words: readonly string[], flags: KnnFlags): { config: Config; features: FeatureKind; images: string; notes: string[] } {
  if (flags.random && flags.pixels) throw new ConfigError("--random and --pixels exclude each other");
  const positional = positionalWords(words);
  const isBaseline = flags.random === true || flags.pixels === true;
  if (positional.length > 2 || positional.length < (isBaseline ? 1 : 2)) {
    throw new ConfigError(`${isBaseline ? "a folder of images is" : "a checkpoint and a folder of images are"} expected, got ${positional.join(", ") || "nothing"}`);
  }
  const baseline = (config: Config): FeatureKind => (flags.pixels ? "pixels" : { random: { seed: config.seed } });
  const [first = "", images] = positional;
  if (images === undefined) {
    const { config, notes } = resolveConfig(words);
    return { config, features: baseline(config), images: first, notes };
  }
  const { config, weights, notes } = networkOf(readCheckpoint(first), flags.net, words);
  return { config, features: isBaseline ? baseline(config) : { weights }, images, notes };
}
