"""Memory that batches are read into, over and over."""

from __future__ import annotations

import sys
import threading

import numpy as np
import torch
from numpy.typing import NDArray


def _references_of_unused() -> int:
    """What `Buffers.take` counts for an array of which nobody else knows; CPythons differ."""
    arrays = [np.empty(0, np.float32)]
    for array in arrays:
        count = sys.getrefcount(array)
    return count


_UNUSED = _references_of_unused()


class Buffers:
    """Memory for signals, used again once nobody refers to it: fresh pages cost more than reading.

    Pinned memory is PyTorch's to reuse, which knows when copies from it have ended.
    """

    def __init__(self, pin_memory: bool, most: int) -> None:
        """``most``: how many are kept; what a consumer keeps beyond them is its own."""
        self._pin_memory, self._most = pin_memory, most
        self._arrays: list[NDArray[np.float32]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A float32 tensor of unknown content."""
        if self._pin_memory:
            return torch.empty(shape, dtype=torch.float32, pin_memory=True)
        with self._lock:
            for array in self._arrays:
                if array.shape == shape and sys.getrefcount(array) == _UNUSED:
                    return torch.from_numpy(array)
            array = np.empty(shape, np.float32)
            if len(self._arrays) < self._most:
                self._arrays.append(array)
            return torch.from_numpy(array)
