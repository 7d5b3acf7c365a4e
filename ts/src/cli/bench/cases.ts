import type { Command } from "commander";
import type { BenchReport } from "../../native/index.js";
import type { Context } from "../context.js";
import { mebibytes, table } from "../table.js";
import { benchConfig, measure, peakLine, takesBenchSettings, type BenchFlags } from "./settings.js";

/** Commands that time one part of the engine: their subject, their usual batch, and what they are. */
const subjects: [name: string, batch: number, description: string][] = [
  ["loss", 2, "last layer, view and region loss of one step, forward and backward"],
  ["attention", 8, "window attention of the first stage, with its projections and without, forward, and forward and backward"],
  ["inference", 8, "pooled features of images of the global crops' size"],
];

/** `esvit bench loss|attention|inference [settings]` */
export function addCases(bench: Command, context: Context): void {
  for (const [subject, batch, description] of subjects) {
    const command = bench.command(subject).description(description);
    takesBenchSettings(command, 5).action(async () => {
      const { runs, json } = command.opts<BenchFlags>();
      const report = await measure(benchConfig(command, context, batch), context, { subject, runs });
      context.io.stdout(json ? `${JSON.stringify(report)}\n` : casesText(report));
    });
  }
}

function casesText(report: BenchReport): string {
  const peak = report.peaks[0]?.gflops ?? NaN;
  const rows = report.cases.map((m) => [
    m.case, m.precision, m.batch, m.medianMs.toFixed(2), m.minMs.toFixed(2), m.maxMs.toFixed(2), m.imagesPerSecond.toFixed(1), m.gflops.toFixed(1),
    ((100 * m.gflops) / peak).toFixed(1), mebibytes(m.plannedBytes), m.peakBytes === null ? "" : mebibytes(m.peakBytes),
  ]);
  const headings = ["case", "precision", "images", "ms", "min", "max", "images/s", "GFLOP/s", "% of peak", "planned", "process"];
  return `${peakLine(report)}\n\n${table(headings, rows)}`;
}
