/**
 * The patterns that tell the demo's classes apart. Each is a field over the plane with one period a unit: positive inside its ink,
 * negative outside, about the distance to the edge near it, so that a smooth step over a pixel's width draws it without jaggies.
 */
import type { Rng } from "../random/index.js";

/** Signed distance to the ink's edge, in periods. */
export type Field = (x: number, y: number) => number;

/** Distance to the nearest whole number, 0 to 0.5. */
function toWhole(value: number): number {
  return Math.abs(value - Math.round(value));
}

/** From the middle of the nearest cell: -0.5 to 0.5. */
function inCell(value: number): number {
  return value - Math.round(value);
}

/** Straight bands. `duty` is the inked share of a period, here and below about 0.4 to 0.6. */
const stripes = (duty: number): Field => (x) => duty / 2 - toWhole(x);

/** Bands that swing from side to side. */
const waves = (duty: number): Field => (x, y) => (duty / 2 - toWhole(x + 0.35 * Math.sin(y * 2.6))) * 0.8;

/** Bands in circles around the origin. */
const rings = (duty: number): Field => (x, y) => duty / 2 - toWhole(Math.sqrt(x * x + y * y));

/** Discs on a square grid. */
const dots = (duty: number): Field => (x, y) => {
  const u = inCell(x);
  const v = inCell(y);
  return Math.sqrt(duty / Math.PI) - Math.sqrt(u * u + v * v);
};

/** Plus signs on a square grid, slimmer than the rest: fat ones would look like a chess board. */
const crosses = (duty: number): Field => {
  const arm = 0.42;
  // Two bars of length 2·arm and width 2·w cover 8·arm·w - 4·w² of a cell: 0.7 times the duty.
  const w = arm - Math.sqrt(Math.max(0, arm * arm - (0.7 * duty) / 4));
  return (x, y) => {
    const u = Math.abs(inCell(x));
    const v = Math.abs(inCell(y));
    return Math.max(Math.min(arm - u, w - v), Math.min(w - u, arm - v));
  };
};

/** Squares of a chess board, two to a period. */
const checker = (): Field => (x, y) => {
  const distance = Math.min(toWhole(x * 2), toWhole(y * 2)) / 2;
  return (Math.floor(x * 2) + Math.floor(y * 2)) % 2 === 0 ? -distance : distance;
};

/** Triangles on a square grid, all with one side down. */
const triangles = (duty: number): Field => {
  const inradius = Math.sqrt(duty / (3 * Math.sqrt(3)));
  return (x, y) => {
    const u = inCell(x);
    const v = inCell(y) + inradius * 0.4;
    return inradius - Math.max(-v, v / 2 + Math.abs(u) * (Math.sqrt(3) / 2));
  };
};

/** Threads of a net with bent cells: neither bands nor a grid. */
const net = (duty: number): Field => (x, y) => {
  const a = toWhole(x + 0.5 * y);
  const b = toWhole(x - 0.5 * y);
  const c = toWhole(y);
  const half = (1 - Math.sqrt(1 - duty * 0.75)) / 2;
  return Math.max(half - a * 0.9, half - b * 0.9, half * 0.8 - c);
};

const makers = { checker, crosses, dots, net, rings, stripes, triangles, waves } satisfies Record<string, (duty: number) => Field>;

export type Pattern = keyof typeof makers;

/** Names of the classes, sorted by bytes. */
export const patterns = Object.keys(makers).sort() as Pattern[];

/** A pattern with a share of ink drawn from the same range for all of them. */
export function makePattern(pattern: Pattern, rng: Rng): Field {
  return makers[pattern](rng.uniform(0.38, 0.55));
}
