/**
 * Runs all tests: those of the crates, then those of TypeScript. Both always run. The last line is `N passed, N failed`;
 * the exit code is 1 when a test failed or a runner did not come to its end. `--golden` runs the comparisons with the
 * fixtures only, `--gpu` those that use a GPU.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { setup, SetupError } from "./setup.mjs";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");

/** Runs a program with its output shown; gives its exit code (null after a signal) and what it wrote to stdout. */
function run(command, args) {
  return new Promise((done) => {
    let stdout = "";
    const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", (text) => {
      stdout += text;
      process.stdout.write(text);
    });
    child.on("error", (error) => {
      process.stderr.write(`${command}: ${error.message}\n`);
      done({ code: null, stdout });
    });
    child.on("close", (code) => done({ code, stdout }));
  });
}

/** Sums the lines that libtest ends each test binary with. */
export function countCargo(stdout) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const [, passed, failed, ignored] of stdout.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gm)) {
    counts.passed += Number(passed);
    counts.failed += Number(failed);
    counts.skipped += Number(ignored);
  }
  return counts;
}

/** Counts of vitest's JSON report; a file that could not be loaded is one failure. */
export function countVitest(report) {
  const unloaded = report.testResults.filter(
    ({ status, assertionResults }) => status === "failed" && !assertionResults.some((test) => test.status === "failed"),
  );
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + unloaded.length,
    skipped: report.numPendingTests + (report.numTodoTests ?? 0),
  };
}

/** Names of each part of the tests for cargo and for vitest; all tests without a part. */
const parts = {
  all: { cargo: [], vitest: [] },
  golden: { cargo: ["--test", "golden_*"], vitest: [".golden.test.ts"] },
  gpu: { cargo: ["--test", "gpu", "--test", "gpu_parity", "--test", "kernels", "--test", "golden_train"], vitest: ["gpu.test.ts", "device.test.ts"] },
};

async function runCargo(which) {
  const { code, stdout } = await run("cargo", ["test", "--release", "--workspace", "--no-fail-fast", ...which]);
  const counts = countCargo(stdout);
  return settle("cargo test", code, counts);
}

async function runVitest(which) {
  const folder = mkdtempSync(join(tmpdir(), "esvit-vitest-"));
  try {
    const file = join(folder, "report.json");
    const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
    const { code } = await run(process.execPath, [vitest, "run", ...which, "--reporter=default", "--reporter=json", `--outputFile.json=${file}`]);
    let counts = { passed: 0, failed: 0, skipped: 0 };
    try {
      counts = countVitest(JSON.parse(readFileSync(file, "utf8")));
    } catch {
      // Without a report the runner crashed; its exit code says so below.
    }
    return settle("vitest", code === 0 && counts.passed + counts.failed + counts.skipped === 0 ? null : code, counts);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A runner that ended badly without a failed test crashed: that is one failure more. */
export function settle(name, code, counts) {
  if (code === 0 || counts.failed > 0) return counts;
  process.stderr.write(`${name} did not come to its end (${code === null ? "no exit code" : `exit code ${code}`})\n`);
  return { ...counts, failed: 1 };
}

async function main() {
  const { cargo, vitest } = parts[process.argv.includes("--golden") ? "golden" : process.argv.includes("--gpu") ? "gpu" : "all"];
  const all = [];
  try {
    await setup();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`setup: ${error.message}\n`);
    all.push({ passed: 0, failed: 1, skipped: 0 });
  }
  all.push(await runCargo(cargo));
  all.push(await runVitest(vitest));
  const sum = (key) => all.reduce((total, counts) => total + counts[key], 0);
  if (sum("skipped") > 0) process.stdout.write(`${sum("skipped")} skipped\n`);
  process.stdout.write(`${sum("passed")} passed, ${sum("failed")} failed\n`);
  process.exitCode = sum("failed") > 0 ? 1 : 0;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
