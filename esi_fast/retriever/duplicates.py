"""Equal vectors are one: a graph in which many are the same falls into islands."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from esi_fast.retriever.documents import Mask


class Distinct:
    """Which vectors are equal to the last bit; the first of them stands for all."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}
        self._equals: dict[int, list[int]] = {}
        self.num_vectors = 0

    def __len__(self) -> int:
        """Vectors that differ."""
        return len(self._first)

    def add(self, vectors: NDArray[np.float32], positions: NDArray[np.int64]) -> Mask:
        """Takes in vectors (n, dimension) and their positions (n,): which of them (n,) are new."""
        is_new = np.ones(len(vectors), np.bool_)
        for row, position in enumerate(positions.tolist()):
            digest = blake2b(vectors[row], digest_size=16).digest()
            first = self._first.setdefault(digest, position)
            if first != position:
                is_new[row] = False
                self._equals.setdefault(first, [first]).append(position)
        self.num_vectors += len(vectors)
        return is_new

    def equals(self, first: int) -> list[int]:
        """Positions of all vectors for which one stands, in the order of adding."""
        return self._equals.get(first) or [first]
