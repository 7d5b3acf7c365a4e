import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";

interface Checker {
  violations(file: string, text: string): string[];
  checkFolder(folder: string): string[];
}

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const { violations, checkFolder } = (await import(pathToFileURL(join(root, "scripts/check-imports.mjs")).href)) as Checker;

describe("the direction of imports", () => {
  test("is kept by all sources", () => {
    expect(checkFolder(join(root, "ts", "src"))).toEqual([]);
  });

  test.each([
    ["an import upwards", "data/loader.ts", 'import { pretrain } from "../train/index.js";', "train"],
    ["over several lines", "data/loader.ts", 'import {\n  pretrain,\n  type PretrainHooks,\n} from "../train/index.js";', "train"],
    ["an export", "config/index.ts", 'export { native } from "../native/index.js";', "native other than types"],
    ["a value where types are allowed", "augment/crops.ts", 'import { native } from "../native/index.js";', "native other than types"],
    ["an import at run time", "random/index.ts", 'const { x } = await import("../data/index.js");', "data"],
    ["for its effect", "random/index.ts", 'import "../data/index.js";', "data"],
    ["of the public interface", "native/index.ts", 'import { x } from "../index.js";', "the public interface"],
    ["from a folder within", "checkpoint/zip/read.ts", 'import { x } from "../../cli/main.js";', "cli"],
  ])("forbids %s", (_, file, text, what) => {
    expect(violations(file, text)).toEqual([expect.stringContaining(`may not import ${what}`)]);
  });

  test.each([
    ["types where they are allowed", "augment/crops.ts", 'import type { CropPlan } from "../native/index.js";'],
    ["a folder's own files", "checkpoint/zip/read.ts", 'import { x } from "../errors.js";'],
    ["packages", "random/index.ts", 'import { z } from "zod";'],
    ["downwards", "train/pretrain.ts", 'import { openLoader } from "../data/index.js";'],
    ["what stands in a comment", "random/index.ts", '/** import { x } from "../data/index.js"; */\n// import "../data/index.js";'],
  ])("allows %s", (_, file, text) => {
    expect(violations(file, text)).toEqual([]);
  });

  test("wants new folders in its table", () => {
    expect(violations("extra/index.ts", "")).toEqual([expect.stringContaining("extra is not in the table")]);
    expect(violations("extra/index.ts", 'import "../../other.js";')).toHaveLength(1);
  });
});
