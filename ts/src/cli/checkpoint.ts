import type { Command } from "commander";
import { digestCheckpoint } from "../checkpoint/index.js";
import type { Context } from "./context.js";

/** `esvit checkpoint digest <file>` */
export function addCheckpoint(program: Command, { io }: Context): void {
  const checkpoint = program.command("checkpoint").description("look into checkpoints");
  checkpoint
    .command("digest")
    .description("one number for all tensors of a checkpoint: equal for equal runs, whatever the file format")
    .argument("<file>", "a checkpoint of this program or of microsoft/esvit")
    .option("--json", "print one JSON object")
    .action((file: string, options: { json?: true }) => {
      const digest = digestCheckpoint(file);
      io.stdout(options.json ? `${JSON.stringify({ file, ...digest })}\n` : `${digest.sha256}  ${file}\n`);
    });
}
