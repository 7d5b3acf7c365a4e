import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../support/temporary.js";

interface UseLeaf {
  segments: string[];
  name?: string;
  glob?: boolean;
}
interface Checker {
  useLeaves(tree: string): UseLeaf[];
  checkTree(root: string): string[];
}

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const { useLeaves, checkTree } = (await import(pathToFileURL(join(root, "scripts/check-cycles.mjs")).href)) as Checker;

const scratch = temporaryFolder();
let trees = 0;

/** Cycles of a tree of these files, as their first lines. */
function cyclesOf(files: Record<string, string>): string[] {
  const folder = join(scratch, String((trees += 1)));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return checkTree(folder).map((cycle) => cycle.split("\n", 1)[0] ?? "");
}

/** Files of one crate, named by their path in its `src`. */
const crate = (files: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(files).map(([path, text]) => [`crates/x/src/${path}`, text]));

describe("the leaves of a use tree", () => {
  test.each<[string, UseLeaf[]]>([
    ["crate::a::B", [{ segments: ["crate", "a", "B"], name: "B" }]],
    ["super::{a, b::{self, C as D}}", [
      { segments: ["super", "a"], name: "a" }, { segments: ["super", "b"], name: "b" }, { segments: ["super", "b", "C"], name: "D" },
    ]],
    ["a::{self as b, c::*}", [{ segments: ["a"], name: "b" }, { segments: ["a", "c"], glob: true }]],
  ])("of %s", (tree, leaves) => {
    expect(useLeaves(tree)).toEqual(leaves);
  });
});

describe("cycles among modules", () => {
  const lib = "mod a;\nmod b;\n";

  test.each<[string, Record<string, string>]>([
    ["uses", { "lib.rs": lib, "a.rs": "use crate::b::B;\npub struct A;", "b.rs": "use super::a::A;\npub struct B;" }],
    ["a path in an expression", { "lib.rs": lib, "a.rs": "pub fn a() { super::b::b() }", "b.rs": "pub fn b() { crate::a::a() }" }],
    ["a use inside of a function", { "lib.rs": lib, "a.rs": "pub fn a() { use crate::b; b::b() }", "b.rs": "use crate::a; pub fn b() {}" }],
    ["names the parent re-exports", { "lib.rs": `${lib}pub use a::A;\npub(crate) use b::B;`, "a.rs": "use crate::B;\npub struct A;", "b.rs": "use super::A;\npub struct B;" }],
    ["a re-export behind a glob", { "lib.rs": `${lib}pub use b::*;`, "a.rs": "use super::B;\npub struct A;", "b.rs": "use super::a::A;\npub struct B;" }],
    ["a glob of the parent", { "lib.rs": `${lib}use b::B;`, "a.rs": "use super::*;\npub struct A(B);", "b.rs": "use super::a::A;\npub struct B;" }],
    ["a re-exported name that a method has too", { "lib.rs": `${lib}pub use b::b;\nstruct R;\nimpl R { fn b() {} }`, "a.rs": "use crate::b;", "b.rs": "use crate::a;\npub fn b() {}" }],
    ["a macro", { "lib.rs": lib, "a.rs": "use crate::b::B;\nmacro_rules! twice { () => {} }", "b.rs": "crate::twice!();\npub struct B;" }],
    ["files of subfolders", { "lib.rs": lib, "a/mod.rs": "mod low;", "a/low.rs": "use crate::b::B;", "b.rs": "use crate::a;\npub struct B;" }],
    ["modules inside of a file", { "lib.rs": "mod a { use super::b::B; pub struct A; }\nmod b { use super::a::A; pub struct B; }" }],
  ])("are found through %s", (_, files) => {
    expect(cyclesOf(crate(files))).toEqual(["crates/x: a -> b -> a"]);
  });

  test("are found at the level of the folder they are in, with their path", () => {
    const files = crate({
      "lib.rs": "mod g;", "g/mod.rs": "mod a;\nmod b;\nmod c;", "g/a.rs": "use super::b;", "g/b.rs": "use super::c;", "g/c.rs": "\nuse crate::g::a;",
    });
    expect(cyclesOf(files)).toEqual(["crates/x/g: a -> b -> c -> a"]);
  });

  test("are not made longer by shorter ones within them", () => {
    const files = crate({ "lib.rs": "mod a;\nmod b;\nmod c;", "a.rs": "use crate::{b, c};", "b.rs": "use crate::c;", "c.rs": "use crate::a;" });
    expect(cyclesOf(files)).toEqual(["crates/x: a -> c -> a"]);
  });

  test.each<[string, Record<string, string>]>([
    ["a parent and its child", { "lib.rs": "mod a;\npub struct Root(a::A);", "a.rs": "use crate::Root;\npub struct A;" }],
    ["a name the parent declares itself", { "lib.rs": `${lib}pub type Result<T> = std::result::Result<T, b::B>;`, "a.rs": "use crate::Result;", "b.rs": "use crate::a;\npub struct B;" }],
    ["test modules", { "lib.rs": lib, "a.rs": "use crate::b::B;", "b.rs": "#[cfg(test)]\nmod tests { use crate::a; }\n#[cfg(test)]\nuse crate::a::{self, A};\npub struct B;" }],
    ["comments and strings", { "lib.rs": lib, "a.rs": "use crate::b::B;", "b.rs": "/// [`crate::a::A`]\n/* /* */ use crate::a; */\nconst B: &str = \"crate::a::A\";\nconst C: char = '\"';" }],
    ["other crates", { "lib.rs": lib, "a.rs": "use crate::b::B;", "b.rs": "use a::A;\nuse std::io;" }],
  ])("are none for %s", (_, files) => {
    expect(cyclesOf(crate(files))).toEqual([]);
  });
});

describe("cycles among files of TypeScript", () => {
  const source = (files: Record<string, string>): Record<string, string> =>
    Object.fromEntries(Object.entries(files).map(([path, text]) => [`ts/src/${path}`, text]));

  test.each<[string, Record<string, string>]>([
    ["values", { "data/a.ts": 'import { b } from "./b.js";', "data/b.ts": 'export { a } from "./a.js";' }],
    ["types", { "data/a.ts": 'import type { B } from "./b.js";', "data/b.ts": 'import {\n  type A,\n} from "./a.js";' }],
    ["an import at run time", { "data/a.ts": 'const b = await import("./b.js");', "data/b.ts": 'import "./a.js";' }],
    ["subfolders", { "data/a/x.ts": 'import { b } from "../b.js";', "data/b.ts": 'import { a } from "./a/y.js";', "data/a/y.ts": "" }],
  ])("are found through %s", (_, files) => {
    expect(cyclesOf(source(files))).toEqual(["ts/src/data: a -> b -> a"]);
  });

  test("are found through the index of a folder", () => {
    expect(cyclesOf(source({ "data/index.ts": 'export * from "./a.js";', "data/a.ts": 'import { b } from "./index.js";' }))).toEqual([
      "ts/src/data: a -> index -> a",
    ]);
  });

  test("are none where imports go one way", () => {
    expect(cyclesOf(source({ "data/a.ts": 'import { b } from "./b.js";\n// import "./c.js"', "data/b.ts": "", "data/c.ts": 'import "./a.js";' }))).toEqual([]);
  });
});
