/**
 * Random numbers keyed by what they are for. A stream is a pure function of (seed, purpose, indices): nothing is
 * shared, so the same crop gets the same numbers whatever was drawn before, in whatever order or process.
 */
import { philox } from "./philox.js";

/** A sequence of random numbers. */
export interface Rng {
  /** 32 random bits. */
  uint32(): number;
  /** From the interval [low, high), 53 random bits; [0, 1) without arguments. */
  uniform(low?: number, high?: number): number;
  /** A whole number from [low, high), each exactly as probable. */
  integer(low: number, high: number): number;
  /** True with this probability: never for 0, always for 1. */
  chance(probability: number): boolean;
  /** Normal distribution with mean 0 and deviation 1. */
  normal(): number;
  /** Beta distribution; both parameters positive. */
  beta(a: number, b: number): number;
  /** The numbers 0 to count - 1 in random order. */
  permutation(count: number): Uint32Array;
}

/** FNV-1a, 32 bit, over the UTF-16 units of a short ASCII text. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

/**
 * The stream for one purpose.
 * @param seed a whole number, 0 to 2^53 - 1.
 * @param purpose a short name, for instance `crops`; different names give unrelated streams.
 * @param indices up to two whole numbers, 0 to 2^32 - 1, for instance epoch and image.
 */
export function stream(seed: number, purpose: string, ...indices: readonly [] | readonly [number] | readonly [number, number]): Rng {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(`a seed is a whole number from 0, got ${seed}`);
  for (const index of indices) {
    if (!Number.isInteger(index) || index < 0 || index > 0xffffffff) {
      throw new RangeError(`an index of a stream is a whole number from 0 to 2^32 - 1, got ${index}`);
    }
  }
  const [first = 0, second = 0] = indices;
  // The counter also holds how many indices there are, so that (seed, p) and (seed, p, 0) differ; and the seed's high part.
  const high = Math.floor(seed / 2 ** 32);
  return new PhiloxStream(new Uint32Array([seed >>> 0, hash(purpose)]), new Uint32Array([0, first, second, high * 4 + indices.length]));
}

class PhiloxStream implements Rng {
  private readonly block = new Uint32Array(4);
  private used = 4;
  private readonly key: Uint32Array;
  private readonly counter: Uint32Array;

  constructor(key: Uint32Array, counter: Uint32Array) {
    this.key = key;
    this.counter = counter;
  }

  uint32(): number {
    if (this.used === 4) {
      philox(this.counter, this.key, this.block);
      // 2^32 blocks of four numbers are more than any single stream uses.
      this.counter[0]! += 1;
      this.used = 0;
    }
    return this.block[this.used++]!;
  }

  uniform(low = 0, high = 1): number {
    const unit = ((this.uint32() >>> 5) * 67108864 + (this.uint32() >>> 6)) / 9007199254740992;
    // Rounding may reach `high` when the interval is wide; the interval is half open all the same.
    const value = low + (high - low) * unit;
    return value >= high && high > low ? low : value;
  }

  integer(low: number, high: number): number {
    const count = high - low;
    if (!Number.isInteger(low) || !Number.isInteger(high) || count < 1 || count > 2 ** 32) {
      throw new RangeError(`an interval of whole numbers must not be empty, got [${low}, ${high})`);
    }
    // Numbers behind the last full multiple of `count` would favor small results.
    const limit = 2 ** 32 - (2 ** 32 % count);
    let bits = this.uint32();
    while (bits >= limit) bits = this.uint32();
    return low + (bits % count);
  }

  chance(probability: number): boolean {
    return this.uniform() < probability;
  }

  normal(): number {
    // Box and Muller; 1 - u is in (0, 1].
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  beta(a: number, b: number): number {
    if (!(a > 0) || !(b > 0)) throw new RangeError(`the parameters of a beta distribution are positive, got ${a} and ${b}`);
    // As logarithms: with small parameters both gammas are often below the smallest double.
    const x = this.logGamma(a);
    const y = this.logGamma(b);
    return 1 / (1 + Math.exp(y - x));
  }

  permutation(count: number): Uint32Array {
    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[i] = i;
    for (let i = count - 1; i > 0; i--) {
      const j = this.integer(0, i + 1);
      const swap = order[i]!;
      order[i] = order[j]!;
      order[j] = swap;
    }
    return order;
  }

  /** Logarithm of a gamma variate of scale 1 (Marsaglia and Tsang, 2000). */
  private logGamma(shape: number): number {
    if (shape < 1) return this.logGamma(shape + 1) + Math.log(1 - this.uniform()) / shape;
    const d = shape - 1 / 3;
    const c = 1 / Math.sqrt(9 * d);
    for (;;) {
      const x = this.normal();
      const v = (1 + c * x) ** 3;
      if (v <= 0) continue;
      if (Math.log(1 - this.uniform()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return Math.log(d * v);
    }
  }
}
