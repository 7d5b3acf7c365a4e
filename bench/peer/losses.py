"""View and region loss as the paper states them, with every logit stored.

Li et al. 2022 (EsViT), https://arxiv.org/abs/2106.09785, eq. 1-3. Rows are crop-major: all images of crop 0 first, then of crop 1; region
rows likewise, all tokens of an image together. Crops 0 and 1 are the global ones, which the teacher sees.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

GLOBAL_CROPS = 2


@dataclass
class Output:
    """What a network says about its crops."""

    view: torch.Tensor  # [crops * B, K], logits
    region: torch.Tensor | None  # [sum of B * tokens, K], logits
    features: torch.Tensor | None  # [sum of B * tokens, C], of the backbone: what regions are matched by
    tokens: list[int]  # an image, of each crop


def cross_entropy(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Of each row: - sum of target * log softmax(logits)."""
    return -(target * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def split_crops(rows: torch.Tensor, tokens: list[int], batch: int) -> list[torch.Tensor]:
    """[sum of B * tokens, X] to [B, tokens, X] of each crop."""
    parts = torch.split(rows, [batch * n for n in tokens])
    return [part.view(batch, n, -1) for part, n in zip(parts, tokens)]


def best_match(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """For each student token [B, N, C] the teacher token [B, M, C] of the largest cosine: [B, N]."""
    cosine = F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).transpose(1, 2)
    return cosine.argmax(dim=-1)


def view_and_region_loss(
    student: Output, teacher: Output, center: torch.Tensor, center_grid: torch.Tensor | None, teacher_temperature: float, student_temperature: float = 0.1
) -> torch.Tensor:
    """The mean over all pairs of a global crop (teacher) and another crop (student): the view term, or half of it and half of the region term."""
    crops = len(student.tokens)
    batch = student.view.shape[0] // crops
    targets = F.softmax((teacher.view - center) / teacher_temperature, dim=-1).detach().chunk(GLOBAL_CROPS)
    views = (student.view / student_temperature).chunk(crops)
    if student.region is not None:
        region_targets = split_crops(F.softmax((teacher.region - center_grid) / teacher_temperature, dim=-1).detach(), teacher.tokens, batch)
        regions = split_crops(student.region / student_temperature, student.tokens, batch)
        features = split_crops(student.features.detach(), student.tokens, batch)
        teacher_features = split_crops(teacher.features.detach(), teacher.tokens, batch)
    total, pairs = 0.0, 0
    for q in range(GLOBAL_CROPS):
        for v in range(crops):
            if v == q:
                continue
            loss = cross_entropy(targets[q], views[v]).mean()
            if student.region is not None:
                match = best_match(features[v], teacher_features[q])
                matched = region_targets[q].gather(1, match.unsqueeze(-1).expand(-1, -1, region_targets[q].shape[-1]))
                loss = 0.5 * loss + 0.5 * cross_entropy(matched, regions[v]).mean()
            total, pairs = total + loss, pairs + 1
    return total / pairs


@torch.no_grad()
def move_center(center: torch.Tensor, logits: torch.Tensor, momentum: float = 0.9) -> None:
    """Toward the mean of the teacher's rows, after they were used."""
    center.mul_(momentum).add_(logits.mean(dim=0, keepdim=True), alpha=1 - momentum)
