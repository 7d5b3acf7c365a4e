/** The comparison with PyTorch: its command line, its ratios, its section of the document, and its losses against recorded ones. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { native, type TrainerSpec } from "../../ts/src/native/index.js";
import { completeConfig } from "../../ts/src/index.js";
import { toTrainerSpec } from "../../ts/src/config/index.js";
import { fixtures, hasGolden } from "../support/golden.js";
import { temporaryFolder } from "../support/temporary.js";
import { notBuilt, root } from "../e2e/program.js";

const { readOptions } = (await import(join(root, "bench/peer.mjs"))) as { readOptions(words: string[]): Record<string, unknown> };
const { comparisons } = (await import(join(root, "bench/peer/comparisons.mjs"))) as { comparisons(options: unknown): { name: string; case: string; batch: number; modes: string[] }[] };
const { summary, markdown, rewriteSection } = (await import(join(root, "bench/peer/report.mjs"))) as {
  summary(finished: unknown[]): { ratios: Record<string, number | null>; memoryRatios: Record<string, number | null>; cases: unknown[] };
  markdown(report: unknown, command: string): string;
  rewriteSection(file: string, text: string): void;
};

describe("the command line", () => {
  test("a short run has every ratio that is asked for, once", () => {
    const names = comparisons(readOptions(["--quick"])).map(({ name }) => name);
    expect(new Set(names)).toEqual(new Set([
      "step_f32", "step_mixed", "step_checkpointing_f32", "step_checkpointing_mixed", "region_loss", "region_loss_mixed", "window_attention", "window_attention_mixed", "inference_224", "inference_224_mixed",
    ]));
  });

  test("cases, batches, precisions and modes can be picked", () => {
    const picked = comparisons(readOptions(["--cases", "attention,inference", "--batch-size", "3", "--precision", "f32", "--modes", "eager,fused"]));
    expect(picked.map(({ case: name, batch, modes }) => [name, batch, modes])).toEqual([
      ["window_attention", 3, ["eager", "fused"]],
      ["window_attention_forward", 3, ["eager", "fused"]],
      ["window_attention_core", 3, ["eager", "fused"]],
      ["window_attention_core_forward", 3, ["eager", "fused"]],
      ["inference", 3, ["eager", "fused", "onnxruntime"]],
    ]);
  });

  test.each([
    [["--cases", "stepp"], "--cases takes step, checkpointing, loss, attention, inference, with commas between; got stepp"],
    [["--rounds", "0"], "--rounds takes whole numbers from 1, got 0"],
    [["--precision", ""], "--precision takes f32, mixed, with commas between; got nothing"],
    [["--fast"], "Unknown option '--fast'"],
  ])("%j is refused", (words, sentence) => {
    expect(() => readOptions(words)).toThrow(sentence);
  });
});

describe("the report", () => {
  const measured = (tool: string, runMs: number[], peakBytes: number): object => ({ tool, runMs, medianMs: runMs[0], deviceBytes: null, peakBytes });
  const finished = [
    { name: "step_f32", case: "step", precision: "f32", batch: 2, ours: measured("esvit", [10, 20, 10], 100), theirs: [measured("pytorch", [40, 40, 30], 300)] },
    { name: "step_f32", case: "step", precision: "f32", batch: 4, ours: measured("esvit", [10], 100), theirs: [measured("pytorch", [120], 1200)] },
    {
      name: "inference_224", case: "inference", precision: "f32", batch: 1, ours: measured("esvit", [5], 10),
      theirs: [measured("pytorch", [10], 40), { tool: "onnxruntime", runMs: null, medianMs: null, deviceBytes: null, peakBytes: null, reason: "onnx is not installed" }],
    },
  ];

  test("ratios are taken round by round, and are the geometric mean over batches; what did not run is null", () => {
    const { ratios, memoryRatios, cases } = summary(finished);
    expect(ratios).toEqual({ step_f32: expect.closeTo(6, 12) as number, inference_224: 2, inference_224_onnxruntime: null });
    expect(memoryRatios).toEqual({ step_f32: expect.closeTo(6, 12) as number, inference_224: 4, inference_224_onnxruntime: null });
    expect(cases[0]).toMatchObject({ theirs: [{ ratio: { median: 3, min: 2, max: 4 }, memoryRatio: 3 }] });
  });

  test("the document's section is rewritten, and the rest stays", () => {
    const file = join(temporaryFolder(), "benchmarks.md");
    const [begin, end] = ["<!-- bench:peer begins; the command rewrites it -->", "<!-- bench:peer ends -->"];
    writeFileSync(file, `before\n${begin}\nold\n${end}\nafter\n`);
    const machine = { processor: "a processor", threads: 2, instructions: "avx2", pytorch: "2" };
    const text = markdown({ machine, rounds: 3, ...summary(finished) }, "npm run bench:peer");
    rewriteSection(file, text);
    rewriteSection(file, text);
    const document = readFileSync(file, "utf8");
    expect(document).toBe(`before\n${begin}\n\n${text}\n\n${end}\nafter\n`);
    expect(document).toContain("| step | f32 | 2 | pytorch | 10.0 | 40.0 | **3.00** (2.00 to 4.00) |");
    expect(document).toContain("onnx is not installed");
    expect(() => rewriteSection(join(root, "README.md"), text)).toThrow(/README\.md has no section/);
    // The real document has its marks.
    expect(readFileSync(join(root, "docs/benchmarks.md"), "utf8")).toContain(begin);
  });
});

/** An interpreter with these modules: the comparison's own, or the machine's; else why there is none. */
function pythonWith(...modules: string[]): { python: string } | { obstacle: string } {
  const own = join(root, "bench/.venv/bin/python");
  const python = existsSync(own) ? own : "python3";
  const missing = modules.find((name) => spawnSync(python, ["-c", `import importlib.util, sys; sys.exit(importlib.util.find_spec("${name}") is None)`]).status !== 0);
  return missing === undefined ? { python } : { obstacle: `skipped: ${python} has no ${missing}; npm run bench:peer installs it` };
}

