/**
 * A restricted pickle machine, protocols 0 to 5: enough for what `torch.save` writes of tensors and plain
 * containers, and nothing else. A name outside `globals.ts` or an opcode outside the table below is refused; nothing is executed.
 *
 * Bounded: the machine has no recursion, every length is checked against the bytes left, and the number of
 * opcodes, the depth of the result and the number of its values when written out as a tree are limited.
 *
 * Source: CPython's `Lib/pickletools.py`, which documents every opcode.
 */
import { CheckpointError } from "../errors.js";
import { itemSize, Storage, Tensor, viewOf } from "../tensor.js";
import { kindOf, Namespace, Tuple, type Key, type Value } from "../value.js";
import { Cursor } from "./cursor.js";
import { BadCall, Global, GLOBALS, isKey, narrow, NumpyDtype, type Item } from "./globals.js";

/** Opcodes in one pickle. A tensor takes about 40, so this is a checkpoint of 25,000 tensors; an empty dict takes 200 bytes. */
const MAX_OPCODES = 1_000_000;
/** Containers within containers. A checkpoint has 4. */
const MAX_DEPTH = 64;
/** Values of the result, counting a shared one as often as it is reached. */
const MAX_VALUES = 4_000_000;

export interface PickleContext {
  /** Named in errors. */
  file: string;
  /** Bytes that tensors may take beyond their storages: views with gaps are copied. */
  copyBytes: number;
  /**
   * Memory of the storage `key`, which holds `count` elements of `size` bytes or more. Called for each mention of
   * it; the contents may be filled in later, before `finish`.
   */
  storage(key: string, count: number, size: number): Uint8Array;
}

export interface Pickle {
  value: Value;
  /** Position behind the pickle's last byte. */
  end: number;
  /** Copies the elements of views with gaps. To be called when every storage's bytes are there. */
  finish(): void;
}

/** Reads the pickle that begins at `start`. Throws `CheckpointError`. */
export function readPickle(bytes: Uint8Array, start: number, context: PickleContext): Pickle {
  return new Machine(bytes, start, context).run();
}

class Machine {
  private readonly cursor: Cursor;
  private readonly file: string;
  private readonly stack: Item[] = [];
  /** Heights of the stack at each open mark. */
  private readonly marks: number[] = [];
  private readonly memo = new Map<number, Item>();
  private readonly fills: (() => void)[] = [];
  private copied = 0;

  constructor(bytes: Uint8Array, start: number, private readonly context: PickleContext) {
    this.file = context.file;
    this.cursor = new Cursor(bytes, start, this.file);
  }

  run(): Pickle {
    for (let count = 0; count < MAX_OPCODES; count++) {
      const opcode = this.cursor.u8();
      if (opcode === STOP) {
        const value = this.pop();
        this.checkData(value);
        return { value, end: this.cursor.position, finish: () => this.fills.forEach((fill) => fill()) };
      }
      this.step(opcode);
    }
    throw this.error("refused", `its pickle has more than ${MAX_OPCODES} opcodes`);
  }

