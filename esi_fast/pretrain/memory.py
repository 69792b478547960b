"""Memory of a training step on one device, and of a checkpoint on disk, in bytes.

Weights, gradients and optimiser states follow Rajbhandari et al. 2020 ("ZeRO", section 3.1) as
DeepSpeed 0.19 has them. Activations are the tensors that the operators save for the backward pass,
and the largest that live for a moment: tests/test_estimate.py holds the former to 10 % of what
autograd keeps on a CPU. The contrastive logits, and what the allocator loses between its blocks,
are not in them: take the sum as a lower bound.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any

from esi_fast.leads import NUM_LEADS
from esi_fast.models.text import MOST_REMEMBERED
from esi_fast.pretrain.sizes import Sizes

_STATISTICS = 8  # bytes a position that a LayerNorm keeps: mean and 1 / std in float32
_WIDEST_FUSED = 1024  # channels up to which convolution and LayerNorm are one operator
_CHUNK_BYTES = 64 << 20  # float32 logits at a time: see esi_fast.models.caption_head


@dataclass(frozen=True)
class Precision:
    """How numbers are kept.

    Attributes:
        name: ``"bf16"``, ``"fp16"`` or ``"fp32"``.
        num_bytes: of a weight, a gradient or an activation.
    """

    name: str
    num_bytes: int


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights, gradients, optimizer: of the model; the optimiser has float32 weights too.
        buffers: into which DeepSpeed packs gradients before it reduces them.
        activations: of one micro-batch.
        texts: states that a frozen text encoder remembers, when it has met as many.
    """

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    texts: float

    @property
    def total(self) -> float:
        """Everything at once, as at the end of the forward pass."""
        total: float = sum(astuple(self))
        return total


def precision_of(deepspeed: dict[str, Any]) -> Precision:
    """What a DeepSpeed configuration asks for."""
    for name in ("bf16", "fp16"):
        if deepspeed.get(name, {}).get("enabled", False):
            return Precision(name, 2)
    return Precision("fp32", 4)


def memory_of_step(
    sizes: Sizes,
    deepspeed: dict[str, Any],
    *,
    num_parameters: int,
    num_trained: int,
    world_size: int,
    num_records: int,
    num_tokens: int,
) -> Memory:
    """What a device needs.

    Args:
        sizes: of the model.
        deepspeed: as DeepSpeed gets it.
        num_parameters, num_trained: of the model.
        world_size: devices.
        num_records: of a micro-batch on a device.
        num_tokens: of the longest caption of a batch, to which the others are padded.
    """
    zero = deepspeed.get("zero_optimization", {})
    stage, element = zero_stage(deepspeed), precision_of(deepspeed).num_bytes
    states = _state_bytes(stage, element)
    buckets = 0 if stage not in (1, 2) else 1 + bool(zero.get("overlap_comm", False))
    return Memory(
        weights=num_parameters * element / (world_size if stage >= 3 else 1),
        gradients=num_trained * element / (world_size if stage >= 2 else 1),
        optimizer=num_trained * states / (world_size if stage >= 1 else 1),
        buffers=buckets * element * float(zero.get("reduce_bucket_size", 5e8)),
        activations=activation_bytes(sizes, num_records, num_tokens, element)
        + _passing_bytes(sizes, num_records, element),
        texts=MOST_REMEMBERED * sizes.text_width * element if sizes.text_mode == "frozen" else 0,
    )


def checkpoint_bytes(deepspeed: dict[str, Any], num_parameters: int, num_trained: int) -> float:
    """All files of one checkpoint, of all ranks together."""
    stage, element = zero_stage(deepspeed), precision_of(deepspeed).num_bytes
    # ZeRO-3 saves the optimiser's float32 weights and no others.
    weights = 0 if stage == 3 else num_parameters * element
    return weights + num_trained * _state_bytes(stage, element)


def zero_stage(deepspeed: dict[str, Any]) -> int:
    """The stage that a DeepSpeed configuration asks for; 0 where it asks for none."""
    return int(deepspeed.get("zero_optimization", {}).get("stage", 0))


def _state_bytes(stage: int, element: int) -> int:
    """Of a trained parameter: two moments, and float32 weights, which ZeRO keeps in any case."""
    return 8 if stage == 0 and element == 4 else 12


