import { ConfigError } from "./error.js";

/** Tells where the value at a dotted path was written; used in messages. */
export type SourceOf = (path: readonly string[]) => string;

/** Plain data, as YAML gives it. */
export type Tree = { [key: string]: unknown };

/** True for an object with named fields: not null, not a list. */
export function isTree(value: unknown): value is Tree {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Values stacked from the weakest source to the strongest; remembers which source set each one. */
export class Layers {
  readonly values: Tree = Object.create(null) as Tree;
  private readonly sources = new Map<string, string>();
  private readonly fallback: string;

  /** `fallback` names the source of values nobody wrote. */
  constructor(fallback: string) {
    this.fallback = fallback;
  }

  /** Lays `tree` over the values; objects are merged, everything else is replaced. */
  add(tree: Tree, source: string): void {
    this.merge(this.values, tree, source, []);
  }

  /** Sets one value. @throws {ConfigError} when the path leads through a value that is no object. */
  set(path: readonly string[], value: unknown, source: string): void {
    let node = this.values;
    for (const [depth, key] of path.slice(0, -1).entries()) {
      const next = (node[key] ??= Object.create(null) as Tree);
      if (!isTree(next)) {
        throw new ConfigError(`${source}: ${path.slice(0, depth + 1).join(".")} has no field ${path[depth + 1]}`);
      }
      node = next;
    }
    const last = path.at(-1) ?? "";
    if (isTree(value) && isTree(node[last])) this.merge(node[last], value, source, [...path]);
    else node[last] = value;
    this.sources.set(path.join("."), source);
  }

  /** The value somebody wrote at `path`, before defaults. */
  get(path: readonly string[]): unknown {
    let node: unknown = this.values;
    for (const key of path) node = isTree(node) ? node[key] : undefined;
    return node;
  }

  /** Source of the value at a path, or of the nearest object around it. */
  readonly sourceOf: SourceOf = (path) => {
    for (let length = path.length; length > 0; length--) {
      const source = this.sources.get(path.slice(0, length).join("."));
      if (source !== undefined) return source;
    }
    return this.fallback;
  };

  private merge(into: Tree, from: Tree, source: string, path: string[]): void {
    for (const [key, value] of Object.entries(from)) {
      const here = [...path, key];
      this.sources.set(here.join("."), source);
      const existing = into[key];
      if (isTree(value)) {
        const child = isTree(existing) ? existing : (Object.create(null) as Tree);
        into[key] = child;
        this.merge(child, value, source, here);
      } else {
        into[key] = value;
      }
    }
  }
}
