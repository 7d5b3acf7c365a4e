/** Values of a run over its steps, as the original's schedules give them. */
import { imagesPerStep, type Config } from "../config/index.js";
import type { StepParameters } from "../native/index.js";

/** A value for each step or epoch, counted from 0. */
export type Schedule = (index: number) => number;

/**
 * `count` values from `start` to `stop`, both included, by NumPy's `linspace`; a single one is `start`.
 */
function linspace(start: number, stop: number, count: number): Schedule {
  const step = (stop - start) / Math.max(count - 1, 1);
  return (index) => (index > 0 && index === count - 1 ? stop : start + index * step);
}

/**
 * Linear from `start` to `base` over the warm-up's steps, both ends included, then half a cosine toward `final`, which
 * it does not reach within the last step (the original's `cosine_scheduler`). Behind the last step it stays at `final`.
 */
export function cosine(options: {
  base: number;
  final: number;
  epochs: number;
  stepsPerEpoch: number;
  warmupEpochs?: number;
  start?: number;
}): Schedule {
  const { base, final, epochs, stepsPerEpoch, warmupEpochs = 0, start = 0 } = options;
  const warmup = warmupEpochs * stepsPerEpoch;
  const total = epochs * stepsPerEpoch;
  if (!Number.isInteger(total) || !Number.isInteger(warmup) || total < 1 || warmup < 0) {
    throw new RangeError(`a schedule has whole numbers of steps, got ${warmup} for the warm-up of ${total}`);
  }
  if (warmup > total) throw new RangeError(`the warm-up (${warmupEpochs} epochs) is longer than the run (${epochs} epochs)`);
  const rise = linspace(start, base, warmup);
  const length = total - warmup;
  return (step) => {
    if (step < warmup) return rise(step);
    if (step >= total) return final;
    return final + 0.5 * (base - final) * (1 + Math.cos((Math.PI * (step - warmup)) / length));
  };
}

/** Temperature of the teacher by epoch: linear over the warm-up's epochs, both ends included, then constant. */
export function teacherTemperature(options: { warmup: number; value: number; warmupEpochs: number }): Schedule {
  const rise = linspace(options.warmup, options.value, options.warmupEpochs);
  return (epoch) => (epoch < options.warmupEpochs ? rise(epoch) : options.value);
}

/** Peak learning rate for `batchSize` images on each of `devices` devices; `lr` is meant for 256 images a step. */
export function scaledLearningRate(lr: number, batchSize: number, devices: number): number {
  return (lr * (batchSize * devices)) / 256;
}

/** Learning rate of linear evaluation by epoch: half a cosine from `lr` toward 0 (PyTorch's `CosineAnnealingLR`). */
export function linearEvaluationRate(lr: number, epochs: number): Schedule {
  return (epoch) => (lr * (1 + Math.cos((Math.PI * epoch) / epochs))) / 2;
}

/** All schedules of a pre-training run of `stepsPerEpoch` steps an epoch, as one function of the global step. */
export function trainingSchedule(
  config: Pick<Config, "optimizer" | "loss" | "epochs" | "batchSize" | "accumulate">, stepsPerEpoch: number, devices = 1,
): (step: number) => StepParameters {
  const { optimizer, epochs } = config;
  const learningRate = cosine({
    base: scaledLearningRate(optimizer.lr, imagesPerStep(config), devices),
    final: optimizer.minLr,
    epochs,
    stepsPerEpoch,
    warmupEpochs: optimizer.warmupEpochs,
  });
  const weightDecay = cosine({ base: optimizer.weightDecay, final: optimizer.weightDecayEnd, epochs, stepsPerEpoch });
  const momentum = cosine({ base: optimizer.momentumTeacher, final: 1, epochs, stepsPerEpoch });
  const temperature = teacherTemperature(config.loss.teacherTemperature);
  return (step) => {
    const epoch = Math.floor(step / stepsPerEpoch);
    return {
      step,
      progress: step / (epochs * stepsPerEpoch),
      learningRate: learningRate(step),
      weightDecay: weightDecay(step),
      momentum: momentum(step),
      teacherTemperature: temperature(epoch),
      freezeLastLayer: epoch < optimizer.freezeLastLayer,
    };
  };
}
