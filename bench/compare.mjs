/**
 * Ratios of two reports that were made on a machine without Node, one after the other: what `esvit-bench --json` and `peer.py --json` printed.
 *
 *   node bench/compare.mjs ours.json theirs.json [--json]
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { ratioName } from "./peer/comparisons.mjs";
import { PeerError } from "./peer/python.mjs";
import { markdown, summary } from "./peer/report.mjs";

/** A report; throws `PeerError` when the file has none. */
function readReport(file) {
  try {
    const report = JSON.parse(readFileSync(file, "utf8"));
    if (Array.isArray(report.cases) && report.cases.length > 0) return report;
  } catch (error) {
    throw new PeerError(`${file}: ${error.message}`);
  }
  throw new PeerError(`${file}: this is no report with cases`);
}

function main() {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { json: { type: "boolean", default: false } } });
  if (positionals.length !== 2) throw new PeerError("name two files: ours, then theirs");
  const [ours, theirs] = positionals.map(readReport);
  const fits = (a) => (b) => ["case", "precision", "batch"].every((key) => a[key] === b[key]);
  const finished = ours.cases.map((measurement) => {
    const { case: name, precision, batch } = measurement;
    return { name: ratioName(name, precision), case: name, precision, batch, ours: measurement, theirs: theirs.cases.filter(fits(measurement)) };
  });
  const report = {
    machine: { processor: ours.device, threads: ours.cases[0].threads, instructions: ours.instructions, pytorch: theirs.version },
    peaks: { ours: ours.peaks, theirs: theirs.peaks },
    ...summary(finished),
  };
  const rates = (peaks) => peaks.map(({ gflops }) => `${gflops.toFixed(0)} GFLOP/s`).join(", ");
  const products = `A large matrix product: ours ${rates(ours.peaks)}, theirs ${rates(theirs.peaks)}.`;
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : `${markdown(report, `node bench/compare.mjs ${positionals.join(" ")}`)}\n\n${products}\n`);
}

try {
  main();
} catch (error) {
  if (!(error instanceof PeerError)) throw error;
  process.stderr.write(`compare: ${error.message}\n`);
  process.exitCode = 1;
}
