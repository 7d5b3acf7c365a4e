import type { Command } from "commander";
import { toTrainerSpec } from "../config/index.js";
import { openLoader } from "../data/index.js";
import { native } from "../native/index.js";
import { mayBeTooLarge, memoryLimit, memoryLine, runMemory } from "../train/index.js";
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
  takesSettings(command).action(async () => {
    const { io } = context;
    const { config, notes } = readSettings(command.args);
    for (const note of notes) io.stderr(`note: ${note}\n`);
    const engine = native();
    // Sizes depend on the configuration alone, so names of images that do not exist will do: none is read.
    const files = Array.from({ length: config.batchSize }, () => ({ path: "", label: null }));
    const loader = openLoader({ root: "", files, classes: [] }, config, engine);
    const spec = toTrainerSpec(config);
    const limit = memoryLimit();
    const planned = mayBeTooLarge(spec, limit) ? memoryLine(spec, engine)(config.batchSize) : undefined;
    // One that is planned without being built still has parameters to count.
    const trainer = engine.createTrainer(planned ? { ...spec, crops: { ...spec.crops, batch: 2 } } : spec);
    try {
      const memory = runMemory(planned ?? trainer.memory, loader);
      const { parameterCount } = trainer;
      if (command.opts()["json"]) io.stdout(`${JSON.stringify({ parameterCount, batchSize: config.batchSize, memory, limit })}\n`);
      else {
        io.stdout(table(["", "memory"], [
          ["activations and gradients", mebibytes(memory.arena)],
          [`parameters, teacher, moments (${(parameterCount / 1e6).toFixed(1)}M parameters)`, mebibytes(memory.parameters)],
          ["workspace", mebibytes(memory.workspace)],
          [`images (${loader.depth} batches ready)`, mebibytes(memory.loader)],
          ["copies of the state for checkpoints", mebibytes(memory.checkpoint)],
          ["together", mebibytes(memory.total)],
          ["free on this machine", mebibytes(limit)],
        ]));
      }
    } finally {
      trainer.dispose();
      await loader.close();
    }
  });
}
