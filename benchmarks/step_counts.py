"""Bytes that a training step keeps and needs at most, counted on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.plain_step import PlainESI


class Count(NamedTuple):
    """Of a step in bf16: what the forward pass keeps, and the most at once, AdamW's included."""

    num_parameters: int
    kept_bytes: int
    peak_bytes: int


def count_step(make: Callable[[], torch.nn.Module], num_samples: int, length_B: Tensor) -> Count:
    """Runs the model on the meta device, where nothing is computed.

    Args:
        make: makes the model, ours or the plain one.
        num_samples: of a record.
        length_B: of the captions, which are padded to the longest.
    """
    with torch.device("meta"):
        model = make().bfloat16().train()
        shape = len(length_B), int(length_B.max())
        ids_BN = torch.zeros(shape, dtype=torch.long)
        ecg_BLT = torch.zeros(len(length_B), 12, num_samples, dtype=torch.bfloat16)
    num_words = int((length_B - 1).sum())

    def forward() -> Tensor:
        if isinstance(model, PlainESI):
            return sum(model(ecg_BLT, ids_BN, ids_BN))  # type: ignore[return-value]
        output = model(ecg_BLT, ids_BN, ids_BN, ids_BN, ids_BN)
        return output.caption_loss + (output.ecg_BD @ output.text_BD.T).sum()

    with Bytes(num_words) as memory, FusedAttention():
        loss = forward()
        kept = memory.now
        loss.backward()
    num_parameters = sum(p.numel() for p in model.parameters())
    # Weights in bf16 and float32, two moments.
    states = (2 + 12) * num_parameters
    return Count(num_parameters, kept, states + memory.peak)


class Bytes(TorchDispatchMode):
    """The bytes of all tensors that are made and not yet gone.

    Args:
        num_words: how many rows a choice by a mask finds, which the meta device cannot know.
    """

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._num_words = num_words
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return False  # whether a mask hides nothing
        if func is torch.ops.aten.index.Tensor and args[1][0].dtype == torch.bool:
            result = args[0].new_empty((self._num_words, *args[0].shape[args[1][0].ndim :]))
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self._alive:
                    self._alive.add(key)
                    weakref.finalize(storage, self._free, key, size)
                    self.now += size
                    self.peak = max(self.peak, self.now)
        return result

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


class FusedAttention(TorchFunctionMode):
    """Attention that holds no scores, as on a GPU: the meta device would take the other one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            k, v = (x.expand(-1, q.shape[1], -1, -1) for x in (k, v))
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
        return func(*args, **(kwargs or {}))
