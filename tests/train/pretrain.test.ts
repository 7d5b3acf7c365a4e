import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { digestCheckpoint, readCheckpoint, saveCheckpoint, toPlain, weightsFor } from "../../ts/src/checkpoint/index.js";
import { exitCodeOf, exitCodes } from "../../ts/src/cli/exit-codes.js";
import { completeConfig, type Config } from "../../ts/src/config/index.js";
import { pretrain, type PretrainHooks, type PretrainResult } from "../../ts/src/train/index.js";
import { temporaryFolder } from "../support/temporary.js";
import { FakeNative } from "./fake-native.js";

const scratch = temporaryFolder();
let made = 0;

/** Eleven images in two classes: five steps an epoch with batches of two. */
const images = join(scratch, "images");
for (let i = 0; i < 11; i++) {
  const folder = join(images, i < 6 ? "a" : "b");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${String(i).padStart(2, "0")}.png`), `${i} 40 30`);
}

function configOf(changes: object = {}): Config {
  return completeConfig({
    backbone: { kind: "swin", imageSize: 16, patchSize: 4, dim: 8, depths: [1], heads: [1], window: 4 },
    crops: { globalSize: 16, localSize: 8, localCount: 2 },
    head: { outDim: 4 },
    optimizer: { warmupEpochs: 1, freezeLastLayer: 1 },
    loss: { teacherTemperature: { warmup: 0.02, value: 0.04, warmupEpochs: 2 } },
    mixup: { enabled: true },
    evaluate: { enabled: false, resize: 8, crop: 8 },
    data: { path: images },
    epochs: 3,
    batchSize: 2,
    outputDir: join(scratch, `run${made++}`),
    ...changes,
  });
}

function run(config: Config, hooks: PretrainHooks = {}, engine = new FakeNative()): Promise<PretrainResult> {
  return pretrain(config, { engine, ...hooks });
}

const digest = (config: Config): string => digestCheckpoint(join(config.outputDir, "checkpoint.pth")).sha256;
const log = (config: Config): Record<string, number>[] =>
  readFileSync(join(config.outputDir, "log.txt"), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line) as Record<string, number>);
/** Without what depends on the clock and the process. */
const learned = (config: Config): object[] =>
  log(config).map(({ images_per_second: _, seconds: __, bad_images: ___, ...rest }) => rest);

describe("a run", () => {
  test("takes all steps, logs each epoch with the original's keys, and keeps numbered checkpoints", async () => {
    const config = configOf({ saveEpochs: 2 });
    const engine = new FakeNative();
    const losses: number[] = [];
    const result = await run(config, { onStep: ({ stats }) => losses.push(stats.loss) }, engine);
    expect(result).toMatchObject({ status: "finished", position: { epoch: 3, step: 0 }, steps: 15, knn: undefined });
    expect(result.plan).toMatchObject({ images: 11, classes: 2, stepsPerEpoch: 5, totalSteps: 15, firstStep: 0, resumedFrom: undefined });
    expect(engine.steps.map(({ parameters }) => parameters.step)).toEqual([...Array(15).keys()]);

    const lines = log(config);
    expect(lines.map(({ epoch }) => epoch)).toEqual([0, 1, 2]);
    expect(Object.keys(lines[0]!).slice(0, 4)).toEqual(["train_loss", "train_lr", "train_wd", "epoch"]);
    for (const [epoch, line] of lines.entries()) {
      const parameters = engine.steps.slice(5 * epoch, 5 * epoch + 5).map((step) => step.parameters);
      expect(line["train_loss"]).toBeCloseTo(losses.slice(5 * epoch, 5 * epoch + 5).reduce((a, b) => a + b) / 5, 12);
      expect(line["train_lr"]).toBeCloseTo(parameters.reduce((sum, { learningRate }) => sum + learningRate, 0) / 5, 15);
      expect(line["train_wd"]).toBeCloseTo(parameters.reduce((sum, { weightDecay }) => sum + weightDecay, 0) / 5, 12);
    }
    expect(["checkpoint0000.pth", "checkpoint0001.pth", "checkpoint0002.pth"].map((name) => existsSync(join(config.outputDir, name)))).toEqual([true, false, true]);
    expect(engine.trainers.every(({ disposed }) => disposed)).toBe(true);
  });

  test("gives each step its parameters: frozen last layer and temperature by epoch, mixup by step", async () => {
    const engine = new FakeNative();
    await run(configOf(), {}, engine);
    expect(engine.steps.map(({ parameters }) => parameters.freezeLastLayer)).toEqual([...Array(15).keys()].map((step) => step < 5));
    expect([0, 5, 10].map((step) => engine.steps[step]!.parameters.teacherTemperature)).toEqual([0.02, 0.04, 0.04]);
    const lambdas = engine.steps.map(({ mixup }) => JSON.stringify(mixup?.lambda));
    expect(JSON.parse(lambdas[0]!)).toHaveLength(4);
    expect(new Set(lambdas).size).toBe(15);
  });

  test("writes a checkpoint with the original's keys and options", async () => {
    const config = configOf({ maxSteps: 7 });
    await run(config);
    const checkpoint = readCheckpoint(join(config.outputDir, "checkpoint.pth"));
    expect(checkpoint.epoch).toBe(1);
    expect([...checkpoint.student!.keys()][0]).toBe("module.patch.weight");
    expect(toPlain(checkpoint.args ?? null)).toMatchObject({
      arch: "swin", out_dim: 4, batch_size_per_gpu: 2, local_crops_number: [2], local_crops_scale: [0.05, 0.4], use_mixup: true, data_path: images,
    });
    expect(toPlain(checkpoint.esvit ?? null)).toMatchObject({ epoch: 1, step: 2, steps_per_epoch: 5, sums: { steps: 2 } });
  });
});

describe("a run that is cut", () => {
  test("and goes on ends with the same bits and the same log, wherever it was cut", async () => {
    const whole = configOf();
    await run(whole);
    for (const cuts of [[1], [4, 5, 6], [5], [9, 14], [3, 10]]) {
      const config = configOf();
      for (const maxSteps of cuts) expect((await run({ ...config, maxSteps })).status).toBe("stopped");
      expect((await run(config)).status).toBe("finished");
      expect(digest(config)).toBe(digest(whole));
      expect(learned(config)).toEqual(learned(whole));
    }
  });

  test("by a crash goes on from the newest checkpoint", async () => {
    const whole = configOf();
    await run(whole);
    const config = configOf({ saveSteps: 3 });
    const engine = new FakeNative();
    engine.afterStep = (step) => {
      if (step === 7) throw new Error("the power failed");
    };
    await expect(run(config, {}, engine)).rejects.toThrow("the power failed");
    const resumed = await run(config);
    expect(resumed.plan).toMatchObject({ firstStep: 6, resumedFrom: join(config.outputDir, "checkpoint.pth") });
    expect(digest(config)).toBe(digest(whole));
    expect(learned(config)).toEqual(learned(whole));
  });

  test("between checkpoint and log gets the missing line; lines of epochs that come again, and half ones, go", async () => {
    const config = configOf({ maxSteps: 10 });
    await run(config);
    const [first, second] = log(config);
    const file = join(config.outputDir, "log.txt");
    writeFileSync(file, `${JSON.stringify(first)}\n`);
    await run(config);
    expect(log(config)).toEqual([first, second]);
    writeFileSync(file, `${JSON.stringify(first)}\n${JSON.stringify(second)}\n${JSON.stringify({ ...second, epoch: 2 })}\n{"train_lo`);
    await run(config);
    expect(log(config)).toEqual([first, second]);
  });

  test("by the signal finishes its step and writes a checkpoint", async () => {
    const config = configOf();
    const engine = new FakeNative();
    const controller = new AbortController();
    engine.afterStep = (step) => {
      if (step === 6) controller.abort();
    };
    const result = await run(config, { signal: controller.signal }, engine);
    expect(result).toMatchObject({ status: "interrupted", position: { epoch: 1, step: 2 }, steps: 7 });
    expect((await run(config)).plan.firstStep).toBe(7);
  });

  test("by maxMinutes counts the minutes of this call", async () => {
    let clock = 0;
    const engine = new FakeNative();
    engine.afterStep = () => {
      clock += 30_000;
    };
    const config = configOf({ maxMinutes: 2 });
    expect(await run(config, { now: () => clock }, engine)).toMatchObject({ status: "stopped", steps: 4, seconds: 120 });
    expect(await run(config, { now: () => clock }, engine)).toMatchObject({ status: "stopped", position: { epoch: 1, step: 3 } });
  });

  test("tells which values changed, but not those that change nothing", async () => {
    const config = configOf({ maxSteps: 3 });
    await run(config);
    const notes: string[] = [];
    const changed = { ...config, maxSteps: 4, threads: 1, saveSteps: 2, optimizer: { ...config.optimizer, lr: 0.25 } };
    await run(changed, { onNote: (note) => notes.push(note) });
    expect(notes).toEqual([`optimizer.lr is 0.25 now and was 0.0005 when ${join(config.outputDir, "checkpoint.pth")} was written`]);
  });

  test("starts the epoch again when it has another number of steps now", async () => {
    const config = configOf({ maxSteps: 8, batchSize: 2 });
    await run(config);
    const notes: string[] = [];
    const result = await run({ ...config, batchSize: 4, maxSteps: null }, { onNote: (note) => notes.push(note) });
    expect(result.plan).toMatchObject({ firstStep: 2, stepsPerEpoch: 2 });
    expect(notes.some((note) => note.includes("an epoch had 5 steps and has 2 now, so epoch 1 starts again"))).toBe(true);
  });
});

