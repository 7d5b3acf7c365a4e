/** Augmentation as plain data: what to do to an image, drawn from a stream; `crates/image` does it. */
export { randomResizedBox, type Box, type Draws } from "./box.js";
export { drawCrops, drawLinearCrop } from "./crops.js";
export { evaluationPlan } from "./evaluation.js";
export { drawMixup } from "./mixup.js";
