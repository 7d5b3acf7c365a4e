/**
 * Makes everything a run needs: node_modules, the addon, dist. Each part only when it is stale, so that it may stand
 * in front of every command. Node's own modules only, but for the generator of the addon's types: nothing is installed when it begins.
 * `--types` generates the types of plain data anew, after a change of the crates' structs.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");

/** A part that could not be made; the message is one sentence. */
export class SetupError extends Error {}

/** True when every package of the lock file is installed in its version; optional ones may be missing. */
export function isInstalled(folder) {
  const lock = readPackages(join(folder, "package-lock.json"));
  const installed = readPackages(join(folder, "node_modules", ".package-lock.json"));
  if (!lock || !installed) return false;
  return Object.entries(lock).every(([path, wanted]) => {
    if (path === "") return true;
    const found = installed[path];
    return found ? found.version === wanted.version : wanted.optional === true;
  });
}

function readPackages(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8")).packages;
  } catch {
    return undefined;
  }
}

function run(command, args, what, options = {}) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], ...options });
  if (error) throw new SetupError(`${what} could not be started: ${error.message}`);
  if (status !== 0) throw new SetupError(`${what} failed with ${signal ?? `exit code ${status}`}; its messages are above`);
}

function has(command) {
  return spawnSync(command, ["--version"], { stdio: "ignore" }).error === undefined;
}

function installPackages() {
  if (isInstalled(root)) return;
  const args = ["ci", "--include=dev", "--no-audit", "--no-fund"];
  const npm = process.env.npm_execpath;
  if (npm?.endsWith(".js")) run(process.execPath, [npm, ...args], "npm ci");
  else run("npm", args, "npm ci", { shell: process.platform === "win32" });
}

/** Names of the library that cargo builds, by platform. */
const libraryNames = { win32: "esvit_node.dll", darwin: "libesvit_node.dylib" };

/** File that the macros of the binding write what it exports to: see .cargo/config.toml. */
const typeDefinitions = join(root, "target", "esvit-node");
const generatedTypes = join(root, "ts", "src", "native", "generated", "addon.ts");

/** Makes TypeScript's types of the addon's exports with napi-rs's generator; tells whether they were stale. */
async function generateTypes() {
  const { generateTypeDef } = await import("@napi-rs/cli");
  const folder = join(root, "target", "types");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  copyFileSync(typeDefinitions, join(folder, "esvit-node"));
  const { dts } = await generateTypeDef({ typeDefDir: folder, cwd: root, dtsHeaderFile: "bindings/node/header.ts" });
  if (existsSync(generatedTypes) && readFileSync(generatedTypes, "utf8") === dts) return;
  writeFileSync(generatedTypes, dts);
}

async function buildAddon() {
  if (!has("cargo")) throw new SetupError("cargo was not found: the engine is written in Rust, install it from https://rustup.rs");
  const hasLinker = Object.keys(process.env).some((name) => /^CARGO_TARGET_.*_LINKER$/.test(name));
  if (process.platform !== "win32" && !hasLinker && !has("cc")) {
    throw new SetupError("no C compiler (cc) was found, and Rust links with it: install one (Debian: apt-get install build-essential, macOS: xcode-select --install)");
  }
  mkdirSync(dirname(typeDefinitions), { recursive: true });
  run("cargo", ["build", "--release", "-p", "esvit-node"], "cargo build");
  const target = resolve(root, process.env.CARGO_TARGET_DIR ?? "target");
  const library = join(target, "release", libraryNames[process.platform] ?? "libesvit_node.so");
  if (!existsSync(library)) throw new SetupError(`cargo build made no ${library}`);
  const changed = replaceIfChanged(library, join(root, "bindings", "node", "esvit.node"));
  if (changed || !existsSync(generatedTypes)) await generateTypes();
}

/** A process that has the old file open keeps it: the new one takes its name, not its place on disk. */
export function replaceIfChanged(from, to) {
  if (existsSync(to) && readFileSync(from).equals(readFileSync(to))) return false;
  const temporary = `${to}.${process.pid}.tmp`;
  try {
    copyFileSync(from, temporary);
    renameSync(temporary, to);
  } finally {
    rmSync(temporary, { force: true });
  }
  return true;
}

/** Writes TypeScript's types of the crates' structs anew: bindings/node/tests/types.rs, which otherwise checks that they are fresh. */
function generateDataTypes() {
  run("cargo", ["test", "--release", "-p", "esvit-node", "--test", "types"], "cargo test", { env: { ...process.env, UPDATE_TYPES: "1" } });
}

function compileTypeScript() {
  run(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", root], "tsc");
}

/** Makes all parts, with `types` those of plain data too. Throws `SetupError`. Progress of the tools goes to stderr. */
export async function setup({ types = false } = {}) {
  installPackages();
  if (types) generateDataTypes();
  await buildAddon();
  compileTypeScript();
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    await setup({ types: process.argv.includes("--types") });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`setup: ${error.message}\n`);
    process.exitCode = 1;
  }
}
