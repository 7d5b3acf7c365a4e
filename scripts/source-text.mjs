/** Text of sources for the checks beside this file: comments and strings blanked out in place, so that offsets stay those of the file. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const blank = (text) => text.replaceAll(/[^\n]/g, " ");

const rustToken = /\/\/[^\n]*|\/\*|b?r(#*)"|b?"(?:[^"\\]|\\[\s\S])*"|b?'(?:[^'\\\n]|\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.))'/g;

/** Rust code without comments, strings and characters: the same length, the same lines. */
export function rustCode(text) {
  let code = "";
  let position = 0;
  rustToken.lastIndex = 0;
  for (let match = rustToken.exec(text); match !== null; match = rustToken.exec(text)) {
    let end = rustToken.lastIndex;
    if (match[0] === "/*") end = endOfBlockComment(text, match.index);
    else if (match[1] !== undefined) {
      // `r#"` could also be the tail of an identifier such as `for"`: a raw string follows no word.
      if (/\w/.test(text[match.index - 1] ?? "")) continue;
      const close = text.indexOf(`"${match[1]}`, end);
      end = close < 0 ? text.length : close + 1 + match[1].length;
    }
    code += text.slice(position, match.index) + blank(text.slice(match.index, end));
    position = end;
    rustToken.lastIndex = end;
  }
  return code + text.slice(position);
}

/** Block comments of Rust nest. */
function endOfBlockComment(text, start) {
  let depth = 0;
  for (let i = start; i < text.length; i += 1) {
    if (text.startsWith("/*", i)) [depth, i] = [depth + 1, i + 1];
    else if (text.startsWith("*/", i)) [depth, i] = [depth - 1, i + 1];
    if (depth === 0) return i + 1;
  }
  return text.length;
}

/** The offset behind the bracket that closes the one at `open`. */
export function closingBracket(code, open) {
  let depth = 0;
  for (let i = open; i < code.length; i += 1) {
    if ("([{".includes(code[i])) depth += 1;
    else if (")]}".includes(code[i])) depth -= 1;
    if (depth === 0) return i + 1;
  }
  return code.length;
}

/** The offset behind the item that starts at `start`, attributes included: its `;`, or the brace that closes its body. */
function endOfItem(code, start) {
  let i = start;
  for (let attribute = /^\s*#\[/.exec(code.slice(i)); attribute !== null; attribute = /^\s*#\[/.exec(code.slice(i))) {
    i = closingBracket(code, i + attribute[0].length - 1);
  }
  const isUse = /^\s*(?:pub(?:\([^)]*\))?\s+)?use\b/.test(code.slice(i));
  for (; i < code.length; i += 1) {
    if (code[i] === ";") return i + 1;
    if ("([{".includes(code[i])) {
      const end = closingBracket(code, i);
      if (code[i] === "{" && !isUse) return end;
      i = end - 1;
    }
  }
  return code.length;
}

/** Rust code (see `rustCode`) whose items under `#[cfg(test)]` and `#[test]` are blanked out too. */
export function rustCodeWithoutTests(text) {
  let code = rustCode(text);
  for (const match of code.matchAll(/#\[(?:cfg\((?:test|all\(test\b[^\]]*)\)|test)\]/g)) {
    const end = endOfItem(code, match.index);
    code = code.slice(0, match.index) + blank(code.slice(match.index, end)) + code.slice(end);
  }
  return code;
}

/** TypeScript and JavaScript without comments; strings stay, since imports name files in them. */
export function scriptCode(text) {
  const token = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[\s\S])*`/g;
  return text.replaceAll(token, (found) => (found.startsWith("/") ? blank(found) : found));
}

/** The line of an offset, counted from 1. */
export function lineOf(text, offset) {
  let line = 1;
  for (let i = text.indexOf("\n"); i >= 0 && i < offset; i = text.indexOf("\n", i + 1)) line += 1;
  return line;
}

/** Files below a folder whose names end with one of `endings`, in order; folders of packages and builds are left out. */
export function filesBelow(folder, endings) {
  return readdirSync(folder).sort().flatMap((name) => {
    if (name === "node_modules" || name === "target" || name === "dist") return [];
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return filesBelow(path, endings);
    return endings.some((ending) => name.endsWith(ending)) ? [path] : [];
  });
}
