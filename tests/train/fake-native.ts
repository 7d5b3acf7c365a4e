/** An engine that learns nothing, but whose state is a function of all crops and parameters it was given, in order. */
import { createHash } from "node:crypto";
import type {
  Accuracy, Batch, Encoder, GpuAdapter, Mixup, Native, StepParameters, StepStats, TensorData, Trainer, TrainerPlan, StatePart, TrainerSpec, TrainerState,
} from "../../ts/src/native/index.js";
import { EngineError } from "../../ts/src/native/index.js";
import { type FakeBatch, FakeEngine } from "../data/fake-engine.js";

export interface FakeStep {
  parameters: StepParameters;
  mixup: Mixup | undefined;
}

const shapes: [name: string, shape: number[]][] = [["patch.weight", [2, 2]], ["patch.bias", [2]], ["head.last_layer.weight_v", [4, 2]]];

function f32(name: string, shape: number[], values: ArrayLike<number>): TensorData {
  return { name, shape, dtype: "f32", data: new Uint8Array(Float32Array.from(values).buffer) };
}

function floats({ data }: TensorData): Float32Array {
  return new Float32Array(data.slice().buffer);
}

export class FakeTrainer implements Trainer {
  readonly plan: TrainerPlan;
  disposed = false;
  private state_: TrainerState;

  constructor(private readonly owner: FakeNative, spec: TrainerSpec) {
    const net = (offset: number): TensorData[] =>
      shapes.map(([name, shape]) => f32(name, shape, Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => spec.seed + offset + i)));
    this.state_ = {
      student: net(0), teacher: net(0.5), loss: [f32("center", [1, 4], [0, 0, 0, 0])],
      optimizer: { kind: spec.optimizer, decayed: ["patch.weight", "head.last_layer.weight_v"], notDecayed: ["patch.bias"], steps: {}, slots: [] },
    };
    this.plan = owner.planTrainer(spec);
  }

  describe(): { name: string; shape: number[]; dtype: "f32" }[] {
    return this.owner.shapes.map(([name, shape]) => ({ name, shape, dtype: "f32" }));
  }

  async step(batch: Batch, parameters: StepParameters, mixup?: Mixup): Promise<StepStats> {
    const { global, local, full } = batch as FakeBatch;
    if (!full) throw new EngineError("ENGINE", "an image of the batch is not written yet");
    if (parameters.step === this.owner.lostAt) throw new EngineError("DEVICE", "the GPU was lost: unplugged");
    this.owner.steps.push({ parameters, mixup });
    const stats: StepStats = {
      loss: 0, viewLoss: 1, regionLoss: 2, teacherEntropy: 1, featureDeviation: 1, gradientNorm: 3, finite: true, skipped: false, lossScale: 1, ...this.owner.stats,
    };
    if (parameters.step === this.owner.nanAt) return { ...stats, loss: NaN, finite: false };
    const hash = createHash("sha256").update(global).update(local).update(JSON.stringify([parameters, mixup ?? null]));
    const mixed = hash.digest().readUInt32LE() / 2 ** 32;
    const touch = (tensor: TensorData): TensorData => f32(tensor.name, tensor.shape, floats(tensor).map((value) => value * 0.9 + mixed));
    const { student, teacher, loss, optimizer } = this.state_;
    const slots = optimizer.slots.length > 0
      ? optimizer.slots.map(touch)
      : student.flatMap(({ name, shape, data }) => ["exp_avg", "exp_avg_sq"].map((slot) => ({ name: `${slot}/${name}`, shape, dtype: "f32" as const, data })));
    const steps = Object.fromEntries(student.map(({ name }) => [name, (optimizer.steps[name] ?? 0) + 1]));
    this.state_ = { student: student.map(touch), teacher: teacher.map(touch), loss: loss.map(touch), optimizer: { ...optimizer, slots, steps } };
    await this.owner.afterStep?.(parameters.step);
    return { ...stats, loss: mixed, viewLoss: mixed / 2, regionLoss: mixed / 2 };
  }

  profile(): Promise<never> {
    return Promise.reject(new Error("not part of the fake"));
  }

  state(): Promise<TrainerState> {
    return Promise.resolve(this.state_);
  }

  outline(): Promise<TrainerState> {
    const bare = (tensors: TensorData[]): TensorData[] => tensors.map((tensor) => ({ ...tensor, data: new Uint8Array() }));
    const { student, teacher, loss, optimizer } = this.state_;
    return Promise.resolve({ student: bare(student), teacher: bare(teacher), loss: bare(loss), optimizer: { ...optimizer, slots: bare(optimizer.slots) } });
  }

  read(part: StatePart, index: number, target: Uint8Array): void {
    const tensors = part === "slots" ? this.state_.optimizer.slots : this.state_[part];
    target.set(tensors[index]!.data);
  }

  load(state: TrainerState): Promise<void> {
    const { kind, decayed, notDecayed, steps, slots } = state.optimizer;
    const order = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1);
    this.state_ = { ...state, optimizer: { kind, decayed, notDecayed, steps, slots: [...slots].sort(order) } };
    return Promise.resolve();
  }

  loadWeights(weights: TensorData[]): Promise<{ loaded: number; missing: string[]; unexpected: string[] }> {
    const known = new Set(shapes.map(([name]) => name));
    const fitting = weights.filter(({ name }) => known.has(name));
    const replace = (net: TensorData[]): TensorData[] => net.map((tensor) => fitting.find(({ name }) => name === tensor.name) ?? tensor);
    this.state_ = { ...this.state_, student: replace(this.state_.student), teacher: replace(this.state_.teacher) };
    return Promise.resolve({ loaded: fitting.length, missing: [...known].filter((name) => !fitting.some((tensor) => tensor.name === name)), unexpected: weights.filter(({ name }) => !known.has(name)).map(({ name }) => name) });
  }

  dispose(): void {
    this.disposed = true;
  }
}

