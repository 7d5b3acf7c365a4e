import type { Command } from "commander";
import { toTrainerSpec } from "../config/index.js";
import { planLoader } from "../data/index.js";
import { chooseDevice, native } from "../native/index.js";
import { largestBatch, memoryLimit, runMemory } from "../train/index.js";
import type { Context } from "./context.js";
import { readSettings, takesSettings } from "./settings.js";
import { mebibytes, table } from "./table.js";

/** `esvit plan [settings]` */
export function addPlan(program: Command, context: Context): void {
  const command = program
    .command("plan")
    .description("the memory a run will need, without running it")
    .usage("[--config FILE] [settings]")
    .argument("[words...]", "settings, as for pretrain")
    .option("--json", "print one JSON object, in bytes");
  takesSettings(command).action(() => {
    const { io } = context;
    const { config, notes } = readSettings(command.args);
    for (const note of notes) io.stderr(`note: ${note}\n`);
    const engine = native();
    const { memory: plan, parameterCount } = engine.planTrainer(toTrainerSpec(config));
    const loader = planLoader(config);
    const { device, adapter } = chooseDevice(config.device, engine);
    const memory = runMemory(plan, loader, device);
    const limit = memoryLimit();
    const largest = largestBatch(config, limit, engine, device);
    if (command.opts()["json"]) {
      io.stdout(`${JSON.stringify({ device: adapter?.name ?? "cpu", parameterCount, batchSize: config.batchSize, memory, limit, largestBatch: largest })}\n`);
      return;
    }
    io.stdout(table(["", "memory"], [
      ...(adapter ? [[`on the GPU (${adapter.name})`, mebibytes(memory.gpu)]] : [["activations and gradients", mebibytes(memory.arena)]]),
      [`parameters, teacher, moments (${(parameterCount / 1e6).toFixed(1)}M parameters)`, mebibytes(memory.parameters)],
      ["workspace", mebibytes(memory.workspace)],
      [`images (${loader.depth} batches ready)`, mebibytes(memory.loader)],
      ["copies of the state for checkpoints", mebibytes(memory.checkpoint)],
      ["together", mebibytes(memory.total)],
      ["free on this machine", mebibytes(limit)],
    ]));
    io.stdout(`largest batch that fits: ${largest}\n`);
  });
}
