import type { StepParameters, StepStats } from "../native/index.js";

/** Sums over the steps of an epoch; what is logged are these by `steps`. */
export interface EpochSums {
  steps: number;
  loss: number;
  viewLoss: number;
  regionLoss: number;
  learningRate: number;
  weightDecay: number;
  teacherEntropy: number;
  featureDeviation: number;
  /** Over the steps that were not skipped. */
  gradientNorm: number;
  skipped: number;
  images: number;
  /** Wall time of the steps, waiting for images included. */
  seconds: number;
}

/** No step yet. */
export function emptySums(): EpochSums {
  return {
    steps: 0, loss: 0, viewLoss: 0, regionLoss: 0, learningRate: 0, weightDecay: 0, teacherEntropy: 0, featureDeviation: 0,
    gradientNorm: 0, skipped: 0, images: 0, seconds: 0,
  };
}

/** Adds one step. */
export function addStep(sums: EpochSums, stats: StepStats, parameters: StepParameters, images: number, seconds: number): void {
  sums.steps += 1;
  sums.loss += stats.loss;
  sums.viewLoss += stats.viewLoss;
  sums.regionLoss += stats.regionLoss;
  sums.learningRate += parameters.learningRate;
  sums.weightDecay += parameters.weightDecay;
  sums.teacherEntropy += stats.teacherEntropy;
  sums.featureDeviation += stats.featureDeviation;
  sums.gradientNorm += stats.gradientNorm;
  sums.skipped += stats.skipped ? 1 : 0;
  sums.images += images;
  sums.seconds += seconds;
}

/** One line of `log.txt`. The original's keys come first; all but the last four are means over the epoch's steps. */
export interface LogLine {
  train_loss: number;
  train_lr: number;
  train_wd: number;
  epoch: number;
  train_view_loss: number;
  train_region_loss: number;
  /** Nats; ln K is uniform. */
  teacher_entropy: number;
  feature_deviation: number;
  /** L2 norm over all gradients before clipping, over the steps that were not skipped. */
  gradient_norm: number;
  /** Steps that the optimizer passed over, because gradients overflowed in half precision. */
  skipped_steps: number;
  images_per_second: number;
  seconds: number;
  /** Files found unreadable so far by this process. */
  bad_images: number;
}

/** The line of an epoch that is complete. */
export function logLine(epoch: number, sums: EpochSums, badImages: number): LogLine {
  const mean = (sum: number): number => sum / sums.steps;
  return {
    train_loss: mean(sums.loss),
    train_lr: mean(sums.learningRate),
    train_wd: mean(sums.weightDecay),
    epoch,
    train_view_loss: mean(sums.viewLoss),
    train_region_loss: mean(sums.regionLoss),
    teacher_entropy: mean(sums.teacherEntropy),
    feature_deviation: mean(sums.featureDeviation),
    gradient_norm: sums.gradientNorm / Math.max(sums.steps - sums.skipped, 1),
    skipped_steps: sums.skipped,
    images_per_second: sums.images / Math.max(sums.seconds, 1e-9),
    seconds: sums.seconds,
    bad_images: badImages,
  };
}
