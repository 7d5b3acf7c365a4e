/**
 * EsViT from Node: pre-training, evaluation and checkpoints.
 *
 * ```ts
 * import { completeConfig, pretrain } from "esvit";
 *
 * const config = completeConfig({ data: { path: "./images" }, outputDir: "./run", batchSize: 16 });
 * const { knn, checkpoint } = await pretrain(config, { onEpoch: (line) => console.log(line.train_loss) });
 * ```
 */
export { completeConfig, Config, ConfigError, configSchema, parseConfigText, resolveConfig, type ConfigInput } from "./config/index.js";
export {
  DivergedError, MemoryError, OutputError, pretrain,
  type LogLine, type Position, type PretrainHooks, type PretrainResult, type RunMemory, type RunPlan, type StepEvent,
} from "./train/index.js";
export { extractFeatures, knn, networkOf, openLabeledSplit, type FeatureKind, type Features, type KnnReport, type LabeledSplit, type Network } from "./evaluate/index.js";
export { DataError, findSplits, labeledImages, openDataset, openLoader, type BadImage, type Dataset, type Loader, type TrainingBatch } from "./data/index.js";
export {
  CheckpointError, digestCheckpoint, readCheckpoint, readSafetensors, saveCheckpoint, toTrainerState, weightsFor, writeCheckpoint, writeSafetensors,
  type Checkpoint, type CheckpointContents,
} from "./checkpoint/index.js";
export { drawCrops, drawMixup, evaluationPlan } from "./augment/index.js";
export { cosine, teacherTemperature, trainingSchedule, type Schedule } from "./schedule/index.js";
export { stream, type Rng } from "./random/index.js";
export { writeDemoImages } from "./demo/index.js";
export { native, type CropPlan, type Encoder, type Native, type StepParameters, type StepStats, type TensorData, type Trainer, type TrainerState } from "./native/index.js";
