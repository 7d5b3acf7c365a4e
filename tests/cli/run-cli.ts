import { main } from "../../ts/src/cli/main.js";

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command line in this process. */
export async function cli(words: readonly string[], env: Record<string, string> = {}): Promise<CliResult> {
  const result = { code: -1, stdout: "", stderr: "" };
  result.code = await main(words, {
    stdout: (text) => void (result.stdout += text),
    stderr: (text) => void (result.stderr += text),
    isTerminal: false,
    env,
  });
  return result;
}
