import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../support/temporary.js";

interface Finding {
  path: string;
  line: number;
  text: string;
}
interface Checker {
  partsOf(identifier: string): string[];
  codeAndProse(text: string, ending: string): { code: string; prose: string };
  rustTypes(text: string): { name: string; line: number }[];
  scriptTypes(text: string): { name: string; line: number }[];
  emptyOpenings(text: string, ending: string): { line: number; text: string }[];
  checkTree(root: string): Finding[];
}

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const checker = (await import(pathToFileURL(join(root, "scripts/check-words.mjs")).href)) as Checker;
const { partsOf, codeAndProse, rustTypes, scriptTypes, emptyOpenings, checkTree } = checker;

const scratch = temporaryFolder();
let trees = 0;
const glossary = `# Words

| term | meaning | replaces |
|---|---|---|
| derivative | of a function | \`slope\` "slope" |
| epilogue | of a product | \`After\` |
| recompute | in the backward pass | \`is_cheap\` "compute again" |
`;

/** Findings in a tree of these files, as `path:line`. */
function findingsIn(files: Record<string, string>): string[] {
  const folder = join(scratch, String((trees += 1)));
  for (const [path, text] of Object.entries({ "docs/glossary.md": glossary, ...files })) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return checkTree(folder).map(({ path, line }) => `${path}:${line}`);
}

test.each([
  ["gelu_slope", ["gelu", "slope"]],
  ["slopeOf", ["slope", "Of"]],
  ["SLOPE_2D", ["SLOPE", "2", "D"]],
  ["bf16x2Words", ["bf16", "x2", "Words"]],
])("the parts of %s", (identifier, parts) => {
  expect(partsOf(identifier)).toEqual(parts);
});

test("code and prose are told apart, and keep their places", () => {
  const { code, prose } = codeAndProse('const a = "b c"; // d\nf(`g ${h}`, "i");', ".ts");
  expect(code.replaceAll(/\s+/g, " ").trim()).toBe('const a = ; f( ${h} , "i");');
  expect(prose.indexOf("d")).toBe(20);
});

describe("replaced words", () => {
  test.each([
    ["an identifier", "crates/x/src/a.rs", "\nfn gelu_slope() {}", 2],
    ["a constant", "crates/x/src/a.wgsl", "const SLOPE = 1;", 1],
    ["camel case", "ts/src/a.ts", "const slopeOf = 1;", 1],
    ["several parts", "crates/x/src/a.rs", "fn is_cheap() {}", 1],
    ["a type", "crates/x/src/a.rs", "enum After {}", 1],
    ["a name in a string", "tests/a.ts", 'f("gelu-slope");', 1],
    ["a phrase in a comment", "bench/a.py", "# the slope of it", 1],
    ["a phrase over two lines", "crates/x/src/a.rs", "\n/// Does not compute\n/// again.\nfn f() {}", 2],
    ["a phrase in a message", "ts/src/a.ts", 'f("no slope here");', 1],
    ["a document", "docs/a.md", "the slope", 1],
    ["the name of a file", "bench/slope.mjs", "", 1],
  ])("are found in %s", (_, path, text, line) => {
    expect(findingsIn({ [path]: text })).toEqual([`${path}:${line}`]);
  });

  test.each([
    ["an identifier that contains one", "crates/x/src/a.rs", "fn slopes() {}"],
    ["an ordinary word spelled like a type", "ts/src/a.ts", "afterAll(() => after(isAfter));"],
    ["a word of an identifier in prose", "crates/x/src/a.rs", "// after that it is cheap"],
  ])("are not found in %s", (_, path, text) => {
    expect(findingsIn({ [path]: text })).toEqual([]);
  });
});

describe("types", () => {
  test("of Rust are found, but for tests, associated types and branches of a cfg", () => {
    const text = `pub struct A<T>(T);
enum B {}
impl Iterator for A { type Item = u8; }
pub trait C { type Output; fn f(); }
#[cfg(unix)]
type D = u8;
#[cfg(not(unix))]
type D = u16;
#[cfg(test)]
mod tests { struct E; }
// struct F
fn g() { struct H; }
`;
    expect(rustTypes(text).map(({ name }) => name)).toEqual(["A", "B", "C", "D", "H"]);
  });

  test("of TypeScript are found, but not imports", () => {
    const text = 'import { type A } from "./a.js";\nexport type B<T> = T[];\ninterface C {}\nexport abstract class D {}\nexport type { E } from "./e.js";';
    expect(scriptTypes(text)).toEqual([{ name: "B", line: 2 }, { name: "C", line: 3 }, { name: "D", line: 4 }]);
  });

  test("are declared once, but for those every crate has", () => {
    expect(findingsIn({ "crates/x/src/a.rs": "struct A;\nstruct Params;", "crates/y/src/b.rs": "struct Params;\nenum A {}" })).toEqual([
      "crates/x/src/a.rs:1", "crates/y/src/b.rs:2",
    ]);
    expect(findingsIn({ "crates/x/src/a.rs": "struct A;", "crates/x/src/tests.rs": "struct A;", "ts/src/a.ts": "interface A {}" })).toEqual([]);
  });
});

describe("documentation comments", () => {
  test.each([
    ["/// What it takes.", 1],
    ["\n    /// Those of a step.\n    pub a: u8,", 2],
    ["//! Of a module.", 1],
    ["/// B.", 1],
  ])("that begin with nothing are found: %j", (text, line) => {
    expect(emptyOpenings(text, ".rs").map((finding) => finding.line)).toEqual([line]);
  });

  test("are found in TypeScript", () => {
    expect(emptyOpenings("/** Adds. */\n\n/**\n * The same without a sum.\n */", ".ts").map(({ line }) => line)).toEqual([3]);
  });

  test.each(["/// Adds.\n/// What else.", "// What a line", "/// Whatever it is.", "//// Of"])("that begin well are not: %j", (text) => {
    expect(emptyOpenings(text, ".rs")).toEqual([]);
  });
});

test("a document that a source names is there", () => {
  const source = "//! See docs/decisions/0001-a.md.\n//! And docs/b.md.";
  expect(findingsIn({ "crates/x/src/a.rs": source, "docs/b.md": "" })).toEqual(["crates/x/src/a.rs:1"]);
});