describe("a run that cannot be", () => {
  test("refuses a checkpoint of another architecture, naming tensors, and leaves it alone", async () => {
    const config = configOf({ maxSteps: 2 });
    await run(config);
    const before = digest(config);
    const engine = new FakeNative();
    engine.shapes = [["patch.weight", [3, 2]], ["patch.bias", [2]], ["norm.weight", [2]]];
    const file = join(config.outputDir, "checkpoint.pth");
    await expect(run(config, {}, engine)).rejects.toThrow(
      `${file}: holds another architecture than the configuration: patch.weight is [2, 2] there and [3, 2] here; norm.weight [2] is not there; head.last_layer.weight_v [4, 2] is not here`,
    );
    expect(digest(config)).toBe(before);
    const sgd = { ...config, optimizer: { ...config.optimizer, kind: "sgd" as const } };
    await expect(run(sgd)).rejects.toThrow(`${file}: was written with the optimizer adamw, and optimizer.kind is sgd`);
  });

  test("stops at a loss that is not finite, and keeps the state before that step", async () => {
    const before = configOf({ maxSteps: 7 });
    await run(before);
    const config = configOf({ saveSteps: 3 });
    const engine = new FakeNative();
    engine.nanAt = 7;
    const file = join(config.outputDir, "checkpoint_NaN.pth");
    await expect(run(config, {}, engine)).rejects.toMatchObject({
      name: "DivergedError", message: `the loss is NaN at step 7, so the training stopped; the state before this step is in ${file}`,
    });
    expect(digestCheckpoint(file)).toEqual(digestCheckpoint(join(before.outputDir, "checkpoint.pth")));
    expect(toPlain(readCheckpoint(join(config.outputDir, "checkpoint.pth")).esvit ?? null)).toMatchObject({ epoch: 1, step: 1 });
    expect(engine.trainers[0]!.disposed).toBe(true);
  });

  test("ends with the engine's words when the GPU is lost, and goes on from the checkpoint before", async () => {
    const whole = configOf();
    await run(whole);
    const config = configOf({ saveSteps: 3 });
    const engine = new FakeNative();
    engine.lostAt = 7;
    const failed = await run(config, {}, engine).then(() => undefined, (error: unknown) => error);
    expect(failed).toMatchObject({ name: "EngineError", code: "DEVICE", message: "the GPU was lost: unplugged" });
    expect(exitCodeOf(failed)).toBe(exitCodes.resources);
    expect(engine.trainers[0]!.disposed).toBe(true);
    expect(toPlain(readCheckpoint(join(config.outputDir, "checkpoint.pth")).esvit ?? null)).toMatchObject({ epoch: 1, step: 1 });
    await run({ ...config, saveSteps: whole.saveSteps });
    expect(weightsFor(readCheckpoint(join(config.outputDir, "checkpoint.pth")), "teacher"))
      .toEqual(weightsFor(readCheckpoint(join(whole.outputDir, "checkpoint.pth")), "teacher"));
  });

  test("says so before it begins when memory or the output folder are missing", async () => {
    const config = configOf();
    await expect(run(config, { memoryLimit: 2 ** 20 })).rejects.toMatchObject({ name: "MemoryError" });
    const file = join(scratch, "a file");
    writeFileSync(file, "");
    const outputDir = join(file, "run");
    await expect(run(configOf({ outputDir }))).rejects.toMatchObject({ name: "OutputError", message: expect.stringContaining(outputDir) as string });
    await expect(run(configOf({ data: { path: null } }))).rejects.toMatchObject({ name: "DataError" });
  });
});

