/** Pre-training. */
export { DivergedError, MemoryError, OutputError } from "./errors.js";
export type { LogLine } from "./averages.js";
export { LOG_NAME } from "./log.js";
export { largestBatch, memoryLimit, runMemory, type RunMemory } from "./memory.js";
export {
  openTrainingImages, pretrain, type PretrainHooks, type PretrainResult, type RunPlan, type StepEvent,
} from "./pretrain.js";
export type { Position } from "./snapshot.js";
export { runTime, showSeconds, type RunTime } from "./time.js";
