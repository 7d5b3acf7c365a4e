import { z } from "zod";
import { ConfigError, nearest, show } from "./error.js";
import { isTree, type SourceOf } from "./layers.js";
import { Config, configSchema } from "./schema.js";

interface SchemaNode {
  properties?: Record<string, SchemaNode>;
  oneOf?: SchemaNode[];
  const?: unknown;
}

let schemaRoot: SchemaNode | undefined;

/** Keys of every object in the schema, by dotted path; the root is "". All members of a union count. */
function objectKeys(): Map<string, string[]> {
  schemaRoot ??= configSchema() as SchemaNode;
  const keys = new Map<string, string[]>();
  const walk = (node: SchemaNode, path: string): void => {
    for (const member of node.oneOf ?? []) walk(member, path);
    if (!node.properties) return;
    keys.set(path, [...new Set([...(keys.get(path) ?? []), ...Object.keys(node.properties)])]);
    for (const [key, child] of Object.entries(node.properties)) walk(child, path ? `${path}.${key}` : key);
  };
  walk(schemaRoot, "");
  return keys;
}

/** Dotted paths of all fields that hold a value, not an object. */
export function leafPaths(): string[] {
  const objects = objectKeys();
  const paths: string[] = [];
  for (const [path, keys] of objects) {
    for (const key of keys) {
      const full = path ? `${path}.${key}` : key;
      if (!objects.has(full)) paths.push(full);
    }
  }
  return paths;
}

/** Names of the root's fields. */
export function rootKeys(): string[] {
  return objectKeys().get("") ?? [];
}

/** The path a misspelt or misplaced one was probably meant to be. */
export function suggestPath(path: readonly string[]): string | undefined {
  const parent = path.slice(0, -1).join(".");
  const key = path.at(-1) ?? "";
  const sibling = nearest(key, objectKeys().get(parent) ?? []);
  if (sibling) return parent ? `${parent}.${sibling}` : sibling;
  const leaves = leafPaths();
  const nameOf = (leaf: string): string => leaf.split(".").at(-1) ?? "";
  const name = nearest(key, leaves.map(nameOf));
  const sameName = leaves.filter((leaf) => nameOf(leaf) === name);
  return sameName.length === 1 ? sameName[0] : nearest(path.join("."), leaves);
}

/** `; did you mean x?` or nothing. */
export function didYouMean(suggestion: string | undefined): string {
  return suggestion ? `; did you mean ${suggestion}?` : "";
}

function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return issue.expected === "int" ? "a whole number" : /^[aeio]/.test(issue.expected) ? `an ${issue.expected}` : `a ${issue.expected}`;
    case "too_small":
    case "too_big": {
      const low = issue.code === "too_small";
      const limit = low ? issue.minimum : issue.maximum;
      if (issue.origin === "array") return `a list of at ${low ? "least" : "most"} ${limit} items`;
      if (issue.origin === "string") return `a text of at ${low ? "least" : "most"} ${limit} characters`;
      if (issue.inclusive) return `at ${low ? "least" : "most"} ${limit}`;
      return `${low ? "above" : "below"} ${limit}`;
    }
    case "invalid_value":
      return issue.values.length === 1 ? show(issue.values[0]) : `one of ${issue.values.map(String).join(", ")}`;
    case "invalid_union":
      return "options" in issue && Array.isArray(issue.options) ? `one of ${issue.options.join(", ")}` : "another type";
    default:
      return issue.message;
  }
}

/**
 * Checks plain data against the schema and fills in the defaults.
 * @throws {ConfigError} with one line for each wrong field.
 */
export function parseConfig(input: unknown, sourceOf: SourceOf): Config {
  const result = Config.safeParse(input, { reportInput: true });
  if (result.success) return result.data;
  const lines: string[] = [];
  // Fields that do not fit each other say nothing new while one of them is wrong by itself.
  const single = result.error.issues.filter((issue) => issue.code !== "custom");
  for (const issue of single.length > 0 ? single : result.error.issues) {
    const path = issue.path.map(String);
    if (issue.code === "unrecognized_keys") {
      for (const key of issue.keys) {
        const full = [...path, key];
        lines.push(`${sourceOf(full)}: unknown field ${full.join(".")}${didYouMean(suggestPath(full))}`);
      }
    } else {
      // An unknown member of a union is reported with the whole object.
      const came = issue.code === "invalid_union" && isTree(issue.input) ? issue.input[path.at(-1) ?? ""] : issue.input;
      const name = path.join(".") || "the configuration";
      lines.push(`${sourceOf(path)}: ${name} must be ${expectation(issue)}, got ${show(came)}`);
    }
  }
  throw new ConfigError(lines.join("\n"));
}
