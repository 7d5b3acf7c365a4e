"""Swin with two projection heads, and how several crop sizes go through it. The backbone is timm's."""

import importlib.util
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from losses import Output

#: Channels, blocks and heads of the stages.
SWINS = {
    "swin_tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


class Missing(Exception):
    """A package that a case needs is not installed."""


def require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Missing(f"{package} is not installed")


def swin(arch: str, window: int, drop_path: float, fused: bool, image_size: int = 224) -> nn.Module:
    """timm's, with the paper's layer norm epsilon; crops of any size pass through the windows of the nominal one. `fused` is timm's experimental use
    of PyTorch's scaled_dot_product_attention."""
    require("timm")
    from timm.layers import set_fused_attn
    from timm.models.swin_transformer import SwinTransformer

    set_fused_attn(True, experimental=fused)
    dim, depths, heads = SWINS[arch]
    return SwinTransformer(
        img_size=image_size, window_size=window, embed_dim=dim, depths=depths, num_heads=heads, drop_path_rate=drop_path, num_classes=0,
        strict_img_size=False, norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


class Head(nn.Module):
    """Three linear layers with GELU between them, rows of unit length, prototypes of unit length (Caron et al. 2021, section 3.1)."""

    def __init__(self, width: int, prototypes: int, hidden: int = 2048, bottleneck: int = 256):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.direction = nn.Parameter(torch.empty(prototypes, bottleneck).uniform_(-(bottleneck**-0.5), bottleneck**-0.5))
        self.magnitude = nn.Parameter(torch.ones(prototypes, 1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.normalize(self.mlp(x), dim=-1), torch._weight_norm(self.direction, self.magnitude, 0))


class Network(nn.Module):
    """Backbone, view head and, with the region loss, region head."""

    def __init__(self, arch: str, window: int, prototypes: int, region: bool, drop_path: float, fused: bool):
        super().__init__()
        self.backbone = swin(arch, window, drop_path, fused)
        self.head = Head(self.backbone.num_features, prototypes)
        self.head_dense = Head(self.backbone.num_features, prototypes) if region else None

    def forward(self, groups: list[torch.Tensor]) -> Output:
        """Groups of equally large crops, each [crops * B, 3, side, side] with its number of crops known from the first group's two."""
        batch = groups[0].shape[0] // 2
        features, tokens = [], []
        for group in groups:
            grid = self.backbone.forward_features(group)  # [images, height, width, C]
            regions = grid.flatten(1, 2)
            features.append(regions)
            tokens += [regions.shape[1]] * (group.shape[0] // batch)
        view = self.head(torch.cat([f.mean(dim=1) for f in features]))
        rows = torch.cat([f.flatten(0, 1) for f in features])
        region = None if self.head_dense is None else self.head_dense(rows)
        return Output(view, region, None if region is None else rows, tokens)
