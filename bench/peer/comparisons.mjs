/** Comparisons of a run: cases, batches, precisions, and the programs whose runs are interleaved. */

/** Names on the command line, and the cases behind them. */
export const groups = {
  step: ["step"],
  checkpointing: ["step_checkpointing"],
  loss: ["loss"],
  attention: ["window_attention", "window_attention_forward", "window_attention_core", "window_attention_core_forward"],
  inference: ["inference"],
};

/** Batches by default: all of them, and those of a short run. */
const batches = {
  step: { full: [2, 4, 8], quick: [2] },
  checkpointing: { full: [2], quick: [2] },
  loss: { full: [2, 8], quick: [2] },
  attention: { full: [8], quick: [8] },
  inference: { full: [1, 8, 32], quick: [1, 8] },
};

/** The name a ratio has in JSON; `mixed` ones carry an ending. */
export function ratioName(caseName, precision) {
  if (caseName.startsWith("step")) return `${caseName}_${precision}`;
  const name = { loss: "region_loss", inference: "inference_224" }[caseName] ?? caseName;
  return precision === "mixed" ? `${name}_mixed` : name;
}

/** Arguments of `esvit-bench` and `peer.py`. Ours alone recomputes blocks in `step_checkpointing`: it is about memory. */
export function argumentsOf(caseName) {
  return caseName === "step_checkpointing" ? { ours: ["step", "--checkpointing", "on"], theirs: ["step"] } : { ours: [caseName], theirs: [caseName] };
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
