/** Errors before the engine is needed: one sentence on stderr, nothing on stdout, and the documented exit code. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { CommanderError } from "commander";
import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../ts/src/checkpoint/index.js";
import { exitCodeOf, exitCodes } from "../../ts/src/cli/exit-codes.js";
import { ConfigError } from "../../ts/src/config/index.js";
import { DataError } from "../../ts/src/data/index.js";
import { DivergedError, MemoryError, OutputError } from "../../ts/src/train/index.js";
import { bytes, checkpoint, text } from "../checkpoint/craft.js";
import { temporaryFolder } from "../support/temporary.js";
import { cli } from "./run-cli.js";

const scratch = temporaryFolder();
const path = (name: string): string => join(scratch, name);

mkdirSync(path("empty"));
mkdirSync(path("images"));
writeFileSync(path("images/a.png"), "");
writeFileSync(path("file"), "");
writeFileSync(path("wrong.yaml"), "epochs: 3\noptimzer: { lr: 1 }\n");
writeFileSync(path("broken.yaml"), "epochs: [3\n");
writeFileSync(path("text.pth"), "this is no checkpoint");
writeFileSync(path("hostile.pth"), checkpoint(bytes("\x80\x02cposix\nsystem\n", text("touch /tmp/x"), "\x85R.")));

describe("an error is one sentence that names what is wrong", () => {
  const cases: [what: string, words: string[], code: number, sentence: RegExp][] = [
    ["an unknown command", ["pretrian"], 2, /unknown command 'pretrian'; did you mean pretrain\?/],
    ["an unknown command of a command", ["checkpoint", "digst", "x"], 2, /did you mean digest\?/],
    ["an unknown option", ["doctor", "--jsno"], 2, /unknown option '--jsno'; did you mean --json\?/],
    ["an unknown setting", ["pretrain", path("images"), "--epohs", "3"], 2, /unknown flag --epohs; did you mean --epochs\?/],
    ["an unknown key", ["pretrain", path("images"), "optimizer.lrr", "3"], 2, /unknown field optimizer\.lrr; did you mean optimizer\.lr\?/],
    ["a value of another type", ["pretrain", path("images"), "--epochs", "many"], 2, /--epochs must be a number, got "many"/],
    ["a value out of its range", ["pretrain", path("images"), "--batch-size", "0"], 2, /batchSize must be above 0, got 0/],
    ["an unknown key in a file", ["pretrain", path("images"), "--config", path("wrong.yaml")], 2, /wrong\.yaml: unknown field optimzer; did you mean optimizer\?/],
    ["a file that is no YAML", ["pretrain", path("images"), "--config", path("broken.yaml")], 2, /broken\.yaml: /],
    ["a file that is not there", ["plan", "--config", path("none.yaml")], 2, /none\.yaml: .*there is no such file/],
    ["an option's value", ["demo", "--images-per-class", "few"], 2, /--images-per-class <n>' argument 'few' is invalid: it must be a whole number from 4/],
    ["a list of numbers", ["bench", "scaling", "--images", "2,x"], 2, /--images <n,n>' argument '2,x' is invalid: it must be a whole number from 1/],
    ["a setting of a measurement", ["bench", "ops", "--batch-size", "0"], 2, /batchSize must be above 0, got 0/],
    ["no folder", ["pretrain"], 2, /the folder of images is missing/],
    ["two folders", ["pretrain", path("images"), path("empty")], 2, /one folder of images is expected/],
    ["no checkpoint", ["knn", path("images")], 2, /a checkpoint and a folder of images are expected/],
    ["options that exclude each other", ["knn", path("images"), "--random", "--pixels"], 2, /--random and --pixels exclude each other/],
    ["a folder without images", ["pretrain", path("empty")], 3, /empty: there is no image in this folder/],
    ["a folder that is not there", ["pretrain", path("none")], 3, /none: there is no such folder/],
    ["a file in place of a folder", ["pretrain", path("file")], 3, /file: this is a file, not a folder/],
    ["an output folder that cannot be", ["pretrain", path("images"), "--output-dir", path("file/run")], 4, /file\/run: the results cannot be written there/],
    ["a checkpoint that is not there", ["checkpoint", "digest", path("none.pth")], 4, /none\.pth: cannot be opened/],
    ["a file that is no checkpoint", ["checkpoint", "digest", path("text.pth")], 4, /text\.pth: /],
    ["a checkpoint that runs a program", ["knn", path("hostile.pth"), path("images")], 4, /hostile\.pth: refuses to load "posix\.system"/],
  ];

  test.each(cases)("%s", async (_, words, code, sentence) => {
    const result = await cli(words);
    expect(result.stderr).toMatch(sentence);
    expect(result.stderr).toMatch(/^esvit: [^\n]+\n$/);
    expect(result.stdout).toBe("");
    expect(result.code).toBe(code);
  });

  test("and its stack only follows when it is asked for", async () => {
    const result = await cli(["pretrain", path("none")], { ESVIT_DEBUG: "1" });
    expect(result.stderr).toMatch(/^esvit: .*no such folder\n[^]*\n +at [^]*caused by /);
    expect(result.code).toBe(3);
  });
});

describe("exit codes", () => {
  const coded = (code: string): Error => Object.assign(new Error("x"), { code });

  test.each([
    [new CommanderError(1, "x", "x"), 2], [new CommanderError(0, "x", "x"), 0], [new ConfigError("x"), 2], [coded("CONFIG"), 2],
    [new DataError("x"), 3], [coded("IMAGE"), 3],
    [new CheckpointError("f", "format", "x"), 4], [new OutputError("x"), 4], [coded("STATE"), 4],
    [new MemoryError("x"), 5], [new CheckpointError("f", "write", "x", { cause: coded("ENOSPC") }), 5], [new RangeError("Array buffer allocation failed"), 5],
    [new DivergedError("x"), 1], [coded("ENGINE"), 1], [new Error("x"), 1], ["thrown text", 1], [undefined, 1],
  ])("of %s is %i", (error, code) => {
    expect(exitCodeOf(error)).toBe(code);
  });

  test("are all documented", () => {
    const file = resolve(dirname(fileURLToPath(import.meta.url)), "../../docs/exit-codes.md");
    const documented = [...readFileSync(file, "utf8").matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code));
    expect(documented).toEqual(Object.values(exitCodes));
  });
});

describe("help", () => {
  test("goes to stdout when it is asked for, to stderr when nothing is", async () => {
    expect(await cli(["--help"])).toMatchObject({ code: 0, stderr: "", stdout: expect.stringContaining("pretrain") as string });
    expect(await cli([])).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("Usage") as string });
    const { code, stdout } = await cli(["pretrain", "--help"]);
    expect(code).toBe(0);
    expect(stdout).toContain("--max-minutes");
  });
});