  private step(opcode: number): void {
    const { cursor, stack } = this;
    switch (String.fromCharCode(opcode)) {
      case "\x80": {
        const protocol = cursor.u8();
        if (protocol > 5) throw this.error("refused", `its pickle has protocol ${protocol}; 0 to 5 are read`);
        return;
      }
      case "\x95": // FRAME: a hint for buffering
        cursor.u64();
        return;

      case "(":
        this.marks.push(stack.length);
        return;
      case "0":
        this.pop();
        return;
      case "1":
        this.popMark();
        return;
      case "2":
        stack.push(this.top());
        return;

      case "N": stack.push(null); return;
      case "\x88": stack.push(true); return;
      case "\x89": stack.push(false); return;
      case "J": stack.push(cursor.i32()); return;
      case "K": stack.push(cursor.u8()); return;
      case "M": stack.push(cursor.u16()); return;
      case "\x8a": stack.push(narrow(cursor.long(cursor.u8()))); return;
      case "\x8b": stack.push(narrow(cursor.long(cursor.u32()))); return;
      case "I": stack.push(this.textInteger()); return;
      case "L": stack.push(this.textInteger()); return;
      case "G": stack.push(cursor.f64()); return;
      case "F": stack.push(this.textFloat()); return;

      case "X": stack.push(cursor.text(cursor.u32())); return;
      case "\x8c": stack.push(cursor.text(cursor.u8())); return;
      case "\x8d": stack.push(cursor.text(cursor.u64())); return;
      // Python 2's str: text here, as torch.load reads it.
      case "U": stack.push(cursor.text(cursor.u8())); return;
      case "T": stack.push(cursor.text(cursor.u32())); return;
      case "V": stack.push(this.textUnicode()); return;
      case "C": stack.push(cursor.take(cursor.u8()).slice()); return;
      case "B": stack.push(cursor.take(cursor.u32()).slice()); return;
      case "\x8e":
      case "\x96": stack.push(cursor.take(cursor.u64()).slice()); return;

      case ")": stack.push(new Tuple([])); return;
      case "\x85": this.tuple(1); return;
      case "\x86": this.tuple(2); return;
      case "\x87": this.tuple(3); return;
      case "t": stack.push(new Tuple(this.popMark() as Value[])); return;
      case "]": stack.push([]); return;
      case "l": stack.push(this.popMark() as Value[]); return;
      case "a": this.append([this.pop()]); return;
      case "e": this.append(this.popMark()); return;
      case "}": stack.push(new Map()); return;
      case "d": {
        const items = this.popMark();
        stack.push(new Map());
        this.setItems(items);
        return;
      }
      case "s": {
        const value = this.pop();
        this.setItems([this.pop(), value]);
        return;
      }
      case "u": this.setItems(this.popMark()); return;

      case "g": this.get(this.memoIndex()); return;
      case "h": this.get(cursor.u8()); return;
      case "j": this.get(cursor.u32()); return;
      case "p": this.memo.set(this.memoIndex(), this.top()); return;
      case "q": this.memo.set(cursor.u8(), this.top()); return;
      case "r": this.memo.set(cursor.u32(), this.top()); return;
      case "\x94": this.memo.set(this.memo.size, this.top()); return;

      case "c": {
        const module = cursor.line();
        this.global(module, cursor.line());
        return;
      }
      case "\x93": {
        const name = this.pop();
        const module = this.pop();
        if (typeof module !== "string" || typeof name !== "string") throw this.error("format", "its pickle names a global by something other than text");
        this.global(module, name);
        return;
      }
      case "R":
      case "\x81": this.call(); return;
      case "b": this.build(); return;
      case "Q": this.persistent(); return;
      default: {
        const code = opcode.toString(16).padStart(2, "0");
        throw this.error("refused", `refuses the pickle opcode 0x${code}; a checkpoint may hold only tensors and plain containers`);
      }
    }
  }

  // The stack. Below an open mark nothing can be taken.

  private top(): Item {
    if (this.stack.length <= (this.marks.at(-1) ?? 0)) throw this.error("format", "its pickle takes a value from an empty stack");
    return this.stack[this.stack.length - 1]!;
  }

  private pop(): Item {
    const item = this.top();
    this.stack.pop();
    return item;
  }

  private popMark(): Item[] {
    const height = this.marks.pop();
    if (height === undefined) throw this.error("format", "its pickle closes a group that it did not open");
    return this.stack.splice(height);
  }

  private get(index: number): void {
    const item = this.memo.get(index);
    if (item === undefined) throw this.error("format", `its pickle recalls value ${index}, which it did not keep`);
    this.stack.push(item);
  }

  // Containers. They may hold a `Global` for a while (arguments of a call do); `checkData` finds any that stays.

  private tuple(length: number): void {
    const items: Item[] = [];
    for (let i = 0; i < length; i++) items.unshift(this.pop());
    this.stack.push(new Tuple(items as Value[]));
  }

