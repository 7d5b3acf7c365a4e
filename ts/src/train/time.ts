/** Time of a run, estimated before it is started. */

/** Seconds of a run, estimated. */
export interface RunTime {
  step: number;
  /** Undefined where the number of images is not known. */
  epoch: number | undefined;
  run: number | undefined;
}

/**
 * @param step seconds of one step.
 * @param steps of an epoch and of the whole run, where known.
 */
export function runTime(step: number, steps?: { epoch: number; run: number }): RunTime {
  return { step, epoch: steps && steps.epoch * step, run: steps && steps.run * step };
}

/** A time for people: `0.4 s`, `12 min`, `3.4 h`, `2.1 days`. */
export function showSeconds(seconds: number): string {
  const units: [size: number, name: string][] = [[86_400, "days"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, name] = units.find(([limit]) => seconds >= 2 * limit) ?? [1, "s"];
  const value = seconds / size;
  return `${value < 10 ? value.toPrecision(2) : Math.round(value)} ${name}`;
}
