/** The configuration of a run: schema and defaults, files, command lines, and the engine's specification made from it. */
export { Config, configSchema, type ConfigInput } from "./schema.js";
export { presets, toBackboneSpec, type Arch, type Backbone } from "./backbones/index.js";
export { ConfigError } from "./error.js";
export { parseArguments, type Arguments, type Assignment } from "./arguments.js";
export { completeConfig, parseConfigText, resolveConfig, withPresentNames, type Resolved } from "./resolve.js";
export { originalFlags, ownFlags, type Flag } from "./original-flags.js";
export { engineThreads, imagesPerStep, toEncoderSpec, toTrainerSpec } from "./spec.js";
