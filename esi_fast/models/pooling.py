"""The tokens of a record as one vector: by attention, in the place of their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEAD_DIM = 64


class AttentionPool1d(nn.Module):
    """One learned query looks at all tokens (the attentional pooler of CoCa, Yu et al. 2022).

    It starts as the mean: the query is zero, so that all tokens weigh the same, and values pass
    unchanged.

    Args:
        channels: C, of the tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_heads = max(1, channels // _HEAD_DIM)
        if channels % self.num_heads:
            self.num_heads = 1
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.query = nn.Parameter(torch.zeros(1, channels))
        self.to_key = nn.Linear(channels, channels, bias=False)
        self.to_value = nn.Linear(channels, channels, bias=False)
        nn.init.eye_(self.to_value.weight)

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        """``(B, T, C)`` -> ``(B, C)``."""
        batch, _, channels = tokens_BTC.shape
        query_BHND = self._heads(self.query.expand(batch, 1, channels))
        key_BHTD = self._heads(self.to_key(self.norm(tokens_BTC)))
        value_BHTD = self._heads(self.to_value(tokens_BTC))
        pooled = F.scaled_dot_product_attention(query_BHND, key_BHTD, value_BHTD)
        return pooled.transpose(1, 2).reshape(batch, channels)

    def _heads(self, x_BTC: Tensor) -> Tensor:
        batch, length, channels = x_BTC.shape
        return x_BTC.view(batch, length, self.num_heads, channels // self.num_heads).transpose(1, 2)
