/** Our files as Python sees them: through its own zipfile and pickle, and through PyTorch where it is installed. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { writeCheckpoint } from "../../ts/src/checkpoint/checkpoint.js";
import { fromTrainerState } from "../../ts/src/checkpoint/trainer-state.js";
import type { TensorData, TrainerState } from "../../ts/src/native/index.js";
import { fill } from "../support/fill.js";
import { temporaryFolder } from "../support/temporary.js";

const folder = temporaryFolder();
const script = fileURLToPath(new URL("read_checkpoint.py", import.meta.url));

const data = (name: string, shape: number[], as = name): TensorData => (
  { name: as, shape, dtype: "f32", data: new Uint8Array(fill(name, shape, "raw").map(Math.abs).buffer) }
);
const shapes: [string, number[]][] = [["a.weight", [3, 5]], ["a.table", [7, 2, 1]], ["a.bias", [3]], ["norm.weight", [4]]];
const index: TensorData = { name: "a.index", shape: [2, 1], dtype: "i64", data: new Uint8Array(BigInt64Array.of(-3n, 1n << 40n).buffer) };
const state: TrainerState = {
  student: [...shapes.map(([name, shape]) => data(name, shape)), index],
  teacher: [...shapes.map(([name, shape]) => data(name, shape)), index],
  loss: [data("center", [1, 6]), data("center_grid", [1, 6])],
  optimizer: {
    kind: "adamw",
    decayed: ["a.weight", "a.table"],
    notDecayed: ["a.bias", "norm.weight"],
    steps: { "a.weight": 5, "a.table": 4, "a.bias": 5, "norm.weight": 5 },
    slots: shapes.flatMap(([name, shape]) => ["exp_avg", "exp_avg_sq"].map((slot) => data(`${slot}.${name}`, shape, `${slot}/${name}`))),
  },
};
const args = { arch: "swin_tiny", lr: 0.0005, clip_grad: 3, opts: [], note: "ümläut", cutmix_minmax: null, use_fp16: false };

interface Seen {
  steps: number[] | null;
  epoch: number;
  args: unknown;
  groups: Record<string, unknown>[];
  types: Record<string, string>;
  tensors: Record<string, [shape: number[], sha256: string]>;
}

/** Why Python cannot do this here; undefined when it can. */
function obstacle(imports: string): string | undefined {
  const python = spawnSync("python3", ["-c", `import ${imports}`], { encoding: "utf8" });
  return python.status === 0 ? undefined : `python3 cannot import ${imports}: ${python.error?.message ?? python.stderr.trim().split("\n").at(-1)}`;
}

describe.each([["plain", "zipfile"], ["torch", "torch"]])("a checkpoint that Python reads (%s)", (mode, imports) => {
  const reason = obstacle(imports);
  if (reason) console.warn(`skipped: ${reason}`);

  it.skipIf(reason)("holds what was written", () => {
    const file = join(folder, "checkpoint.pth");
    writeCheckpoint(file, fromTrainerState(state, { epoch: 4, args, learningRate: 1, weightDecay: 0.04, progress: { seed: 1 } }));
    const result = spawnSync("python3", [script, file, mode], { encoding: "utf8" });
    expect(result.stderr).toBe("");
    const seen = JSON.parse(result.stdout) as Seen;
    // A real AdamW has loaded the counters and made one more step.
    expect(seen.steps).toEqual(mode === "torch" ? [6, 5, 6, 6] : null);

    expect(seen).toMatchObject({ epoch: 4, args });
    expect(seen.groups.map((group) => [group["params"], group["weight_decay"], group["lr"], group["betas"]])).toEqual([
      [[0, 1], 0.04, 1, [0.9, 0.999]], [[2, 3], 0, 1, [0.9, 0.999]],
    ]);
    expect(seen.types).toMatchObject({ lr: "float", weight_decay: "float", eps: "float", betas: "tuple", amsgrad: "bool", fused: "NoneType", params: "list" });

    const wanted = new Map<string, TensorData>([
      ...state.student.map((tensor) => [`student/module.${tensor.name}`, tensor] as const),
      ...state.teacher.map((tensor) => [`teacher/${tensor.name}`, tensor] as const),
      ...state.loss.map((tensor) => [`dino_loss/${tensor.name}`, tensor] as const),
      ...shapes.flatMap(([name], i) => [
        ["step", { name, shape: [], dtype: "f32", data: new Uint8Array(Float32Array.of(state.optimizer.steps[name]!).buffer) }] as const,
        ...state.optimizer.slots.filter((slot) => slot.name.endsWith(`/${name}`)).map((slot) => [slot.name.split("/")[0]!, slot] as const),
      ].map(([slot, tensor]) => [`optimizer/state/${i}/${slot}`, tensor] as [string, TensorData])),
    ]);
    const hashes = [...wanted].map(([path, tensor]) => [path, [tensor.shape, createHash("sha256").update(tensor.data).digest("hex")]]);
    expect(seen.tensors).toEqual(Object.fromEntries(hashes));
  });
});
