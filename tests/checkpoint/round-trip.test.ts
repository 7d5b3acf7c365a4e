/** Everything that is written is read back, bit for bit: values, tensors, views, archives beyond 4 GiB, safetensors. */
import { deepStrictEqual } from "node:assert/strict";
import { closeSync, ftruncateSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { digestValue } from "../../ts/src/checkpoint/digest.js";
import { FileSource, type Sink } from "../../ts/src/checkpoint/files.js";
import { readSafetensors, writeSafetensors } from "../../ts/src/checkpoint/safetensors.js";
import { writeAtomically } from "../../ts/src/checkpoint/store.js";
import { asF32, asI64, f32Tensor, itemSize, Tensor, toFloat32, type Dtype } from "../../ts/src/checkpoint/tensor.js";
import { readTorch, writeTorch } from "../../ts/src/checkpoint/torch.js";
import { Float, fromPlain, Namespace, OrderedDict, toPlain, Tuple, type Key, type Value, type Writable } from "../../ts/src/checkpoint/value.js";
import { ZipReader } from "../../ts/src/checkpoint/zip/read.js";
import { ZipWriter } from "../../ts/src/checkpoint/zip/write.js";
import { temporaryFolder } from "../support/temporary.js";
import { archive, bytes, checkpoint, tensor } from "./craft.js";

const folder = temporaryFolder();
const file = join(folder, "x.pth");
const DTYPES: Dtype[] = ["f32", "f16", "bf16", "f64", "i64", "i32", "i16", "i8", "u8", "bool"];

function written(value: Writable): Value {
  writeAtomically(file, (sink) => writeTorch(sink, value, file));
  return readTorch(file);
}

/** Bytes that differ from each other; for bool only 0 and 1 are meaningful. */
function pattern(dtype: Dtype, shape: number[]): Tensor {
  const size = shape.reduce((product, side) => product * side, itemSize(dtype));
  return new Tensor(dtype, shape, Uint8Array.from({ length: size }, (_, i) => (dtype === "bool" ? i % 2 : (i * 37 + 11) % 256)));
}

function f32(values: Tensor): number[] {
  return [...toFloat32(values)];
}

describe("torch.save's format", () => {
  it.each([
    ["integers of every width", [0, 1, -1, 255, 256, 65535, 65536, 2 ** 31 - 1, -(2 ** 31), 2 ** 31, -(2 ** 31) - 1, Number.MAX_SAFE_INTEGER, 1n << 80n, -(1n << 80n), -(1n << 63n)]],
    ["floats", [0.1, -0, 1e300, 5e-324, Infinity, -Infinity, NaN]],
    ["text", ["", "ümläut 😀", "\u{feff}kept", "a\nb\\u0041", "__proto__"]],
    ["constants", [null, true, false]],
    ["containers", [[], new Map(), new Tuple([]), new Tuple([1, new Tuple([2, [3]]), 4]), new OrderedDict([["a", 1]]), new Map<Key, Value>([[3, "three"], ["k", [1]], [true, 0]])]],
    ["a namespace", new Namespace(new Map<Key, Value>([["lr", 0.5], ["opts", []], ["__class__", "text"]]))],
    ["bytes", Uint8Array.from({ length: 256 }, (_, i) => i)],
  ] as [string, Value][])("keeps %s", (_, value) => {
    deepStrictEqual(written(value), value);
  });

  it("writes a whole float as a float where that is asked for", () => {
    const marked = written([new Float(3)]);
    expect(marked).toEqual([3]);
    expect(readFileSync(file).includes(bytes("G\x40\x08\0\0\0\0\0\0"))).toBe(true);
  });

  it.each(DTYPES)("keeps %s tensors: scalar, empty, vector, four dimensions", (dtype) => {
    const value = [pattern(dtype, []), pattern(dtype, [0]), pattern(dtype, [3, 0, 2]), pattern(dtype, [7]), pattern(dtype, [2, 3, 1, 5])];
    deepStrictEqual(written(value), value);
  });

  it("writes tensors over the same memory once, and reads them as one", () => {
    const shared = pattern("f32", [64, 64]);
    const again = new Tensor("f32", [4096], shared.data);
    const [a, b] = written([shared, again]) as [Tensor, Tensor];
    expect(readFileSync(file).byteLength).toBeLessThan(2 * shared.data.byteLength);
    expect(a.data.buffer).toBe(b.data.buffer);
    deepStrictEqual([a, b], [shared, again]);
  });

  it("begins every storage at a multiple of 64 bytes", () => {
    written([1, 2, 3, 70, 1000].map((count) => pattern("i16", [count])));
    FileSource.with(file, (source) => {
      const offsets = [...new ZipReader(source).entries.values()].map((entry) => entry.offset % 64);
      expect(offsets).toEqual(offsets.map(() => 0));
    });
  });

  it("reads views with gaps, shared storages and deflated entries", () => {
    const n = (value: number): Buffer => bytes("K", value);
    const data = new Uint8Array(Float32Array.from({ length: 12 }, (_, i) => i).buffer);
    const view = (offset: bigint, shape: number[], strides: number[]): Buffer => tensor("0", 12n, offset, shape.map(n), strides.map(n));
    const pickle = bytes("\x80\x02](", view(0n, [3, 4], [4, 1]), view(0n, [4, 3], [1, 4]), view(5n, [2, 2], [4, 2]), view(2n, [], []), view(0n, [3], [0]), view(4n, [4], [1]), "e.");
    const wanted = [
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11], [5, 7, 9, 11], [2], [0, 0, 0], [4, 5, 6, 7],
    ];
    writeFileSync(file, checkpoint(pickle, { 0: data }));
    const tensors = readTorch(file) as Tensor[];
    expect(tensors.map(f32)).toEqual(wanted);
    expect(tensors[0]!.data.buffer).toBe(tensors[5]!.data.buffer);
    writeFileSync(file, archive([{ name: "m/data.pkl", data: pickle, deflate: true }, { name: "m/data/0", data, deflate: true }]));
    expect((readTorch(file) as Tensor[]).map(f32)).toEqual(wanted);
  });

  // Python 3.11's `pickle.dumps(value, protocol)` of the value below.
  it.each([
    [0, "KGRwMApWYekKcDEKSTAxCnNWbgpwMgpMMTIzNDU2Nzg5MDEyMzQ1Njc4OTBMCnNWZgpwMwpGLTE1MDAuNQpzVmwKcDQKKGxwNQpJLTcKYShJMQpJMgpJMwp0cDYKYU5hSTMwMAphSTcwMDAwCmFzVmIKcDcKY19jb2RlY3MKZW5jb2RlCnA4CihWXHUwMDAw/wpwOQpWbGF0aW4xCnAxMAp0cDExClJwMTIKc1ZucwpwMTMKY2NvcHlfcmVnCl9yZWNvbnN0cnVjdG9yCnAxNAooY2FyZ3BhcnNlCk5hbWVzcGFjZQpwMTUKY19fYnVpbHRpbl9fCm9iamVjdApwMTYKTnRwMTcKUnAxOAooZHAxOQpWYQpwMjAKSTEKc2JzVm9kCnAyMQpjY29sbGVjdGlvbnMKT3JkZXJlZERpY3QKcDIyCih0UnAyMwpWeApwMjQKSTAwCnNzLg=="],
    [1, "fXEAKFgDAAAAYcOpcQFJMDEKWAEAAABucQJMMTIzNDU2Nzg5MDEyMzQ1Njc4OTBMClgBAAAAZnEDR8CXcgAAAAAAWAEAAABscQRdcQUoSvn///8oSwFLAksDdHEGTk0sAUpwEQEAZVgBAAAAYnEHY19jb2RlY3MKZW5jb2RlCnEIKFgDAAAAAMO/cQlYBgAAAGxhdGluMXEKdHELUnEMWAIAAABuc3ENY2NvcHlfcmVnCl9yZWNvbnN0cnVjdG9yCnEOKGNhcmdwYXJzZQpOYW1lc3BhY2UKcQ9jX19idWlsdGluX18Kb2JqZWN0CnEQTnRxEVJxEn1xE1gBAAAAYXEUSwFzYlgCAAAAb2RxFWNjb2xsZWN0aW9ucwpPcmRlcmVkRGljdApxFilScRdYAQAAAHhxGEkwMApzdS4="],
    [2, "gAJ9cQAoWAMAAABhw6lxAYhYAQAAAG5xAooJ0gof64ypVKsAWAEAAABmcQNHwJdyAAAAAABYAQAAAGxxBF1xBShK+f///0sBSwJLA4dxBk5NLAFKcBEBAGVYAQAAAGJxB2NfY29kZWNzCmVuY29kZQpxCFgDAAAAAMO/cQlYBgAAAGxhdGluMXEKhnELUnEMWAIAAABuc3ENY2FyZ3BhcnNlCk5hbWVzcGFjZQpxDimBcQ99cRBYAQAAAGFxEUsBc2JYAgAAAG9kcRJjY29sbGVjdGlvbnMKT3JkZXJlZERpY3QKcRMpUnEUWAEAAAB4cRWJc3Uu"],
    [3, "gAN9cQAoWAMAAABhw6lxAYhYAQAAAG5xAooJ0gof64ypVKsAWAEAAABmcQNHwJdyAAAAAABYAQAAAGxxBF1xBShK+f///0sBSwJLA4dxBk5NLAFKcBEBAGVYAQAAAGJxB0MCAP9xCFgCAAAAbnNxCWNhcmdwYXJzZQpOYW1lc3BhY2UKcQopgXELfXEMWAEAAABhcQ1LAXNiWAIAAABvZHEOY2NvbGxlY3Rpb25zCk9yZGVyZWREaWN0CnEPKVJxEFgBAAAAeHERiXN1Lg=="],
    [4, "gASVpgAAAAAAAAB9lCiMA2HDqZSIjAFulIoJ0gof64ypVKsAjAFmlEfAl3IAAAAAAIwBbJRdlChK+f///0sBSwJLA4eUTk0sAUpwEQEAZYwBYpRDAgD/lIwCbnOUjAhhcmdwYXJzZZSMCU5hbWVzcGFjZZSTlCmBlH2UjAFhlEsBc2KMAm9klIwLY29sbGVjdGlvbnOUjAtPcmRlcmVkRGljdJSTlClSlIwBeJSJc3Uu"],
    [5, "gAWVpgAAAAAAAAB9lCiMA2HDqZSIjAFulIoJ0gof64ypVKsAjAFmlEfAl3IAAAAAAIwBbJRdlChK+f///0sBSwJLA4eUTk0sAUpwEQEAZYwBYpRDAgD/lIwCbnOUjAhhcmdwYXJzZZSMCU5hbWVzcGFjZZSTlCmBlH2UjAFhlEsBc2KMAm9klIwLY29sbGVjdGlvbnOUjAtPcmRlcmVkRGljdJSTlClSlIwBeJSJc3Uu"],
  ])("reads protocol %i", (_, base64) => {
    writeFileSync(file, checkpoint(Buffer.from(base64, "base64")));
    deepStrictEqual(readTorch(file), new Map<Key, Value>([
      ["aé", true],
      ["n", 12345678901234567890n],
      ["f", -1500.5],
      ["l", [-7, new Tuple([1, 2, 3]), null, 300, 70000]],
      ["b", Uint8Array.of(0, 255)],
      ["ns", new Namespace(new Map([["a", 1]]))],
      ["od", new OrderedDict([["x", false]])],
    ]));
  });

  it("turns JSON's values into Python's and back", () => {
    const plain = { a: [1, "x", null, { b: false }], c: 0.5 };
    expect(JSON.stringify(toPlain(written(fromPlain(plain))))).toBe(JSON.stringify(plain));
    expect(toPlain(new Map<Key, Value>([["w", pattern("f32", [2])]]))).toBeUndefined();
  });
});

