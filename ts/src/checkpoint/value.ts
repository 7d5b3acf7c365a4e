/**
 * Values of a checkpoint beside tensors: Python's plain values, as JavaScript ones.
 *
 * | Python                | here                                                        |
 * |-----------------------|-------------------------------------------------------------|
 * | None, bool, str       | null, boolean, string                                       |
 * | int                   | number, bigint beyond 2⁵³                                   |
 * | float, numpy scalar   | number                                                      |
 * | bytes                 | Uint8Array                                                  |
 * | list                  | array                                                       |
 * | tuple, torch.Size     | `Tuple`                                                     |
 * | dict                  | Map                                                         |
 * | OrderedDict           | `OrderedDict`, a Map                                        |
 * | argparse.Namespace    | `Namespace`                                                 |
 * | torch.device          | string                                                      |
 * | Tensor, Parameter     | `Tensor`                                                    |
 *
 * Dicts are Maps so that a key such as `__proto__` is a key like any other.
 */
import { Tensor } from "./tensor.js";

export type Value =
  | null | boolean | number | bigint | string | Uint8Array
  | Tensor | Namespace | Tuple<Value>
  | Value[] | Map<Key, Value>;

/** A key of a dict. */
export type Key = string | number | bigint | boolean | null;

/** A value that can be written: any `Value`, and `Float` where a whole number must stay a float in Python. */
export type Writable =
  | null | boolean | number | bigint | string
  | Uint8Array | Float | Tensor | Namespace | Tuple<Writable>
  | readonly Writable[] | ReadonlyMap<Key, Writable>;

export class Tuple<T> {
  constructor(readonly items: readonly T[]) {}
}

/** A dict that Python keeps as a `collections.OrderedDict`: state dicts are. */
export class OrderedDict<K, V> extends Map<K, V> {}

/** The fields of an `argparse.Namespace`, which is read as data: nothing is called. */
export class Namespace {
  constructor(readonly fields: Map<Key, Value>) {}
}

/** A number that Python shall see as a float even when it is whole. */
export class Float {
  constructor(readonly value: number) {}
}

/** JSON's values. */
export type Plain = null | boolean | number | string | readonly Plain[] | { readonly [key: string]: Plain };

/** JSON's values as Python's: objects become dicts. */
export function fromPlain(plain: Plain): Value {
  if (Array.isArray(plain)) return plain.map(fromPlain);
  if (plain === null || typeof plain !== "object") return plain as Value;
  return new Map(Object.entries(plain).map(([key, value]) => [key, fromPlain(value)]));
}

/**
 * Plain values as JSON would hold them: dicts and namespaces become objects without a prototype, tuples arrays,
 * keys strings. Tensors, bytes and whole numbers beyond 2⁵³ have no such form and give `undefined`, alone or
 * anywhere inside.
 */
export function toPlain(value: Value): Plain | undefined {
  if (value === null || typeof value === "boolean" || typeof value === "string" || typeof value === "number") return value;
  if (value instanceof Tuple || Array.isArray(value)) {
    const items = (value instanceof Tuple ? value.items : value).map(toPlain);
    return items.every((item) => item !== undefined) ? items : undefined;
  }
  if (value instanceof Namespace) return toPlain(value.fields);
  if (!(value instanceof Map)) return undefined;
  const object = Object.create(null) as Record<string, Plain>;
  for (const [key, entry] of value) {
    const plain = toPlain(entry);
    if (plain === undefined) return undefined;
    object[String(key)] = plain;
  }
  return object;
}

/** Names the kind of a value in Python's words, for messages. */
export function kindOf(value: unknown): string {
  if (value === null) return "None";
  if (value instanceof Tensor) return "a tensor";
  if (value instanceof Namespace) return "a namespace";
  if (value instanceof Tuple) return "a tuple";
  if (value instanceof Map) return "a dict";
  if (value instanceof Uint8Array) return "bytes";
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "boolean": return "a bool";
    case "number": return "a number";
    case "bigint": return "an int";
    case "string": return "a string";
    default: return "something that is not data";
  }
}
