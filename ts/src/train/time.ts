/** How long a run will take, before it is started. */

/**
 * Share of its matrix-product rate that this machine keeps over a whole step: 68 % for Swin-T as published, 54 % for the nano
 * model, whose layers are narrow (docs/benchmarks.md).
 */
const likelyShare = 0.6;

/** Seconds of a run, estimated. */
export interface RunTime {
  step: number;
  /** Undefined where the number of images is not known. */
  epoch: number | undefined;
  run: number | undefined;
}

/**
 * @param gflop arithmetic of a step, in 10⁹ operations.
 * @param peak rate of matrix products on this machine, in 10⁹ operations a second.
 * @param steps of an epoch and of the whole run, where known.
 */
export function runTime(gflop: number, peak: number, steps?: { epoch: number; run: number }): RunTime {
  const step = gflop / (peak * likelyShare);
  return { step, epoch: steps && steps.epoch * step, run: steps && steps.run * step };
}

/** A time for people: `0.4 s`, `12 min`, `3.4 h`, `2.1 days`. */
export function showSeconds(seconds: number): string {
  const units: [size: number, name: string][] = [[86_400, "days"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, name] = units.find(([limit]) => seconds >= 2 * limit) ?? [1, "s"];
  const value = seconds / size;
  return `${value < 10 ? value.toPrecision(2) : Math.round(value)} ${name}`;
}
