/**
 * Makes everything a run needs: node_modules, the addon, dist. Each part only when it is stale, so that it may stand
 * in front of every command. Node's own modules only, for nothing is installed when it begins; the napi CLI is imported
 * once it is. `--types` generates the types of plain data anew, after a change of the crates' structs.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");

/** A part that could not be made; the message is one sentence. */
export class SetupError extends Error {}

/** True when every package of the lock file is installed in its version; optional ones may be missing. */
export function isInstalled(folder) {
  const lock = readJson(join(folder, "package-lock.json"))?.packages;
  const installed = readJson(join(folder, "node_modules", ".package-lock.json"))?.packages;
  if (!lock || !installed) return false;
  return Object.entries(lock).every(([path, wanted]) => {
    if (path === "") return true;
    const found = installed[path];
    return found ? found.version === wanted.version : wanted.optional === true;
  });
}

function readJson(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
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

const targetFolder = resolve(root, process.env.CARGO_TARGET_DIR ?? process.env.CARGO_BUILD_TARGET_DIR ?? "target");

/** Files and folders that the addon and its types are made from. */
const sources = [
  ".cargo", "Cargo.lock", "Cargo.toml", "bindings/node/Cargo.toml", "bindings/node/build.rs", "bindings/node/header.ts", "bindings/node/src",
  "crates", "package-lock.json", "package.json", "scripts/setup.mjs",
];

/** Time of the last change of a file, or in a folder and all below it, in milliseconds; a removed file changes its folder. */
export function lastChange(path) {
  const status = statSync(path);
  if (!status.isDirectory()) return status.mtimeMs;
  return Math.max(status.mtimeMs, ...readdirSync(path).map((name) => lastChange(join(path, name))));
}

/** The compiler and all variables that change what cargo builds, as text. */
function compilerSettings(compiler) {
  const names = /^(CARGO_(BUILD|ENCODED|PROFILE|TARGET)_|RUSTC|RUSTFLAGS|RUSTUP_TOOLCHAIN)/;
  const variables = Object.entries(process.env).filter(([name]) => names.test(name));
  return JSON.stringify([compiler, variables.sort()]);
}

/** Builds with the napi CLI into `folder`. The target, named to it, keeps cargo from downloading other platforms' crates. */
async function runNapi(folder, target) {
  const { NapiCli } = await import("@napi-rs/cli");
  try {
    const { task } = await new NapiCli().build({ cwd: root, package: "esvit-node", release: true, target, outputDir: folder, noJsBinding: true });
    await task;
  } catch (error) {
    throw new SetupError(`the addon could not be built: ${error.message}; cargo's messages are above`);
  }
}

async function buildAddon() {
  if (!has("cargo")) throw new SetupError("cargo was not found: the engine is written in Rust, install it from https://rustup.rs");
  const hasLinker = Object.keys(process.env).some((name) => /^CARGO_TARGET_.*_LINKER$/.test(name));
  if (process.platform !== "win32" && !hasLinker && !has("cc")) {
    throw new SetupError("no C compiler (cc) was found, and Rust links with it: install one (Debian: apt-get install build-essential, macOS: xcode-select --install)");
  }
  const compiler = spawnSync("rustc", ["-vV"], { cwd: root, encoding: "utf8" }).stdout ?? "";
  const folder = join(targetFolder, "addon");
  const [addon, types, stamp] = ["esvit.node", "index.d.ts", "built.json"].map((name) => join(folder, name));
  const isMade = existsSync(addon) && existsSync(types);
  // The CLI takes seconds to find out that nothing changed.
  const settings = compilerSettings(compiler);
  const built = readJson(stamp);
  if (!isMade || built?.settings !== settings || sources.some((path) => lastChange(join(root, path)) >= built.began)) {
    rmSync(stamp, { force: true });
    const began = Date.now();
    await runNapi(folder, process.env.CARGO_BUILD_TARGET ?? /^host: (.+)$/m.exec(compiler)?.[1]);
    writeFileSync(stamp, JSON.stringify({ began, settings }));
  }
  replaceIfChanged(addon, join(root, "bindings", "node", "esvit.node"));
  replaceIfChanged(types, join(root, "ts", "src", "native", "generated", "addon.ts"));
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
