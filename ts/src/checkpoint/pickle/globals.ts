/**
 * The only names a pickle may mention, and what calling each one means here. A call builds data from data;
 * nothing is imported or executed.
 */
import { Storage, type Dtype } from "../tensor.js";
import { kindOf, Namespace, OrderedDict, Tuple, type Key, type Value } from "../value.js";

/** A name from the table below, while it is on the machine's stack. */
export class Global {
  constructor(
    readonly name: string,
    /** The meaning of a call; absent when the name cannot be called. */
    readonly call?: (args: readonly Item[], rebuild: Rebuild) => Item,
    /** The element type, for storage classes. */
    readonly dtype?: Dtype,
  ) {}
}

/** A numpy dtype on its way to `scalar`. */
export class NumpyDtype {
  littleEndian = true;
  constructor(readonly code: string) {}
}

/** An item on the machine's stack: data, or a part data is made of. */
export type Item = Value | Global | Storage | NumpyDtype;

/** Makes a tensor from a storage; provided by the machine, which accounts for the memory. */
export type Rebuild = (storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]) => Value;

/** A call whose arguments do not fit; the machine turns it into its own error. */
export class BadCall extends Error {}

function bad(what: string): never {
  throw new BadCall(what);
}

function numbers(item: Item | undefined, what: string): number[] {
  if (!(item instanceof Tuple)) bad(`${what} must be a tuple, got ${kindOf(item)}`);
  return item.items.map((n) => (typeof n === "number" ? n : bad(`${what} must hold numbers, got ${kindOf(n)}`)));
}

function rebuildTensor([storage, offset, shape, strides]: readonly Item[], rebuild: Rebuild): Item {
  if (!(storage instanceof Storage)) bad("a tensor must be built from a storage");
  if (typeof offset !== "number") bad(`a tensor's offset must be a number, got ${kindOf(offset)}`);
  return rebuild(storage, offset, numbers(shape, "a tensor's shape"), numbers(strides, "a tensor's strides"));
}

/** `OrderedDict()`, or `OrderedDict([[key, value], …])` as Python 2 wrote it. */
function orderedDict([pairs, ...rest]: readonly Item[]): Item {
  const dict = new OrderedDict<Key, Value>();
  if (pairs === undefined) return dict;
  if (!Array.isArray(pairs) || rest.length > 0) bad("an OrderedDict must be built from a list of pairs");
  for (const pair of pairs) {
    const items = pair instanceof Tuple ? pair.items : pair;
    if (!Array.isArray(items) || items.length !== 2) bad("an OrderedDict must be built from a list of pairs");
    const [key, value] = items as [Value, Value];
    if (!isKey(key)) bad(`a key must be a string or a number, got ${kindOf(key)}`);
    dict.set(key, value);
  }
  return dict;
}

/** True for what may be a dict's key here. */
export function isKey(item: unknown): item is Key {
  return item === null || ["string", "number", "bigint", "boolean"].includes(typeof item);
}

function namespace(args: readonly Item[]): Item {
  if (args.length > 0) bad("a Namespace takes no arguments");
  return new Namespace(new Map());
}

/** Protocols 0 and 1 build an object as `_reconstructor(class, object, None)`. */
function reconstructor([type, base, state]: readonly Item[]): Item {
  const plain = type instanceof Global && type.name === "argparse.Namespace" && base instanceof Global
    && base.name.endsWith(".object") && state === null;
  return plain ? namespace([]) : bad("only a Namespace may be reconstructed");
}

/** `_codecs.encode(text, "latin1")`: how protocol 2 spells bytes. */
function encode([text, codec]: readonly Item[]): Item {
  if (typeof text !== "string" || codec !== "latin1") bad("text may only be encoded as latin1");
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 255) bad("text to encode as latin1 has other characters");
    bytes[i] = code;
  }
  return bytes;
}

const SCALARS: ReadonlyMap<string, [size: number, read: (view: DataView, little: boolean) => number | bigint | boolean]> = new Map([
  ["f8", [8, (view: DataView, little: boolean) => view.getFloat64(0, little)]],
  ["f4", [4, (view: DataView, little: boolean) => view.getFloat32(0, little)]],
  ["i8", [8, (view: DataView, little: boolean) => narrow(view.getBigInt64(0, little))]],
  ["u8", [8, (view: DataView, little: boolean) => narrow(view.getBigUint64(0, little))]],
  ["i4", [4, (view: DataView, little: boolean) => view.getInt32(0, little)]],
  ["u4", [4, (view: DataView, little: boolean) => view.getUint32(0, little)]],
  ["b1", [1, (view: DataView) => view.getUint8(0) !== 0]],
]);

/** A number where it is exact, else the bigint. */
export function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function scalar([dtype, bytes]: readonly Item[]): Item {
  if (!(dtype instanceof NumpyDtype)) bad("a numpy scalar must have a dtype");
  const reader = SCALARS.get(dtype.code);
  if (!reader) bad(`a numpy scalar of dtype ${JSON.stringify(dtype.code)} is not read`);
  if (!(bytes instanceof Uint8Array) || bytes.byteLength !== reader[0]) bad(`a numpy scalar of dtype ${dtype.code} must have ${reader[0]} bytes`);
  return reader[1](new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), dtype.littleEndian);
}

/** The size of `torch.Size` and the name of `torch.device` are data already. */
const TABLE: Global[] = [
  new Global("torch._utils._rebuild_tensor_v2", rebuildTensor),
  new Global("torch._utils._rebuild_tensor", rebuildTensor),
  new Global("torch._utils._rebuild_parameter", ([data]) => data ?? bad("a Parameter must have a tensor")),
  new Global("torch.Size", ([sides]) => new Tuple(numbers(sides, "a Size"))),
  new Global("torch.device", (args) => args.map((part) => (isKey(part) ? part : bad("a device must be a name"))).join(":")),
  new Global("collections.OrderedDict", orderedDict),
  new Global("argparse.Namespace", namespace),
  new Global("_codecs.encode", encode),
  ...["numpy", "numpy.core", "numpy._core"].flatMap((parent) => [
    new Global(`${parent}.dtype`, ([code]) => new NumpyDtype(typeof code === "string" ? code : bad("a numpy dtype must have a name"))),
    new Global(`${parent}.multiarray.scalar`, scalar),
  ]),
  ...["copy_reg", "copyreg"].map((module) => new Global(`${module}._reconstructor`, reconstructor)),
  ...["__builtin__", "builtins"].map((module) => new Global(`${module}.object`)),
  ...Object.entries({
    Float: "f32", Half: "f16", BFloat16: "bf16", Double: "f64", Long: "i64", Int: "i32", Short: "i16", Char: "i8", Byte: "u8", Bool: "bool",
  } satisfies Record<string, Dtype>).map(([name, dtype]) => new Global(`torch.${name}Storage`, undefined, dtype)),
];

/** Every allowed name. */
export const GLOBALS: ReadonlyMap<string, Global> = new Map(TABLE.map((global) => [global.name, global]));
