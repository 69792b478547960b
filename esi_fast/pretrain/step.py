"""One step of the optimiser: both losses of a batch, whole or in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from esi_fast.training import losses
from esi_fast.training.grad_cache import cached_contrast

if TYPE_CHECKING:
    from esi_fast.config import TrainConfig
    from esi_fast.models.esi import ESIOutput


def contrastive_of(
    train: TrainConfig,
    batch: dict[str, Tensor],
    ecg_BD: Tensor,
    text_BD: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
) -> Tensor:
    """The contrastive loss that a recipe asks for, of this rank's embeddings of a batch."""
    if train.contrast == "sigmoid":
        key_B = batch["concept_key"]
        return losses.sigmoid_contrastive_loss(ecg_BD, text_BD, logit_scale, logit_bias, key_B)
    key_B = batch["row" if train.contrast == "clip" else "concept_key"]
    return losses.contrastive_loss(ecg_BD, text_BD, logit_scale, key_B)


def take_step(
    engine: Any, ecg_BLT: Tensor, batch: dict[str, Tensor], train: TrainConfig, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the optimiser, the batch at once or in parts.

    Returns:
        This rank's contrastive and captioning loss, and the logit scale, all detached.
    """
    num_tokens = losses.count_tokens(batch["attention_mask"])
    size = len(ecg_BLT) // train.micro_batches

    def run_part(number: int, *, with_captions: bool = True) -> ESIOutput:
        # Both runs of a part must draw the same dropout.
        torch.manual_seed(seed * train.micro_batches + number)
        rows = slice(number * size, (number + 1) * size)
        captions = ("input_ids", "attention_mask") if with_captions else ()
        texts = [batch[name][rows] for name in ("text_ids", "text_mask", *captions)]
        output: ESIOutput = engine(ecg_BLT[rows], *texts)
        return output

    def contrast(*embedded: Tensor) -> Tensor:
        return contrastive_of(train, batch, *embedded)

    if train.micro_batches == 1:
        output = run_part(0)
        contrastive = contrast(output.ecg_BD, output.text_BD, output.logit_scale, output.logit_bias)
        captioning = losses.captioning_loss(output.caption_loss, num_tokens)
        engine.backward(contrastive + train.captioning_weight * captioning)
        engine.step()
        return contrastive.detach(), captioning.detach(), output.logit_scale.detach()

    contrastive, surrogate = cached_contrast(
        lambda number: run_part(number, with_captions=False), train.micro_batches, contrast
    )
    summed = torch.zeros_like(contrastive)
    for number in range(train.micro_batches):
        output = run_part(number)
        captioning = losses.captioning_loss(output.caption_loss, num_tokens)
        summed += captioning.detach()
        # Not divided by their number: the parts are of one loss.
        part = surrogate(number, output) + train.captioning_weight * captioning
        engine.backward(part, scale_wrt_gas=False)
        engine.step()
    return contrastive, summed, output.logit_scale.detach()
