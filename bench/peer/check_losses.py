"""Compares the peer's losses with recorded ones of the original: `check_losses.py FIXTURE.json`. Prints one JSON object."""

import json
import sys
from pathlib import Path

import torch

from losses import GLOBAL_CROPS, Output, move_center, view_and_region_loss

MASK = (1 << 64) - 1


def fill(name: str, rows: int, width: int, scale: float) -> torch.Tensor:
    """Values that follow from a name: the recipe of the fixtures' README, section 1."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    values = []
    for i in range(rows * width):
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        values.append(2 * ((z >> 40) * 2.0**-24) - 1)
    return torch.tensor(values, dtype=torch.float32).view(rows, width) * scale


def temperature(run: dict, epoch: int) -> float:
    warmup, value, epochs = run["warmup_teacher_temp"], run["teacher_temp"], run["warmup_teacher_temp_epochs"]
    return warmup + (value - warmup) * epoch / (epochs - 1) if epoch < epochs else value


def main() -> None:
    run = json.loads(Path(sys.argv[1]).read_text())
    batch, width, crops = run["batch"], run["out_dim"], run["ncrops"]
    tokens = [run["s_npatch"][0]] * GLOBAL_CROPS + [run["s_npatch"][1]] * (crops - GLOBAL_CROPS)
    center, center_grid = torch.zeros(1, width), torch.zeros(1, width)
    losses = []
    for call, epoch in enumerate(run["epochs"]):

        def output(network: str, sizes: list[int]) -> Output:
            rows = batch * sum(sizes)
            name = f"loss.{call}.{network}"
            features = fill(f"{name}.fea", rows, run["feature_dim"], 3**0.5)
            return Output(fill(f"{name}.view", batch * len(sizes), width, 0.5), fill(f"{name}.region", rows, width, 0.5), features, sizes)

        student, teacher = output("student", tokens), output("teacher", tokens[:GLOBAL_CROPS])
        losses.append(view_and_region_loss(student, teacher, center, center_grid, temperature(run, epoch)).item())
        move_center(center, teacher.view)
        move_center(center_grid, teacher.region)
    print(json.dumps({"losses": losses, "expected": run["loss_values"]}))


main()
