import type { CropPlan } from "../native/index.js";
import { roundHalfEven } from "./box.js";

/** Longest side of a resized image that a plan can name. A longer one would take an image of a million times its height. */
const longestSide = 2 ** 32 - 1;

/**
 * Plan of torchvision's `Resize(resize, bicubic)` and `CenterCrop(crop)`, for an image of this size in pixels.
 *
 * The square cannot be cut before the resize: its edges lie between pixels of the original, and the filter also reads beyond them.
 * So the plan resizes the whole image and names the square as the window of it that is computed.
 * @throws {RangeError} when `crop` is larger than `resize`.
 */
export function evaluationPlan(image: { width: number; height: number }, options: { resize: number; crop: number }): CropPlan {
  const { width, height } = image;
  const { resize, crop } = options;
  if (crop > resize) throw new RangeError(`the center (${crop}) is larger than the resized image (${resize})`);
  const short = Math.min(width, height);
  const side = (length: number): number => (length === short ? resize : Math.min(Math.floor((resize * length) / short), longestSide));
  const [fullWidth, fullHeight] = [side(width), side(height)];
  const margin = (length: number): number => roundHalfEven((length - crop) / 2);
  return {
    left: 0, top: 0, width, height, outWidth: crop, outHeight: crop,
    window: { fullWidth, fullHeight, left: margin(fullWidth), top: margin(fullHeight) },
    filter: "bicubic", flip: false, operations: [],
  };
}
