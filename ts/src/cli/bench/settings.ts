/** Settings of all measurements, and the engine's report. */
import { InvalidArgumentError, type Command } from "commander";
import { parseArguments, toTrainerSpec, type Config } from "../../config/index.js";
import { chooseDevice, native, type BenchReport } from "../../native/index.js";
import type { Context } from "../context.js";
import { readSettings, takesSettings } from "../settings.js";

/** An option's value. */
export function positiveNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("It must be a whole number from 1.");
  return value;
}

/** An option's values, with commas between them. */
export function positiveNumbers(text: string): number[] {
  return text.split(",").map(positiveNumber);
}

/** Options of every measurement. */
export interface BenchFlags {
  device?: string;
  runs: number;
  json?: true;
}

/** Adds them, and all settings of a configuration. */
export function takesBenchSettings(command: Command, runs: number): Command {
  command
    .usage("[--config FILE] [settings]")
    .argument("[words...]", "settings, as for pretrain")
    .option("-d, --device <device>", "cpu, gpu or auto")
    .option("--runs <n>", "runs that are measured", positiveNumber, runs)
    .option("--json", "print one JSON object");
  return takesSettings(command);
}

/**
 * The configuration of a measurement. Without a file it is the published training of Swin-T, region loss included, with `batch` images.
 * @throws {ConfigError}
 */
export function benchConfig(command: Command, { io }: Context, batch: number): Config {
  const { device } = command.opts<BenchFlags>();
  const words = device === undefined ? command.args : [...command.args, "--device", device];
  const published = parseArguments(words).file === undefined ? ["--loss.region", "true", "--batch-size", String(batch)] : [];
  const { config, notes } = readSettings([...published, ...words]);
  for (const note of notes) io.stderr(`note: ${note}\n`);
  return config;
}

/** Measures on the device that a configuration chooses. */
export async function measure(config: Config, { io }: Context, request: { subject: string; runs: number; only?: string; warmUp?: number }): Promise<BenchReport> {
  const engine = native();
  const { device, note } = chooseDevice(config.device, engine);
  if (note !== undefined) io.stderr(`note: ${note}\n`);
  // The same arithmetic with other weights: mixup is not measured.
  const spec = toTrainerSpec({ ...config, mixup: { ...config.mixup, enabled: false } });
  return engine.bench({ warmUp: 1, ...request, spec }, device);
}

/** One line about what shares of the peak refer to. */
export function peakLine({ peaks, device, instructions }: BenchReport): string {
  const place = device === "cpu" ? `${peaks[0]?.threads} threads, ${instructions}` : device;
  return `a large matrix product: ${peaks[0]?.gflops.toFixed(0)} GFLOP/s (${place})`;
}
