/** Files that mean harm, or are damaged: each is one `CheckpointError`, soon, and without much memory. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readCheckpoint } from "../../ts/src/checkpoint/checkpoint.js";
import { CheckpointError, type CheckpointErrorKind } from "../../ts/src/checkpoint/errors.js";
import { readSafetensors } from "../../ts/src/checkpoint/safetensors.js";
import { readTorch } from "../../ts/src/checkpoint/torch.js";
import { Namespace, toPlain } from "../../ts/src/checkpoint/value.js";
import { temporaryFolder } from "../support/temporary.js";
import { archive, bytes, checkpoint, legacy, long, tensor, text, u32, u64 } from "./craft.js";

const folder = temporaryFolder();
const file = join(folder, "x.pth");

/** Opcodes of small numbers. */
const n = (value: number): Buffer => bytes("K", value);
const zeros = (size: number): Uint8Array => new Uint8Array(size);

/** Reads `contents` and checks the error, the time and the memory that it took. */
function refuses(contents: Uint8Array, kind: CheckpointErrorKind, message: RegExp, read: (file: string) => unknown = readTorch): void {
  writeFileSync(file, contents);
  const [started, memory] = [performance.now(), process.memoryUsage()];
  let error: unknown;
  try {
    read(file);
  } catch (thrown) {
    error = thrown;
  }
  const grown = process.memoryUsage();
  expect(error).toBeInstanceOf(CheckpointError);
  const { message: got, kind: gotKind, file: gotFile } = error as CheckpointError;
  expect(got).toMatch(message);
  expect(got.startsWith(`${file}: `)).toBe(true);
  expect({ kind: gotKind, file: gotFile }).toEqual({ kind, file });
  expect(performance.now() - started).toBeLessThan(5_000);
  expect(grown.rss - memory.rss).toBeLessThan(512 * 2 ** 20);
}

