/** The program: parse, call one function, print. */
import { Command, CommanderError } from "commander";
import { addBench } from "./bench/index.js";
import { addCheckpoint } from "./checkpoint.js";
import type { Context } from "./context.js";
import { addDemo } from "./demo.js";
import { addDoctor } from "./doctor.js";
import { exitCodeOf } from "./exit-codes.js";
import { processIo, type Io } from "./io.js";
import { addKnn } from "./knn.js";
import { packageVersion } from "./package-root.js";
import { addPlan } from "./plan.js";
import { addPretrain } from "./pretrain.js";

/**
 * Runs one command line (without `node` and the script) and returns the exit code. Errors become one sentence on
 * stderr; with `ESVIT_DEBUG=1` the stack follows.
 */
export async function main(words: readonly string[], io: Io = processIo()): Promise<number> {
  const context: Context = { io, exitCode: 0 };
  const program = new Command("esvit")
    .description("self-supervised pre-training of vision transformers (EsViT) on this machine")
    .version(packageVersion())
    .enablePositionalOptions()
    .exitOverride()
    // Errors are printed below, once.
    .configureOutput({ writeOut: io.stdout, writeErr: io.stderr, outputError: () => undefined });
  addPretrain(program, context);
  addKnn(program, context);
  addDemo(program, context);
  addPlan(program, context);
  addBench(program, context);
  addCheckpoint(program, context);
  addDoctor(program, context);
  try {
    await program.parseAsync(words, { from: "user" });
    return context.exitCode;
  } catch (error) {
    const exitCode = exitCodeOf(error);
    // Help was asked for, and is printed.
    const isHelp = error instanceof CommanderError && (exitCode === 0 || error.code === "commander.help");
    if (!isHelp) io.stderr(`esvit: ${sentenceOf(error)}\n`);
    if (io.env["ESVIT_DEBUG"] === "1" && error instanceof Error) io.stderr(`${stackOf(error)}\n`);
    return exitCode;
  }
}

function sentenceOf(error: unknown): string {
  if (error instanceof CommanderError) {
    // Commander writes two sentences, on one line or on two.
    return error.message
      .replace(/^error: /, "")
      .replace(/\n\(Did you mean (.*)\?\)$/, "; did you mean $1?")
      .replace(/ is invalid\. (.)(.*)\.$/, (_, first: string, rest: string) => ` is invalid: ${first.toLowerCase()}${rest}`);
  }
  return error instanceof Error ? error.message : String(error);
}

function stackOf(error: Error): string {
  const own = error.stack ?? String(error);
  return error.cause instanceof Error ? `${own}\ncaused by ${stackOf(error.cause)}` : own;
}