def activation_bytes(sizes: Sizes, num_records: int, num_tokens: int, element: int) -> float:
    """What is kept between the forward and the backward pass of one micro-batch.

    Args:
        sizes: of the model.
        num_records: of the micro-batch.
        num_tokens: N of its captions and texts, padding included.
        element: bytes of a number.
    """
    parts = [
        _ecg_encoder(sizes, element),
        _text_encoder(sizes, num_tokens, element),
        _decoder(sizes, num_tokens - 1, element),
    ]
    record = sum(part.outside for part in parts)
    if sizes.recompute:
        record += sum(part.inputs for part in parts) + max(part.largest for part in parts)
    else:
        record += sum(part.blocks for part in parts)
    # Per batch: the strided convolutions' weights in the order of their product, and the gradient
    # of the caption head, which is made in the forward pass.
    batch = sum(2 * before * after * element for before, after in pairwise(sizes.channels))
    batch += sizes.vocab_size * sizes.decoder_dim * element
    return num_records * record + batch


@dataclass(frozen=True)
class _Kept:
    """Bytes of one record in a part of the model.

    Attributes:
        outside: what is no block's or layer's.
        blocks, inputs: of all of them, everything or the inputs alone.
        largest: everything of the largest one.
    """

    outside: float = 0.0
    blocks: float = 0.0
    inputs: float = 0.0
    largest: float = 0.0


def _passing_bytes(sizes: Sizes, num_records: int, element: int) -> float:
    """The largest of what lives for a moment: a chunk of logits, or gradients inside a block."""
    head = 2 * _CHUNK_BYTES + 4 * sizes.vocab_size * sizes.decoder_dim
    widest = max(
        length * width for length, width in zip(sizes.stage_lengths, sizes.channels, strict=True)
    )
    return max(head, 3 * 4 * num_records * widest * element)


def _ecg_encoder(sizes: Sizes, element: int) -> _Kept:
    """From the record to the tokens."""
    outside = float(NUM_LEADS * sizes.num_samples * (4 + element))  # the record, and its patches
    blocks = inputs = largest = 0.0
    for depth, length, width in zip(sizes.depths, sizes.stage_lengths, sizes.channels, strict=True):
        plane = length * width * element
        # The block's input, the normalised one, and the four times wider hidden layer.
        block = 6 * plane + _STATISTICS * length + 4 * 4 * width
        if width > _WIDEST_FUSED:
            block += plane
        blocks += depth * block
        inputs += depth * plane
        largest = max(largest, block)
        # Before or behind the stage, a LayerNorm reads and a strided convolution or the decoder.
        outside += plane + _STATISTICS * length
    outside += sum(
        length * width * element
        for length, width in zip(sizes.stage_lengths, sizes.channels, strict=True)
    )
    if sizes.attention_pool:
        outside += 3 * sizes.stage_lengths[-1] * sizes.channels[-1] * element
    return _Kept(outside, blocks, inputs, largest)


def _text_encoder(sizes: Sizes, num_tokens: int, element: int) -> _Kept:
    if sizes.text_mode == "frozen":
        return _Kept()
    plane = num_tokens * sizes.text_width * element
    masks = num_tokens * sizes.text_width if sizes.text_dropout else 0
    # Input, query, key, value, attended, twice what a LayerNorm reads, once what it gives; and the
    # inner layer before and after the GELU.
    layer = 8 * plane + 2 * num_tokens * sizes.text_inner * element + 2 * masks
    layer += num_tokens * (2 * _STATISTICS + 4 * sizes.text_heads)
    embedded = 2 * plane + masks + _STATISTICS * num_tokens
    return _Kept(embedded, sizes.text_layers * layer, sizes.text_layers * plane, layer)


def _decoder(sizes: Sizes, num_tokens: int, element: int) -> _Kept:
    plane = num_tokens * sizes.decoder_dim * element
    head_dim = sizes.decoder_dim // sizes.decoder_heads
    num_ecg_tokens = sizes.stage_lengths[-1]
    # Self-attention: input, normalised, query-key-value, rotated query, attended; cross-attention:
    # input, normalised, query, attended; feed-forward: input, normalised, 4 + 2 + 2 wide.
    layer = 19 * plane + (3 * num_tokens + 2 * num_ecg_tokens) * head_dim * element
    layer += num_tokens * (3 * _STATISTICS + 2 * 4 * sizes.decoder_heads)
    words = num_tokens * sizes.text_width * element
    ecg = num_ecg_tokens * sizes.decoder_dim * element
    # Behind the layers: what the last LayerNorm reads, its rows that are words, their gradient.
    return _Kept(
        words + ecg + 3 * plane,
        sizes.decoder_layers * layer,
        sizes.decoder_layers * plane,
        layer,
    )
