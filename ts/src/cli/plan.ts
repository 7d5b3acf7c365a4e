import type { Command } from "commander";
import { imagesPerStep, toTrainerSpec, type Config } from "../config/index.js";
import { planLoader, stepsPerEpoch } from "../data/index.js";
import { chooseDevice, native } from "../native/index.js";
import { largestBatch, memoryLimit, openTrainingImages, runMemory, runTime, showSeconds, type RunTime } from "../train/index.js";
import type { Context } from "./context.js";
import { readSettings, takesSettings } from "./settings.js";
import { mebibytes, table } from "./table.js";

/** `esvit plan [settings]` */
export function addPlan(program: Command, context: Context): void {
  const command = program
    .command("plan")
    .description("the memory and the time a run will need, without running it")
    .usage("[--config FILE] [settings]")
    .argument("[words...]", "settings, as for pretrain")
    .option("--json", "print one JSON object, in bytes and seconds");
  takesSettings(command).action(async () => {
    const { io } = context;
    const { config, notes } = readSettings(command.args);
    for (const note of notes) io.stderr(`note: ${note}\n`);
    const engine = native();
    const { device, adapter } = chooseDevice(config.device, engine);
    const spec = toTrainerSpec(config);
    const { memory: plan, parameterCount, gflop } = engine.planTrainer(spec, device);
    const loader = planLoader(config);
    const memory = runMemory(plan, loader, device);
    const limit = memoryLimit();
    const largest = largestBatch(config, limit, engine, device);
    const step = await engine.estimateStep(spec, device);
    const steps = await stepsOf(config);
    const time = step === null ? undefined : runTime(step, steps);
    if (command.opts()["json"]) {
      const seconds = time && { step: time.step, epoch: time.epoch ?? null, run: time.run ?? null };
      io.stdout(`${JSON.stringify({
        device: adapter?.name ?? "cpu", parameterCount, batchSize: config.batchSize, accumulate: config.accumulate,
        memory, limit, largestBatch: largest, gflop, seconds: seconds ?? null,
      })}\n`);
      return;
    }
    io.stdout(table(["", "memory"], [
      ...(adapter ? [[`on the GPU (${adapter.name})`, mebibytes(memory.gpu)]] : [["activations and gradients", mebibytes(memory.arena)]]),
      [`parameters, teacher, moments (${(parameterCount / 1e6).toFixed(1)}M parameters)`, mebibytes(memory.parameters)],
      ["workspace", mebibytes(memory.workspace)],
      [`images (${loader.depth} batches ready)`, mebibytes(memory.loader)],
      ["a checkpoint while it is written", mebibytes(memory.checkpoint)],
      ["together", mebibytes(memory.total)],
      ["free on this machine", mebibytes(limit)],
    ]));
    io.stdout(`largest batch that fits: ${largest}\n`);
    io.stdout(timeText(gflop, imagesPerStep(config), time));
  });
}

/** Steps of an epoch and of the run, where its images are named. */
async function stepsOf(config: Config): Promise<{ epoch: number; run: number } | undefined> {
  if (config.data.path === null) return undefined;
  const { length } = await openTrainingImages(config);
  const epoch = stepsPerEpoch(length, imagesPerStep(config));
  return { epoch, run: Math.min(epoch * config.epochs, config.maxSteps ?? Infinity) };
}

function timeText(gflop: number, images: number, time: RunTime | undefined): string {
  const step = `a step of ${images} images: ${gflop.toFixed(1)} GFLOP`;
  if (time === undefined) return `${step}\n`;
  const { epoch, run } = time;
  const more = epoch === undefined || run === undefined ? "" : `; an epoch about ${showSeconds(epoch)}, the run about ${showSeconds(run)}`;
  return `${step}, about ${showSeconds(time.step)}${more}\n`;
}