describe("pretrained weights", () => {
  test("are those of the teacher, for both nets, and not used when the run goes on", async () => {
    const source = configOf({ maxSteps: 2 });
    await run(source);
    const pretrained = join(source.outputDir, "checkpoint.pth");
    const config = configOf({ pretrained, seed: 5 });
    const engine = new FakeNative();
    const notes: string[] = [];
    // All that a run writes which is stopped before its first step is its start.
    const stopped = new AbortController();
    stopped.abort();
    await run(config, { signal: stopped.signal, onNote: (note) => notes.push(note) }, engine);
    expect(notes).toEqual([`${pretrained}: 3 tensors loaded`]);
    const started = readCheckpoint(join(config.outputDir, "checkpoint.pth"));
    const teacher = weightsFor(readCheckpoint(pretrained), "teacher");
    expect(weightsFor(started, "student")).toEqual(teacher);
    expect(weightsFor(started, "teacher")).toEqual(teacher);

    rmSync(pretrained);
    expect((await run(config)).plan.resumedFrom).toBeDefined();
  });

  test("that fit in part are an error that lists what differs, unless that is allowed", async () => {
    const source = configOf({ maxSteps: 1 });
    await run(source);
    const checkpoint = readCheckpoint(join(source.outputDir, "checkpoint.pth"));
    const [first, ...rest] = [...checkpoint.teacher!];
    const folder = join(scratch, "part");
    mkdirSync(folder);
    saveCheckpoint(folder, { student: new Map(), teacher: new Map([...rest, ["other", first![1]]]) });
    const pretrained = join(folder, "checkpoint.pth");
    await expect(run(configOf({ pretrained }))).rejects.toThrow(
      `${pretrained}: holds another architecture than the configuration: patch.weight [2, 2] is not there; other [2, 2] is not here; --allow-partial true takes what fits`,
    );
    const notes: string[] = [];
    await run(configOf({ pretrained, allowPartial: true, maxSteps: 1 }), { onNote: (note) => notes.push(note) });
    expect(notes).toEqual([`${pretrained}: 2 tensors loaded; not there 1: patch.weight; not used 1: other`]);
  });

  test("that have nothing in common are an error", async () => {
    const folder = join(scratch, "other");
    mkdirSync(folder);
    const source = configOf({ maxSteps: 1 });
    await run(source);
    const checkpoint = readCheckpoint(join(source.outputDir, "checkpoint.pth"));
    saveCheckpoint(folder, { student: new Map(), teacher: new Map([["other", [...checkpoint.teacher!.values()][0]!]]) });
    const pretrained = join(folder, "checkpoint.pth");
    await expect(run(configOf({ pretrained, allowPartial: true }))).rejects.toThrow(`${pretrained}: has no tensor of this network`);
  });
});

