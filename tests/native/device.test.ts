import { describe, expect, test } from "vitest";
import { exitCodeOf } from "../../ts/src/cli/exit-codes.js";
import { chooseDevice, type GpuAdapter } from "../../ts/src/native/index.js";

const adapter = (name: string, kind: GpuAdapter["kind"]): GpuAdapter => ({
  name, kind, backend: "Vulkan", driver: "", maxBuffer: 1, maxBinding: 1, workgroupMemory: 1, halfPrecision: false, cooperativeMatrix: false, mixed: "", timestamps: false,
});
const machine = (...gpus: GpuAdapter[]) => ({ adapters: () => gpus });
const [card, software] = [adapter("card", "discrete"), adapter("soft", "software")];

describe("the device", () => {
  test("cpu does not look for a GPU", () => {
    expect(chooseDevice("cpu", { adapters: () => { throw new Error("it looked"); } })).toEqual({ device: "cpu", adapter: undefined, note: undefined });
  });

  test("gpu is the best there is, one in software too, which it says", () => {
    expect(chooseDevice("gpu", machine(card, software))).toEqual({ device: "gpu", adapter: card, note: undefined });
    expect(chooseDevice("gpu", machine(software)).note).toMatch(/^soft is a GPU in software/);
  });

  test("gpu without one is an error with the exit code for resources", () => {
    try {
      chooseDevice("gpu", machine());
      expect.unreachable();
    } catch (error) {
      expect((error as Error).message).toMatch(/^this machine has no GPU .*--device cpu/);
      expect(exitCodeOf(error)).toBe(5);
    }
  });

  test("auto passes over one in software, and falls back to the CPU with one sentence", () => {
    expect(chooseDevice("auto", machine(card, software)).adapter).toBe(card);
    for (const gpus of [[], [software]]) {
      expect(chooseDevice("auto", machine(...gpus))).toEqual({ device: "cpu", adapter: undefined, note: "no GPU was found: the CPU is used" });
    }
  });
});
