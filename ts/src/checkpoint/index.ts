/** Checkpoints: PyTorch's files, safetensors, and what a trainer keeps in them. */
export { CheckpointError, type CheckpointErrorKind } from "./errors.js";
export { asF32, elementCount, f32Tensor, itemSize, Tensor, toFloat32, type Dtype } from "./tensor.js";
export { fromPlain, Namespace, OrderedDict, toPlain, Tuple, type Key, type Plain, type Value } from "./value.js";
export { readTorch } from "./torch.js";
export {
  CHECKPOINT_NAME, readCheckpoint, saveCheckpoint, section, weightsFor, writeCheckpoint,
  type Checkpoint, type CheckpointContents, type OptimizerSection, type StateDict,
} from "./checkpoint.js";
export { fromTrainerState, toTrainerState, type RunFacts, type StateTensor } from "./trainer-state.js";
export { removeStaleTemporaries, writeAtomically } from "./store.js";
export { digestCheckpoint, type CheckpointDigest } from "./digest.js";
export { readSafetensors, writeSafetensors, type Safetensors } from "./safetensors.js";
