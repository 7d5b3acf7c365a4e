import { availableParallelism } from "node:os";
import type { EncoderSpec, TrainerSpec } from "../native/index.js";
import { toBackboneSpec } from "./backbones/index.js";
import { engineParts, type Config } from "./schema.js";

/** Threads of the engine: `threads`, or all cores when it is 0. */
export function engineThreads(threads: number): number {
  return threads > 0 ? threads : availableParallelism();
}

/** Images of a step on one device: those of all its passes. */
export function imagesPerStep({ batchSize, accumulate }: Pick<Config, "batchSize" | "accumulate">): number {
  return batchSize * accumulate;
}

/** The specification of the engine's trainer: the configuration's own groups, and the few fields that stand elsewhere in it. */
export function toTrainerSpec(config: Config): TrainerSpec {
  return {
    ...engineParts.engine.parse(config),
    backbone: toBackboneSpec(config.backbone),
    head: config.head,
    crops: { ...engineParts.crops.parse(config.crops), batch: config.batchSize },
    loss: { ...engineParts.loss.parse(config.loss), mixup: config.mixup.enabled },
    optimizer: config.optimizer.kind,
    clipGrad: config.optimizer.clipGrad,
    threads: engineThreads(config.threads),
  };
}

/** The specification of the engine's encoder; images have `config.evaluate.crop` pixels a side, batches its `batchSize`. */
export function toEncoderSpec(
  config: Pick<Config, "backbone" | "evaluate" | "precision" | "threads">, output: EncoderSpec["output"] = "view",
): EncoderSpec {
  return {
    backbone: toBackboneSpec(config.backbone),
    imageSize: config.evaluate.crop,
    batch: config.evaluate.batchSize,
    precision: config.precision,
    threads: engineThreads(config.threads),
    output,
  };
}
