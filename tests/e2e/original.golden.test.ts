/** Files of the original, through the whole program. */
import { copyFileSync, mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, test } from "vitest";
import { readCheckpoint, toFloat32, toTrainerState } from "../../ts/src/checkpoint/index.js";
import { completeConfig } from "../../ts/src/config/index.js";
import { pretrain } from "../../ts/src/train/index.js";
import { native } from "../../ts/src/native/index.js";
import { fixtures, hasGolden, readFixture } from "../support/golden.js";
import { temporaryFolder } from "../support/temporary.js";
import { notBuilt, writeImages } from "./program.js";

const scratch = temporaryFolder();

interface Listing {
  model: { SPEC: { DIM_EMBED: number; DEPTHS: number[]; NUM_HEADS: number[]; WINDOW_SIZE: number; DROP_PATH_RATE: number }; IMAGE_SIZE: number[] };
  run: {
    batch: number; local_crops: number; global_size: number; local_size: number; out_dim: number; norm_last_layer: boolean; epochs: number;
    head: { hidden_dim: number; bottleneck_dim: number };
  };
}

describe.skipIf(notBuilt || !hasGolden("checkpoint/listing.json"))("a checkpoint of the original", () => {
  const listing = fixtures("checkpoint", "listing.json")[0];
  test.each(fixtures("checkpoint", ".pth").map((file) => [basename(file), file]))("%s is a run that goes on", async (name, file) => {
    const { model, run } = readFixture<Listing>(listing!).catalog;
    const outputDir = join(scratch, name);
    mkdirSync(outputDir);
    copyFileSync(file, join(outputDir, "checkpoint.pth"));
    const images = await writeImages(join(scratch, "images"), 1);
    const { SPEC } = model;
    const config = completeConfig({
      backbone: {
        kind: "swin", imageSize: model.IMAGE_SIZE[0], dim: SPEC.DIM_EMBED, depths: SPEC.DEPTHS, heads: SPEC.NUM_HEADS, window: SPEC.WINDOW_SIZE,
        dropPath: SPEC.DROP_PATH_RATE,
      },
      head: { outDim: run.out_dim, hiddenDim: run.head.hidden_dim, bottleneckDim: run.head.bottleneck_dim, normLastLayer: run.norm_last_layer },
      crops: { globalSize: run.global_size, localSize: run.local_size, localCount: run.local_crops },
      loss: { region: true },
      optimizer: { warmupEpochs: 0 },
      batchSize: run.batch,
      epochs: run.epochs + 1,
      evaluate: { enabled: false },
      data: { path: images },
      threads: 2,
      outputDir,
    });
    const before = toTrainerState(readCheckpoint(file));
    const { plan, steps } = await pretrain({ ...config, maxSteps: run.epochs * 4 + 1 });
    expect(plan).toMatchObject({ stepsPerEpoch: 4, firstStep: run.epochs * 4 });
    expect(steps).toBe(1);
    const after = toTrainerState(readCheckpoint(join(outputDir, "checkpoint.pth")));
    expect(after.student.map((tensor) => tensor.name)).toEqual(before.student.map((tensor) => tensor.name));
    for (const [parameter, count] of Object.entries(before.optimizer.steps)) expect(after.optimizer.steps[parameter]).toBe(count + 1);
    expect(after.student[0]!.data).not.toEqual(before.student[0]!.data);
  });
});

interface KnnFixture {
  T: number;
  train_shape: number[];
  results: { k: number; num_classes: number; top1: number; top5: number }[];
}

describe.skipIf(notBuilt || !hasGolden("knn"))("k-NN", () => {
  test.each(fixtures("knn", ".json").map((file) => [basename(file), file]))("agrees with %s", async (_, file) => {
    const { catalog, tensors } = readFixture<KnnFixture>(file);
    const features = (name: string): Float32Array => toFloat32(tensors.get(name)!);
    const labels = (name: string): Uint32Array => Uint32Array.from(new Int32Array(tensors.get(name)!.data.slice().buffer));
    expect(catalog.results.length).toBeGreaterThan(0);
    for (const { k, num_classes: classes, top1, top5 } of catalog.results) {
      const [result] = await native().knn(
        features("train_features"), labels("train_labels"), features("test_features"), labels("test_labels"),
        catalog.train_shape[1]!, classes, [k], catalog.T,
      );
      expect(result!.top1).toBeCloseTo(top1, 9);
      // Classes without votes are ties: the original counts those that come first, in no order it defines.
      if (k >= 100) expect(result!.top5).toBeCloseTo(top5, 9);
    }
  });
});