describe("a pickle", () => {
  const cases: [why: string, pickle: Uint8Array, kind: CheckpointErrorKind, message: RegExp][] = [
    ["calls os.system", bytes("\x80\x02cposix\nsystem\n", text("touch /tmp/x"), "\x85R."), "refused",
      /x\.pth: refuses to load "posix\.system"; a checkpoint may hold only tensors and plain containers$/],
    ["calls eval, protocol 4", bytes("\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."), "refused", /"builtins\.eval"/],
    ["names a global that it never calls", bytes("\x80\x02csubprocess\nPopen\n."), "refused", /"subprocess\.Popen"/],
    ["hides a dotted name behind an allowed module", bytes("\x80\x04\x8c\x05torch\x8c\x0eload.__class__\x93."), "refused", /torch\.load/],
    ["names a global by a number", bytes("\x80\x04K\x01K\x02\x93."), "format", /other than text/],
    ["calls data", bytes("\x80\x02", text("print"), ")R."), "refused", /refuses to call "a string"/],
    ["calls a storage class", bytes("\x80\x02ctorch\nFloatStorage\n)R."), "refused", /torch\.FloatStorage/],
    ["leaves a class as a value", bytes("\x80\x02}", text("x"), "ctorch\nFloatStorage\ns."), "refused", /"torch\.FloatStorage" as a value/],
    ["sets the state of a class", bytes("\x80\x02cargparse\nNamespace\n}b."), "refused", /argparse\.Namespace/],
    ["sets the state of a list", bytes("\x80\x02]}b."), "refused", /a list/],
    ["gives a namespace a state that is no dict", bytes("\x80\x02cargparse\nNamespace\n)\x81K\x01b."), "format", /must be a dict/],
    ["uses INST", bytes("(ios\nsystem\n."), "refused", /0x69/],
    ["uses an extension code", bytes("\x80\x02\x82\x01."), "refused", /0x82/],
    ["uses an out-of-band buffer", bytes("\x80\x05\x97."), "refused", /0x97/],
    ["has protocol 6", bytes("\x80\x06N."), "refused", /protocol 6/],
    ["nests 500,000 lists", bytes("]".repeat(500_000), "a".repeat(499_999), "."), "refused", /nested/],
    ["nests 300,000 tuples", bytes(")", "\x85".repeat(300_000), "."), "refused", /nested/],
    ["contains itself", bytes("]q", 0, "h", 0, "a."), "refused", /contains itself/],
    ["contains itself through a dict", bytes("}q", 0, text("x"), "]h", 0, "as."), "refused", /contains itself/],
    ["doubles itself 40 times", bytes("](K\x01K\x01e", "2\x86".repeat(40), "."), "refused", /values/],
    ["makes two million dicts", bytes("}".repeat(2_000_000), "."), "refused", /opcodes/],
    ["declares a text of 2⁶⁰ bytes", bytes("\x8d", u64(1n << 60n), "x."), "format", /ends in the middle/],
    ["declares a text of 4 GiB", bytes("X", u32(0xffffffff), "x."), "format", /ends in the middle/],
    ["declares bytes of 2⁶³", bytes("\x8e", u64(1n << 63n), "x."), "format", /ends in the middle/],
    ["declares an integer of 4 GiB", bytes("\x8b", u32(0xffffffff), "x."), "refused", /integer of 4294967295 bytes/],
    ["has an integer of a million digits", bytes("L", "9".repeat(60_000), "L\n."), "format", /integer/],
    ["has a float that is code", bytes("F__import__\n."), "format", /float/],
    ["has a line without an end", bytes("c", "x".repeat(100_000)), "format", /line/],
    ["is empty", bytes(), "format", /ends/],
    ["has no end", bytes("\x80\x02}"), "format", /ends/],
    ["takes from an empty stack", bytes("\x80\x020."), "format", /empty stack/],
    ["takes from below a mark", bytes("N(0."), "format", /empty stack/],
    ["closes a group that it did not open", bytes("t."), "format", /group/],
    ["recalls what it did not keep", bytes("h\x07."), "format", /value 7/],
    ["has a key without a value", bytes("}(K\x01u."), "format", /key without a value/],
    ["has a list as a key", bytes("}]Ns."), "refused", /a list as a key/],
    ["sets an item of a list", bytes("]K\x01K\x02s."), "format", /a list/],
    ["appends to a number", bytes("K\x01K\x02a."), "format", /a number/],
    ["has text that is not UTF-8", bytes("X", u32(2), "\xff\xfe."), "format", /UTF-8/],
    ["encodes with a codec that runs code", bytes("c_codecs\nencode\n", text("x"), text("rot13"), "\x86R."), "format", /latin1/],
    ["builds an OrderedDict from a number", bytes("ccollections\nOrderedDict\nK\x01\x85R."), "format", /list of pairs/],
    ["reconstructs another class", bytes("ccopy_reg\n_reconstructor\n(ccollections\nOrderedDict\nc__builtin__\nobject\nNtR."), "format", /Namespace/],
    ["refers to a storage by a number", bytes("K\x01Q."), "format", /PyTorch's/],
    ["refers to a storage that is not there", bytes(tensor("7", 4n, 0n, [n(4)], [n(1)]), "."), "format", /storage "7"/],
    ["refers to a storage by a path", bytes(tensor("../data.pkl", 4n, 0n, [n(4)], [n(1)]), "."), "format", /no entry/],
    ["has a storage that is too short", bytes(tensor("0", 400n, 0n, [n(4)], [n(1)]), "."), "format", /64 bytes, not 1600/],
    ["has a storage of a negative size", bytes(tensor("0", -4n, 0n, [n(4)], [n(1)]), "."), "format", /PyTorch's/],
    ["has a storage of 2⁶² elements", bytes(tensor("0", 1n << 62n, 0n, [n(4)], [n(1)]), "."), "format", /PyTorch's/],
    ["has a shape beyond its storage", bytes(tensor("0", 16n, 0n, [n(17)], [n(1)]), "."), "format", /element 16/],
    ["has an offset beyond its storage", bytes(tensor("0", 16n, 13n, [n(4)], [n(1)]), "."), "format", /element 16/],
    ["has a negative offset", bytes(tensor("0", 16n, -1n, [n(4)], [n(1)]), "."), "format", /whole numbers/],
    ["has a negative side", bytes(tensor("0", 16n, 0n, [long(-4n)], [n(1)]), "."), "format", /whole numbers/],
    ["has a side that is not a number", bytes(tensor("0", 16n, 0n, [bytes("G\x7f\xf8\0\0\0\0\0\0")], [n(1)]), "."), "format", /whole numbers/],
    ["has half a side", bytes(tensor("0", 16n, 0n, [bytes("G\x3f\xe0\0\0\0\0\0\0")], [n(1)]), "."), "format", /whole numbers/],
    ["has a side of 2⁵²", bytes(tensor("0", 16n, 0n, [long(1n << 52n)], [n(0)]), "."), "format", /repeats/],
    ["has a product of sides beyond all numbers", bytes(tensor("0", 16n, 0n, Array.from({ length: 16 }, () => long(1n << 52n)), Array.from({ length: 16 }, () => n(0))), "."), "format", /repeats/],
    ["has more strides than sides", bytes(tensor("0", 16n, 0n, [n(4)], [n(1), n(1)]), "."), "format", /strides/],
    ["has 40 dimensions", bytes(tensor("0", 16n, 0n, Array.from({ length: 40 }, () => n(1)), Array.from({ length: 40 }, () => n(1))), "."), "format", /40 dimensions/],
    ["copies one storage a thousand times", bytes("](", ...Array.from({ length: 1000 }, () => tensor("1", 16384n, 0n, [n(128), n(128)], [n(1), n(128)])), "e."), "refused", /more memory/],
  ];

  it.each(cases)("that %s", (_, pickle, kind, message) => {
    refuses(checkpoint(pickle, { 0: zeros(64), 1: zeros(65536) }), kind, message);
  });

  it("may hold __proto__ and constructor as names, which stay names", () => {
    const fields = bytes("}(", text("__proto__"), "}", text("polluted"), "\x88s", text("constructor"), "K\x01", "u");
    writeFileSync(file, checkpoint(bytes("\x80\x02}(", text("args"), "cargparse\nNamespace\n)\x81", fields, "b", text("__proto__"), fields, "u.")));
    const root = readTorch(file) as Map<string, unknown>;
    const plain = toPlain(root as never) as Record<string, Record<string, unknown>>;
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
    expect(root.get("args")).toBeInstanceOf(Namespace);
    expect(Object.getPrototypeOf(plain)).toBeNull();
    expect(Object.keys(plain)).toEqual(["args", "__proto__"]);
    expect(Object.keys(plain["args"]!)).toEqual(["__proto__", "constructor"]);
  });
});

describe("an archive", () => {
  const good = { name: "archive/data.pkl", data: bytes("\x80\x02", tensor("0", 16n, 0n, [n(16)], [n(1)]), ".") };
  const storage = { name: "archive/data/0", data: zeros(64) };
  const cases: [why: string, contents: Uint8Array, kind: CheckpointErrorKind, message: RegExp][] = [
    ["that is empty", bytes(), "format", /not a PyTorch checkpoint/],
    ["that is text", bytes("hello, world"), "format", /not a PyTorch checkpoint/],
    ["without a pickle", archive([storage]), "format", /without a data\.pkl/],
    ["with a wrong checksum", archive([good, { ...storage, crc: 1 }]), "format", /"archive\/data\/0" is damaged/],
    ["with a bomb", archive([good, { ...storage, data: zeros(2 ** 27), deflate: true }]), "refused", /16 times/],
    ["with a bomb that understates its size", archive([good, { ...storage, data: zeros(2 ** 27), deflate: true, size: 64 }]), "format", /cannot be unpacked/],
    ["with an entry larger than the file", archive([good, { ...storage, size: 2 ** 31 }]), "format", /reaches into/],
    ["with an entry of another compression", archive([good, { ...storage, method: 12 }]), "refused", /compression method 12/],
    ["with an encrypted entry", archive([good, { ...storage, flags: 1 }]), "refused", /encrypted/],
    ["with two entries of one name", archive([good, storage, storage]), "format", /two entries/],
    ["with two entries over the same bytes", archive([good, storage, { ...storage, name: "archive/data/1", offset: 30 + good.name.length + good.data.length }]), "format", /overlap/],
    ["with an entry outside the file", archive([good, { ...storage, offset: 0x7fffffff }]), "format", /outside/],
    ["with an entry whose header is not one", archive([good, { ...storage, offset: 5 }]), "format", /no header/],
    ["with zip64 sizes that are absent", archive([good, { ...storage, size: 0xffffffff }]), "format", /zip64/],
    ["from a big-endian machine", archive([good, storage, { name: "archive/byteorder", data: bytes("big") }]), "format", /big-endian/],
  ];

  it.each(cases)("%s", (_, contents, kind, message) => refuses(contents, kind, message));

  it("with a zip64 directory at an absurd place", () => {
    const plain = archive([good, storage]);
    const end = plain.subarray(plain.length - 22);
    end.writeUInt32LE(0xffffffff, 16);
    const locator = bytes("PK\x06\x07", u32(0), u64((1n << 64n) - 1n), u32(1));
    refuses(bytes(plain.subarray(0, plain.length - 22), locator, end), "format", /ends at byte/);
  });
});

describe("a file of the format before zip", () => {
  const pickle = bytes("\x80\x02", tensor("a", 16n, 0n, [n(16)], [n(1)], true), ".");
  const stored = bytes(u64(16n), zeros(64));
  const cases: [why: string, contents: Uint8Array, message: RegExp][] = [
    ["with a storage of 2⁶³ elements", legacy(pickle, ["a"], bytes(u64(1n << 63n), zeros(64))), /elements, not 16/],
    ["with a storage of -1 elements", legacy(pickle, ["a"], bytes(u64((1n << 64n) - 1n), zeros(64))), /-1 elements/],
    ["that announces 2⁴⁰ elements", legacy(bytes(tensor("a", 1n << 40n, 0n, [n(16)], [n(1)], true), "."), ["a"], stored), /more data than/],
    ["that announces one storage with two sizes", legacy(bytes("](", tensor("a", 16n, 0n, [n(16)], [n(1)], true), tensor("a", 8n, 0n, [n(8)], [n(1)], true), "e."), ["a"], stored), /two sizes/],
    ["that lists another storage", legacy(pickle, ["b"], stored), /other storages/],
    ["that lists a storage twice", legacy(pickle, ["a", "a"], bytes(stored, stored)), /other storages/],
    ["that lists none", legacy(pickle, [], stored), /other storages/],
    ["that is cut off in its data", legacy(pickle, ["a"], stored.subarray(0, 40)), /ends at byte/],
    ["that is cut off in its pickle", legacy(pickle, ["a"], stored).subarray(0, 30), /line without an end/],
  ];

  it.each(cases)("%s", (_, contents, message) => refuses(contents, "format", message));

  it("is read when it is whole, also when its magic number is in a frame (protocol 4)", () => {
    const whole = legacy(pickle, ["a"], stored);
    const magic = bytes("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");
    for (const contents of [whole, bytes("\x80\x04\x95", u64(BigInt(magic.length)), magic, whole.subarray(15))]) {
      writeFileSync(file, contents);
      expect(readTorch(file)).toMatchObject({ dtype: "f32", shape: [16] });
    }
  });
});

describe("a safetensors file", () => {
  const header = (json: string, data = 0): Buffer => bytes(u64(BigInt(Buffer.byteLength(json))), Buffer.from(json), zeros(data));
  const cases: [why: string, contents: Uint8Array, kind: CheckpointErrorKind, message: RegExp][] = [
    ["that is too short", bytes("abc"), "format", /ends at byte 3/],
    ["whose header has 2⁶³ bytes", bytes(u64(1n << 63n), "{}"), "refused", /header/],
    ["whose header is longer than the file", bytes(u64(100n), "{}"), "format", /ends at byte/],
    ["whose header is not JSON", header("{"), "format", /not JSON/],
    ["whose header is deep", header("[".repeat(1_000_000)), "format", /not JSON/],
    ["with a hole", header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', 8), "format", /begins at byte 4/],
    ["with an overlap", header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}', 6), "format", /begins at byte 2/],
    ["with data after the last tensor", header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 5), "format", /5 are there/],
    ["with a size that is not the shape's", header('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', 4), "format", /shape and dtype/],
    ["with a shape beyond all numbers", header('{"a":{"dtype":"F32","shape":[1e300],"data_offsets":[0,4]}}', 4), "format", /whole numbers/],
    ["with an unknown dtype", header('{"a":{"dtype":"F8","shape":[4],"data_offsets":[0,4]}}', 4), "format", /"F8"/],
  ];

  it.each(cases)("%s", (_, contents, kind, message) => refuses(contents, kind, message, readSafetensors));
});

describe("a checkpoint with other contents", () => {
  const cases: [why: string, pickle: Uint8Array, kind: CheckpointErrorKind, message: RegExp][] = [
    ["that is a list", bytes("]."), "mismatch", /must hold a dict, got a list/],
    ["without either net", bytes("}", text("epoch"), "K\x01s."), "missing", /neither "student" nor "teacher"/],
    ["whose student is a number", bytes("}", text("student"), "K\x01s."), "mismatch", /"student" must be a dict, got a number/],
    ["whose student holds a list", bytes("}", text("student"), "}", text("w"), "]ss."), "mismatch", /"student\/w" must be a tensor, got a list/],
    ["whose epoch is text", bytes("}(", text("student"), "}", text("epoch"), text("two"), "u."), "mismatch", /"epoch" must be a whole number/],
    ["whose optimizer has no groups", bytes("}(", text("student"), "}", text("optimizer"), "}", text("state"), "}su."), "missing", /has no "optimizer\/param_groups"/],
  ];

  it.each(cases)("%s", (_, pickle, kind, message) => refuses(checkpoint(pickle), kind, message, readCheckpoint));

  it("that does not exist, or is a folder", () => {
    expect(() => readTorch(join(folder, "absent.pth"))).toThrow(expect.objectContaining({ kind: "io", message: expect.stringContaining("absent.pth") }));
    expect(() => readTorch(folder)).toThrow(expect.objectContaining({ kind: "io" }));
  });
});

describe("any prefix of a small file", () => {
  it("is refused, whatever its length", () => {
    const whole = checkpoint(bytes("\x80\x02", tensor("0", 16n, 0n, [n(16)], [n(1)]), "."), { 0: zeros(64) });
    writeFileSync(file, whole);
    readTorch(file);
    expect(readFileSync(file)).toEqual(whole);
    const cut = join(folder, "cut.pth");
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(cut, whole.subarray(0, length));
      expect(() => readTorch(cut)).toThrow(CheckpointError);
    }
  });
});
