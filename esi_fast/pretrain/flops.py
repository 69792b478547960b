"""Floating-point operations of a training step, counted from the sizes of the model.

A multiplication and an addition are two operations. Counted are matrix products, convolutions and
attention, as `torch.utils.flop_counter` does, causal attention in full; what goes by element
(norms, GELU, the optimiser) is left out, less than 1 %. The backward pass is taken without what is
computed again, so that a rate over these numbers is the MFU of Chowdhery et al. 2022 ("PaLM",
appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from esi_fast.leads import NUM_LEADS
from esi_fast.models.convnext1d import STEM_STRIDE
from esi_fast.pretrain.sizes import Sizes

_TAPS = 7  # of the depthwise convolutions: ConvNeXtV2Block1d's


@dataclass(frozen=True)
class PartFlops:
    """Of one record through one part of the model.

    Attributes:
        forward, backward: once each; the backward of what is not trained is 0.
        blocks: what of the forward is repeated where activations are computed again.
    """

    forward: float
    backward: float
    blocks: float = 0.0

    @property
    def total(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


def flops_of_record(
    sizes: Sizes, caption_tokens: float, text_tokens: float
) -> dict[str, PartFlops]:
    """One record, by part.

    Args:
        sizes: of the model.
        caption_tokens: of its caption, [CLS] and [SEP] included, padding not.
        text_tokens: of the text for the contrastive loss, likewise.
    """
    return {
        "ECG encoder": _ecg_encoder(sizes),
        "text encoder": _text_encoder(sizes, text_tokens),
        "projections": _projections(sizes),
        "caption decoder": _decoder(sizes, caption_tokens - 1),
    }


def flops_per_step(
    sizes: Sizes, num_records: int, caption_tokens: float, text_tokens: float
) -> float:
    """Of a whole step over all devices: divide by seconds, devices and peak for the MFU.

    Args:
        sizes: of the model.
        num_records: of the step.
        caption_tokens, text_tokens: of all its captions and contrastive texts, padding not counted.
    """
    parts = flops_of_record(sizes, caption_tokens / num_records, text_tokens / num_records)
    return num_records * sum(part.total for part in parts.values())


def executed_flops(sizes: Sizes, parts: dict[str, PartFlops], *, micro_batches: int) -> float:
    """Of one record, with what a step computes twice to save memory.

    Activation checkpointing repeats the forward pass of the blocks; several micro-batches repeat
    that of both encoders (see `esi_fast.training.grad_cache`).
    """
    total = sum(part.total for part in parts.values())
    if sizes.recompute:
        total += sum(part.blocks for part in parts.values() if part.backward)
    if micro_batches > 1:
        total += sum(part.forward for name, part in parts.items() if name != "caption decoder")
    return total


def _ecg_encoder(sizes: Sizes) -> PartFlops:
    lengths, channels = sizes.stage_lengths, sizes.channels
    stem = 2 * lengths[0] * NUM_LEADS * STEM_STRIDE * channels[0]
    narrowing = sum(
        2 * length * 2 * before * after
        for length, (before, after) in zip(lengths[1:], pairwise(channels), strict=True)
    )
    # A block: a depthwise convolution, and two linear layers between C and 4C.
    blocks = sum(
        depth * 2 * length * (_TAPS * width + 8 * width**2)
        for depth, length, width in zip(sizes.depths, lengths, channels, strict=True)
    )
    pool = 4 * lengths[-1] * channels[-1] * (channels[-1] + 1) if sizes.attention_pool else 0
    forward = stem + narrowing + blocks + pool
    # The gradient of the record itself is not needed.
    return PartFlops(forward, 2 * forward - stem, blocks)


def _text_encoder(sizes: Sizes, num_tokens: float) -> PartFlops:
    width, layers = sizes.text_width, sizes.text_layers
    linear = 2 * num_tokens * width * (4 * width + 2 * sizes.text_inner)
    forward = layers * (linear + 4 * num_tokens**2 * width)
    # On queries and values, as peft has it by default.
    adapters = layers * 8 * num_tokens * width * sizes.lora_rank
    if sizes.text_mode == "frozen":
        return PartFlops(forward, 0.0, forward)
    if sizes.text_mode == "lora":
        through = layers * (linear + 8 * num_tokens**2 * width)
        return PartFlops(forward + adapters, through + 2 * adapters, forward + adapters)
    return PartFlops(forward, 2 * forward, forward)


def _projections(sizes: Sizes) -> PartFlops:
    forward = 2 * sizes.embed_dim * (sizes.channels[-1] + sizes.text_width)
    return PartFlops(forward, 2 * forward)


def _decoder(sizes: Sizes, num_tokens: float) -> PartFlops:
    dim = sizes.decoder_dim
    head_dim = dim // sizes.decoder_heads
    num_ecg_tokens = sizes.stage_lengths[-1]
    embed = 2 * num_tokens * sizes.text_width * dim
    embed_ecg = 2 * num_ecg_tokens * sizes.channels[-1] * dim
    linear = 2 * dim * (num_tokens * (10 * dim + 2 * head_dim) + num_ecg_tokens * 2 * head_dim)
    attention = 4 * num_tokens * (num_tokens + num_ecg_tokens) * dim
    layers = sizes.decoder_layers * (linear + attention)
    logits = 2 * num_tokens * dim * sizes.vocab_size
    forward = embed + embed_ecg + layers + logits
    # Only a trained BERT's word embeddings need a gradient.
    unneeded = 0 if sizes.text_mode == "train" else embed
    return PartFlops(forward, 2 * forward - unneeded, layers)
