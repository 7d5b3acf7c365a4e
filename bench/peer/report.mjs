/** Ratios of interleaved runs of two programs, as JSON and as a section of a document. */
import { readFileSync, writeFileSync } from "node:fs";

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return (sorted[Math.floor(middle)] + sorted[Math.ceil(middle)]) / 2;
}

/** Their time over ours, run by run: above 1 we are faster. Null where one of them did not run. */
export function ratioOf(ours, theirs) {
  if (!ours.runMs || !theirs.runMs) return null;
  const runs = Math.min(ours.runMs.length, theirs.runMs.length);
  const each = Array.from({ length: runs }, (_, run) => theirs.runMs[run] / ours.runMs[run]);
  return { median: median(each), min: Math.min(...each), max: Math.max(...each) };
}

/** Memory of a measurement: of the GPU where it ran on one, else of the process. */
const memoryOf = (measurement) => measurement.deviceBytes ?? measurement.peakBytes;

const memoryRatio = (ours, theirs) => (memoryOf(ours) && memoryOf(theirs) ? memoryOf(theirs) / memoryOf(ours) : null);

const geometricMean = (values) => Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

/**
 * Ratios of finished comparisons. The ratio of a name is the geometric mean over its batches; what other tools than eager PyTorch reach has
 * their name as an ending.
 * @param {{name: string, ours: object, theirs: object[]}[]} finished
 */
export function summary(finished) {
  const times = {};
  const memory = {};
  const cases = finished.map(({ ours, theirs, ...comparison }) => {
    const others = theirs.map((measurement) => ({ ...measurement, ratio: ratioOf(ours, measurement), memoryRatio: memoryRatio(ours, measurement) }));
    for (const { tool, ratio, memoryRatio } of others) {
      const name = tool === "pytorch" ? comparison.name : `${comparison.name}_${tool}`;
      (times[name] ??= []).push(ratio?.median ?? null);
      (memory[name] ??= []).push(memoryRatio);
    }
    return { ...comparison, ours, theirs: others };
  });
  const mean = (lists) => Object.fromEntries(Object.entries(lists).map(([name, values]) => [name, values.includes(null) ? null : geometricMean(values)]));
  return { ratios: mean(times), memoryRatios: mean(memory), cases };
}

/** The section's text. */
export function markdown({ machine, rounds, cases, ratios, memoryRatios }, command) {
  const number = (value, digits = 1) => (value === null || value === undefined ? "" : value.toFixed(digits));
  const mebibytes = (bytes) => (bytes ? String(Math.round(bytes / 2 ** 20)) : "");
  const row = (cells) => `| ${cells.join(" | ")} |`;
  const details = cases.flatMap(({ case: name, precision, batch, ours, theirs }) =>
    theirs.map((other) => row([
      name, precision, batch, other.tool, number(ours.medianMs), number(other.medianMs),
      other.ratio ? `**${number(other.ratio.median, 2)}** (${number(other.ratio.min, 2)} to ${number(other.ratio.max, 2)})` : other.reason,
      mebibytes(memoryOf(ours)), mebibytes(memoryOf(other)), number(other.memoryRatio, 2),
    ])),
  );
  const names = Object.keys(ratios).map((name) => row([`\`${name}\``, number(ratios[name], 2), number(memoryRatios[name], 2)]));
  return [
    `\`${command}\`: ${machine.processor}, ${machine.threads} threads, ${machine.instructions}${machine.gpu ? `, ${machine.gpu}` : ""}; PyTorch ${machine.pytorch}.`,
    rounds === undefined
      ? "One program ran after the other. A ratio is their time over ours, run by run (median, smallest and largest): above 1 we are faster."
      : `Both programs are loaded and their runs interleaved, ${rounds} rounds. A ratio is their time over ours in the same round (median, smallest and largest): above 1 we are faster.`,
    `Memory is the peak of the process, or what was taken of the GPU.${machine.load === undefined ? "" : ` Load of the machine before the first run: ${machine.load.toFixed(1)}.`}`,
    "",
    row(["ratio", "time", "memory"]),
    "|---|---|---|",
    ...names,
    "",
    row(["case", "precision", "images", "against", "ours, ms", "theirs, ms", "ratio", "ours, MiB", "theirs, MiB", "ratio"]),
    "|---|---|---|---|---|---|---|---|---|---|",
    ...details,
  ].join("\n");
}

const [begin, end] = ["<!-- bench:peer begins; the command rewrites it -->", "<!-- bench:peer ends -->"];

/** Puts the text between the document's marks. */
export function rewriteSection(file, text) {
  const document = readFileSync(file, "utf8");
  const [from, to] = [document.indexOf(begin), document.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no section between "${begin}" and "${end}"`);
  writeFileSync(file, `${document.slice(0, from + begin.length)}\n\n${text}\n\n${document.slice(to)}`);
}
