import type { CropPlan } from "../native/index.js";
import { roundHalfEven } from "./box.js";

/**
 * The evaluation transform: render `plan`, then keep the square of `size` pixels at (`left`, `top`) of the result.
 *
 * The square cannot be cut before the resize: its edges lie between pixels of the original, and the filter also
 * reads beyond them. So the whole image is resized and the square copied out, which reproduces `Resize` followed by
 * `CenterCrop` exactly.
 */
export interface EvaluationPlan {
  plan: CropPlan;
  left: number;
  top: number;
  size: number;
}

/**
 * Longest image, as a multiple of its shorter side, that is resized as a whole. Of a longer one only the center of this
 * shape is, so that a strip of 10 x 100 000 pixels does not become 256 x 2 560 000; its pixels then may differ
 * from the exact transform by the fraction of a pixel the center was moved.
 */
const longest = 8;

/**
 * Plan of torchvision's `Resize(resize, bicubic)` and `CenterCrop(crop)`, for an image of this size in pixels.
 * `crop` must not be larger than `resize`.
 */
export function evaluationPlan(image: { width: number; height: number }, options: { resize: number; crop: number }): EvaluationPlan {
  if (options.crop > options.resize) throw new RangeError(`the center (${options.crop}) is larger than the resized image (${options.resize})`);
  const short = Math.min(image.width, image.height);
  const width = Math.min(image.width, short * longest);
  const height = Math.min(image.height, short * longest);
  const outWidth = width <= height ? options.resize : Math.floor((options.resize * width) / height);
  const outHeight = height <= width ? options.resize : Math.floor((options.resize * height) / width);
  return {
    plan: {
      left: Math.floor((image.width - width) / 2),
      top: Math.floor((image.height - height) / 2),
      width,
      height,
      outWidth,
      outHeight,
      filter: "bicubic",
      flip: false,
      operations: [],
    },
    left: roundHalfEven((outWidth - options.crop) / 2),
    top: roundHalfEven((outHeight - options.crop) / 2),
    size: options.crop,
  };
}

/**
 * Copies the square of an evaluation plan out of its rendered pixels (RGB, 8 bit) to `offset` in `into`.
 */
export function copyCenter(rendered: Uint8Array, center: EvaluationPlan, into: Uint8Array, offset: number): void {
  const row = center.plan.outWidth * 3;
  for (let y = 0; y < center.size; y++) {
    const start = (center.top + y) * row + center.left * 3;
    into.set(rendered.subarray(start, start + center.size * 3), offset + y * center.size * 3);
  }
}
