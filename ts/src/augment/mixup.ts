import type { Config } from "../config/index.js";
import type { Mixup } from "../native/index.js";
import type { Rng } from "../random/index.js";

/**
 * Factors of timm's `Mixup` in batch mode, one for each crop of the batch: drawn anew from Beta(alpha, alpha) for each of the
 * first `views` crops, with the given probability; 1, no mixing, for the others.
 */
export function drawMixup(mixup: Config["mixup"], crops: number, rng: Rng): Mixup {
  const lambda: number[] = [];
  for (let crop = 0; crop < crops; crop++) {
    const mixes = crop < mixup.views && rng.chance(mixup.probability);
    lambda.push(mixes ? rng.beta(mixup.alpha, mixup.alpha) : 1);
  }
  return { lambda };
}