describe("an archive beyond 4 GiB", () => {
  it("is written and read with 64-bit positions", () => {
    const large = join(folder, "large.zip");
    const descriptor = openSync(large, "w");
    const zeros = new Uint8Array(1.5 * 2 ** 30);
    // Zeros are left out, so the file has holes in place of 4.5 GiB.
    const sink: Sink = {
      position: 0,
      write(data) {
        if (data !== zeros) writeSync(descriptor, data, 0, data.byteLength, this.position);
        (this as { position: number }).position += data.byteLength;
      },
    };
    const zip = new ZipWriter(sink);
    for (const name of ["a", "b", "c"]) zip.add(name, zeros);
    zip.add("last", bytes("behind 4 GiB"));
    zip.finish();
    ftruncateSync(descriptor, sink.position);
    closeSync(descriptor);
    expect(sink.position).toBeGreaterThan(2 ** 32);
    FileSource.with(large, (source) => {
      const reader = new ZipReader(source);
      expect([...reader.entries.keys()]).toEqual(["a", "b", "c", "last"]);
      const last = reader.entries.get("last")!;
      expect(last.offset).toBeGreaterThan(2 ** 32);
      expect(Buffer.from(reader.read(last)).toString()).toBe("behind 4 GiB");
    });
    rmSync(large);
  });
});

