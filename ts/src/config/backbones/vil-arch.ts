/** Stages of a Vision Longformer as the original writes them: `l1,h3,d96,n1,s1,g1,p4,f7,a0_l2,…`, in any order and depth. */
import type { VilStage } from "../../native/index.js";

/** Values that the original takes for letters that are left out. */
const defaults: Record<string, number> = { h: 3, d: 192, n: 1, s: 1, g: 1, p: 2, f: 7, a: 1, r: 0 };

/** @throws {Error} that says what was expected. */
export function parseVilArch(text: string): VilStage[] {
  return text.split("_").map((stage, index) => {
    const letters: Record<string, number> = { l: index + 1, ...defaults };
    for (const attribute of stage.split(",")) {
      const [, letter, digits] = /^([a-z])(\d{1,6})$/.exec(attribute) ?? [];
      if (letter === undefined || letters[letter] === undefined) {
        throw new Error(`stages such as l1,h3,d96,n1,s1,g1,p4,f7,a0, joined by _; "${attribute}" is no attribute`);
      }
      letters[letter] = Number(digits);
    }
    const value = (letter: string): number => letters[letter] ?? 0;
    if (value("l") !== index + 1) throw new Error(`stages in order; stage ${index + 1} is called l${value("l")}`);
    for (const letter of "hdnpf") {
      if (value(letter) === 0) throw new Error(`stages whose h, d, n, p and f are above 0; ${letter} of stage ${index + 1} is 0`);
    }
    if (value("d") % value("h") !== 0) {
      throw new Error(`stages whose channels their heads divide; stage ${index + 1} has ${value("d")} channels and ${value("h")} heads`);
    }
    return {
      heads: value("h"), dim: value("d"), depth: value("n"), sparse: value("s") !== 0, globals: value("g"), patchSize: value("p"),
      window: value("f"), absolutePosition: value("a") !== 0, pooled: value("r") !== 0,
    };
  });
}
