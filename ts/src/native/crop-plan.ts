/**
 * Crop of one image, as plain numbers. Drawn in `augment/`, executed by
 * `crates/image` (`CropPlan` there, field for field).
 */
export interface CropPlan {
  /** Box in the decoded image, in pixels. Cut first, then resized. */
  left: number;
  top: number;
  width: number;
  height: number;
  /** Size of the result. */
  outWidth: number;
  outHeight: number;
  /** Part of the resized box that is the result; without it, the box is resized to the result's size. */
  window?: CropWindow;
  filter: "bicubic" | "bilinear";
  /** Mirrors left and right, after the resize. */
  flip: boolean;
  /** Applied in this order, after the flip. */
  operations: PixelOperation[];
}

/** Part of a resized box, as large as the plan's result. The rest of the resized box is never made. */
export interface CropWindow {
  /** Size the box is resized to. */
  fullWidth: number;
  fullHeight: number;
  /** Place of the result in the resized box. */
  left: number;
  top: number;
}

/** Change of a crop's pixels. Pillow's and torchvision's definitions, 8 bit in, 8 bit out. */
export type PixelOperation =
  | { kind: "brightness" | "contrast" | "saturation"; factor: number }
  /** Shift of the hue circle, in turns, -0.5 to 0.5. */
  | { kind: "hue"; shift: number }
  | { kind: "grayscale" }
  /** Pillow's GaussianBlur (three box blurs), radius in pixels. */
  | { kind: "blur"; radius: number }
  /** Inverts values at or above the threshold. */
  | { kind: "solarize"; threshold: number };
