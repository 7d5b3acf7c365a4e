/** A run is a function of its seed, its images and its configuration, whatever happens to its process. */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { digestCheckpoint } from "../../ts/src/checkpoint/index.js";
import { resolveConfig, type Config } from "../../ts/src/config/index.js";
import { temporaryFolder } from "../support/temporary.js";
import { follow, json, notBuilt, root, run, start, writeImages, writeTinyConfig } from "./program.js";

const scratch = temporaryFolder();
const config = writeTinyConfig(join(scratch, "tiny.yaml"));
let images = "";

const digest = (folder: string): string => digestCheckpoint(join(folder, "checkpoint.pth")).sha256;
const losses = (folder: string): number[] =>
  readFileSync(join(folder, "log.txt"), "utf8").trimEnd().split("\n").map((line) => (JSON.parse(line) as { train_loss: number }).train_loss);

describe.skipIf(notBuilt)("a run", () => {
  const whole = join(scratch, "whole");
  const train = (folder: string, ...words: string[]) => run("pretrain", images, "--config", config, "--output-dir", folder, "--seed", "3", "--json", ...words);

  beforeAll(async () => {
    // 24 images, six steps an epoch, 24 steps.
    images = join(await writeImages(join(scratch, "images"), 3), "train");
    expect(json(await train(whole))).toMatchObject({ status: "finished", globalStep: 24, stepsDone: 24, images: 24 });
  });

  test("gives the same bits again with the same seed, and others with another", async () => {
    const [again, other] = [join(scratch, "again"), join(scratch, "other")];
    await train(again);
    await train(other, "--seed", "4");
    expect(digest(again)).toBe(digest(whole));
    expect(losses(again)).toEqual(losses(whole));
    expect(digest(other)).not.toBe(digest(whole));
  });

  test("that was killed five times, anywhere, ends with the bits of the one that was not", async () => {
    const folder = join(scratch, "killed");
    const history: string[] = [];
    for (let death = 0; death < 5; death++) {
      const options: Config = { ...resolveConfig([images, "--config", config, "--output-dir", folder, "--seed", "3", "--save-every", String(1 + (death % 3))]).config };
      options.data = { ...options.data, path: images };
      const { child, ended } = follow(spawn(process.execPath, [join(root, "tests/e2e/crash-run.mjs"), JSON.stringify(options)], { cwd: root }));
      const after = 1 + Math.floor(Math.random() * 4);
      const wait = Math.random() * 20;
      let steps = 0;
      child.stdout.on("data", (text: string) => {
        steps += text.split("step ").length - 1;
        if (steps >= after) setTimeout(() => child.kill("SIGKILL"), wait);
      });
      const { code, stdout, stderr } = await ended;
      history.push(`${after} steps and ${wait.toFixed(1)} ms: ${String(code)} after ${stdout.split("\n").at(-2) ?? "nothing"}`);
      expect([0, "SIGKILL"], stderr).toContain(code);
    }
    const { globalStep, resumedFrom } = json(await train(folder));
    const message = history.join("; ");
    expect(globalStep, message).toBe(24);
    expect(existsSync(String(resumedFrom)), message).toBe(true);
    expect(history.filter((line) => line.includes("SIGKILL")).length, message).toBeGreaterThan(2);
    expect(digest(folder), message).toBe(digest(whole));
    expect(losses(folder), message).toEqual(losses(whole));
    expect(readdirSync(folder).filter((name) => name.endsWith(".tmp")), message).toEqual([]);
  });

  test.each([["SIGINT", 130], ["SIGTERM", 143]] as const)("that gets %s writes a checkpoint, says so with %i, and goes on", async (signal, code) => {
    const folder = join(scratch, signal);
    const { child, ended } = start(["pretrain", images, "--config", config, "--output-dir", folder, "--seed", "3", "--json"]);
    child.stderr.on("data", (text: string) => {
      if (text.includes("step 1/")) child.kill(signal);
    });
    const end = await ended;
    expect(end.stderr).toContain(`${signal}: the step under way is finished`);
    expect(end.code).toBe(code);
    const report = JSON.parse(end.stdout) as { status: string; globalStep: number; knn: unknown };
    expect(report).toMatchObject({ status: "interrupted", knn: null });
    expect(report.globalStep).toBeLessThan(24);
    expect(json(await train(folder))).toMatchObject({ status: "finished", stepsDone: 24 - report.globalStep });
    expect(digest(folder)).toBe(digest(whole));
  });

  test("that gets a second signal ends at once", async () => {
    const folder = join(scratch, "twice");
    const { child, ended } = start(["pretrain", images, "--config", config, "--output-dir", folder, "--epochs", "4000"]);
    child.stderr.on("data", (text: string) => {
      if (text.includes("step 1/") || text.includes("SIGINT:")) child.kill("SIGINT");
    });
    expect((await ended).code).toBe(130);
  });

  test("ends after --max-steps, and its accuracy is that of its checkpoint", async () => {
    const folder = join(scratch, "steps");
    const report = json(await train(folder, "--max-steps", "8"));
    expect(report).toMatchObject({ status: "stopped", epoch: 1, step: 2, globalStep: 8 });
    const { results } = report["knn"] as { results: { k: number; top1: number }[] };
    expect(results.map(({ k }) => k)).toEqual([3, 5]);
    const evaluated = json(await run("knn", join(folder, "checkpoint.pth"), images, "--json"));
    expect(evaluated["results"]).toEqual(results);
  });
});
