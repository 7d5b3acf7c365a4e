/**
 * Compares the engine with PyTorch on this machine, and writes the ratios to docs/benchmarks.md. Runs of the two programs are interleaved.
 *
 *   npm run bench:peer -- [--quick] [--cases step,checkpointing,loss,attention,inference] [--precision f32,mixed] [--batch-size 2,4] [--rounds 5]
 *                         [--threads 2] [--device cpu|gpu] [--modes eager,fused,compile] [--prototypes 65536] [--python FILE] [--json] [--no-write]
 */
import { spawnSync } from "node:child_process";
import { availableParallelism, cpus, loadavg } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { argumentsOf, comparisons, groups } from "./peer/comparisons.mjs";
import { startInterleaved } from "./peer/interleaved.mjs";
import { installedPython, PeerError } from "./peer/python.mjs";
import { markdown, rewriteSection, summary } from "./peer/report.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "..");
const say = (text) => process.stderr.write(`${text}\n`);

/** The command line; throws `PeerError`. */
export function readOptions(words) {
  let values;
  try {
    ({ values } = parseArgs({
      args: words,
      options: {
        quick: { type: "boolean", default: false },
        cases: { type: "string", default: Object.keys(groups).join(",") },
        precision: { type: "string", default: "f32,mixed" },
        "batch-size": { type: "string", default: "" },
        rounds: { type: "string" },
        threads: { type: "string", default: "0" },
        device: { type: "string", default: "cpu" },
        modes: { type: "string", default: "eager" },
        prototypes: { type: "string", default: "65536" },
        python: { type: "string" },
        json: { type: "boolean", default: false },
        "no-write": { type: "boolean", default: false },
      },
    }));
  } catch (error) {
    throw new PeerError(error.message);
  }
  const list = (name, known) => {
    const words = values[name].split(",").filter(Boolean);
    const wrong = words.find((word) => !known.includes(word));
    if (wrong !== undefined || words.length === 0) throw new PeerError(`--${name} takes ${known.join(", ")}, with commas between; got ${wrong ?? "nothing"}`);
    return words;
  };
  const whole = (name, text, least) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least) throw new PeerError(`--${name} takes whole numbers from ${least}, got ${text}`);
    return value;
  };
  const threads = whole("threads", values.threads, 0);
  return {
    quick: values.quick,
    cases: list("cases", Object.keys(groups)),
    precisions: list("precision", ["f32", "mixed"]),
    batches: values["batch-size"].split(",").filter(Boolean).map((text) => whole("batch-size", text, 1)),
    rounds: whole("rounds", values.rounds ?? (values.quick ? "3" : "5"), 1),
    threads: threads === 0 ? availableParallelism() : threads,
    device: list("device", ["cpu", "gpu"])[0],
    modes: list("modes", ["eager", "fused", "compile"]),
    prototypes: whole("prototypes", values.prototypes, 1),
    python: values.python,
    json: values.json,
    write: !values["no-write"],
  };
}

/** The engine's program, built when it is stale. */
function builtBench() {
  const args = ["build", "--release", "-p", "esvit-bench", "--message-format", "json-render-diagnostics"];
  const options = { cwd: root, stdio: ["ignore", "pipe", 2], encoding: "utf8", maxBuffer: 2 ** 28 };
  const { status, error, stdout } = spawnSync("cargo", args, options);
  if (error) throw new PeerError("cargo was not found: install Rust from https://rustup.rs");
  if (status !== 0) throw new PeerError("cargo build failed; its messages are above");
  const messages = stdout.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  return messages.find(({ executable, target }) => executable && target.name === "esvit-bench").executable;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** One comparison: all programs loaded and warm, then one run of each in every round, the first one changing. */
async function compare(comparison, options, bench, python) {
  const { batch, precision, modes } = comparison;
  const { ours, theirs } = argumentsOf(comparison.case);
  const common = [
    "--device", options.device, "--precision", precision, "--batch-size", String(batch), "--threads", String(options.threads),
    "--prototypes", String(options.prototypes),
  ];
  const peer = join(here, "peer", "peer.py");
  const programs = [[bench, [...ours, ...common]], ...modes.map((mode) => [python, [peer, ...theirs, ...common, "--mode", mode]])];
  const started = [];
  try {
    for (const [command, args] of programs) started.push(await startInterleaved(command, args));
    const ready = started.filter((program) => program.isReady);
    for (let round = 0; round < options.rounds; round++) {
      for (let turn = 0; turn < ready.length; turn++) {
        await ready[(turn + round) % ready.length].run();
        // Threads that spin after their work come to rest.
        await pause(50);
      }
    }
    const [first, ...others] = await Promise.all(started.map((program) => program.end()));
    return { ...comparison, ours: first, theirs: others };
  } finally {
    for (const program of started) program.kill();
  }
}

async function main() {
  const options = readOptions(process.argv.slice(2));
  const python = options.python ?? installedPython();
  const bench = builtBench();
  const load = loadavg()[0];
  if (load > 0.3 * availableParallelism()) say(`the machine is busy (load ${load.toFixed(1)}): the figures will scatter`);
  const described = JSON.parse(spawnSync(bench, ["window_attention_core_forward", "--batch-size", "1", "--device", options.device, "--runs", "1", "--json"], { encoding: "utf8" }).stdout || "{}");
  const version = spawnSync(python, ["-c", "import torch; print(torch.__version__)"], { encoding: "utf8" });
  if (version.status !== 0) throw new PeerError(`${python} cannot import torch`);
  const machine = {
    processor: cpus()[0]?.model.trim() ?? "unknown processor", threads: options.threads, load, instructions: described.instructions,
    gpu: options.device === "gpu" ? described.device : undefined, pytorch: version.stdout.trim(),
  };
  const finished = [];
  for (const comparison of comparisons(options)) {
    const result = await compare(comparison, options, bench, python);
    finished.push(result);
    const others = result.theirs.map((other) => `${other.tool} ${other.medianMs?.toFixed(1) ?? `not measured (${other.reason})`}`);
    say(`${result.case}, ${result.precision}, ${result.batch} images: ours ${result.ours.medianMs.toFixed(1)} ms, ${others.join(", ")}`);
  }
  const report = { machine, rounds: options.rounds, ...summary(finished) };
  const text = markdown(report, ["npm run bench:peer", ...(process.argv.length > 2 ? ["--", ...process.argv.slice(2)] : [])].join(" "));
  if (options.write) rewriteSection(join(root, "docs", "benchmarks.md"), text);
  process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : `${text}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof PeerError)) throw error;
    say(`bench:peer: ${error.message}`);
    process.exitCode = 1;
  }
}