describe("the accuracy at the end", () => {
  test("is that of the teacher's backbone, on every fifth image of each class", async () => {
    const config = configOf({ epochs: 1, optimizer: { warmupEpochs: 0 }, loss: {}, evaluate: { resize: 8, crop: 8, ks: [3, 20, 30] } });
    const engine = new FakeNative();
    const { knn, checkpoint } = await run(config, {}, engine);
    expect(knn).toMatchObject({ bank: 9, queries: 2, classes: 2, split: "held out", results: [{ k: 3 }, { k: 9 }] });
    const teacher = weightsFor(readCheckpoint(checkpoint), "teacher");
    expect(engine.encoded[0]!.weights).toEqual(teacher.filter(({ name }) => name.startsWith("patch.")));
    expect([...engine.knnCalls[0]!.queryLabels]).toEqual([0, 1]);
  });

  test("is left out, with a note, when there are no classes", async () => {
    const flat = join(scratch, "flat");
    mkdirSync(flat);
    for (let i = 0; i < 4; i++) writeFileSync(join(flat, `${i}.png`), `${i} 40 30`);
    const notes: string[] = [];
    const config = configOf({ epochs: 1, optimizer: { warmupEpochs: 0 }, loss: {}, evaluate: { resize: 8, crop: 8 }, data: { path: flat } });
    expect((await run(config, { onNote: (note) => notes.push(note) })).knn).toBeUndefined();
    expect(notes).toEqual(["the images have no classes, so k-NN accuracy is not measured"]);
  });
});