  private append(items: Item[]): void {
    const list = this.top();
    if (!Array.isArray(list)) throw this.error("format", `its pickle appends to ${kindOf(list)}`);
    for (const item of items) list.push(item as Value);
  }

  private setItems(items: Item[]): void {
    const dict = this.top();
    if (!(dict instanceof Map)) throw this.error("format", `its pickle sets an item of ${kindOf(dict)}`);
    if (items.length % 2 !== 0) throw this.error("format", "its pickle has a key without a value");
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (!isKey(key)) throw this.error("refused", `refuses ${kindOf(key)} as a key; a key must be a string or a number`);
      dict.set(key, items[i + 1] as Value);
    }
  }

  // Text forms of protocols 0 and 1.

  private textInteger(): number | bigint | boolean {
    const line = this.cursor.line();
    if (line === "00") return false;
    if (line === "01") return true;
    if (!/^[+-]?\d{1,1000}L?$/.test(line)) throw this.error("format", "its pickle has an integer that is none");
    return narrow(BigInt(line.replace(/^\+|L$/g, "")));
  }

  private textFloat(): number {
    const line = this.cursor.line();
    const special = new Map([["inf", Infinity], ["-inf", -Infinity], ["nan", NaN]]).get(line);
    if (special !== undefined) return special;
    if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(line)) throw this.error("format", "its pickle has a float that is none");
    return Number(line);
  }

  /** Python's raw-unicode-escape: `\uXXXX` and `\UXXXXXXXX`. */
  private textUnicode(): string {
    return this.cursor.line().replace(/\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})/g, (whole, short?: string, long?: string) => {
      const code = parseInt(short ?? long ?? "", 16);
      return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
    });
  }

  private memoIndex(): number {
    const line = this.cursor.line();
    if (!/^\d{1,10}$/.test(line)) throw this.error("format", "its pickle keeps a value under something other than a number");
    return Number(line);
  }

  // Names and calls.

  private global(module: string, name: string): void {
    const full = `${module}.${name}`;
    const global = GLOBALS.get(full);
    if (!global) {
      const shown = JSON.stringify(full.length > 200 ? `${full.slice(0, 200)}…` : full);
      throw this.error("refused", `refuses to load ${shown}; a checkpoint may hold only tensors and plain containers`);
    }
    this.stack.push(global);
  }

  private call(): void {
    const args = this.pop();
    const target = this.pop();
    if (!(target instanceof Global) || !target.call) {
      const what = target instanceof Global ? target.name : kindOf(target);
      throw this.error("refused", `refuses to call ${JSON.stringify(what)}`);
    }
    if (!(args instanceof Tuple)) throw this.error("format", `its pickle calls ${target.name} with ${kindOf(args)} in place of a tuple`);
    try {
      this.stack.push(target.call(args.items, (...view) => this.tensor(...view)));
    } catch (thrown) {
      if (thrown instanceof BadCall) throw this.error("format", thrown.message);
      throw thrown;
    }
  }

  private tensor(storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]): Value {
    const view = viewOf(storage, offset, shape, strides);
    if (typeof view === "string") throw this.error("format", view);
    if (view.fill) {
      this.copied += view.tensor.data.byteLength;
      if (this.copied > this.context.copyBytes) throw this.error("refused", "its tensors would take more memory than the file is long");
      this.fills.push(view.fill);
    }
    return view.tensor;
  }

  /** State of an object: a namespace's fields, a dtype's byte order. An OrderedDict's attributes (`_metadata`) are dropped. */
  private build(): void {
    const state = this.pop();
    const object = this.top();
    if (object instanceof NumpyDtype) {
      const order = state instanceof Tuple ? state.items[1] : undefined;
      if (typeof order !== "string") throw this.error("format", "a numpy dtype has no byte order");
      object.littleEndian = order !== ">";
      return;
    }
    if (!(object instanceof Namespace || object instanceof Map)) {
      throw this.error("refused", `refuses to set the state of ${object instanceof Global ? object.name : kindOf(object)}`);
    }
    if (!(state instanceof Map)) throw this.error("format", `the state of ${kindOf(object)} must be a dict, got ${kindOf(state)}`);
    if (object instanceof Namespace) for (const [key, value] of state) object.fields.set(key, value);
  }

  /**
   * `("storage", class, key, device, elements)`; files before the zip format add a sixth member,
   * `None` or `(key, first element, elements)`: a storage that is a part of another.
   */
  private persistent(): void {
    const id = this.pop();
    const [tag, type, key, , count, part] = id instanceof Tuple ? (id.items as readonly Item[]) : [];
    const isNumber = (n: Item | undefined): n is number => typeof n === "number" && Number.isSafeInteger(n) && n >= 0;
    if (tag !== "storage" || !(type instanceof Global) || !type.dtype || typeof key !== "string" || !isNumber(count)) {
      throw this.error("format", "its pickle refers to a storage in a way that is not PyTorch's");
    }
    const size = itemSize(type.dtype);
    let bytes = this.context.storage(key, count, size).subarray(0, count * size);
    if (part !== undefined && part !== null) {
      const [, first, length] = part instanceof Tuple ? (part.items as readonly Item[]) : [];
      if (!isNumber(first) || !isNumber(length) || first + length > count) throw this.error("format", `a part of storage ${key} lies outside it`);
      bytes = bytes.subarray(first * size, (first + length) * size);
    }
    this.stack.push(new Storage(type.dtype, bytes));
  }

  /**
   * Throws unless `root` is data through and through, without cycles, not too deep, and not too large when
   * written out as a tree. Readers of the value can then use plain recursion.
   */
  private checkData(root: Item): asserts root is Value {
    const sizes = new Map<Item, number>();
    const path: { item: Item; children: readonly Value[]; next: number; size: number }[] = [];
    const open = new Set<Item>();
    let result = this.enter(root, sizes, path, open);
    while (path.length > 0) {
      const frame = path[path.length - 1]!;
      if (result !== undefined) frame.size += result;
      if (frame.size > MAX_VALUES) throw this.error("refused", `it holds more than ${MAX_VALUES} values`);
      if (frame.next < frame.children.length) {
        result = this.enter(frame.children[frame.next++]!, sizes, path, open);
        continue;
      }
      path.pop();
      open.delete(frame.item);
      sizes.set(frame.item, frame.size);
      result = frame.size;
    }
  }

  /** The number of values in `item` when it is known at once, else a new frame on the path. */
  private enter(
    item: Item,
    sizes: ReadonlyMap<Item, number>,
    path: { item: Item; children: readonly Value[]; next: number; size: number }[],
    open: Set<Item>,
  ): number | undefined {
    if (item === null || typeof item !== "object" || item instanceof Uint8Array || item instanceof Tensor) return 1;
    const known = sizes.get(item);
    if (known !== undefined) return known;
    if (open.has(item)) throw this.error("refused", "refuses a container that contains itself");
    if (path.length >= MAX_DEPTH) throw this.error("refused", `refuses containers nested more than ${MAX_DEPTH} deep`);
    path.push({ item, children: this.children(item), next: 0, size: 1 });
    open.add(item);
    return undefined;
  }

  private children(item: Exclude<Item, null | string | number | bigint | boolean>): readonly Value[] {
    if (Array.isArray(item)) return item;
    if (item instanceof Tuple) return item.items;
    if (item instanceof Map) return [...(item as Map<Key, Value>).values()];
    if (item instanceof Namespace) return [...item.fields.values()];
    throw this.error("refused", `refuses ${item instanceof Global ? JSON.stringify(item.name) : "a part of a tensor"} as a value; a checkpoint may hold only tensors and plain containers`);
  }

  private error(kind: "format" | "refused", detail: string): CheckpointError {
    return new CheckpointError(this.file, kind, detail);
  }
}

const STOP = 46;
