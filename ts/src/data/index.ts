/** Data sets of encoded images, and their way into batches of pixels. */
export { DataError } from "./error.js";
export { subset, type Dataset, type DatasetOptions } from "./dataset.js";
export { findSplits, openDataset, type Splits } from "./open.js";
export { epochOrder, stepsPerEpoch } from "./sampler.js";
export type { BadImage } from "./bad-images.js";
export type { ImageEngine } from "./render.js";
export { openLoader, planLoader, type Batch, type Loader, type LoaderPlan } from "./loader.js";
export { labeledImages, type LabeledBatch, type LabeledOptions } from "./labeled.js";
