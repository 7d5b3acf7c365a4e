/** Evaluation of frozen features. */
export { extractFeatures, grayEngine, type Features, type FeatureSource, type PassConfig } from "./features.js";
export { backboneOf, knn, type FeatureKind, type KnnConfig, type KnnReport } from "./knn.js";
export { CONFIG_KEY, networkOf, recordedConfig, type Network } from "./network.js";
export { openLabeledSplit, type LabeledSplit } from "./split.js";