describe("safetensors", () => {
  it("keeps tensors of every type, their names and the metadata", () => {
    const path = join(folder, "x.safetensors");
    const tensors = new Map(DTYPES.map((dtype, i) => [i === 0 ? "__proto__" : `t.${dtype}`, pattern(dtype, [i, 3])]));
    tensors.set("scalar", pattern("f64", []));
    const metadata = new Map([["format", "pt"]]);
    writeAtomically(path, (sink) => writeSafetensors(sink, tensors, metadata));
    deepStrictEqual(readSafetensors(path), { tensors, metadata });
    expect(Number(readFileSync(path).readBigUInt64LE(0)) % 8).toBe(0);
  });
});

describe("conversion", () => {
  const u16 = (...values: number[]): Uint8Array => new Uint8Array(Uint16Array.from(values).buffer);

  it("of f16 is exact", () => {
    const halves = new Tensor("f16", [10], u16(0x0000, 0x8000, 0x0001, 0x03ff, 0x0400, 0x3c00, 0xc000, 0x7bff, 0x7c00, 0x7e00));
    expect(f32(halves)).toEqual([0, -0, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, 1, -2, 65504, Infinity, NaN]);
  });

  it("of bf16 is exact", () => {
    const values = new Tensor("bf16", [4], u16(0x3f80, 0xc049, 0x7f80, 0x0001));
    expect(f32(values)).toEqual([1, -3.140625, Infinity, 2 ** -133]);
  });

  it("of f64 rounds, of integers keeps", () => {
    expect(f32(new Tensor("f64", [2], new Uint8Array(Float64Array.of(0.1, -1e-50).buffer)))).toEqual([Math.fround(0.1), -0]);
    expect(f32(new Tensor("i64", [2], new Uint8Array(BigInt64Array.of(-5n, 7n).buffer)))).toEqual([-5, 7]);
    expect(f32(new Tensor("i8", [2], Uint8Array.of(255, 1)))).toEqual([-1, 1]);
    const longs = asI64(new Tensor("i32", [2], new Uint8Array(Int32Array.of(-3, 9).buffer)));
    expect([...new BigInt64Array(longs.data.buffer)]).toEqual([-3n, 9n]);
    expect(() => asI64(f32Tensor([1], [1.5]))).toThrow(/without losing/);
  });

  it("leaves f32 alone, also when it begins between two numbers", () => {
    const tensorOfThree = f32Tensor([3], [1, 2, 3]);
    expect(asF32(tensorOfThree)).toBe(tensorOfThree);
    const shifted = new Uint8Array(13);
    shifted.set(tensorOfThree.data, 1);
    expect(f32(new Tensor("f32", [3], shifted.subarray(1)))).toEqual([1, 2, 3]);
  });

  it("needs as many bytes as the shape says", () => {
    expect(() => new Tensor("f32", [2], new Uint8Array(7))).toThrow("a f32 tensor of shape [2] has 8 bytes, got 7");
  });
});

