"""From the decoder's states to words: logits, or their cross-entropy without holding them all.

A batch of 64 captions of 100 tokens over 28,895 words is 740 MB of float32 logits, and as much
again for their gradient. Here a few hundred tokens at a time become logits, loss and gradient, and
the logits are dropped (after Hsu et al. 2024, "Liger Kernel", section 3.2; it needs no kernel).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Logits at a time: 64 MB in float32.
_CHUNK_LOGITS = 1 << 24


class CaptionHead(nn.Module):
    """A linear layer onto the vocabulary, without bias.

    Args:
        dim: D, width of the states.
        vocab_size: V.
    """

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, dim))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Linear

    def forward(self, states_BND: Tensor, labels_BN: Tensor | None = None) -> Tensor:
        """Logits ``(B, N, V)``; with labels (-1 where there is none) their summed cross-entropy.

        The sum is a float32 scalar over the labelled positions alone; the others cost nothing.
        """
        if labels_BN is None:
            return F.linear(states_BND, self.weight)
        is_word = labels_BN >= 0
        return linear_cross_entropy(states_BND[is_word], self.weight, labels_BN[is_word])


def linear_cross_entropy(states_MD: Tensor, weight_VD: Tensor, labels_M: Tensor) -> Tensor:
    """Summed cross-entropy of ``states @ weight.T`` against labels.

    Equivalent to: ``F.cross_entropy((states @ weight.T).float(), labels, reduction="sum")``, with
    its gradients, in memory for a chunk of rows.

    Args:
        states_MD: any floating dtype.
        weight_VD: of the same dtype.
        labels_M: int64, 0 to V - 1.

    Returns:
        A scalar, float32 (float64 for float64 states).
    """
    chunk = max(16, _CHUNK_LOGITS // len(weight_VD))
    if torch.is_grad_enabled() and (states_MD.requires_grad or weight_VD.requires_grad):
        summed: Tensor = _LinearCrossEntropy.apply(states_MD, weight_VD, labels_M, chunk)  # type: ignore[no-untyped-call]
        return summed
    total = states_MD.new_zeros((), dtype=_loss_dtype(states_MD))
    for first in range(0, len(states_MD), chunk):
        rows = slice(first, first + chunk)
        logits = F.linear(states_MD[rows], weight_VD).to(total.dtype)
        total = total + F.cross_entropy(logits, labels_M[rows], reduction="sum")
    return total


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are made with the loss, chunk by chunk, and only scaled in the backward."""

    @staticmethod
    def forward(
        ctx: Any, states_MD: Tensor, weight_VD: Tensor, labels_M: Tensor, chunk: int
    ) -> Tensor:
        dtype = _loss_dtype(states_MD)
        total = states_MD.new_zeros((), dtype=dtype)
        grad_states = torch.empty_like(states_MD)
        grad_weight = torch.zeros_like(weight_VD, dtype=dtype)
        for first in range(0, len(states_MD), chunk):
            rows = slice(first, first + chunk)
            states, labels = states_MD[rows], labels_M[rows]
            logits = F.linear(states, weight_VD).to(dtype)
            logits.sub_(logits.amax(dim=1, keepdim=True))
            chosen = logits.gather(1, labels[:, None])[:, 0]
            # The derivative of the loss by the logits, in their place, with one exponential each.
            summed = logits.exp_().sum(dim=1)
            total += (summed.log() - chosen).sum()
            logits.mul_(summed.reciprocal()[:, None])
            logits[torch.arange(len(labels), device=labels.device), labels] -= 1
            slope = logits.to(states.dtype)
            grad_states[rows] = slope @ weight_VD
            grad_weight += slope.T @ states
        ctx.save_for_backward(grad_states, grad_weight.to(weight_VD.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_states, grad_weight = ctx.saved_tensors
        scale = grad_total.to(grad_states.dtype)
        return grad_states * scale, grad_weight * scale, None, None


def _loss_dtype(states: Tensor) -> torch.dtype:
    return torch.float64 if states.dtype == torch.float64 else torch.float32
