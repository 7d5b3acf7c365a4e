import { stream, type Rng } from "../random/index.js";
import { makePattern, patterns, type Field, type Pattern } from "./patterns.js";

/** Side of a picture in pixels. */
export const pictureSize = 96;

type Color = [number, number, number];

/** A muted color around a brightness. Muted, or telling the pictures apart by their colors would be all there is to learn. */
function tinted(brightness: number, rng: Rng): Color {
  return [brightness + rng.uniform(-0.04, 0.04), brightness + rng.uniform(-0.04, 0.04), brightness + rng.uniform(-0.04, 0.04)];
}

function color(rng: Rng): Color {
  return tinted(rng.uniform(0.35, 0.6), rng);
}

/** A dark and a bright color in either order, so that a pattern in the two can be seen. */
function contrasting(rng: Rng): [Color, Color] {
  const dark = tinted(rng.uniform(0.1, 0.3), rng);
  const bright = tinted(rng.uniform(0.65, 0.9), rng);
  return rng.chance(0.5) ? [dark, bright] : [bright, dark];
}

function mix(a: number, b: number, share: number): number {
  return a + (b - a) * share;
}

/** 0 to 1 over one pixel around the edge of a field; `pixel` is a pixel's width in the field's units. */
function coverage(distance: number, pixel: number): number {
  return Math.min(1, Math.max(0, distance / pixel + 0.5));
}

/** Smooth noise on a grid of random values, -1 to 1; `cells` across the picture. */
function noise(cells: number, rng: Rng): Field {
  const side = cells + 2;
  const values = Float64Array.from({ length: side * side }, () => rng.uniform(-1, 1));
  const ease = (t: number): number => t * t * (3 - 2 * t);
  return (x, y) => {
    const u = (x / pictureSize) * cells;
    const v = (y / pictureSize) * cells;
    const i = Math.floor(u);
    const j = Math.floor(v);
    const at = j * side + i;
    const upper = mix(values[at]!, values[at + 1]!, ease(u - i));
    const lower = mix(values[at + side]!, values[at + side + 1]!, ease(u - i));
    return mix(upper, lower, ease(v - j));
  };
}

/** A thing on the background that says nothing about the class: an ellipse or a bar in one color. */
interface Clutter {
  color: Color;
  field: Field;
  /** Nothing of it is further from (x, y) than `reach`, in x or y. */
  x: number;
  y: number;
  reach: number;
}

function drawClutter(rng: Rng): Clutter {
  const cx = rng.uniform(0, pictureSize);
  const cy = rng.uniform(0, pictureSize);
  const angle = rng.uniform(0, Math.PI);
  const cos = Math.cos(angle);
  const sin = Math.sin(angle);
  const a = rng.uniform(3, 16);
  const b = rng.uniform(2, 10);
  const bar = rng.chance(0.5);
  const field: Field = (x, y) => {
    const u = (x - cx) * cos + (y - cy) * sin;
    const v = (y - cy) * cos - (x - cx) * sin;
    return bar ? Math.min(a - Math.abs(u), b - Math.abs(v)) : (1 - Math.hypot(u / a, v / b)) * Math.min(a, b);
  };
  return { color: color(rng), field, x: cx, y: cy, reach: Math.hypot(a, b) + 1 };
}

/**
 * One picture, 8-bit RGB: an object with the class's pattern on a cluttered background. Everything but the pattern is drawn
 * the same way for all classes and independently of them: colors, place, size, outline, turn, period, background, light, noise.
 * A function of (seed, pattern, index) alone; streams of `part` train and val never meet.
 */
export function drawPicture(seed: number, part: "train" | "val", pattern: Pattern, index: number): Uint8Array {
  const rng = stream(seed, `demo-${part}`, patterns.indexOf(pattern), index);

  const [base, other] = contrasting(rng);
  const ground = color(rng);
  const groundTo = color(rng);
  const groundNoise = noise(rng.integer(2, 6), rng);
  const clutter = Array.from({ length: rng.integer(0, 4) }, () => drawClutter(rng));

  // The object: a circle of half the picture or more, its outline bent by three waves.
  const radius = rng.uniform(36, 52);
  const cx = pictureSize / 2 + rng.uniform(-8, 8);
  const cy = pictureSize / 2 + rng.uniform(-8, 8);
  const bends = Array.from({ length: 3 }, (_, i) => ({ waves: i + 2, height: rng.uniform(0, 0.1), phase: rng.uniform(0, 2 * Math.PI) }));

  const field = makePattern(pattern, rng);
  const period = rng.uniform(12, 17);
  const turn = rng.uniform(-0.35, 0.35);
  const cos = Math.cos(turn) / period;
  const sin = Math.sin(turn) / period;
  const shiftX = rng.uniform(-1, 1);
  const shiftY = rng.uniform(-1, 1);

  const lightAngle = rng.uniform(0, 2 * Math.PI);
  const light = rng.uniform(0, 0.35) / (pictureSize / 2);
  const lightX = Math.cos(lightAngle) * light;
  const lightY = Math.sin(lightAngle) * light;
  const brightness = rng.uniform(0.75, 1.05);
  const grain = rng.uniform(0, 0.05);

  const pixels = new Uint8Array(pictureSize * pictureSize * 3);
  const paint: Color = [0, 0, 0];
  const lay = (over: Color, cover: number): void => {
    if (cover <= 0) return;
    for (let channel = 0; channel < 3; channel++) paint[channel] = mix(paint[channel]!, over[channel]!, cover);
  };
  const surface: Color = [0, 0, 0];
  const furthest = radius * (1 + bends.reduce((sum, bend) => sum + bend.height, 0)) + 1;
  for (let y = 0; y < pictureSize; y++) {
    for (let x = 0; x < pictureSize; x++) {
      const share = 0.5 + 0.5 * groundNoise(x, y);
      for (let channel = 0; channel < 3; channel++) paint[channel] = mix(ground[channel]!, groundTo[channel]!, share);
      for (const thing of clutter) {
        if (Math.abs(x - thing.x) < thing.reach && Math.abs(y - thing.y) < thing.reach) lay(thing.color, coverage(thing.field(x, y), 1));
      }

      const dx = x - cx;
      const dy = y - cy;
      const distance = Math.sqrt(dx * dx + dy * dy);
      if (distance < furthest) {
        const angle = Math.atan2(dy, dx);
        let edge = radius;
        for (const bend of bends) edge += radius * bend.height * Math.sin(bend.waves * angle + bend.phase);
        const ink = coverage(field(dx * cos + dy * sin + shiftX, dy * cos - dx * sin + shiftY), 1 / period);
        for (let channel = 0; channel < 3; channel++) surface[channel] = mix(base[channel]!, other[channel]!, ink);
        lay(surface, coverage(edge - distance, 1));
      }

      const shade = brightness * (1 + (x - pictureSize / 2) * lightX + (y - pictureSize / 2) * lightY);
      const speck = grain * (rng.uint32() / 2147483648 - 1);
      const at = (y * pictureSize + x) * 3;
      for (let channel = 0; channel < 3; channel++) pixels[at + channel] = toByte(paint[channel]! * shade + speck);
    }
  }
  return pixels;
}

function toByte(value: number): number {
  return Math.min(255, Math.max(0, Math.round(value * 255)));
}
