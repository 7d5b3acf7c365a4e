import type { Command } from "commander";
import { ConfigError } from "../config/index.js";
import type { Context } from "./context.js";
import { readSettings, takesSettings } from "./settings.js";
import { withSignals } from "./signals.js";
import { accuracies, runReport, trainWatched } from "./training.js";

/** `esvit pretrain <images> [settings]` */
export function addPretrain(program: Command, context: Context): void {
  const command = program
    .command("pretrain")
    .description("pre-train on a folder of images, or go on with the run in the output folder")
    .usage("<images> [--config FILE] [settings]")
    .argument("[words...]", "the folder of images, and settings")
    .option("--json", "print one JSON object at the end");
  takesSettings(command).action(async () => {
    const { io } = context;
    const { config, notes } = readSettings(command.args);
    if (config.data.path === null) throw new ConfigError("the folder of images is missing: esvit pretrain <images>");
    context.exitCode = await withSignals(io, async (signal) => {
      const result = await trainWatched(config, notes, io, signal);
      if (command.opts()["json"]) io.stdout(`${JSON.stringify(runReport(result))}\n`);
      else {
        io.stdout(`${result.checkpoint}\n`);
        if (result.knn) io.stdout(`k-NN of the teacher (top-1): ${accuracies(result.knn)}\n`);
      }
      return { interrupted: result.status === "interrupted" };
    });
  });
}
