"""Micro-batches against one big batch: the same loss and the same gradients, dropout included."""

from __future__ import annotations

import pytest
import torch

from esi_fast.models.esi import ESI, ESIConfig, ESIOutput
from esi_fast.training.grad_cache import cached_contrast
from esi_fast.training.losses import (
    captioning_loss,
    contrastive_loss,
    count_tokens,
    sigmoid_contrastive_loss,
)

CAPTIONS = ["Sinus rhythm.", "Atrial fibrillation.", "Left bundle branch block with PVCs."] * 4


@pytest.fixture(params=["softmax", "sigmoid"])
def model(request: pytest.FixtureRequest) -> ESI:
    torch.manual_seed(0)
    config = ESIConfig(
        encoder="convnextv2_zepto",
        fs=100.0,
        num_samples=128,
        embed_dim=8,
        max_tokens=16,
        decoder_dim=16,
        decoder_layers=1,
        decoder_heads=2,
        pooling="attention",
        contrast=request.param,
    )
    return ESI.from_captions(
        config, CAPTIONS, vocab_size=200, hidden=16, layers=1, heads=2
    ).double()


def contrast(
    model: ESI, ecg: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    keys = torch.tensor([0, 1, 2] * 4)
    if model.config.contrast == "sigmoid":
        return sigmoid_contrastive_loss(ecg, text, scale, bias, keys)
    return contrastive_loss(ecg, text, scale, keys)


@pytest.mark.parametrize("num_micro_batches", [1, 2, 3, 6, 12])
def test_micro_batches_are_one_big_batch(model: ESI, num_micro_batches: int) -> None:
    torch.manual_seed(1)
    ecg = torch.randn(12, 12, 128, dtype=torch.float64)
    batch = model.tokenize(CAPTIONS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    num_tokens = count_tokens(mask)

    whole = model(ecg, ids, mask, ids, mask)
    expected = contrast(model, whole.ecg_BD, whole.text_BD, whole.logit_scale, whole.logit_bias)
    (expected + captioning_loss(whole.caption_loss, num_tokens)).backward()
    wanted = {name: value.grad for name, value in model.named_parameters()}
    model.zero_grad()

    size = 12 // num_micro_batches

    def part(number: int, *, with_captions: bool) -> ESIOutput:
        rows = slice(number * size, (number + 1) * size)
        captions = (ids[rows], mask[rows]) if with_captions else ()
        output: ESIOutput = model(ecg[rows], ids[rows], mask[rows], *captions)
        return output

    loss, surrogate = cached_contrast(
        lambda number: part(number, with_captions=False),
        num_micro_batches,
        lambda *embedded: contrast(model, *embedded),
    )
    for number in range(num_micro_batches):
        output = part(number, with_captions=True)
        (surrogate(number, output) + captioning_loss(output.caption_loss, num_tokens)).backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, wanted[name], rtol=1e-9, atol=1e-13, msg=name)
    assert model.logit_scale.grad is not None
    assert model.logit_scale.grad.abs() > 0
