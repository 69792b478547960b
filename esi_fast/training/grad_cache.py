"""A contrastive batch larger than memory: every record of it is a negative of every other.

Plain accumulation compares each record with its own micro-batch only, which is another loss. Here
all micro-batches are embedded first without a graph; the loss of the whole batch gives the gradient
of every embedding; then each micro-batch runs again with a graph, and its embeddings meet their
gradients (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", section 3). It costs one more forward pass, and gives the gradients of one big batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Embedded(Protocol):
    """What a model's forward pass gives of some records."""

    @property
    def ecg_BD(self) -> Tensor:
        """Unit-length embeddings of the ECGs."""

    @property
    def text_BD(self) -> Tensor:
        """Unit-length embeddings of the texts."""

    @property
    def logit_scale(self) -> Tensor:
        """``(1,)``, the factor itself."""

    @property
    def logit_bias(self) -> Tensor:
        """``(1,)``, of the sigmoid loss."""


def cached_contrast(
    embed: Callable[[int], Embedded],
    num_micro_batches: int,
    contrast: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Callable[[int, Embedded], Tensor]]:
    """The loss of the whole batch, and what each micro-batch has to be differentiated by.

    Args:
        embed: runs one micro-batch, by number, without captions. It must draw the same dropout as
            the run with a graph does.
        num_micro_batches: how many make the batch; all of one size.
        contrast: the loss of embeddings, scale and bias.

    Returns:
        The loss, detached; and a function that gives, for a micro-batch's number and its run with
        a graph, a scalar whose gradient is this micro-batch's part of the loss's gradient.
    """
    with torch.no_grad():
        parts = [embed(number) for number in range(num_micro_batches)]
        leaves = (
            torch.cat([part.ecg_BD for part in parts]),
            torch.cat([part.text_BD for part in parts]),
            parts[0].logit_scale.clone(),
            parts[0].logit_bias.clone(),
        )
    for leaf in leaves:
        leaf.requires_grad_()
    with torch.enable_grad():
        loss = contrast(*leaves)
        ecg, text, scale, bias = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert ecg is not None
    assert text is not None
    ecg_parts, text_parts = ecg.chunk(num_micro_batches), text.chunk(num_micro_batches)

    def surrogate(number: int, part: Embedded) -> Tensor:
        total = (part.ecg_BD * ecg_parts[number]).sum() + (part.text_BD * text_parts[number]).sum()
        if number == 0:  # these belong to the batch, not to a part of it
            for value, slope in ((part.logit_scale, scale), (part.logit_bias, bias)):
                total = total + (value * (0 if slope is None else slope)).sum()
        return total

    return loss.detach(), surrogate
