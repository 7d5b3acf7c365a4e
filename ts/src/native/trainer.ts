/** The addon's objects and their state, in types that hold for other implementations too. */
import type * as addon from "./generated/addon.js";
import type { TensorData } from "./generated/addon.js";

/** A training run in the engine. */
export type Trainer = Pick<addon.Trainer, keyof addon.Trainer>;

/** Pixels of a step in the engine's memory: JavaScript holds the handle only. */
export type Batch = Pick<addon.Batch, keyof addon.Batch>;

/** A forward pass for evaluation in the engine. */
export type Encoder = Pick<addon.Encoder, keyof addon.Encoder>;

/** A tensor whose values stay where they are until somebody reads them. */
export interface StoredTensor extends Omit<TensorData, "data"> {
  /** Copies the values into an array of exactly their size. */
  read(target: Uint8Array): void;
}

/** Data with other tensors in the place of those with their values. */
type Holding<Data, T> = Data extends TensorData[] ? T[] : Data extends object ? { [Field in keyof Data]: Holding<Data[Field], T> } : Data;

/** Everything a run needs to continue bit for bit, apart from the position in the data. */
export type TrainerState<T = TensorData> = Holding<addon.TrainerState, T>;

/** Moments and counts of the update rule. */
export type OptimizerState<T = TensorData> = Holding<addon.OptimizerState, T>;
