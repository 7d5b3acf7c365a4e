/**
 * The only import of the addon. Its types are generated: plain data from the structs of the crates (`generated/types.ts`), functions, classes
 * and objects with arrays from `bindings/node` (`generated/addon.ts`), with units and errors in their comments.
 *
 * Pixels are 8-bit RGB, rows top to bottom, three bytes a pixel (height, width, channel).
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { EngineError } from "./error.js";
import type * as addon from "./generated/addon.js";
import type { Batch, Encoder, Trainer } from "./trainer.js";

export { chooseDevice, type ChosenDevice, type DeviceChoice } from "./device.js";
export { EngineError } from "./error.js";
export { storedState } from "./state.js";
export type { GpuAdapter, Mixup, TensorData, TensorShape } from "./generated/addon.js";
export type * from "./generated/types.js";
export type * from "./trainer.js";

/** Functions of the addon; the objects they build are interfaces, so that tests may stand in for them. */
export type Native = Omit<typeof addon, "Batch" | "Encoder" | "Trainer" | "createBatch" | "createEncoder" | "createTrainer"> & {
  createBatch(...parameters: Parameters<typeof addon.createBatch>): Batch;
  createTrainer(...parameters: Parameters<typeof addon.createTrainer>): Trainer;
  createEncoder(...parameters: Parameters<typeof addon.createEncoder>): Encoder;
};

/** The addon's errors are `[CODE] sentence`. */
function asEngineError(cause: unknown): unknown {
  const match = cause instanceof Error ? /^\[(CONFIG|STATE|IMAGE|DEVICE|ENGINE)\] ([^]*)$/.exec(cause.message) : null;
  return match ? new EngineError(match[1] as EngineError["code"], match[2] as string, { cause }) : cause;
}

/** Objects of the addon behind those that {@link guarded} made: the addon takes no others as arguments. */
const unguarded = new WeakMap<object, object>();

/** An object of the addon whose calls fail with {@link EngineError}, at once or in their promise. */
function guarded<T extends object>(object: T): T {
  const proxy = new Proxy(object, {
    get(target, key) {
      const member: unknown = Reflect.get(target, key, target);
      if (typeof member !== "function") return member;
      return (...args: unknown[]): unknown => {
        try {
          const plain = args.map((arg) => (typeof arg === "object" && arg !== null && unguarded.get(arg)) || arg);
          const result: unknown = Reflect.apply(member, target, plain);
          if (!(result instanceof Promise)) return result;
          return result.catch((cause: unknown) => {
            throw asEngineError(cause);
          });
        } catch (cause) {
          throw asEngineError(cause);
        }
      };
    },
  });
  unguarded.set(proxy, object);
  return proxy;
}

/** The addon's file, from `dist/native` as from `ts/src/native`; `ESVIT_ADDON` names another one. */
function addonPath(): string {
  const named = process.env["ESVIT_ADDON"];
  if (named) return named;
  const candidates = ["../..", "../../.."].map((up) => fileURLToPath(new URL(`${up}/bindings/node/esvit.node`, import.meta.url)));
  return candidates.find((path) => existsSync(path)) ?? (candidates[0] as string);
}

let loaded: Native | undefined;

/** The engine. Throws one sentence when the addon was not built for this machine. */
export function native(): Native {
  if (loaded) return loaded;
  const path = addonPath();
  // Mesa's layer that reorders GPUs complains on stderr where there is no desktop; the engine orders them itself.
  process.env["NODEVICE_SELECT"] ??= "1";
  let exports: typeof addon;
  try {
    exports = createRequire(import.meta.url)(path) as typeof addon;
  } catch (cause) {
    throw new Error(`the engine could not be loaded from ${path}; run \`npm run build\` first`, { cause });
  }
  const functions = guarded(exports);
  loaded = {
    ...Object.fromEntries(Object.keys(exports).map((name) => [name, Reflect.get(functions, name)])),
    createBatch: (layout) => guarded(functions.createBatch(layout)),
    createTrainer: (spec, device) => guarded(functions.createTrainer(spec, device)),
    createEncoder: (spec, device) => guarded(functions.createEncoder(spec, device)),
  } as Native;
  return loaded;
}
