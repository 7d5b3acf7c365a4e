/**
 * The direction of imports between the folders of ts/src: who may know whom. Prints each import that goes another way
 * and exits with 1; prints nothing when all is well.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** Folders that each folder may import besides itself; `types` stands for `import type` only. */
export const allowed = {
  native: {},
  random: {},
  config: { native: "types" },
  schedule: { config: "all", native: "types" },
  augment: { config: "all", random: "all", native: "types" },
  data: { config: "all", random: "all", native: "all", augment: "all" },
  demo: { random: "all" },
  checkpoint: { config: "all", native: "all" },
  evaluate: { native: "all", random: "all", config: "all", augment: "all", data: "all", checkpoint: "all" },
  train: { native: "all", random: "all", config: "all", schedule: "all", augment: "all", data: "all", checkpoint: "all", evaluate: "all" },
  cli: "everything",
  // Files right in ts/src: the public interface.
  "": "everything",
};

const importPattern = /\b(?:(import|export)\s+(type\s+)?(?:[\w*{][^"';]*?\s+from\s+)?|import\s*\(\s*)"(\.{1,2}\/[^"]+)"/g;

/** Relative imports of a source text. */
export function importsOf(text) {
  const code = text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/^\s*\/\/.*$/gm, "");
  return [...code.matchAll(importPattern)].map(([, , type, target]) => ({ target, isType: type !== undefined }));
}

/** Sentences for the imports of one file that are not allowed. `file` is relative to the source folder. */
export function violations(file, text) {
  const folderOf = (path) => (path.includes("/") ? path.slice(0, path.indexOf("/")) : "");
  const from = folderOf(file);
  const rule = allowed[from];
  if (rule === undefined) return [`${file}: the folder ${from} is not in the table of scripts/check-imports.mjs`];
  if (rule === "everything") return [];
  return importsOf(text).flatMap(({ target, isType }) => {
    const path = join(dirname(file), target).split(sep).join("/");
    const to = folderOf(path);
    if (to === from) return [];
    if (path.startsWith("..")) return [`${file}: ${target} lies outside of ts/src`];
    if (rule[to] === "all" || (rule[to] === "types" && isType)) return [];
    const only = rule[to] === "types" ? " other than types" : "";
    return [`${file}: ${from} may not import ${to || "the public interface"}${only} (${target})`];
  });
}

function sources(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sources(path);
    return name.endsWith(".ts") ? [path] : [];
  });
}

/** All violations below a source folder. */
export function checkFolder(folder) {
  return sources(folder).flatMap((path) => violations(relative(folder, path).split(sep).join("/"), readFileSync(path, "utf8")));
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
  const found = checkFolder(join(root, "ts", "src"));
  for (const sentence of found) process.stderr.write(`${sentence}\n`);
  process.exitCode = found.length > 0 ? 1 : 0;
}
