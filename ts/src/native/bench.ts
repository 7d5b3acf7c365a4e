import type { TrainerSpec } from "./spec.js";

/** What is measured, at the sizes of a trainer's specification. Mirrors `Request` of `bindings/node`. */
export interface BenchRequest {
  /** `ops` (every operator of a step), `attention` (four cases), or one case: `step`, `inference`, `loss`, `window_attention` … */
  subject: string;
  spec: TrainerSpec;
  /** Runs that do not count, and runs that do; a GPU in software makes one run. */
  warmUp: number;
  runs: number;
  /** Of `ops`: those whose name begins so. */
  only?: string;
}

/** One case. Times in milliseconds, arithmetic in 10⁹ operations, memory in bytes. Mirrors `crates/bench/src/measurement.rs`. */
export interface Measurement {
  case: string;
  /** Whose code it is: `esvit`; `bench/peer/` prints the same object with other names. */
  tool: string;
  device: string;
  precision: "f32" | "mixed";
  threads: number;
  batch: number;
  runMs: number[];
  medianMs: number;
  minMs: number;
  maxMs: number;
  imagesPerSecond: number;
  /** Matrix products by their formula, as if every matrix were stored. */
  gflop: number;
  gflops: number;
  plannedBytes: number;
  deviceBytes: number | null;
  /** Resident before anything was built, and the most until the end; null where the system does not tell. */
  baseBytes: number | null;
  peakBytes: number | null;
}

/** One operator at one set of shapes. Mirrors `crates/bench/src/operators.rs`. */
export interface OperatorRow {
  operator: string;
  operands: number[][];
  /** Applications in a step; the times are of one. */
  calls: number;
  ms: number;
  minMs: number;
  maxMs: number;
  gflop: number;
  gflops: number;
  /** Operands and results over the time. */
  gigabytesPerSecond: number;
}

/** Mirrors `crates/bench/src/report.rs`. */
export interface BenchReport {
  tool: string;
  version: string;
  /** `cpu`, or the GPU's name. */
  device: string;
  instructions: string;
  /** Rate of a large matrix product: what shares of the peak refer to. */
  peaks: { threads: number; gflops: number }[];
  cases: Measurement[];
  /** The last step, split by part and operator. */
  rows: { phase: string; operator: string; calls: number; ms: number; gflop: number }[];
  operators: OperatorRow[];
}
