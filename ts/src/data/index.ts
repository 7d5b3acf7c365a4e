/** Data sets of encoded images, and their way into batches of pixels. */
export { DataError } from "./error.js";
export { subset, type Dataset, type DatasetOptions } from "./dataset.js";
export { findSplits, openDataset, type Splits } from "./open.js";
export { epochOrder, stepsPerEpoch } from "./sampler.js";
export type { BadImage } from "./bad-images.js";
export type { BatchEngine, ImageEngine } from "./render.js";
export { openLoader, planLoader, type Loader, type LoaderPlan, type TrainingBatch } from "./loader.js";
export { labeledImages, type LabeledBatch, type LabeledOptions } from "./labeled.js";
