import type { Command } from "commander";
import type { Config } from "../../config/index.js";
import type { BenchReport } from "../../native/index.js";
import type { Context } from "../context.js";
import { readSettings, takesSettings } from "../settings.js";
import { table } from "../table.js";
import { measure, positiveNumber } from "./settings.js";

interface StepFlags {
  device?: string;
  batch?: string;
  steps: number;
  json?: true;
}

type Row = BenchReport["rows"][number];

/** Cost of a step. Times in milliseconds, rates in GFLOP/s. */
interface StepBench {
  batchSize: number;
  threads: number;
  instructions: string;
  /** Time of each measured step. */
  stepMs: number[];
  medianMs: number;
  imagesPerSecond: number;
  /** `cpu`, or the GPU's name. */
  device: string;
  /** The machine's rate in a large matrix product, which shares refer to. */
  peak: number;
  /** Arithmetic of one step, and its rate over the median step. */
  gflop: number;
  gflops: number;
  share: number;
  /** Memory: planned before the first step, and the most this process had. Bytes. */
  plannedBytes: number;
  peakBytes: number | null;
  rows: (Row & { gflops: number; share: number })[];
}

/** `esvit bench step [settings]` */
export function addStep(bench: Command, context: Context): void {
  const command = bench
    .command("step")
    .description("time of a training step, by phase and operator, and its share of the machine's peak")
    .usage("[--config FILE] [settings]")
    .argument("[words...]", "settings, as for pretrain")
    .option("-d, --device <device>", "cpu, gpu or auto")
    .option("--batch <images>", "images a step")
    .option("--steps <n>", "steps that are measured", positiveNumber, 5)
    .option("--json", "print one JSON object");
  takesSettings(command).action(async () => {
    const { io } = context;
    const flags = command.opts<StepFlags>();
    const words = [...command.args];
    if (flags.batch !== undefined) words.push("--batch-size", flags.batch);
    if (flags.device !== undefined) words.push("--device", flags.device);
    const { config, notes } = readSettings(words);
    for (const note of notes) io.stderr(`note: ${note}\n`);
    const bench = await benchStep(config, flags.steps, context);
    io.stdout(flags.json ? `${JSON.stringify(bench)}\n` : benchText(bench));
  });
}

async function benchStep(config: Config, steps: number, context: Context): Promise<StepBench> {
  const { cases, rows, peaks, device, instructions } = await measure(config, context, { subject: "step", runs: steps });
  const [step, peak] = [cases[0]!, peaks[0]!.gflops];
  const rate = (amount: number, ms: number): number => amount / Math.max(ms / 1000, 1e-9);
  return {
    batchSize: step.batch, device, threads: step.threads, instructions, stepMs: step.runMs, medianMs: step.medianMs, peak, gflop: step.gflop,
    imagesPerSecond: step.imagesPerSecond,
    gflops: step.gflops,
    share: step.gflops / peak,
    plannedBytes: step.plannedBytes,
    peakBytes: step.peakBytes,
    rows: rows.map((row) => ({ ...row, gflops: rate(row.gflop, row.ms), share: rate(row.gflop, row.ms) / peak })),
  };
}

function benchText(bench: StepBench): string {
  const profileMs = bench.rows.reduce((sum, { ms }) => sum + ms, 0);
  const line = (phase: string, operator: string, rows: StepBench["rows"]): (string | number)[] => {
    const ms = rows.reduce((sum, row) => sum + row.ms, 0);
    const gflop = rows.reduce((sum, row) => sum + row.gflop, 0);
    const gflops = gflop / Math.max(ms / 1000, 1e-9);
    const calls = rows.reduce((sum, row) => sum + row.calls, 0);
    return [phase, operator, calls, ms.toFixed(2), ((100 * ms) / profileMs).toFixed(1), gflop.toFixed(2), gflops.toFixed(1), ((100 * gflops) / bench.peak).toFixed(1)];
  };
  const phases = [...new Set(bench.rows.map(({ phase }) => phase))];
  const rows = phases.flatMap((phase) => {
    const own = bench.rows.filter((row) => row.phase === phase).sort((a, b) => b.ms - a.ms);
    return [line(phase, "all", own), ...own.map((row) => line("", row.operator, [row]))];
  });
  const spread = `${Math.min(...bench.stepMs).toFixed(1)} to ${Math.max(...bench.stepMs).toFixed(1)}`;
  const rate = `${bench.gflop.toFixed(1)} GFLOP a step, ${bench.gflops.toFixed(1)} GFLOP/s`;
  const place = bench.device === "cpu" ? `${bench.threads} threads, ${bench.instructions}` : bench.device;
  return [
    `${bench.medianMs.toFixed(1)} ms a step of ${bench.batchSize} images (${bench.stepMs.length} steps, ${spread}), ${bench.imagesPerSecond.toFixed(1)} images/s`,
    `${rate}, ${((100 * bench.gflops) / bench.peak).toFixed(1)} % of ${bench.peak.toFixed(0)} GFLOP/s (${place})`,
    "",
    table(["phase", "operator", "calls", "ms", "% of time", "GFLOP", "GFLOP/s", "% of peak"], rows),
  ].join("\n");
}
