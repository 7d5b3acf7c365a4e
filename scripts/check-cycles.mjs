/**
 * Cycles among files that stand side by side, in Rust and in TypeScript: `node scripts/check-cycles.mjs [root]`. Prints each
 * cycle with the lines that make it and exits with 1; prints nothing when there are none.
 *
 * Each use of another file counts between the two children of the folder (or module) both are in: `gemm/pack.rs` using
 * `vector/x86.rs` is `gemm -> vector`. So subfolders are compared with the files beside them, and a tree without cycles
 * at any level has none at all. In Rust a child and its parent may use each other (types below, what drives them above), and a
 * name the parent re-exports counts as a use of the file that declares it. Tests do not count. In TypeScript imports of
 * types count like others: they vanish when the code runs, but a reader has to follow them all the same.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { closingBracket, filesBelow, lineOf, rustCodeWithoutTests, scriptCode } from "./source-text.mjs";

// ---- Rust: modules

/** Leaves of a use tree: `a::{b, c as d, e::*}` gives `[a, b]`, `[a, c]` named d and `[a, e]` as a glob. */
export function useLeaves(tree) {
  const text = tree.trim();
  const brace = text.indexOf("{");
  if (brace < 0) {
    const [path, alias] = text.split(/\s+as\s+/);
    const segments = path.split("::").map((segment) => segment.trim()).filter((segment) => segment !== "");
    if (segments.at(-1) === "*") return [{ segments: segments.slice(0, -1), glob: true }];
    const last = segments.at(-1) === "self" && segments.length > 1 ? segments.slice(0, -1) : segments;
    return last.length === 0 ? [] : [{ segments: last, name: alias ?? last.at(-1) }];
  }
  const prefix = text.slice(0, brace).split("::").map((segment) => segment.trim()).filter((segment) => segment !== "");
  const inner = text.slice(brace + 1, closingBracket(text, brace) - 1);
  const parts = [];
  let start = 0;
  for (let i = 0; i < inner.length; i += 1) {
    if (inner[i] === "{") i = closingBracket(inner, i) - 1;
    else if (inner[i] === ",") [start] = [i + 1, parts.push(inner.slice(start, i))];
  }
  parts.push(inner.slice(start));
  return parts.flatMap(useLeaves).map((leaf) => {
    const segments = [...prefix, ...leaf.segments];
    if (leaf.segments[0] !== "self" || leaf.segments.length > 1 || prefix.length === 0) return { ...leaf, segments };
    return { segments: prefix, name: leaf.name === "self" ? prefix.at(-1) : leaf.name };
  });
}

