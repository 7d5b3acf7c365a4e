import { freemem } from "node:os";
import { toTrainerSpec, type Config } from "../config/index.js";
import { planLoader, type LoaderPlan } from "../data/index.js";
import type { Device, MemoryPlan, Native } from "../native/index.js";
import { MemoryError } from "./errors.js";

/** Memory a run will need, in bytes, known before its first step. */
export interface RunMemory extends Omit<MemoryPlan, "largestTensor"> {
  /** Memory of the GPU: activations, parameters, moments. 0 on the CPU. */
  gpu: number;
  /** Batches kept ready, and the one the engine reads. */
  loader: number;
  /**
   * While a checkpoint is written, its largest tensor. A run that goes on begins with one in memory and a copy of it, before there are activations:
   * what that is beyond them.
   */
  checkpoint: number;
  total: number;
}

/** Node itself with this program loaded, roughly. */
const nodeBytes = 128 * 2 ** 20;

/** Adds the data path to the engine's plan. On a GPU activations are not in the machine's memory, and parameters are in both. */
export function runMemory(plan: MemoryPlan, { batchBytes, depth }: LoaderPlan, device: Device, resumes = false): RunMemory {
  // One batch is with the engine while the loader keeps the others ready.
  const loader = batchBytes * (depth + 1);
  const { parameters, workspace, largestTensor } = plan;
  const [arena, gpu] = device === "cpu" ? [plan.arena, 0] : [0, plan.arena + parameters];
  const checkpoint = Math.max(largestTensor, resumes ? 2 * parameters - arena - workspace : 0);
  return { arena, parameters, workspace, loader, checkpoint, gpu, total: arena + parameters + workspace + loader + checkpoint };
}

/** Memory this process may use: what is free on the machine, or the container's limit where that is less. Bytes. */
export function memoryLimit(): number {
  const container = process.constrainedMemory();
  return container > 0 ? Math.min(container, freemem()) : freemem();
}

type Planner = Pick<Native, "planTrainer">;

/** The run's memory at one batch size; undefined when its images alone do not fit, and the rest is not worth planning. */
function atBatch(config: Config, batchSize: number, limit: number, engine: Planner, device: Device, resumes: boolean): RunMemory | undefined {
  const sized = { ...config, batchSize };
  const loader = planLoader(sized);
  if (loader.batchBytes * (loader.depth + 1) > limit) return undefined;
  return runMemory(engine.planTrainer(toTrainerSpec(sized), device).memory, loader, device, resumes);
}

/** The largest batch size whose run fits into `limit` bytes; 0 when not even one image does. Every size tried is planned exactly. */
export function largestBatch(config: Config, limit: number, engine: Planner, device: Device, resumes = false): number {
  const fits = (batchSize: number): boolean => {
    const memory = atBatch(config, batchSize, limit, engine, device, resumes);
    return memory !== undefined && memory.total + nodeBytes <= limit;
  };
  let fitting = 0;
  let tooLarge = 1;
  while (fits(tooLarge)) [fitting, tooLarge] = [tooLarge, tooLarge * 2];
  while (tooLarge - fitting > 1) {
    const middle = Math.floor((fitting + tooLarge) / 2);
    if (fits(middle)) fitting = middle;
    else tooLarge = middle;
  }
  return fitting;
}

/**
 * Plans a run before anything is allocated for it.
 * @throws {MemoryError} when it does not fit into `limit` bytes, with the batch size that would.
 */
export function requireMemory(config: Config, limit: number, engine: Planner, device: Device, resumes = false): RunMemory {
  const memory = atBatch(config, config.batchSize, limit, engine, device, resumes);
  if (memory && memory.total + nodeBytes <= limit) return memory;
  const show = (bytes: number): string => (bytes < 10 * 2 ** 30 ? `${Math.round(bytes / 2 ** 20)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`);
  const needs = memory ? `needs ${show(memory.total + nodeBytes)} of memory` : "needs more memory for its images alone than there is";
  const fits = Math.min(largestBatch(config, limit, engine, device, resumes), config.batchSize - 1);
  const advice = fits >= 1 ? `batchSize ${fits} would fit` : "not even one image a step would fit";
  throw new MemoryError(`the run ${needs} and ${show(limit)} are free; ${advice}`);
}
