/**
 * What to do to one image for one crop, as plain numbers. Drawn in `augment/`, executed by
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
  filter: "bicubic" | "bilinear";
  /** Mirrors left and right, after the resize. */
  flip: boolean;
  /** Applied in this order, after the flip. */
  operations: PixelOperation[];
}

/** Pillow's and torchvision's definitions, 8 bit in, 8 bit out. */
export type PixelOperation =
  | { kind: "brightness" | "contrast" | "saturation"; factor: number }
  /** Shift of the hue circle, in turns, -0.5 to 0.5. */
  | { kind: "hue"; shift: number }
  | { kind: "grayscale" }
  /** Pillow's GaussianBlur (three box blurs), radius in pixels. */
  | { kind: "blur"; radius: number }
  /** Inverts values at or above the threshold. */
  | { kind: "solarize"; threshold: number };
