import { InvalidArgumentError, type Command } from "commander";
import { engineThreads, imagesPerStep, toTrainerSpec, type Config } from "../config/index.js";
import { chooseDevice, native, type ProfileRow, type Trainer } from "../native/index.js";
import { stream } from "../random/index.js";
import { trainingSchedule } from "../schedule/index.js";
import type { Context } from "./context.js";
import { readSettings, takesSettings } from "./settings.js";
import { table } from "./table.js";

interface BenchFlags {
  batch?: string;
  steps: number;
  json?: true;
}

/** What a step costs. Times in milliseconds, rates in GFLOP/s. */
interface StepBench {
  batchSize: number;
  threads: number;
  instructions: string;
  /** Of each measured step. */
  stepMs: number[];
  medianMs: number;
  imagesPerSecond: number;
  /** `cpu`, or the GPU's name. */
  device: string;
  /** The machine's rate, which shares refer to; null on a GPU, whose rate is not known. */
  peak: number | null;
  /** Arithmetic of one step, and its rate over the median step. */
  gflop: number;
  gflops: number;
  share: number | null;
  rows: (ProfileRow & { gflops: number; share: number | null })[];
}

function positiveNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("It must be a whole number from 1.");
  return value;
}

/** `esvit bench step [settings]` */
export function addBench(program: Command, context: Context): void {
  const command = program
    .command("bench")
    .description("measure the engine on this machine")
    .command("step")
    .description("time of a training step, by phase and operator, and its share of the machine's peak")
    .usage("[--config FILE] [settings]")
    .argument("[words...]", "settings, as for pretrain")
    .option("--batch <images>", "images a step")
    .option("--steps <n>", "steps that are measured", positiveNumber, 5)
    .option("--json", "print one JSON object");
  takesSettings(command).action(async () => {
    const { io } = context;
    const flags = command.opts<BenchFlags>();
    const words = flags.batch === undefined ? command.args : [...command.args, "--batch-size", flags.batch];
    const { config, notes } = readSettings(words);
    for (const note of notes) io.stderr(`note: ${note}\n`);
    const bench = await benchStep(config, flags.steps);
    io.stdout(flags.json ? `${JSON.stringify(bench)}\n` : benchText(bench));
  });
}

async function benchStep(config: Config, steps: number): Promise<StepBench> {
  const engine = native();
  const threads = engineThreads(config.threads);
  const { device, adapter } = chooseDevice(config.device, engine);
  const peak = device === "cpu" ? await engine.gemmPeak(threads) : null;
  const shareOf = (gflops: number): number | null => (peak === null ? null : gflops / peak);
  const trainer = engine.createTrainer(toTrainerSpec({ ...config, mixup: { ...config.mixup, enabled: false } }), device);
  try {
    const { stepMs, profile } = await measure(trainer, config, steps);
    const medianMs = [...stepMs].sort((a, b) => a - b)[Math.floor(stepMs.length / 2)]!;
    const gflop = profile.reduce((sum, row) => sum + row.gflop, 0);
    const rate = (amount: number, ms: number): number => amount / Math.max(ms / 1000, 1e-9);
    return {
      batchSize: imagesPerStep(config), device: adapter?.name ?? "cpu", threads, instructions: engine.cpuFeatures(), stepMs, medianMs, peak, gflop,
      imagesPerSecond: rate(imagesPerStep(config), medianMs),
      gflops: rate(gflop, medianMs),
      share: shareOf(rate(gflop, medianMs)),
      rows: profile.map((row) => ({ ...row, gflops: rate(row.gflop, row.ms), share: shareOf(rate(row.gflop, row.ms)) })),
    };
  } finally {
    trainer.dispose();
  }
}

/** Steps on noise, which costs what pictures cost; the first one, which touches all memory for the first time, does not count. */
async function measure(trainer: Trainer, config: Config, steps: number): Promise<{ stepMs: number[]; profile: ProfileRow[] }> {
  const { globalSize, localSize, localCount } = config.crops;
  const noise = stream(config.seed, "bench");
  const pixels = (count: number, side: number): Uint8Array => Uint8Array.from({ length: count * side * side * 3 }, () => noise.uint32() & 255);
  const crops = { global: pixels(2 * imagesPerStep(config), globalSize), local: pixels(localCount * imagesPerStep(config), localSize) };
  const knobs = trainingSchedule(config, steps + 2);
  await trainer.step(crops, knobs(0));
  const stepMs: number[] = [];
  for (let step = 1; step <= steps; step++) stepMs.push((await trainer.step(crops, knobs(step))).elapsedMs);
  return { stepMs, profile: await trainer.profile(crops, knobs(steps + 1)) };
}

function benchText(bench: StepBench): string {
  const profileMs = bench.rows.reduce((sum, { ms }) => sum + ms, 0);
  const line = (phase: string, operator: string, rows: StepBench["rows"]): (string | number)[] => {
    const ms = rows.reduce((sum, row) => sum + row.ms, 0);
    const gflop = rows.reduce((sum, row) => sum + row.gflop, 0);
    const gflops = gflop / Math.max(ms / 1000, 1e-9);
    const calls = rows.reduce((sum, row) => sum + row.calls, 0);
    return [phase, operator, calls, ms.toFixed(2), ((100 * ms) / profileMs).toFixed(1), gflop.toFixed(2), gflops.toFixed(1), ...(bench.peak === null ? [] : [((100 * gflops) / bench.peak).toFixed(1)])];
  };
  const phases = [...new Set(bench.rows.map(({ phase }) => phase))];
  const rows = phases.flatMap((phase) => {
    const own = bench.rows.filter((row) => row.phase === phase).sort((a, b) => b.ms - a.ms);
    return [line(phase, "all", own), ...own.map((row) => line("", row.operator, [row]))];
  });
  const spread = `${Math.min(...bench.stepMs).toFixed(1)} to ${Math.max(...bench.stepMs).toFixed(1)}`;
  const rate = `${bench.gflop.toFixed(1)} GFLOP a step, ${bench.gflops.toFixed(1)} GFLOP/s`;
  const peak = bench.peak === null ? [] : ["% of peak"];
  return [
    `${bench.medianMs.toFixed(1)} ms a step of ${bench.batchSize} images (${bench.stepMs.length} steps, ${spread}), ${bench.imagesPerSecond.toFixed(1)} images/s`,
    bench.peak === null
      ? `${rate} (${bench.device})`
      : `${rate}, ${((100 * bench.gflops) / bench.peak).toFixed(1)} % of ${bench.peak.toFixed(0)} GFLOP/s (${bench.threads} threads, ${bench.instructions})`,
    "",
    table(["phase", "operator", "calls", "ms", "% of time", "GFLOP", "GFLOP/s", ...peak], rows),
  ].join("\n");
}
