/** The configuration of a run: schema and defaults, files, command lines, and the engine's specification made from it. */
export { Config, configSchema, type ConfigInput } from "./schema.js";
export { presets, type Arch, type Backbone } from "./backbone.js";
export { ConfigError } from "./error.js";
export { parseArguments, type Arguments, type Assignment } from "./arguments.js";
export { completeConfig, parseConfigText, resolveConfig, type Resolved } from "./resolve.js";
export { ownFlags, referenceFlags, type Flag } from "./reference-flags.js";
export { engineThreads, imagesPerStep, toBackboneSpec, toEncoderSpec, toTrainerSpec } from "./spec.js";
