"""hnswlib behind a guard: nothing reaches it that could crash it or make it answer nonsense.

The library checks neither a query's dimension nor its numbers, stores neither dimension nor space
in its file, follows whatever links a damaged file holds, and must not search while it adds. So all
arguments are checked before they come here, callers hold a lock, and a file is a cache: it is
loaded only if its bytes are those that were written.

Source: Malkov & Yashunin 2018, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

M = 16
EF_CONSTRUCTION = 200
EF = 64
SEED = 100
PARAMETERS = {"space": "ip", "M": M, "ef_construction": EF_CONSTRUCTION, "seed": SEED}


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """How a graph is built and searched: more of each is more recall for more time.

    Attributes:
        m: links a vector, twice as many on the lowest layer; memory grows with it.
        ef_construction: candidates looked at for each vector that is added.
        ef: candidates looked at for each query.
    """

    m: int = M
    ef_construction: int = EF_CONSTRUCTION
    ef: int = EF


class Graph:
    """A hierarchical small-world graph over unit vectors, by inner product.

    Args:
        dimension: of the vectors.
        threads: for building; with 1 the same vectors always give the same graph.
        settings: how it is built and searched.

    Raises:
        ModuleNotFoundError: hnswlib is not installed.
    """

    def __init__(
        self, dimension: int, threads: int = 1, settings: GraphSettings | None = None
    ) -> None:
        self.dimension = dimension
        self.settings = settings or GraphSettings()
        self._threads = threads
        self._index = _empty_index(dimension)
        self._index.init_index(
            max_elements=1,
            M=self.settings.m,
            ef_construction=self.settings.ef_construction,
            random_seed=SEED,
        )
        self._index.set_ef(self.settings.ef)

    def __len__(self) -> int:
        return int(self._index.get_current_count())

    def reserve(self, count: int) -> None:
        """Takes the memory of so many vectors at once: growing by and by takes up to 2.5 times."""
        if count > self._index.get_max_elements():
            self._index.resize_index(count)

    def add(self, vectors: NDArray[np.float32], positions: NDArray[np.int64]) -> None:
        """Adds unit vectors (n, dimension) under their positions (n,)."""
        wanted = len(self) + len(vectors)
        if wanted > self._index.get_max_elements():
            self._index.resize_index(max(wanted, len(self) + len(self) // 2))
        self._index.add_items(vectors, positions, num_threads=self._threads)

    def search(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and cosines (m, count) of about the nearest vectors to queries (m, dimension).

        ``count`` is at most ``len(self)``; the search looks at ``max(count, ef)`` candidates.

        Raises:
            RuntimeError: fewer than ``count`` vectors can be reached from the graph's entry.
        """
        labels, distances = self._index.knn_query(queries, k=count, num_threads=1)
        np.subtract(1.0, distances, out=distances)
        return labels.view(np.int64), distances

    def save(self, path: Path) -> None:
        """Writes the library's own file."""
        self._index.save_index(str(path))

    @classmethod
    def load(
        cls,
        path: Path,
        dimension: int,
        threads: int = 1,
        settings: GraphSettings | None = None,
    ) -> Graph:
        """Reads a file that ``save`` wrote; its bytes must have been verified before.

        Raises:
            RuntimeError: the library refuses the file.
        """
        graph = cls(dimension, threads, settings)
        graph._index = _empty_index(dimension)
        graph._index.load_index(str(path))
        graph._index.set_ef(graph.settings.ef)
        return graph


def _empty_index(dimension: int) -> Any:
    try:
        import hnswlib
    except ModuleNotFoundError as error:
        message = "hnswlib is not installed: pip install 'esi-fast[cqa]', or choose backend='exact'"
        raise ModuleNotFoundError(message, name="hnswlib") from error

    return hnswlib.Index(space="ip", dim=dimension)
