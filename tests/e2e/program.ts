/** The built program as users run it: `bin/esvit.mjs` in a process of its own, with the addon. */
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { writeDemoImages } from "../../ts/src/demo/index.js";
import { native } from "../../ts/src/native/index.js";

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const program = join(root, "bin", "esvit.mjs");

/** Why these tests cannot run here, or undefined. */
export const notBuilt = ["bindings/node/esvit.node", "dist/cli/main.js"].every((file) => existsSync(join(root, file)))
  ? undefined
  : "skipped: the addon or dist is not built; `npm run build` makes them";
if (notBuilt) console.warn(notBuilt);

export interface Ended {
  /** The exit code; for a process that a signal ended, the signal's name. */
  code: number | NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Starts the program; `ended` settles when it has. */
export function start(words: readonly string[]): { child: ChildProcessWithoutNullStreams; ended: Promise<Ended> } {
  return follow(spawn(process.execPath, [program, ...words], { cwd: root }));
}

/** Collects what a process writes until its end. */
export function follow(child: ChildProcessWithoutNullStreams): { child: ChildProcessWithoutNullStreams; ended: Promise<Ended> } {
  const ended = new Promise<Ended>((done, fail) => {
    const result: Ended = { code: null, stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => void (result.stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => void (result.stderr += text));
    child.on("error", fail);
    child.on("close", (code, signal) => done({ ...result, code: code ?? signal }));
  });
  return { child, ended };
}

/** Runs the program to its end. */
export function run(...words: string[]): Promise<Ended> {
  return start(words).ended;
}

/** The object that `--json` printed. */
export function json({ code, stdout, stderr }: Ended): Record<string, unknown> {
  if (code !== 0 && code !== 130) throw new Error(`exit code ${code}: ${stderr}`);
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** The smallest net with every part: two stages, both losses, stochastic depth, local crops. */
export function writeTinyConfig(file: string): string {
  writeFileSync(file, `
backbone: { kind: swin, imageSize: 32, patchSize: 4, dim: 16, depths: [1, 2], heads: [1, 2], window: 4, dropPath: 0.2 }
head: { outDim: 64, hiddenDim: 32, bottleneckDim: 16, normLastLayer: false }
crops: { globalSize: 32, localSize: 16, localCount: 2 }
loss: { region: true, teacherTemperature: { warmup: 0.04, value: 0.06, warmupEpochs: 2 } }
optimizer: { lr: 0.01, warmupEpochs: 1, freezeLastLayer: 1 }
evaluate: { resize: 36, crop: 32, ks: [3, 5] }
epochs: 4
batchSize: 4
threads: 2
`);
  return file;
}

/** The demo's images: so many in each of the eight classes, and half as many of each to ask about. */
export async function writeImages(folder: string, perClass: number): Promise<string> {
  const engine = native();
  await writeDemoImages(folder, { seed: 1, trainPerClass: perClass, valPerClass: Math.ceil(perClass / 2) }, (pixels, width, height) => engine.encodePng(pixels, width, height));
  return folder;
}
