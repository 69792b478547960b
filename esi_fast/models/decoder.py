"""The caption decoder: it reads the words before, and the ECG; never the word it predicts.

A causal transformer over token embeddings that cross-attends to the sequence of ECG tokens: after
CoCa's multimodal decoder (Yu et al., 2022), with rotary positions (Su et al., 2021), SwiGLU
(Shazeer, 2020) and one key-value head for all query heads (Shazeer, 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from esi_fast.models.caption_head import CaptionHead


class CaptionDecoder(nn.Module):
    """Logits of the next token at every position.

    Args:
        vocab_size: V.
        embedding_dim: width of the token embeddings that come in.
        ecg_dim: width of the ECG tokens.
        dim: width inside.
        num_layers, num_heads: of the transformer; ``dim`` must divide by ``num_heads``.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        embedding_dim: int,
        ecg_dim: int,
        dim: int,
        num_layers: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.embed = nn.Linear(embedding_dim, dim)
        self.embed_ecg = nn.Sequential(nn.LayerNorm(ecg_dim), nn.Linear(ecg_dim, dim))
        self.layers = nn.ModuleList(_Layer(dim, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.to_logits = CaptionHead(dim, vocab_size)
        self.recompute = False  # activations in the backward pass, instead of keeping them

    def forward(
        self, embeddings_BND: Tensor, ecg_BTC: Tensor, labels_BN: Tensor | None = None
    ) -> Tensor:
        """Token embeddings ``(B, N, D)`` and ECG tokens ``(B, T, C)`` -> logits ``(B, N, V)``.

        Position n sees tokens 0..n and every ECG token. Right padding needs no mask: nothing real
        comes after it. With labels, -1 where there is none, the summed cross-entropy instead, and
        no logits are kept.
        """
        return self.to_logits(self.states(embeddings_BND, ecg_BTC), labels_BN)

    def states(self, embeddings_BND: Tensor, ecg_BTC: Tensor) -> Tensor:
        """What ``to_logits`` takes, ``(B, N, D)``: to write the next word, the last is enough."""
        x_BND = self.embed(embeddings_BND)
        ecg_BTD = self.embed_ecg(ecg_BTC)
        rotation = _rotation(x_BND.shape[1], self.head_dim, x_BND)
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                x_BND = checkpoint(layer, x_BND, ecg_BTD, rotation, use_reentrant=False)
            else:
                x_BND = layer(x_BND, ecg_BTD, rotation)
        states: Tensor = self.norm(x_BND)
        return states


class _Layer(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % (2 * num_heads):
            raise ValueError(f"dim={dim} must divide by twice num_heads={num_heads}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, dim + 2 * self.head_dim, bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_q = nn.Linear(dim, dim, bias=False)
        self.cross_kv = nn.Linear(dim, 2 * self.head_dim, bias=False)
        self.cross_out = nn.Linear(dim, dim, bias=False)
        self.ff_norm = nn.LayerNorm(dim)
        self.ff_in = nn.Linear(dim, 2 * 2 * dim, bias=False)
        self.ff_out = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x_BND: Tensor, ecg_BTD: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        width = self.num_heads * self.head_dim
        q, k, v = self.to_qkv(self.norm(x_BND)).split([width, self.head_dim, self.head_dim], -1)
        q_BHND = _rotate(self._heads(q), rotation)
        k_B1ND = _rotate(k.unsqueeze(1), rotation)
        attended = F.scaled_dot_product_attention(
            q_BHND, k_B1ND, v.unsqueeze(1), is_causal=True, enable_gqa=True
        )
        x_BND = x_BND + self.attn_out(_join(attended))
        q_BHND = self._heads(self.cross_q(self.cross_norm(x_BND)))
        k, v = self.cross_kv(ecg_BTD).unsqueeze(1).chunk(2, -1)
        attended = F.scaled_dot_product_attention(q_BHND, k, v, enable_gqa=True)
        x_BND = x_BND + self.cross_out(_join(attended))
        value, gate = self.ff_in(self.ff_norm(x_BND)).chunk(2, -1)
        return x_BND + self.ff_out(F.silu(gate) * value)

    def _heads(self, x_BND: Tensor) -> Tensor:
        batch, length, _ = x_BND.shape
        return x_BND.view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)


def _join(x_BHND: Tensor) -> Tensor:
    return x_BHND.transpose(1, 2).flatten(2)


def _rotation(length: int, head_dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each ``(N, head_dim / 2)``, of the angles position x frequency."""
    exponent = torch.arange(0, head_dim, 2, device=like.device, dtype=torch.float32) / head_dim
    position = torch.arange(length, device=like.device, dtype=torch.float32)
    angle = torch.outer(position, 10000.0**-exponent)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def _rotate(x_BHND: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    first, second = x_BHND.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
