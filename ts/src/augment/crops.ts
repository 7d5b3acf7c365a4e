/** The original's `dino_aug`: two global crops, drawn differently, and local ones. */
import type { Config } from "../config/index.js";
import type { CropPlan, PixelOperation } from "../native/index.js";
import type { Rng } from "../random/index.js";
import { randomResizedBox } from "./box.js";

type Augmentation = Config["augmentation"];
type Crops = Config["crops"];

/** Settings that differ between the first global crop, the second and the local ones. */
interface CropKind {
  size: number;
  scale: readonly [number, number];
  blur: number;
  solarize: number;
}

/** torchvision's `ColorJitter`: each adjustment once, in random order, factors uniform around 1 and not below 0. */
function jitter(strengths: Augmentation["jitter"], rng: Rng): PixelOperation[] {
  const factor = (strength: number): number => rng.uniform(Math.max(0, 1 - strength), 1 + strength);
  const operations: PixelOperation[] = [];
  for (const which of rng.permutation(4)) {
    if (which === 0 && strengths.brightness > 0) operations.push({ kind: "brightness", factor: factor(strengths.brightness) });
    if (which === 1 && strengths.contrast > 0) operations.push({ kind: "contrast", factor: factor(strengths.contrast) });
    if (which === 2 && strengths.saturation > 0) operations.push({ kind: "saturation", factor: factor(strengths.saturation) });
    if (which === 3 && strengths.hue > 0) operations.push({ kind: "hue", shift: rng.uniform(-strengths.hue, strengths.hue) });
  }
  return operations;
}

function drawCrop(
  image: { width: number; height: number }, kind: CropKind, augmentation: Augmentation, ratio: readonly [number, number], rng: Rng,
): CropPlan {
  const box = randomResizedBox(image.width, image.height, kind.scale, ratio, rng);
  const flip = rng.chance(augmentation.flip);
  const operations: PixelOperation[] = [];
  if (rng.chance(augmentation.jitter.probability)) operations.push(...jitter(augmentation.jitter, rng));
  if (rng.chance(augmentation.grayscale)) operations.push({ kind: "grayscale" });
  if (rng.chance(kind.blur)) operations.push({ kind: "blur", radius: rng.uniform(...augmentation.blur.radius) });
  if (rng.chance(kind.solarize)) operations.push({ kind: "solarize", threshold: augmentation.solarize.threshold });
  return { ...box, outWidth: kind.size, outHeight: kind.size, filter: augmentation.interpolation, flip, operations };
}

/**
 * Plans of all crops of one image: the two global ones, then the local ones. All draws come from `rng`, so the plans are a
 * function of the stream and the image's size in pixels.
 */
export function drawCrops(
  image: { width: number; height: number }, config: { crops: Crops; augmentation: Augmentation }, rng: Rng,
): CropPlan[] {
  const { crops, augmentation } = config;
  const global = { size: crops.globalSize, scale: crops.globalScale };
  const local = { size: crops.localSize, scale: crops.localScale, blur: augmentation.blur.local, solarize: 0 };
  const kinds: CropKind[] = [
    { ...global, blur: augmentation.blur.firstGlobal, solarize: 0 },
    { ...global, blur: augmentation.blur.secondGlobal, solarize: augmentation.solarize.secondGlobal },
    ...Array.from({ length: crops.localCount }, () => local),
  ];
  return kinds.map((kind) => drawCrop(image, kind, augmentation, crops.aspectRatio, rng));
}

/** The training transform of linear evaluation: torchvision's `RandomResizedCrop` with its defaults (bilinear) and a flip. */
export function drawLinearCrop(image: { width: number; height: number }, size: number, rng: Rng): CropPlan {
  const box = randomResizedBox(image.width, image.height, [0.08, 1], [3 / 4, 4 / 3], rng);
  return { ...box, outWidth: size, outHeight: size, filter: "bilinear", flip: rng.chance(0.5), operations: [] };
}