describe("the digest", () => {
  const a = f32Tensor([2], [1, 2]);
  const b = f32Tensor([2], [3, 4]);

  it("does not depend on the order of keys or on values that are no tensors", () => {
    const first = digestValue(new Map<Key, Value>([["x", a], ["y", new Map<Key, Value>([["z", b]])], ["epoch", 1]]));
    const second = digestValue(new Map<Key, Value>([["epoch", 2], ["y", new OrderedDict<Key, Value>([["z", b]])], ["x", a]]));
    expect(first).toEqual(second);
    expect(first.tensors).toBe(2);
  });

  it("depends on names, shapes, types, places and every bit", () => {
    const of = (value: Value): string => digestValue(value).sha256;
    const flipped = new Tensor("f32", [2], a.data.map((byte, i) => (i === 7 ? byte ^ 1 : byte)));
    const variants: Value[] = [
      new Map<Key, Value>([["x", a], ["y", b]]),
      new Map<Key, Value>([["x", b], ["y", a]]),
      new Map<Key, Value>([["x", a], ["z", b]]),
      new Map<Key, Value>([["x", a]]),
      new Map<Key, Value>([["x", flipped], ["y", b]]),
      new Map<Key, Value>([["x", new Tensor("f32", [2, 1], a.data)], ["y", b]]),
      new Map<Key, Value>([["x", new Tensor("i32", [2], a.data)], ["y", b]]),
      new Map<Key, Value>([["x", new Map<Key, Value>([["y", b]])], ["y", a]]),
      [a, b],
    ];
    expect(new Set(variants.map(of)).size).toBe(variants.length);
  });
});
