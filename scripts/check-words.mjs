/**
 * Words of this project: `node scripts/check-words.mjs [root] [--by-folder]`. Prints each finding with its place, or with
 * `--by-folder` their number in each folder, and exits with 1 when there are any.
 *
 * - A name of a type is declared once: in all of Rust, and in all of ts/src.
 * - What the third column of docs/glossary.md replaces occurs nowhere: `code words` in identifiers and names of files (as parts: `slope` is
 *   found in `gelu_slope` and `slopeOf`; a type such as `After` only as the beginning of a name), "quoted phrases" in comments, messages and documents.
 * - A documentation comment begins with what the item is or does, and a document it names is there.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { closingBracket, filesBelow, lineOf, rustCode, rustCodeWithoutTests } from "./source-text.mjs";

/** Names of types that may be declared more than once. */
const repeatedTypes = new Map([
  ["Params", "mirrors the struct of this name in one WGSL kernel"],
  ["Error", "the error of a crate"],
  ["Result", "the result with the error of a crate"],
]);

/** Places where a replaced word (or any, without `word`) is right: `in` is a pattern for the identifier or phrase, `file` one for the path. */
const exemptions = [
  { file: /^CHANGELOG\.md$/, reason: "tells users of the old names" },
  { word: "neighbours", file: /^(ts\/src\/config\/backbones\/vil\.ts|tests\/config\/config\.test\.ts|docs\/decisions\/0068-one-declaration\.md)$/, reason: "the key's former name is still read" },
  { word: "grey", file: /^(ts\/src\/config\/arguments|tests\/config\/config\.test)\.ts$/, reason: "the flag's former name leads to the present one" },
  { word: "neighbours", file: /^crates\/engine\/src\/trainer\//, in: /^neighbours$/, reason: "the key of a random stream: another one would draw other numbers" },
];

// ---- Text of sources

const readers = {
  ".rs": { token: null },
  ".wgsl": { token: /\/\/[^\n]*|\/\*[\s\S]*?\*\//g },
  ".ts": { token: /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[\s\S])*`/g },
  ".py": { token: /#[^\n]*|"""[\s\S]*?"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g },
};
readers[".mjs"] = readers[".ts"];

/** A source as code without comments and strings, and as prose without code, each with the length and the lines of the text. */
export function codeAndProse(text, ending) {
  const blank = (part) => part.replaceAll(/[^\n]/g, " ");
  const between = (code) => [...text].map((letter, i) => (code[i] === letter && letter !== "\n" ? " " : letter)).join("");
  if (ending === ".rs") {
    const code = rustCode(text);
    return { code, prose: between(code) };
  }
  // A string that is one word names something: it counts as code.
  const code = text.replaceAll(readers[ending].token, (found) => {
    if (/^["'][\w.-]+["']$/.test(found)) return found;
    if (!found.startsWith("`")) return blank(found);
    return found.replaceAll(/\$\{[^{}]*\}|[^\n]/g, (part) => (part.startsWith("${") ? part : " "));
  });
  return { code, prose: between(code) };
}

