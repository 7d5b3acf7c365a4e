"""Window attention of one block, written from the paper (Liu et al. 2021, eq. 4 and section 3.2): roll, cut, attend, put back, roll back."""

import torch
import torch.nn.functional as F
from torch import nn


class WindowAttention(nn.Module):
    """On a [B, side, side, C] grid (with projections) or [B, side, side, 3C] (without); the side is a multiple of the window.

    `fused` uses PyTorch's scaled_dot_product_attention, otherwise the scores are a tensor of their own, as in the original code.
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int, side: int, projections: bool, fused: bool):
        super().__init__()
        self.heads, self.window, self.shift, self.fused = heads, window, shift, fused
        self.qkv = nn.Linear(dim, 3 * dim) if projections else None
        self.proj = nn.Linear(dim, dim) if projections else None
        self.table = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)  # [2, T]
        offset = place[:, :, None] - place[:, None, :] + window - 1
        self.register_buffer("index", (offset[0] * (2 * window - 1) + offset[1]).flatten())
        # Numbers of the regions that rolling brought together; tokens of different ones must not see each other.
        part = torch.zeros(side)
        part[side - window : side - shift], part[side - shift :] = 1, 2
        regions = self.cut((part[:, None] * 3 + part[None, :])[None, :, :, None]).squeeze(-1)  # [windows, T]
        mask = torch.where(regions[:, :, None] == regions[:, None, :], 0.0, -100.0)
        self.register_buffer("mask", mask[:, None])  # [windows, 1, T, T]

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """[B, side, side, X] to [B * windows, T, X]."""
        b, side, _, width = x.shape
        n, w = side // self.window, self.window
        return x.view(b, n, w, n, w, width).transpose(2, 3).reshape(b * n * n, w * w, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, side, _, _ = x.shape
        n, w, tokens = side // self.window, self.window, self.window**2
        rows = self.cut(torch.roll(x, (-self.shift, -self.shift), (1, 2)))
        qkv = rows if self.qkv is None else self.qkv(rows)
        q, k, v = qkv.view(-1, tokens, 3, self.heads, qkv.shape[-1] // 3 // self.heads).permute(2, 0, 3, 1, 4)  # [windows, H, T, D]
        bias = self.table[self.index].view(tokens, tokens, self.heads).permute(2, 0, 1) + self.mask  # [windows of an image, H, T, T]
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype).repeat(b, 1, 1, 1))
        else:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            scores = scores.view(b, -1, self.heads, tokens, tokens) + bias
            y = scores.softmax(dim=-1).view(-1, self.heads, tokens, tokens).to(v.dtype) @ v
        y = y.transpose(1, 2).reshape(-1, tokens, qkv.shape[-1] // 3)
        y = y if self.proj is None else self.proj(y)
        y = y.view(b, n, n, w, w, -1).transpose(2, 3).reshape(b, side, side, -1)
        return torch.roll(y, (self.shift, self.shift), (1, 2))
