import { arch, availableParallelism, cpus, platform } from "node:os";
import type { Command } from "commander";
import { native } from "../native/index.js";
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
        memory: memoryLimit(),
        /** Of this process, with the engine loaded and nothing done. */
        baseMemory: peakMemory(),
        gflops: await engine.gemmPeak(threads),
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
        ["matrix products", `${facts.gflops.toFixed(0)} GFLOP/s in single precision`],
      ]));
    });
}
