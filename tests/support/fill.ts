/**
 * Weights and inputs as a function of their name: section 1 of the fixtures' README, which has the formula.
 *
 * 64-bit integers are pairs of 32-bit halves here: a net's weights take seconds this way and minutes with BigInt.
 */

export type FillKind = "zero" | "bias" | "var" | "one" | "table" | "scale" | "weight" | "input" | "half" | "raw";

const fl = Math.fround;
const TENTH = fl(0.1);

/** Values of the tensor `name`, row-major. `kind` follows from the name unless it is given. */
export function fill(name: string, shape: readonly number[], kind: FillKind = kindOf(name, shape)): Float32Array {
  const count = shape.reduce((product, side) => product * side, 1);
  const values = new Float32Array(count);
  if (kind === "zero") return values;
  if (kind === "one") return values.fill(1);
  const fanIn = shape.slice(1).reduce((product, side) => product * side, 1);
  const toValue = valueOf(kind, fanIn);
  const [seedHigh, seedLow] = seed(name);
  let [high, low] = [seedHigh, seedLow];
  for (let i = 0; i < count; i++) {
    // state += 0x9E3779B97F4A7C15
    const sum = low + 0x7f4a7c15;
    low = sum >>> 0;
    high = (high + 0x9e3779b9 + (sum > 0xffffffff ? 1 : 0)) >>> 0;
    values[i] = toValue(2 * (mix(high, low) * 2 ** -24) - 1);
  }
  return values;
}

/** The kind of a parameter, from its name. */
export function kindOf(name: string, shape: readonly number[]): FillKind {
  const leaf = name.slice(name.lastIndexOf(".") + 1);
  if (leaf === "num_batches_tracked") return "zero";
  if (leaf === "running_mean") return "bias";
  if (leaf === "running_var") return "var";
  if (leaf === "weight_g") return "one";
  if (/position_bias|rel_pos_bias|pos_embed|cls_token/.test(name)) return "table";
  if (leaf.startsWith("pooled_") && leaf.endsWith("_scale")) return "scale";
  if (shape.length >= 2) return "weight";
  if (leaf === "weight") return "scale";
  if (leaf === "bias") return "bias";
  throw new Error(`no rule says how to fill ${name}`);
}

function valueOf(kind: FillKind, fanIn: number): (v: number) => number {
  switch (kind) {
    case "bias": return (v) => fl(TENTH * v);
    case "var": return (v) => fl(1 + fl(0.5 * Math.abs(v)));
    case "table":
    case "half": return (v) => 0.5 * v;
    case "scale": return (v) => fl(1 + fl(TENTH * v));
    case "weight": {
      const s = fl(Math.sqrt(3 / fanIn));
      return (v) => fl(v * s);
    }
    case "input": {
      const s = fl(Math.sqrt(3));
      return (v) => fl(v * s);
    }
    case "raw": return (v) => v;
    case "zero": return () => 0;
    case "one": return () => 1;
  }
}

/** FNV-1a, 64 bit, of the UTF-8 bytes. The prime is 2⁴⁰ + 0x1b3. */
function seed(name: string): [high: number, low: number] {
  let [high, low] = [0xcbf29ce4, 0x84222325];
  for (const byte of Buffer.from(name, "utf8")) {
    low = (low ^ byte) >>> 0;
    [high, low] = multiply(high, low, 0x100, 0x1b3);
  }
  return [high, low];
}

/** The upper 24 bits of SplitMix64's output function. */
function mix(high: number, low: number): number {
  [high, low] = [(high ^ (high >>> 30)) >>> 0, (low ^ ((low >>> 30) | (high << 2))) >>> 0];
  [high, low] = multiply(high, low, 0xbf58476d, 0x1ce4e5b9);
  [high, low] = [(high ^ (high >>> 27)) >>> 0, (low ^ ((low >>> 27) | (high << 5))) >>> 0];
  [high, low] = multiply(high, low, 0x94d049bb, 0x133111eb);
  return ((high ^ (high >>> 31)) >>> 0) >>> 8;
}

/** Product modulo 2⁶⁴. */
function multiply(aHigh: number, aLow: number, bHigh: number, bLow: number): [high: number, low: number] {
  // Full product of the low halves, over 16-bit digits: every partial sum stays exact.
  const [a0, a1, b0, b1] = [aLow & 0xffff, aLow >>> 16, bLow & 0xffff, bLow >>> 16];
  const middle = a1 * b0 + ((a0 * b0) / 65536 >>> 0);
  const middle2 = a0 * b1 + (middle % 65536);
  const carry = a1 * b1 + Math.floor(middle / 65536) + Math.floor(middle2 / 65536);
  const high = (carry + Math.imul(aHigh, bLow) + Math.imul(aLow, bHigh)) >>> 0;
  return [high, Math.imul(aLow, bLow) >>> 0];
}
