import { mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../support/temporary.js";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const load = async (name: string): Promise<unknown> => import(pathToFileURL(join(root, "scripts", name)).href);

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}
const { countCargo, countVitest, settle } = (await load("test.mjs")) as {
  countCargo(stdout: string): Counts;
  countVitest(report: object): Counts;
  settle(name: string, code: number | null, counts: Counts): Counts;
};
const { isInstalled, lastChange, replaceIfChanged } = (await load("setup.mjs")) as {
  isInstalled(folder: string): boolean;
  lastChange(path: string): number;
  replaceIfChanged(from: string, to: string): boolean;
};

const scratch = temporaryFolder();

describe("the test script", () => {
  test("sums what libtest prints", () => {
    const stdout = `running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.20s
`;
    expect(countCargo(stdout)).toEqual({ passed: 13, failed: 2, skipped: 1 });
  });

  test("counts a file that could not be loaded as a failure", () => {
    const file = (status: string, tests: string[]): object => ({ status, assertionResults: tests.map((state) => ({ status: state })) });
    const report = {
      numPassedTests: 4, numFailedTests: 1, numPendingTests: 2, numTodoTests: 1,
      testResults: [file("passed", ["passed"]), file("failed", ["failed"]), file("failed", [])],
    };
    expect(countVitest(report)).toEqual({ passed: 4, failed: 2, skipped: 3 });
  });

  test("counts a runner that crashed as a failure, once", () => {
    const counts = (failed: number): Counts => ({ passed: 3, failed, skipped: 0 });
    expect(settle("x", 0, counts(0))).toEqual(counts(0));
    expect(settle("x", 101, counts(0))).toEqual(counts(1));
    expect(settle("x", null, counts(0))).toEqual(counts(1));
    expect(settle("x", 101, counts(2))).toEqual(counts(2));
  });
});

describe("the setup script", () => {
  test("sees whether the packages of the lock file are installed", () => {
    const folder = join(scratch, "project");
    mkdirSync(join(folder, "node_modules"), { recursive: true });
    const lock = (packages: object): string => JSON.stringify({ packages });
    const wanted = { "": { name: "x" }, "node_modules/a": { version: "1.0.0" }, "node_modules/b": { version: "2.0.0", optional: true } };
    writeFileSync(join(folder, "package-lock.json"), lock(wanted));
    expect(isInstalled(folder)).toBe(false);
    const installed = join(folder, "node_modules", ".package-lock.json");
    writeFileSync(installed, lock({ "node_modules/a": { version: "1.0.0" } }));
    expect(isInstalled(folder)).toBe(true);
    writeFileSync(installed, lock({ "node_modules/a": { version: "1.0.1" } }));
    expect(isInstalled(folder)).toBe(false);
    writeFileSync(installed, lock({ "node_modules/a": { version: "1.0.0" }, "node_modules/b": { version: "2.1.0" } }));
    expect(isInstalled(folder)).toBe(false);
  });

  test("sees when a source changed last", () => {
    const folder = join(scratch, "crates");
    const source = join(folder, "one", "lib.rs");
    mkdirSync(dirname(source), { recursive: true });
    writeFileSync(source, "");
    for (const path of [source, dirname(source), folder]) utimesSync(path, 1000, 1000);
    expect(lastChange(folder)).toBe(1_000_000);
    utimesSync(source, 2000, 2000);
    expect(lastChange(folder)).toBe(2_000_000);
    utimesSync(dirname(source), 3000, 3000);
    expect(lastChange(folder)).toBe(3_000_000);
  });

  test("replaces the addon only when it changed", () => {
    const [from, to] = [join(scratch, "new"), join(scratch, "old")];
    writeFileSync(from, "1");
    expect(replaceIfChanged(from, to)).toBe(true);
    expect(replaceIfChanged(from, to)).toBe(false);
    writeFileSync(from, "2");
    expect(replaceIfChanged(from, to)).toBe(true);
    expect(readFileSync(to, "utf8")).toBe("2");
  });
});
