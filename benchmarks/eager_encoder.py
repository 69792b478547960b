"""What a user writes today: the ConvNeXt V2 block and GRN in plain PyTorch modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def grn(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Global response normalisation over time of (B, T, C), as timm writes it."""
    norm = x.norm(p=2, dim=1, keepdim=True)
    unit = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
    return x + torch.addcmul(beta, gamma, x * unit)


class EagerBlock(nn.Module):
    """(B, T, C) -> (B, T, C): the convolution on the transposed tensor, everything else as is."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.gamma = nn.Parameter(torch.zeros(4 * dim))
        self.beta = nn.Parameter(torch.zeros(4 * dim))
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        y = self.norm(self.dwconv(x.transpose(1, 2)).transpose(1, 2))
        y = grn(F.gelu(self.pwconv1(y)), self.gamma, self.beta)
        return x + self.pwconv2(y)
