/** The peer's Python: a virtual environment of its own beside this folder, with the pinned packages. */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const requirements = join(here, "requirements.txt");
/** Ignored by git. */
const environment = join(here, "..", ".venv");

/** The peer cannot run here; the message is one sentence. */
export class PeerError extends Error {}

/** Where the environment's interpreter is. */
export const interpreter = join(environment, ...(process.platform === "win32" ? ["Scripts", "python.exe"] : ["bin", "python"]));

/** Whether the pinned packages were installed: the list they were installed from is kept with them. */
export function isInstalled() {
  const kept = join(environment, "requirements.txt");
  return existsSync(interpreter) && existsSync(kept) && readFileSync(kept, "utf8") === readFileSync(requirements, "utf8");
}

function run(command, args, failure) {
  const { status } = spawnSync(command, args, { stdio: ["ignore", 2, 2] });
  if (status !== 0) throw new PeerError(failure);
}

/**
 * The interpreter, after installing what is missing (some gigabytes, once).
 * @throws {PeerError}
 */
export function installedPython() {
  if (isInstalled()) return interpreter;
  const python = ["python3", "python"].find((name) => spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0);
  if (python === undefined) throw new PeerError("python3 was not found: the peer is PyTorch, and needs Python 3.11 or newer");
  process.stderr.write("installing PyTorch and the other packages of bench/peer/requirements.txt into bench/.venv\n");
  run(python, ["-m", "venv", environment], `${python} could not make a virtual environment; its messages are above (Debian: apt-get install python3-venv)`);
  run(interpreter, ["-m", "pip", "install", "--no-input", "-r", requirements], "pip could not install the packages of bench/peer/requirements.txt; its messages are above, and without a network nothing can be installed");
  copyFileSync(requirements, join(environment, "requirements.txt"));
  return interpreter;
}
