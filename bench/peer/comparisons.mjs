/** What is compared: cases, batches, precisions and the programs that take turns. */

/** Names on the command line, and the cases of `esvit-bench` and `peer.py` behind them. */
export const groups = {
  step: ["step"],
  loss: ["loss"],
  attention: ["window_attention", "window_attention_forward", "window_attention_core", "window_attention_core_forward"],
  inference: ["inference"],
};

/** Batches by default: all of them, and those of a short run. */
const batches = {
  step: { full: [2, 4, 8], quick: [2] },
  loss: { full: [2, 8], quick: [2] },
  attention: { full: [8], quick: [8] },
  inference: { full: [1, 8, 32], quick: [1, 8] },
};

/** The name a ratio has in JSON; `mixed` ones carry an ending. */
export function ratioName(caseName, precision) {
  if (caseName === "step") return `step_${precision}`;
  const name = { loss: "region_loss", inference: "inference_224" }[caseName] ?? caseName;
  return precision === "mixed" ? `${name}_mixed` : name;
}

/** Programs other than ours for a case. */
function modesOf(caseName, precision, { device, modes }) {
  const fitting = modes.filter((mode) => mode !== "fused" || caseName !== "loss");
  return caseName === "inference" && precision === "f32" && device === "cpu" ? [...fitting, "onnxruntime"] : fitting;
}

/**
 * Every comparison of a run.
 * @param {{cases: string[], precisions: string[], batches: number[], quick: boolean, device: string, modes: string[]}} options
 */
export function comparisons(options) {
  return options.precisions.flatMap((precision) =>
    options.cases.flatMap((group) => {
      const cases = options.quick ? groups[group].slice(0, 1) : groups[group];
      const sizes = options.batches.length > 0 ? options.batches : batches[group][options.quick ? "quick" : "full"];
      return cases.flatMap((name) =>
        sizes.map((batch) => ({ name: ratioName(name, precision), case: name, precision, batch, modes: modesOf(name, precision, options) })),
      );
    }),
  );
}