/** Features are the mean of an image's pixels, and what `knn` is given is kept. */
export class FakeNative extends FakeEngine implements Native {
  shapes = shapes;
  steps: FakeStep[] = [];
  trainers: FakeTrainer[] = [];
  specs: TrainerSpec[] = [];
  gpus: GpuAdapter[] = [];
  /** Batch sizes that were planned. */
  planned: number[] = [];
  stats: Partial<StepStats> = {};
  nanAt: number | undefined;
  /** The step at which the GPU is lost. */
  lostAt: number | undefined;
  afterStep: ((step: number) => void | Promise<void>) | undefined;
  encoded: { weights: TensorData[] | undefined; seed: number | undefined }[] = [];
  knnCalls: { bank: Float32Array; bankLabels: Uint32Array; queries: Float32Array; queryLabels: Uint32Array; width: number; ks: number[] }[] = [];

  planTrainer({ crops }: TrainerSpec): TrainerPlan {
    this.planned.push(crops.batch);
    return { memory: { arena: 1000 + 100 * crops.batch, parameters: 500, workspace: 10 * crops.batch, largestTensor: 50 }, parameterCount: 14, gflop: 1 };
  }

  createTrainer(spec: TrainerSpec): Trainer {
    this.specs.push(spec);
    const trainer = new FakeTrainer(this, spec);
    this.trainers.push(trainer);
    return trainer;
  }

  adapters(): GpuAdapter[] {
    return this.gpus;
  }

  createEncoder(): Encoder {
    const record: { weights: TensorData[] | undefined; seed: number | undefined } = { weights: undefined, seed: undefined };
    this.encoded.push(record);
    return {
      width: 1,
      load: (weights) => Promise.resolve(void (record.weights = weights)),
      initialize: (seed) => Promise.resolve(void (record.seed = seed)),
      encode: (pixels, count) => {
        const size = pixels.length / count;
        return Promise.resolve(Float32Array.from({ length: count }, (_, i) => pixels.subarray(i * size, (i + 1) * size).reduce((a, b) => a + b, 0) / size));
      },
      dispose: () => undefined,
    };
  }

  knn(
    bank: Float32Array, bankLabels: Uint32Array, queries: Float32Array, queryLabels: Uint32Array, width: number, _: number, ks: number[],
  ): Promise<Accuracy[]> {
    this.knnCalls.push({ bank, bankLabels, queries, queryLabels, width, ks });
    return Promise.resolve(ks.map((k) => ({ k, top1: 50, top5: 100 })));
  }

  encodePng(): never {
    throw new Error("not part of the fake");
  }

  bench(): never {
    throw new Error("not part of the fake");
  }

  estimateStep(): Promise<number | null> {
    return Promise.resolve(1);
  }

  gemmPeak(): Promise<number> {
    return Promise.resolve(1);
  }

  cpuFeatures(): string {
    return "plain";
  }

  cpuMultipliesBf16(): boolean {
    return false;
  }
}
