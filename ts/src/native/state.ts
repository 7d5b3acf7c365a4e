/** A trainer's state without a second copy of it. */
import type { TensorData } from "./generated/addon.js";
import type { StatePart } from "./generated/types.js";
import type { StoredTensor, Trainer, TrainerState } from "./trainer.js";

/** The state, its values read from the trainer when somebody wants them. Until the next step or load they are those of this moment. */
export async function storedState(trainer: Pick<Trainer, "outline" | "read">): Promise<TrainerState<StoredTensor>> {
  const outline = await trainer.outline();
  const stored = (part: StatePart, tensors: TensorData[]): StoredTensor[] =>
    tensors.map(({ name, shape, dtype }, index) => ({ name, shape, dtype, read: (target) => trainer.read(part, index, target) }));
  return {
    ...outline,
    student: stored("student", outline.student),
    teacher: stored("teacher", outline.teacher),
    loss: stored("loss", outline.loss),
    optimizer: { ...outline.optimizer, slots: stored("slots", outline.optimizer.slots) },
  };
}
