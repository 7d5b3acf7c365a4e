import { freemem } from "node:os";
import type { MemoryPlan, Native, TrainerSpec } from "../native/index.js";
import { MemoryError } from "./errors.js";

/** What a run will need, in bytes, known before its first step. */
export interface RunMemory extends MemoryPlan {
  /** Batches kept ready, and the one the engine reads. */
  loader: number;
  /** Pixels of one batch; part of `loader`. */
  batch: number;
  /** Copies of the state that checkpoints are written from: the newest, and the one before it until it is collected. */
  checkpoint: number;
  total: number;
}

/** Node itself with this program loaded, roughly. */
const nodeBytes = 128 * 2 ** 20;

/** Adds the data path to the engine's plan. */
export function runMemory(plan: MemoryPlan, loader: { batchBytes: number; depth: number }): RunMemory {
  // One batch is with the engine while the loader keeps the others ready.
  const loaderBytes = loader.batchBytes * (loader.depth + 1);
  const { arena, parameters, workspace } = plan;
  const checkpoint = 2 * parameters;
  return { arena, parameters, workspace, loader: loaderBytes, batch: loader.batchBytes, checkpoint, total: arena + parameters + workspace + loaderBytes + checkpoint };
}

/** Memory this process may use: what is free on the machine, or the container's limit where that is less. Bytes. */
export function memoryLimit(): number {
  const container = process.constrainedMemory();
  return container > 0 ? Math.min(container, freemem()) : freemem();
}

/** More than the engine uses for a pixel of a step with the widest published network; measured: 2 KiB with Swin-T, 4 with Swin-B. */
const mostBytesPerPixel = 8 * 2 ** 10;

/** Sizes whose plans tell how memory grows with the batch; even, for mixup. */
const [smallBatch, largeBatch] = [2, 4] as const;

/** The engine's plan by batch size. */
export type MemoryLine = (batch: number) => MemoryPlan;

/** How the plan grows with the batch: the straight line through two small ones, whose trainers are built for it. */
export function memoryLine(spec: TrainerSpec, engine: Pick<Native, "createTrainer">): MemoryLine {
  const planOf = (batch: number): MemoryPlan => {
    const trainer = engine.createTrainer({ ...spec, crops: { ...spec.crops, batch } });
    const { arena, parameters, workspace } = trainer.memory;
    trainer.dispose();
    return { arena, parameters, workspace };
  };
  const [small, large] = [planOf(smallBatch), planOf(largeBatch)];
  return (batch) => {
    const extend = (key: keyof MemoryPlan): number => small[key] + ((large[key] - small[key]) / (largeBatch - smallBatch)) * (batch - smallBatch);
    return { arena: extend("arena"), parameters: extend("parameters"), workspace: extend("workspace") };
  };
}

/** Whether a trainer of this size might not fit, so that its plan is better taken from a line than from the trainer itself. */
export function mayBeTooLarge(spec: TrainerSpec, limit: number): boolean {
  const { batch, global_size, local_size, local_count } = spec.crops;
  const pixels = batch * (2 * global_size ** 2 + local_count * local_size ** 2);
  return batch > largeBatch && pixels * mostBytesPerPixel > limit;
}

/** More batches than this are never kept ready. */
const mostBatches = 8;

/** An arena with more buffers is packed less tightly; measured: up to 6 % above the line between 2 and 32 images. */
const packing = 1.08;

/**
 * @param line called only when the run does not fit.
 * @throws {MemoryError} when the run cannot fit, with the batch size that would.
 */
export function requireMemory(memory: RunMemory, batchSize: number, limit: number, line: () => MemoryLine): void {
  if (memory.total + nodeBytes <= limit) return;
  const plan = line();
  // The loader keeps more of smaller batches.
  const imageBytes = memory.batch / batchSize;
  const total = (batch: number): number => runMemory(plan(batch), { batchBytes: imageBytes * batch, depth: mostBatches }).total + nodeBytes;
  const fits = Math.floor((limit - total(0)) / (packing * (total(1) - total(0))));
  const show = (bytes: number): string => (bytes < 10 * 2 ** 30 ? `${Math.round(bytes / 2 ** 20)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`);
  const advice = fits >= 1 ? `batchSize ${Math.min(fits, batchSize - 1)} would fit` : "not even one image a step would fit";
  throw new MemoryError(`the run needs ${show(memory.total + nodeBytes)} of memory and ${show(limit)} are free; ${advice}`);
}
