"""The layers of the published ESI (Yu, Guo & Sano, TMLR 2024), in the arithmetic of its code.

Where that differs from what one would write today, the docstrings say so; nothing is put right
here. Modules and parameters carry the names of the published state dict, so that it loads as it is.
Written from observed behaviour: names, shapes and outputs on random weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esi_fast.models.convnext1d import ConvNeXtV2Encoder1d


class TimeNorm(nn.Module):
    """What the published code calls a channels-first LayerNorm: it normalises over *time*.

    Every channel of every record gets mean 0 and deviation 1 over its own T steps, so what is left
    of the voltage after the z-score goes here. The deviation is the unbiased one, and eps is added
    to it, not to the variance.

    Args:
        channels: C; ``weight`` and ``bias`` are ``(1, C, 1)``.
    """

    eps = 1e-6

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x_BTC: Tensor) -> Tensor:
        """``(B, T, C)`` -> ``(B, T, C)``; T of at least 2."""
        std_B1C, mean_B1C = torch.std_mean(x_BTC, dim=1, keepdim=True)
        normed_BTC = (x_BTC - mean_B1C) / (std_B1C + self.eps)
        return normed_BTC * self.weight.flatten() + self.bias.flatten()


class OriginalEncoder(ConvNeXtV2Encoder1d):
    """ConvNeXt V2 with the norms of stem and downsampling over time (:class:`TimeNorm`).

    Args:
        depths, channels: blocks and channels of the four stages.
    """

    def __init__(self, depths: tuple[int, ...], channels: tuple[int, ...]) -> None:
        super().__init__(depths, channels)
        for layers in self.downsample_layers:
            for name, layer in layers.named_children():
                if isinstance(layer, nn.LayerNorm):
                    setattr(layers, name, TimeNorm(layer.normalized_shape[0]))


class GammaNorm(nn.Module):
    """A LayerNorm over D (eps 1e-5) that learns ``gamma``; ``beta`` is a buffer, saved as zeros."""

    beta: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` -> ``(..., D)``."""
        return F.layer_norm(x, self.gamma.shape, self.gamma, self.beta, eps=1e-5)


class SwiGLU(nn.Module):
    """``(..., 2 F)`` -> ``(..., F)``: the *second* half gates the first."""

    def forward(self, x: Tensor) -> Tensor:
        """The first half times silu of the second."""
        value, gate = x.chunk(2, dim=-1)
        return value * F.silu(gate)


class Rotary(nn.Module):
    """Rotary positions (Su et al., 2021): channel i turns with channel i + width / 2.

    Args:
        head_dim: the width; ``inv_freq`` is a saved buffer ``(head_dim / 2,)``.
    """

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        self.register_buffer("inv_freq", 10000.0**-exponent)

    def forward(self, x_BHND: Tensor) -> Tensor:
        """``(B, H, N, head_dim)`` turned by position 0 to N - 1."""
        position = torch.arange(x_BHND.shape[2], device=x_BHND.device, dtype=self.inv_freq.dtype)
        angle = torch.outer(position, self.inv_freq)
        cosine, sine = angle.cos(), angle.sin()
        first, second = x_BHND.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class CausalAttention(nn.Module):
    """Self-attention and feed-forward of the same normed input, side by side; their sum.

    Causal, one key-value head for all query heads, and no padding mask. Being causal does not keep
    the caption from leaking: its input has gone through a bidirectional BERT.

    Args:
        dim: D.
        num_heads, head_dim: of the attention.
        ff_dim: width after the gate.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, ff_dim: int) -> None:
        super().__init__()
        self.widths = [num_heads * head_dim, head_dim, head_dim, 2 * ff_dim]
        self.norm = GammaNorm(dim)
        self.rotary_emb = Rotary(head_dim)
        self.fused_attn_ff_proj = nn.Linear(dim, sum(self.widths), bias=False)
        self.attn_out = nn.Linear(num_heads * head_dim, dim, bias=False)
        self.ff_out = nn.Sequential(SwiGLU(), nn.Linear(ff_dim, dim, bias=False))

    def forward(self, x_BND: Tensor) -> Tensor:
        """``(B, N, D)`` -> what is to be added to it."""
        q, k, v, ff = self.fused_attn_ff_proj(self.norm(x_BND)).split(self.widths, dim=-1)
        q_BHND = self.rotary_emb(_heads(q, k.shape[-1]))
        k_B1ND = self.rotary_emb(k.unsqueeze(1))
        attended = F.scaled_dot_product_attention(
            q_BHND, k_B1ND, v.unsqueeze(1), is_causal=True, enable_gqa=True
        )
        return self.attn_out(_join(attended)) + self.ff_out(ff)


class CrossAttention(nn.Module):
    """Attention to the ECG and feed-forward of the same normed input, side by side; their sum.

    The published context is one pooled vector repeated T times. Equal keys weigh the same whatever
    the query, so what is added is the same linear map of that vector at every token. Here it is
    given once: one key, whose weight is 1.

    Args:
        dim: D, of the text and of the ECG vector, which is not normed again.
        num_heads, head_dim: of the attention.
        ff_dim: width after the gate.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, ff_dim: int) -> None:
        super().__init__()
        self.norm = GammaNorm(dim)
        self.to_q = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * head_dim, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, dim, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(dim, 2 * ff_dim, bias=False), SwiGLU(), nn.Linear(ff_dim, dim, bias=False)
        )

    def forward(self, x_BND: Tensor, ecg_BD: Tensor) -> Tensor:
        """``(B, N, D)`` and ``(B, D)`` -> what is to be added to the first."""
        normed_BND = self.norm(x_BND)
        return self.attend(normed_BND, ecg_BD) + self.ff(normed_BND)

    def attend(self, normed_BND: Tensor, ecg_BD: Tensor) -> Tensor:
        """The attention alone, ``(B, N, D)``: equal at every n."""
        k, v = self.to_kv(ecg_BD[:, None, None, :]).chunk(2, dim=-1)
        q_BHND = _heads(self.to_q(normed_BND), k.shape[-1])
        attended = F.scaled_dot_product_attention(q_BHND, k, v, enable_gqa=True)
        return self.to_out(_join(attended))


class DecoderLayer(nn.ModuleList):
    """Text first, then the ECG, each added to what comes in.

    Args:
        dim: D, of the text and of the ECG vector.
        num_heads, head_dim, ff_dim: of both halves.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, ff_dim: int) -> None:
        widths = (dim, num_heads, head_dim, ff_dim)
        halves = (CausalAttention(*widths), CrossAttention(*widths))
        super().__init__(nn.ModuleDict({"fn": half}) for half in halves)

    def forward(self, x_BND: Tensor, ecg_BD: Tensor) -> Tensor:
        """``(B, N, D)`` and the ECG ``(B, D)`` -> ``(B, N, D)``."""
        attention, cross_attention = (half.get_submodule("fn") for half in self)
        x_BND = x_BND + attention(x_BND)
        return x_BND + cross_attention(x_BND, ecg_BD)


def _heads(x_BND: Tensor, head_dim: int) -> Tensor:
    return x_BND.view(*x_BND.shape[:2], -1, head_dim).transpose(1, 2)


def _join(x_BHND: Tensor) -> Tensor:
    return x_BHND.transpose(1, 2).flatten(2)
