import type { StepStats } from "../native/index.js";

/** Steps in a row that a sign must last; single steps cross the limits by chance. */
const patience = 100;
/** Relative distance from ln K below which the teacher's distribution counts as uniform. */
const entropyMargin = 1e-3;
/** Deviation of normalized features, times sqrt(C), below which they all point the same way; 1 is spread evenly. */
const smallestDeviation = 0.01;

/** Watches for the two ways self-distillation ends in a constant: a uniform teacher, and equal features. */
export class CollapseMonitor {
  private readonly uniform: number;
  private uniformSteps = 0;
  private equalSteps = 0;
  private warned = false;

  /** `prototypes` is K. */
  constructor(prototypes: number) {
    this.uniform = Math.log(prototypes);
  }

  /** A sentence when a collapse has lasted long enough, once; otherwise undefined. */
  observe(stats: Pick<StepStats, "teacherEntropy" | "featureDeviation">): string | undefined {
    this.uniformSteps = stats.teacherEntropy > this.uniform * (1 - entropyMargin) ? this.uniformSteps + 1 : 0;
    this.equalSteps = stats.featureDeviation < smallestDeviation ? this.equalSteps + 1 : 0;
    if (this.warned || Math.max(this.uniformSteps, this.equalSteps) < patience) return undefined;
    this.warned = true;
    const sign = this.uniformSteps >= patience
      ? `the teacher's entropy (${stats.teacherEntropy.toFixed(3)}) has been that of a uniform distribution (ln K = ${this.uniform.toFixed(3)})`
      : `the features of different images have been nearly equal (deviation ${stats.featureDeviation.toFixed(4)})`;
    return `the training has probably collapsed: for ${patience} steps ${sign}; a lower learning rate or teacher temperature may help`;
  }
}
