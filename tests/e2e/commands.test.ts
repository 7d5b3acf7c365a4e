/** Commands with the addon: what they print, and what goes wrong only once the engine is there. */
import { cpSync, mkdirSync, readdirSync, readFileSync, truncateSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { native } from "../../ts/src/native/index.js";
import { temporaryFolder } from "../support/temporary.js";
import { json, notBuilt, run, writeImages, writeTinyConfig } from "./program.js";

const scratch = temporaryFolder();
const config = writeTinyConfig(join(scratch, "tiny.yaml"));
const trained = join(scratch, "trained");
const checkpoint = join(trained, "checkpoint.pth");
let images = "";

/** Exactly one sentence at the end of what was said. */
const lastSentence = (stderr: string): string[] => stderr.split("\n").filter((line) => line.startsWith("esvit: "));

describe.skipIf(notBuilt)("with the engine", () => {
  beforeAll(async () => {
    images = await writeImages(join(scratch, "images"), 4);
    json(await run("pretrain", images, "--config", config, "--output-dir", trained, "--max-steps", "2", "--json"));
  });

  test("pretrain refuses a checkpoint of another architecture, naming tensors", async () => {
    const { code, stderr, stdout } = await run("pretrain", images, "--config", config, "--output-dir", trained, "--backbone.dim", "32");
    expect(code).toBe(4);
    expect(stdout).toBe("");
    expect(lastSentence(stderr)).toEqual([expect.stringMatching(/checkpoint\.pth: holds another architecture than the configuration: patch_embed\.proj\.weight is \[16, 3, 4, 4\] there and \[32, 3, 4, 4\] here; .*more$/)]);
  });

  test("pretrain leaves unreadable images out, by name, and stops above the limit", async () => {
    const folder = join(scratch, "some");
    cpSync(join(images, "train"), folder, { recursive: true });
    const [first = ""] = readdirSync(folder);
    const broken = join(folder, first, "001.png");
    truncateSync(broken, Math.floor(statSync(broken).size / 2));
    const settings = ["--config", config, "--output-dir", join(scratch, "some-run"), "--max-steps", "8"];
    const report = json(await run("pretrain", folder, ...settings, "--json"));
    expect(report["badImages"]).toEqual([expect.stringContaining(broken)]);

    const { code, stderr } = await run("pretrain", folder, ...settings, "--output-dir", join(scratch, "none-run"), "data.maxBadImages", "0");
    expect(code).toBe(3);
    expect(stderr).toContain(broken);
    expect(lastSentence(stderr)).toHaveLength(1);
  });

  test("pretrain and knn refuse folders with nothing but broken images, or one image", async () => {
    const folder = join(scratch, "all");
    for (const name of readdirSync(join(images, "train"))) {
      mkdirSync(join(folder, name), { recursive: true });
      for (const file of readdirSync(join(images, "train", name))) {
        cpSync(join(images, "train", name, file), join(folder, name, file));
        truncateSync(join(folder, name, file), 60);
      }
    }
    const broken = await run("pretrain", folder, "--config", config, "--output-dir", join(scratch, "all-run"));
    expect(broken.code).toBe(3);
    expect(lastSentence(broken.stderr)).toHaveLength(1);
    expect((await run("knn", checkpoint, folder)).code).toBe(3);

    const single = join(scratch, "single");
    mkdirSync(single);
    cpSync(join(images, "train", readdirSync(folder)[0]!, "000.png"), join(single, "a.png"));
    const one = await run("pretrain", single, "--config", config, "--output-dir", join(scratch, "single-run"));
    expect(one.code).toBe(3);
    expect(lastSentence(one.stderr)).toEqual([expect.stringContaining("single: 1 image")]);
    const unlabeled = await run("knn", checkpoint, single);
    expect(unlabeled.code).toBe(3);
    expect(lastSentence(unlabeled.stderr)).toEqual([expect.stringContaining("k-NN needs images in at least two classes")]);
  });

  test("pretrain starts from the weights of another checkpoint", async () => {
    const settings = ["--config", config, "--max-steps", "1", "--json"];
    const result = await run("pretrain", images, ...settings, "--output-dir", join(scratch, "started"), "--pretrained_weights_ckpt", checkpoint);
    expect(json(result)).toMatchObject({ resumedFrom: null, globalStep: 1 });
    expect(result.stderr).toMatch(/checkpoint\.pth: \d+ tensors loaded\n/);
  });

  test("knn of the weights, of a random net, in gray, and of pixels are four different numbers of the same form", async () => {
    const reports = [];
    for (const flags of [[], ["--random"], ["--gray"], ["--pixels"], ["--net", "student"]]) {
      reports.push(json(await run("knn", checkpoint, images, "--json", "-k", "1,3", ...flags)));
    }
    for (const report of reports) {
      expect(report).toMatchObject({ bank: 32, queries: 16, classes: 8, split: "val" });
      const results = report["results"] as { k: number; top1: number; top5: number }[];
      expect(results.map(({ k }) => k)).toEqual([1, 3]);
      for (const { top1, top5 } of results) {
        expect(top1).toBeGreaterThanOrEqual(0);
        expect(top5).toBeGreaterThanOrEqual(top1);
        expect(top5).toBeLessThanOrEqual(100);
      }
    }
    expect(reports.map(({ width }) => width)).toEqual([32, 32, 32, 768, 32]);
    const baseline = json(await run("knn", images, "--random", "--config", config, "--json", "-k", "1,3"));
    expect(baseline["results"]).toEqual(reports[1]!["results"]);
    const bank = json(await run("knn", checkpoint, images, "--val", join(images, "train"), "-k", "1", "--json"));
    // Each image is its own nearest neighbor.
    expect(bank["results"]).toMatchObject([{ k: 1, top1: 100 }]);
  });

  test("demo prints the baselines and what was learned, and goes on the second time", async () => {
    const folder = join(scratch, "demo");
    const words = ["demo", "--output-dir", folder, "--images-per-class", "4", "--batch-size", "4", "--epochs", "2", "--json", "--max-steps"];
    const first = json(await run(...words, "3"));
    expect(first).toMatchObject({ chance: 12.5, run: { globalStep: 3, resumedFrom: null } });
    for (const key of ["pixels", "before", "after"]) expect(first[key]).toMatchObject({ bank: 32, queries: 16, classes: 8 });
    const second = json(await run(...words, "5"));
    expect(second).toMatchObject({ run: { globalStep: 5, stepsDone: 2 }, before: first["before"] as object });
    const { code, stdout } = await run(...words.filter((word) => word !== "--json"), "5");
    expect(code).toBe(0);
    expect(stdout.split("\n").map((line) => line.split("  ")[0])).toEqual(
      ["k-NN accuracy in %, 16 queries", "chance", "pixels", "random network", "after 5 steps", ""],
    );
  });

  test("bench step splits the time of a step by phase and operator", async () => {
    const bench = json(await run("bench", "step", "--config", config, "--batch", "2", "--steps", "2", "--json"));
    expect(bench).toMatchObject({ batchSize: 2, threads: 2 });
    expect(bench["stepMs"]).toHaveLength(2);
    const rows = bench["rows"] as { phase: string; ms: number; gflop: number; share: number }[];
    expect(new Set(rows.map(({ phase }) => phase)).size).toBeGreaterThan(1);
    expect(rows.reduce((sum, { gflop }) => sum + gflop, 0)).toBeCloseTo(bench["gflop"] as number, 9);
    const { code, stdout } = await run("bench", "step", "--config", config, "--batch", "2", "--steps", "1");
    expect(code).toBe(0);
    expect(stdout).toMatch(/images\/s\n.*% of \d+ GFLOP\/s/);
  });

  test("checkpoint digest and doctor print data and nothing else", async () => {
    const digest = await run("checkpoint", "digest", checkpoint);
    expect(digest).toMatchObject({ code: 0, stderr: "", stdout: expect.stringMatching(/^[0-9a-f]{64} {2}.*checkpoint\.pth\n$/) as string });
    expect(json(await run("checkpoint", "digest", checkpoint, "--json"))["sha256"]).toBe(digest.stdout.slice(0, 64));
    expect(json(await run("doctor", "--json"))).toMatchObject({ version: "0.1.0", node: process.versions.node, bf16: native().cpuMultipliesBf16() });
  });

  test("log.txt has one JSON object an epoch", async () => {
    const folder = join(scratch, "log");
    const report = json(await run("pretrain", images, "--config", config, "--output-dir", folder, "--epochs", "2", "--evaluate.enabled", "false", "--json"));
    expect(report).toMatchObject({ status: "finished", knn: null });
    const lines = readFileSync(join(folder, "log.txt"), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line) as Record<string, number>);
    expect(lines.map(({ epoch }) => epoch)).toEqual([0, 1]);
    for (const line of lines) {
      expect(line["train_loss"]).toBeCloseTo(line["train_view_loss"]! + line["train_region_loss"]!, 4);
      expect(line["train_region_loss"]).toBeGreaterThan(0);
      expect(line["teacher_entropy"]).toBeLessThan(Math.log(64));
      expect(line["feature_deviation"]).toBeGreaterThan(0);
    }
  });
});
