/** Data sets of image files, and what turns them into batches of pixels. */
export { DataError } from "./error.js";
export { findSplits, openImageFolder, type ImageFile, type ImageFolder, type Splits } from "./image-folder.js";
export { epochOrder, stepsPerEpoch } from "./sampler.js";
export type { BadImage } from "./bad-images.js";
export type { ImageEngine } from "./image-file.js";
export { openLoader, planLoader, type Batch, type Loader, type LoaderPlan } from "./loader.js";
export { labeledImages, type LabeledBatch, type LabeledOptions } from "./labeled.js";
