import type { Command } from "commander";
import type { BenchReport } from "../../native/index.js";
import type { Context } from "../context.js";
import { table } from "../table.js";
import { benchConfig, measure, peakLine, takesBenchSettings, type BenchFlags } from "./settings.js";

/** `esvit bench ops [settings]` */
export function addOperators(bench: Command, context: Context): void {
  const command = bench
    .command("ops")
    .description("every operator of a training step alone, at the shapes it has there, the costliest first")
    .option("--only <name>", "those whose name begins so");
  takesBenchSettings(command, 5).action(async () => {
    const { only, runs, json } = command.opts<BenchFlags & { only?: string }>();
    const report = await measure(benchConfig(command, context, 2), context, { subject: "ops", runs, ...(only === undefined ? {} : { only }) });
    context.io.stdout(json ? `${JSON.stringify(report)}\n` : operatorsText(report));
  });
}

function operatorsText(report: BenchReport): string {
  const peak = report.peaks[0]?.gflops ?? NaN;
  const rows = report.operators.map(({ operator, operands, calls, ms, gflop, gflops, gigabytesPerSecond }) => [
    // The first two say what it works on; the others are biases, scales and lists.
    operator, operands.slice(0, 2).map((shape) => shape.join("x")).join(" "), calls, ms.toFixed(3), (ms * calls).toFixed(2),
    gflop > 0 ? gflops.toFixed(1) : "", gflop > 0 ? ((100 * gflops) / peak).toFixed(1) : "", gigabytesPerSecond.toFixed(1),
  ]);
  return `${peakLine(report)}\n\n${table(["operator", "operands", "calls", "ms", "ms a step", "GFLOP/s", "% of peak", "GB/s"], rows)}`;
}