/** Parts of an identifier: `rowsOf_B2` gives rows, Of, B2. */
export const partsOf = (identifier) => identifier.match(/[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+/g) ?? [];

// ---- The glossary

/** The words of a glossary's third column: identifiers as lists of parts, and phrases. */
export function replacedWords(glossary) {
  const words = { identifiers: [], phrases: [] };
  for (const line of glossary.split("\n")) {
    const cells = line.split("|").map((cell) => cell.trim());
    if (!line.startsWith("|") || cells.length < 5 || /^-+$/.test(cells[1])) continue;
    const [, term, , replaced] = cells;
    for (const [, word] of replaced.matchAll(/`([^`]+)`/g)) words.identifiers.push({ word, term, parts: partsOf(word), isType: /^[A-Z]/.test(word) });
    for (const [, word] of replaced.matchAll(/"([^"]+)"/g)) {
      words.phrases.push({ word, term, pattern: new RegExp(`(?<![\\w-])${word.split(/\s+/).join("[\\s/*!#]+")}(?![\\w-])`, "gi") });
    }
  }
  return words;
}

const isExempt = (word, found, path) =>
  exemptions.some((exemption) => (exemption.word ?? word) === word && (exemption.in?.test(found) ?? true) && (exemption.file?.test(path) ?? true));

/** Replaced words in one source: `{ path, line, text }` each. */
export function replacedIn(path, text, words) {
  const ending = path.slice(path.lastIndexOf("."));
  const { code, prose } = ending === ".md" ? { code: "", prose: text } : codeAndProse(text, ending);
  const found = [];
  const look = (identifier, line) => {
    const parts = partsOf(identifier);
    for (const { word, term, parts: wanted, isType } of words.identifiers) {
      const isAt = (i) => wanted.every((part, k) => parts[i + k]?.toLowerCase() === part.toLowerCase());
      const isThere = isType ? wanted.every((part, k) => parts[k] === part) : parts.some((_, i) => isAt(i));
      if (isThere && !isExempt(word, identifier, path)) found.push({ path, line: line(), text: `${identifier}: say ${term}, not ${word}` });
    }
  };
  for (const part of path.split("/").slice(1)) if (!part.endsWith(".md")) look(part.replace(/\.\w+$/, ""), () => 1);
  for (const match of code.matchAll(/[A-Za-z_]\w*/g)) look(match[0], () => lineOf(text, match.index));
  for (const { word, term, pattern } of words.phrases) {
    for (const match of prose.matchAll(pattern)) {
      if (!isExempt(word, match[0], path)) found.push({ path, line: lineOf(text, match.index), text: `"${match[0]}": say ${term}` });
    }
  }
  return found;
}

// ---- Types

/** Types a Rust source declares, tests and associated types aside; the branches of a `#[cfg]` count once. */
export function rustTypes(text) {
  let code = rustCodeWithoutTests(text);
  for (const match of code.matchAll(/^[ \t]*(?:unsafe\s+)?(?:pub(?:\([^)]*\))?\s+)?(?:impl\b|(?:unsafe\s+)?trait\s+\w+)[^{;]*\{/gm)) {
    const open = match.index + match[0].length - 1;
    const end = closingBracket(code, open);
    const body = code.slice(open, end).replaceAll(/\btype(?=\s+\w+)/g, "    ");
    code = code.slice(0, open) + body + code.slice(end);
  }
  const types = [];
  for (const match of code.matchAll(/(?<![\w'])(?:struct|enum|union|trait|type)\s+([A-Z]\w*)/g)) {
    const line = lineOf(code, match.index);
    const isConditional = /#\[cfg\([^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?$/.test(code.slice(0, match.index));
    if (!isConditional || !types.some((type) => type.name === match[1])) types.push({ name: match[1], line });
  }
  return types;
}

/** Types a TypeScript source declares. `type X = Pick<generated.X, …>` names a generated type: it declares none of its own. */
export function scriptTypes(text) {
  const code = codeAndProse(text, ".ts").code.replaceAll(/^(?:export )?type (\w+) = Pick<\w+\.\1,.*$/gm, "");
  const pattern = /^[ \t]*(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:(?:interface|class|enum)\s+(\w+)|type\s+(\w+)\s*(?:<[^=]*>)?\s*=)/gm;
  return [...code.matchAll(pattern)].map((match) => ({ name: match[1] ?? match[2], line: lineOf(code, match.index + match[0].search(/\S/)) }));
}

function repeats(declarations) {
  const byName = groupBy(declarations);
  return [...byName.values()].filter((same) => same.length > 1 && !repeatedTypes.has(same[0].name)).flatMap((same) =>
    same.map(({ name, path, line }) => {
      const others = same.filter((other) => other.path !== path || other.line !== line).map((other) => `${other.path}:${other.line}`);
      return { path, line, text: `the type ${name} is declared elsewhere too: ${others.join(", ")}` };
    }),
  );
}

function groupBy(declarations) {
  const groups = new Map();
  for (const one of declarations) groups.set(one.name, [...(groups.get(one.name) ?? []), one]);
  return groups;
}

// ---- Documentation comments

/** Documentation comments of a source that begin with nothing: `{ line, text }` each. */
export function emptyOpenings(text, ending) {
  const comments = [];
  if (ending === ".rs") {
    for (const match of text.matchAll(/^[ \t]*(\/\/[/!])(?!\/)[^\n]*(?:\n[ \t]*\1(?!\/)[^\n]*)*/gm)) {
      comments.push({ offset: match.index, text: match[0].split("\n").map((line) => line.trim().slice(3).trim()).join(" ").trim() });
    }
  } else {
    for (const match of text.matchAll(/\/\*\*(?!\/)([\s\S]*?)\*\//g)) {
      comments.push({ offset: match.index, text: match[1].split("\n").map((line) => line.trim().replace(/^\*/, "").trim()).join(" ").trim() });
    }
  }
  return comments.flatMap((comment) => {
    const opening = /^(?:What|The same|Those of|Of|Its|How)\b/.exec(comment.text)?.[0];
    const line = lineOf(text, comment.offset + text.slice(comment.offset).search(/\S/));
    if (opening !== undefined) return [{ line, text: `the comment begins with "${opening}": say what the item is or does` }];
    return /^\W*\w\W*$/.test(comment.text) ? [{ line, text: `one letter (${comment.text}) says nothing` }] : [];
  });
}

/** Documents of the project that a source names but that are not there. `exists` tells whether a path below the root is. */
export function missingDocuments(text, exists) {
  return [...text.matchAll(/\bdocs\/[\w/-]+\.md\b/g)].filter(([path]) => !exists(path)).map((match) => ({
    line: lineOf(text, match.index),
    text: `${match[0]} is not there`,
  }));
}

// ---- The tree

const sourceFolders = ["crates", "bindings", "ts", "tests", "bench", "scripts"];
const documents = ["README.md", "CHANGELOG.md", "docs", "bench/README.md"];
/** Texts which name the words themselves. */
const speaksOfWords = /^(docs\/glossary\.md|scripts\/check-words\.mjs|tests\/cli\/check-words\.test\.ts)$/;

/** All findings of a source tree: `{ path, line, text }` each. */
export function checkTree(root) {
  const path = (file) => relative(root, file).split(sep).join("/");
  const below = (folder, endings) => (existsSync(join(root, folder)) ? filesBelow(join(root, folder), endings) : []);
  const sources = sourceFolders.flatMap((folder) => below(folder, Object.keys(readers))).map((file) => ({ path: path(file), text: readFileSync(file, "utf8") }));
  const prose = documents.flatMap((name) => (name.endsWith(".md") ? (existsSync(join(root, name)) ? [join(root, name)] : []) : below(name, [".md"])));
  const texts = [...sources, ...prose.map((file) => ({ path: path(file), text: readFileSync(file, "utf8") }))].filter((text) => !speaksOfWords.test(text.path));

  const glossary = join(root, "docs", "glossary.md");
  const words = existsSync(glossary) ? replacedWords(readFileSync(glossary, "utf8")) : { identifiers: [], phrases: [] };
  const declared = (pattern, typesOf) =>
    texts.filter((text) => pattern.test(text.path)).flatMap((text) => typesOf(text.text).map((type) => ({ ...type, path: text.path })));
  return [
    // A file named tests.rs is a module under `#[cfg(test)]`.
    ...repeats(declared(/^(crates|bindings)\/[^/]+\/src\/(?!(?:.*\/)?tests\.rs$).*\.rs$/, rustTypes)),
    ...repeats(declared(/^ts\/src\/.*\.ts$/, scriptTypes)),
    ...texts.flatMap((text) => replacedIn(text.path, text.text, words)),
    ...texts.filter((text) => /\.(rs|ts|mjs)$/.test(text.path)).flatMap((text) =>
      emptyOpenings(text.text, text.path.slice(text.path.lastIndexOf("."))).map((finding) => ({ ...finding, path: text.path })),
    ),
    ...texts.filter((text) => !text.path.endsWith(".md") && !text.path.startsWith("tests/")).flatMap((text) =>
      missingDocuments(text.text, (document) => existsSync(join(root, document))).map((finding) => ({ ...finding, path: text.path })),
    ),
  ];
}

/** Numbers of findings by folder, the largest first. */
function byFolder(findings) {
  const counts = new Map();
  for (const { path } of findings) {
    const parts = path.split("/").slice(0, -1).filter((part) => part !== "src");
    const folder = parts.slice(0, parts[1] === "ops" ? 3 : 2).join("/");
    counts.set(folder, (counts.get(folder) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]).map(([folder, count]) => `${String(count).padStart(5)}  ${folder || "."}`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [root] = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
  const findings = checkTree(resolve(root ?? join(dirname(fileURLToPath(import.meta.url)), "..")));
  const lines = process.argv.includes("--by-folder") ? byFolder(findings) : findings.map(({ path, line, text }) => `${path}:${line}: ${text}`);
  for (const line of lines) process.stderr.write(`${line}\n`);
  process.exitCode = findings.length > 0 ? 1 : 0;
}
