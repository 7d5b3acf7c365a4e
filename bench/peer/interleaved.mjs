/** A program that makes one run for each line it is sent, so that runs of several programs can be interleaved on one machine. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { PeerError } from "./python.mjs";

/**
 * Starts it and waits until it is built and warm.
 * @returns {Promise<{run(): Promise<number>, end(): Promise<object>}>} `run` gives milliseconds, `end` the measurement; a measurement with a
 * `reason` cannot run.
 */
export async function startInterleaved(command, args) {
  const child = spawn(command, [...args, "--json", "--paced"], { stdio: ["pipe", "pipe", "pipe"] });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  // Writing to a child that has just failed is no failure of its own: its last words say more.
  child.stdin.on("error", () => undefined);
  const closed = new Promise((done) => {
    child.on("error", (error) => done(error.message));
    child.on("close", (code, signal) => done(code === 0 ? undefined : `ended with ${signal ?? `exit code ${code}`}`));
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (!done) return JSON.parse(value);
    const last = stderr.trim().split("\n").at(-1);
    throw new PeerError(`${command} ${args.join(" ")} ${(await closed) ?? "ended early"}${last ? `: ${last}` : ""}`);
  };
  const first = await next();
  let report = first.ready ? undefined : first;
  return {
    isReady: first.ready === true,
    async run() {
      child.stdin.write("run\n");
      return (await next()).ms;
    },
    async end() {
      child.stdin.end();
      report ??= await next();
      await closed;
      return report.cases[0];
    },
    kill: () => child.kill(),
  };
}
