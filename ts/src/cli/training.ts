/** A run with its display, its signals and its report, for `pretrain` and `demo`. */
import { imagesPerStep, type Config } from "../config/index.js";
import type { KnnReport } from "../evaluate/index.js";
import { pretrain, type PretrainResult, type RunPlan } from "../train/index.js";
import type { Io } from "./io.js";
import { openProgress } from "./progress.js";
import { mebibytes, peakMemory } from "./table.js";

/** One run, watched on stderr. */
export async function trainWatched(config: Config, notes: readonly string[], io: Io, signal: AbortSignal): Promise<PretrainResult> {
  const progress = openProgress(io, imagesPerStep(config));
  for (const note of notes) progress.say(`note: ${note}`);
  try {
    return await pretrain(config, {
      signal,
      onPlan(plan) {
        for (const line of describePlan(plan, config)) progress.say(line);
        progress.begin(plan);
      },
      onStep: (event) => progress.step(event),
      onEpoch: (line) =>
        progress.say(`epoch ${line.epoch}: loss ${line.train_loss.toFixed(4)}, teacher entropy ${line.teacher_entropy.toFixed(3)}, feature deviation ${line.feature_deviation.toFixed(3)}, ${line.images_per_second.toFixed(1)} images/s`),
      onNote: (sentence) => progress.say(`note: ${sentence}`),
      onWarning: (sentence) => progress.warn(sentence),
    });
  } finally {
    progress.end();
  }
}

function describePlan(plan: RunPlan, config: Config): string[] {
  const { memory, device } = plan;
  const classes = plan.classes > 0 ? ` in ${plan.classes} classes (not used for training)` : "";
  const place = plan.resumedFrom === undefined ? "" : `; goes on with ${plan.resumedFrom} at step ${plan.firstStep}`;
  return [
    `${plan.images} images${classes}, ${(plan.parameterCount / 1e6).toFixed(1)}M parameters, ${plan.stepsPerEpoch} steps an epoch of ${imagesPerStep(config)} images${place}`,
    ...(device.adapter ? [`device: ${device.adapter.name} (${device.adapter.kind}, ${device.adapter.backend}), ${mebibytes(memory.gpu)} of its memory`] : []),
    `memory: ${mebibytes(memory.total)} (activations ${mebibytes(memory.arena)}, parameters ${mebibytes(memory.parameters)}, workspace ${mebibytes(memory.workspace)}, images ${mebibytes(memory.loader)}, checkpoint ${mebibytes(memory.checkpoint)})`,
  ];
}

/** The report of a run as one JSON object. Memory in bytes. */
export function runReport(result: PretrainResult): Record<string, unknown> {
  const { status, position, steps, seconds, imagesPerSecond, loss, checkpoint, plan, bad, knn } = result;
  return {
    status,
    epoch: position.epoch,
    step: position.step,
    globalStep: position.epoch * plan.stepsPerEpoch + position.step,
    stepsDone: steps,
    seconds,
    imagesPerSecond,
    loss: loss ?? null,
    checkpoint,
    resumedFrom: plan.resumedFrom ?? null,
    images: plan.images,
    parameters: plan.parameterCount,
    device: plan.device.adapter?.name ?? "cpu",
    memory: { ...plan.memory, peak: peakMemory() },
    badImages: bad.map(({ message }) => message),
    knn: knn ? knnReport(knn) : null,
  };
}

/** The report of an evaluation as one JSON object. Accuracies in per cent. */
export function knnReport(report: KnnReport): Record<string, unknown> {
  const { bad, ...rest } = report;
  return { ...rest, badImages: bad.map(({ message }) => message) };
}

/** `k=10 57.2 %, k=20 55.9 %`. */
export function accuracies(report: KnnReport): string {
  return report.results.map(({ k, top1 }) => `k=${k} ${top1.toFixed(1)} %`).join(", ");
}
