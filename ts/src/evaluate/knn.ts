/**
 * Weighted k-nearest-neighbor classification of frozen features, as the original's `eval_knn.py` does it: the images
 * of `train` are the bank, those of `val` the query set, votes are exp(cosine / temperature).
 */
import { DataError, type BadImage } from "../data/index.js";
import { toEncoderSpec, type Config } from "../config/index.js";
import { chooseDevice, type Accuracy, type Native, type TensorData } from "../native/index.js";
import { extractFeatures, grayEngine, type Features, type FeatureSource } from "./features.js";
import type { LabeledSplit } from "./split.js";

/** Part of the configuration that an evaluation needs. */
export type KnnConfig = Pick<Config, "backbone" | "evaluate" | "data" | "device" | "precision" | "threads">;

/** Accuracy of the neighbors' votes. */
export interface KnnReport {
  /** One for each k, in per cent. A k above the size of the bank is cut to it. */
  results: Accuracy[];
  /** Images in the bank, and queries. */
  bank: number;
  queries: number;
  classes: number;
  /** Width of the features. */
  width: number;
  split: LabeledSplit["kind"];
  /** Whether color was taken from the queries. */
  gray: boolean;
  bad: BadImage[];
}

/** Source of features: weights, a network drawn at random, or the pixels themselves. */
export type FeatureKind = { weights: TensorData[] } | { random: { seed: number } } | "pixels";

/** Side of the pictures that stand for their own features. */
const pixelSide = 16;

/**
 * Evaluates features on a labeled split.
 * @param gray takes the color from the queries: what remains was learned from shape and texture.
 * @throws {DataError} too many unusable images, or none left on one side. Errors of the engine (weights that do not fit
 * the backbone) pass through.
 */
export async function knn(
  options: { split: LabeledSplit; config: KnnConfig; features: FeatureKind; gray?: boolean; signal?: AbortSignal }, engine: Native,
): Promise<KnnReport> {
  const { split, features, gray = false, signal } = options;
  const pixels = features === "pixels";
  const config = pixels ? atPixelSize(options.config) : options.config;
  const { ks, temperature } = config.evaluate;

  const source = pixels ? undefined : await openEncoder(features, config, engine);
  try {
    const from: FeatureSource = source ?? rawPixels;
    const bank = await extractFeatures(split.bank, from, config, engine, signal);
    const queries = await extractFeatures(split.queries, from, config, gray ? grayEngine(engine) : engine, signal);
    if (bank.rows === 0) throw new DataError(`${split.bank.root}: none of the images can be read`);
    if (queries.rows === 0) throw new DataError(`${split.queries.root}: none of the images can be read`);
    if (pixels) removeMean(bank, queries);
    const classes = split.bank.classes?.length ?? 0;
    const wanted = [...new Set(ks.map((k) => Math.min(k, bank.rows)))];
    const results = await engine.knn(bank.values, bank.labels, queries.values, queries.labels, bank.width, classes, wanted, temperature);
    return {
      results, bank: bank.rows, queries: queries.rows, classes, width: bank.width, split: split.kind, gray, bad: [...bank.bad, ...queries.bad],
    };
  } finally {
    source?.dispose();
  }
}

async function openEncoder(kind: Exclude<FeatureKind, "pixels">, config: KnnConfig, engine: Native): Promise<FeatureSource & { dispose(): void }> {
  const encoder = engine.createEncoder(toEncoderSpec(config), chooseDevice(config.device, engine).device);
  try {
    if ("weights" in kind) await encoder.load(backboneOf(kind.weights));
    else await encoder.initialize(kind.random.seed);
    return encoder;
  } catch (error) {
    encoder.dispose();
    throw error;
  }
}

/** The weights without the projection heads, which evaluation does not use. */
export function backboneOf<T extends { name: string }>(weights: readonly T[]): T[] {
  return weights.filter(({ name }) => !/^head(_dense)?\./.test(name));
}

/** The baseline under every network: pictures of 16 x 16 pixels compared as they are, without the bank's mean picture. */
const rawPixels: FeatureSource = {
  width: pixelSide * pixelSide * 3,
  encode: (pixels) => Promise.resolve(Float32Array.from(pixels)),
};

function atPixelSize(config: KnnConfig): KnnConfig {
  return { ...config, evaluate: { ...config.evaluate, resize: pixelSide, crop: pixelSide } };
}

/** Subtracts the bank's mean: without that all pictures look alike to the cosine, for they share their brightness. */
function removeMean(bank: Features, queries: Features): void {
  const { width } = bank;
  const mean = new Float64Array(width);
  for (let i = 0; i < bank.values.length; i++) mean[i % width]! += bank.values[i]! / bank.rows;
  for (const { values } of [bank, queries]) {
    for (let i = 0; i < values.length; i++) values[i]! -= mean[i % width]!;
  }
}
