import type { Command } from "commander";
import type { Context } from "../context.js";
import { addCases } from "./cases.js";
import { addOperators } from "./operators.js";
import { addScaling } from "./scaling.js";
import { addStep } from "./step.js";

/** `esvit bench ops|step|loss|attention|inference|scaling` */
export function addBench(program: Command, context: Context): void {
  const bench = program.command("bench").description("measure the engine on this machine");
  addOperators(bench, context);
  addStep(bench, context);
  addCases(bench, context);
  addScaling(bench, context);
}