/** The modules of a crate by path (`""` is the root), read from its root file. */
export function rustModules(rootFile) {
  const modules = new Map();
  const read = (path, file, folder) => {
    const text = readFileSync(file, "utf8");
    addModule(path, file, folder, text, rustCodeWithoutTests(text), 0);
  };
  const addModule = (path, file, folder, text, code, base) => {
    const module = { path, file, uses: [], items: new Set(), macros: new Set(), children: new Set(), text, base, code };
    modules.set(path, module);
    let own = code;
    // The last first, so that a module inside a module is blanked out with it.
    for (const match of [...code.matchAll(/(?:#\[[^\]]*\]\s*)*\bmod\s+(\w+)\s*([;{])/g)]) {
      if (own.slice(match.index, match.index + match[0].length).trim() === "") continue;
      const [whole, name, sign] = match;
      const child = path === "" ? name : `${path}::${name}`;
      module.children.add(name);
      const open = match.index + whole.length - 1;
      if (sign === "{") {
        const end = closingBracket(code, open);
        addModule(child, file, join(folder, name), text, code.slice(open + 1, end - 1), base + open + 1);
        own = own.slice(0, match.index) + own.slice(match.index, end).replaceAll(/[^\n]/g, " ") + own.slice(end);
        continue;
      }
      const attribute = /#\[path\s*=\s*"([^"]+)"\]/.exec(text.slice(base + match.index, base + open));
      const candidates = attribute ? [join(dirname(file), attribute[1])] : [join(folder, `${name}.rs`), join(folder, name, "mod.rs")];
      const found = candidates.find((candidate) => existsSync(candidate));
      if (found !== undefined) read(child, found, join(folder, name));
    }
    module.code = own;
    for (const [, name] of outsideBraces(own).matchAll(/\b(?:fn|struct|enum|union|trait|type|const|static)\s+(\w+)/g)) module.items.add(name);
    for (const [, name] of own.matchAll(/\bmacro_rules!\s*(\w+)/g)) module.macros.add(name);
    for (const match of own.matchAll(/\buse\s+([^;]+);/g)) {
      for (const leaf of useLeaves(match[1])) module.uses.push({ ...leaf, offset: base + match.index });
    }
  };
  read("", rootFile, dirname(rootFile));
  return modules;
}

/** Code without what stands in braces: methods are no items of their module. */
function outsideBraces(code) {
  let outside = "";
  let position = 0;
  for (let open = code.indexOf("{"); open >= 0; open = code.indexOf("{", position)) {
    outside += `${code.slice(position, open)};`;
    position = closingBracket(code, open);
  }
  return outside + code.slice(position);
}

const parentOf = (path) => (path.includes("::") ? path.slice(0, path.lastIndexOf("::")) : "");

/** Paths of the modules that declare what `segments` means inside of module `path`; none when that is in another crate. */
function resolvePath(modules, path, segments, seen = new Set()) {
  let [first, ...rest] = segments;
  if (first === "crate" || first === "$crate") return walk(modules, "", rest, seen);
  if (first === "self") return walk(modules, path, rest, seen);
  if (first === "super") {
    let at = parentOf(path);
    while (rest[0] === "super") [at, rest] = [parentOf(at), rest.slice(1)];
    return walk(modules, at, rest, seen);
  }
  const module = modules.get(path);
  const known = module.children.has(first) || module.items.has(first) || module.uses.some((use) => use.name === first && use.segments[0] !== first);
  return known ? walk(modules, path, segments, seen) : [];
}

/** As `resolvePath`, for segments that start inside of module `path`. */
function walk(modules, path, segments, seen) {
  const module = modules.get(path);
  if (module === undefined) return [];
  const [name, ...rest] = segments;
  if (name === undefined) return [path];
  if (module.children.has(name)) return walk(modules, path === "" ? name : `${path}::${name}`, rest, seen);
  if (module.items.has(name)) return [path];
  const key = `${path} ${name}`;
  if (seen.has(key)) return [];
  seen.add(key);
  const named = module.uses.filter((use) => use.name === name);
  if (named.length > 0) return named.flatMap((use) => resolvePath(modules, path, [...use.segments, ...rest], seen));
  const behindGlobs = module.uses.filter((use) => use.glob).flatMap((use) => {
    const targets = resolvePath(modules, path, use.segments, seen).filter((target) => declares(modules.get(target), name));
    return targets.flatMap((target) => walk(modules, target, segments, seen));
  });
  if (behindGlobs.length > 0) return behindGlobs;
  if (path === "") {
    const macro = [...modules.values()].find((candidate) => candidate.macros.has(name));
    if (macro !== undefined) return [macro.path];
  }
  return [path];
}

const declares = (module, name) => module.children.has(name) || module.items.has(name) || module.uses.some((use) => use.name === name);

/** Uses of one module by another, each with the place where it stands. */
export function rustEdges(modules) {
  const edges = [];
  const macros = new Map([...modules.values()].flatMap((module) => [...module.macros].map((name) => [name, module.path])));
  for (const module of modules.values()) {
    const at = (offset) => ({ file: module.file, line: lineOf(module.text, offset) });
    const add = (targets, offset) => {
      for (const to of targets) if (to !== module.path) edges.push({ from: module.path, to, ...at(offset) });
    };
    for (const use of module.uses) {
      const targets = resolvePath(modules, module.path, use.segments);
      add(targets, use.offset);
      if (!use.glob) continue;
      // Which names behind a glob are used shows only in the code.
      for (const target of targets) {
        for (const { name } of modules.get(target).uses) {
          const place = name === undefined ? -1 : module.code.search(new RegExp(`(?<![\\w:.])${name}\\b`));
          if (place >= 0) add(walk(modules, target, [name], new Set()), module.base + place);
        }
      }
    }
    for (const match of module.code.matchAll(/(?<![\w:$.])(\$?[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)+)/g)) {
      add(resolvePath(modules, module.path, match[1].split("::").map((segment) => segment.trim())), module.base + match.index);
    }
    for (const match of module.code.matchAll(/(?<![\w:])(\w+)!\s*[([{]/g)) {
      const to = macros.get(match[1]);
      if (to !== undefined) add([to], module.base + match.index);
    }
  }
  return edges;
}

// ---- TypeScript: files

const importPattern = /\b(?:import|export)\s+(?:type\s+)?(?:[\w*{][^"';]*?\s+from\s+)?"(\.{1,2}\/[^"]+)"|\bimport\s*\(\s*"(\.{1,2}\/[^"]+)"/g;

/** Imports of one file by another below a folder; a file is named by its path in the folder, without its ending. */
export function scriptEdges(folder) {
  return filesBelow(folder, [".ts"]).flatMap((file) => {
    const text = readFileSync(file, "utf8");
    const name = (path) => relative(folder, path).split(sep).join("::").replace(/\.(?:ts|js)$/, "");
    return [...scriptCode(text).matchAll(importPattern)].map((match) => {
      const target = resolve(dirname(file), match[1] ?? match[2]);
      return { from: name(file), to: name(target), file, line: lineOf(text, match.index) };
    });
  });
}

// ---- Cycles

/** Edges as uses between children of the folder (or module) both ends are in: a map of folder to the edges inside of it. */
export function siblingEdges(edges) {
  const levels = new Map();
  for (const edge of edges) {
    const [from, to] = [edge.from.split("::"), edge.to.split("::")];
    const shared = from.findIndex((part, i) => part !== to[i]);
    // One is inside of the other.
    if (edge.from === "" || edge.to === "" || shared < 0 || shared >= to.length) continue;
    const level = from.slice(0, shared).join("::");
    if (!levels.has(level)) levels.set(level, []);
    levels.get(level).push({ ...edge, from: from[shared], to: to[shared] });
  }
  return levels;
}

/** The shortest cycles of a graph, each a list of edges; one that goes through all files of a shorter one is left out. */
export function cycles(edges) {
  const first = new Map();
  for (const edge of edges) {
    if (edge.from !== edge.to && !first.has(`${edge.from} ${edge.to}`)) first.set(`${edge.from} ${edge.to}`, edge);
  }
  const unique = [...first.values()];
  const found = unique.flatMap((start) => {
    const path = shortestPath(unique, start.to, start.from);
    return path === null ? [] : [{ cycle: [start, ...path], files: new Set([start, ...path].map((edge) => edge.from)) }];
  });
  found.sort((a, b) => a.files.size - b.files.size);
  const kept = [];
  for (const one of found) {
    if (!kept.some((shorter) => [...shorter.files].every((file) => one.files.has(file)))) kept.push(one);
  }
  return kept.map(({ cycle }) => cycle);
}

function shortestPath(edges, from, to) {
  const reachedBy = new Map([[from, null]]);
  const queue = [from];
  for (const node of queue) {
    if (node === to) break;
    for (const edge of edges) {
      if (edge.from !== node || reachedBy.has(edge.to)) continue;
      reachedBy.set(edge.to, edge);
      queue.push(edge.to);
    }
  }
  if (!reachedBy.has(to)) return null;
  const path = [];
  for (let edge = reachedBy.get(to); edge !== null; edge = reachedBy.get(edge.from)) path.unshift(edge);
  return path;
}

/** All cycles of a source tree, each as lines to print. */
export function checkTree(root) {
  const graphs = [];
  for (const group of ["crates", "bindings"]) {
    if (!existsSync(join(root, group))) continue;
    for (const name of readdirSync(join(root, group)).sort()) {
      for (const rootFile of ["lib.rs", "main.rs"].map((file) => join(root, group, name, "src", file))) {
        if (existsSync(rootFile)) graphs.push({ place: `${group}/${name}`, edges: rustEdges(rustModules(rootFile)) });
      }
    }
  }
  if (existsSync(join(root, "ts", "src"))) graphs.push({ place: "ts/src", edges: scriptEdges(join(root, "ts", "src")) });
  return graphs.flatMap(({ place, edges }) =>
    [...siblingEdges(edges)].flatMap(([level, inside]) =>
      cycles(inside).map((cycle) => {
        const where = [place, ...(level === "" ? [] : level.split("::"))].join("/");
        const lines = cycle.map((edge) => `  ${relative(root, edge.file).split(sep).join("/")}:${edge.line} (${edge.from} uses ${edge.to})`);
        return [`${where}: ${[...cycle.map((edge) => edge.from), cycle[0].from].join(" -> ")}`, ...lines].join("\n");
      }),
    ),
  );
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const found = checkTree(resolve(process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), "..")));
  for (const cycle of found) process.stderr.write(`${cycle}\n`);
  process.exitCode = found.length > 0 ? 1 : 0;
}
