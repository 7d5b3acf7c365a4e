import { arch, availableParallelism, cpus, platform } from "node:os";
import type { Command } from "commander";
import { native, type GpuAdapter } from "../native/index.js";
import { memoryLimit } from "../train/index.js";
import type { Context } from "./context.js";
import { packageVersion } from "./package-root.js";
import { mebibytes, peakMemory, table } from "./table.js";

/** `esvit doctor` */
export function addDoctor(program: Command, { io }: Context): void {
  program
    .command("doctor")
    .description("what this machine offers the engine")
    .option("--json", "print one JSON object")
    .action(async (options: { json?: true }) => {
      const engine = native();
      const threads = availableParallelism();
      const facts = {
        version: packageVersion(),
        node: process.versions.node,
        platform: `${platform()} ${arch()}`,
        cpu: cpus()[0]?.model ?? "unknown",
        threads,
        instructions: engine.cpuFeatures(),
        bf16: engine.cpuMultipliesBf16(),
        memory: memoryLimit(),
        /** Memory of this process, with the engine loaded and nothing done. */
        baseMemory: peakMemory(),
        gflops: await engine.gemmPeak(threads),
        adapters: engine.adapters(),
      };
      if (options.json) {
        io.stdout(`${JSON.stringify(facts)}\n`);
        return;
      }
      io.stdout(table(["esvit", facts.version], [
        ["node", `v${facts.node}`],
        ["platform", facts.platform],
        ["processor", facts.cpu],
        ["threads", String(facts.threads)],
        ["instructions", facts.instructions],
        ["memory that is free", mebibytes(facts.memory)],
        ["mixed precision", facts.bf16 ? "products of bf16 (AVX512-BF16)" : "as single precision: this processor does not multiply bf16"],
        ["matrix products", `${facts.gflops.toFixed(0)} GFLOP/s in single precision`],
        ...(facts.adapters.length === 0 ? [["GPU", "none that Vulkan, Metal or DirectX 12 can use"]] : facts.adapters.map((gpu) => ["GPU", describeAdapter(gpu)])),
      ]));
    });
}

/** One line about a GPU: what it is, and what its kernels may use. */
function describeAdapter(gpu: GpuAdapter): string {
  const abilities = [gpu.halfPrecision && "half precision", gpu.cooperativeMatrix && "cooperative matrices", gpu.timestamps && "timestamps"].filter(Boolean);
  const limits = `buffers up to ${mebibytes(gpu.maxBuffer)}, bindings up to ${mebibytes(gpu.maxBinding)}, ${gpu.workgroupMemory / 1024} KiB of workgroup memory`;
  return [`${gpu.name} (${gpu.kind}, ${gpu.backend}, ${gpu.driver})`, limits, ...abilities, `mixed: ${gpu.mixed}`].join("; ");
}
