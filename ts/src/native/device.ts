import { EngineError } from "./error.js";
import type { GpuAdapter } from "./generated/addon.js";
import type { Device } from "./generated/types.js";

/** Device that a user asks for: `auto` is the best GPU, and the CPU where there is none. */
export type DeviceChoice = Device | "auto";

/** A choice that was made. */
export interface ChosenDevice {
  device: Device;
  /** The GPU; undefined for the CPU. */
  adapter: GpuAdapter | undefined;
  /** Why it is not what one might expect. */
  note: string | undefined;
}

/**
 * The device that a run will use.
 * @throws {EngineError} with code `DEVICE` when a GPU was asked for and there is none.
 */
export function chooseDevice(choice: DeviceChoice, engine: { adapters(): GpuAdapter[] }): ChosenDevice {
  if (choice === "cpu") return { device: "cpu", adapter: undefined, note: undefined };
  const adapters = engine.adapters();
  const adapter = choice === "gpu" ? adapters[0] : adapters.find(({ kind }) => kind !== "software");
  if (adapter) {
    const note = adapter.kind === "software" ? `${adapter.name} is a GPU in software: correct, and much slower than --device cpu` : undefined;
    return { device: "gpu", adapter, note };
  }
  if (choice === "gpu") throw new EngineError("DEVICE", "this machine has no GPU that Vulkan, Metal or DirectX 12 can use; --device cpu needs none");
  return { device: "cpu", adapter: undefined, note: "no GPU was found: the CPU is used" };
}