const losses = hasGolden("head_and_loss") ? pythonWith("torch") : { obstacle: undefined };
const torch = notBuilt === undefined ? pythonWith("torch") : { obstacle: notBuilt };
const network = notBuilt === undefined ? pythonWith("torch", "timm") : { obstacle: notBuilt };
// `hasGolden` has said why itself.
for (const found of [losses, torch, network]) if ("obstacle" in found && found.obstacle !== undefined) console.warn(found.obstacle);

const script = (python: string, ...words: string[]): unknown => {
  const { stdout, stderr, status } = spawnSync(python, words, { cwd: join(root, "bench/peer"), encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
};

test.skipIf("obstacle" in losses)("the peer's losses are the original's", () => {
  if (!("python" in losses)) return;
  const [fixture = ""] = fixtures("head_and_loss", "ddino_small.json");
  const { losses: got, expected } = script(losses.python, "check_losses.py", fixture) as { losses: number[]; expected: number[] };
  expect(expected).toHaveLength(3);
  got.forEach((loss, call) => expect(Math.abs(loss / expected[call]! - 1)).toBeLessThan(2e-6));
});

test.skipIf("obstacle" in network)("the peer's network has as many trained values as ours", () => {
  if (!("python" in network)) return;
  const spec: TrainerSpec = toTrainerSpec(completeConfig({ loss: { region: true }, head: { outDim: 1024 }, batchSize: 1 }));
  // Shapes alone: nothing is allocated or drawn.
  const code = "import torch; from model import Network; torch.set_default_device('meta'); print(sum(p.numel() for p in Network('swin_tiny', 7, 1024, True, 0.1, False).parameters() if p.requires_grad))";
  expect(script(network.python, "-c", code)).toBe(native().planTrainer(spec, "cpu").parameterCount);
});

test.skipIf("obstacle" in torch)("both sides print the same fields; what cannot be measured is null, with the reason", async () => {
  if (!("python" in torch)) return;
  const sizes = ["--prototypes", "64", "--global-size", "64", "--local-size", "32", "--local-count", "1", "--batch-size", "1", "--runs", "1"];
  const { cases } = script(torch.python, "peer.py", "loss", ...sizes, "--mode", "eager,onnxruntime", "--json") as { cases: Record<string, unknown>[] };
  const spec = toTrainerSpec(completeConfig({ loss: { region: true }, crops: { globalSize: 64, localSize: 32, localCount: 1 }, head: { outDim: 64 }, batchSize: 1 }));
  const ours = await native().bench({ subject: "loss", spec, warmUp: 0, runs: 1 }, "cpu");
  expect(Object.keys(cases[0]!).sort()).toEqual(Object.keys(ours.cases[0]!).sort());
  expect(cases).toMatchObject([
    { case: "loss", tool: "pytorch", device: "cpu", precision: "f32", batch: 1 },
    { case: "loss", tool: "onnxruntime", medianMs: null, peakBytes: null, reason: "the loss has no onnxruntime mode" },
  ]);
});
