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

Vectors = NDArray[np.float32]

M = 16
EF_CONSTRUCTION = 200
EF = 64
SEED = 100
_MAX_SAMPLE = 20_000  # vectors that say where the others lie
_LANES = 16
PARAMETERS = {"space": "ip", "M": M, "ef_construction": EF_CONSTRUCTION, "seed": SEED}


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """How a graph is built and searched: more of each is more recall for more time.

    Attributes:
        m: links a vector, twice as many on the lowest layer; memory grows with it.
        ef_construction: candidates looked at for each vector that is added.
        ef: candidates looked at for each query.
        kept: share of the vectors' squared lengths that the graph's own vectors keep; those have
            fewer axes, so that more candidates are looked at in the same time and memory. What it
            finds is rough then. 1: the vectors as they are.
    """

    m: int = M
    ef_construction: int = EF_CONSTRUCTION
    ef: int = EF
    kept: float = 1.0


class Graph:
    """A hierarchical small-world graph over unit vectors, by inner product.

    Args:
        dimension: of the vectors.
        threads: for building; with 1 the same vectors always give the same graph.
        settings: how it is built and searched.
        axes: (dimension, r) float32, orthonormal: the graph's own vectors are those on them.

    Raises:
        ModuleNotFoundError: hnswlib is not installed.
    """

    def __init__(
        self,
        dimension: int,
        threads: int = 1,
        settings: GraphSettings | None = None,
        axes: Vectors | None = None,
    ) -> None:
        self.dimension = dimension
        self.settings = settings or GraphSettings()
        self.axes = axes
        self._threads = threads
        self._index = _empty_index(dimension if axes is None else axes.shape[1])
        self._index.init_index(
            max_elements=1,
            M=self.settings.m,
            ef_construction=self.settings.ef_construction,
            random_seed=SEED,
        )
        self._index.set_ef(self.settings.ef)

    def __len__(self) -> int:
        return int(self._index.get_current_count())

    @property
    def is_rough(self) -> bool:
        """Whether cosines are of the vectors on ``axes``, and so less than they should be."""
        return self.axes is not None

    def reserve(self, count: int) -> None:
        """Takes the memory of so many vectors at once: growing by and by takes up to 2.5 times."""
        if count > self._index.get_max_elements():
            self._index.resize_index(count)

    def add(self, vectors: NDArray[np.float32], positions: NDArray[np.int64]) -> None:
        """Adds unit vectors (n, dimension) under their positions (n,)."""
        wanted = len(self) + len(vectors)
        if wanted > self._index.get_max_elements():
            self._index.resize_index(max(wanted, len(self) + len(self) // 2))
        self._index.add_items(self._on_axes(vectors), positions, num_threads=self._threads)

    def search(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and cosines (m, count) of about the nearest vectors to queries (m, dimension).

        ``count`` is at most ``len(self)``; the search looks at ``max(count, ef)`` candidates.

        Raises:
            RuntimeError: fewer than ``count`` vectors can be reached from the graph's entry.
        """
        labels, distances = self._index.knn_query(self._on_axes(queries), k=count, num_threads=1)
        np.subtract(1.0, distances, out=distances)
        return labels.view(np.int64), distances

    def _on_axes(self, vectors: Vectors) -> Vectors:
        return vectors if self.axes is None else vectors @ self.axes

    def save(self, path: Path) -> None:
        """Writes the library's own file; it does not hold ``axes``."""
        self._index.save_index(str(path))

    @classmethod
    def load(
        cls,
        path: Path,
        dimension: int,
        threads: int = 1,
        settings: GraphSettings | None = None,
        axes: Vectors | None = None,
    ) -> Graph:
        """Reads a file that ``save`` wrote; its bytes must have been verified before.

        Raises:
            RuntimeError: the library refuses the file.
        """
        graph = cls(dimension, threads, settings, axes)
        graph._index = _empty_index(dimension if axes is None else axes.shape[1])
        graph._index.load_index(str(path))
        graph._index.set_ef(graph.settings.ef)
        return graph


def principal_axes(vectors: Vectors, kept: float) -> Vectors | None:
    """The fewest axes (D, r) on which unit vectors (n, D) keep a share of their squared lengths.

    r is a multiple of 16, for the library's loops. Not centred: products of the vectors are to be
    kept, their mean included.

    Returns:
        Orthonormal float32, by falling share; None where half of the axes would not do.
    """
    dimension = vectors.shape[1]
    rows = np.unique(np.linspace(0, len(vectors) - 1, _MAX_SAMPLE).astype(np.int64))
    sample = np.asarray(vectors[rows], np.float32)
    share, axes = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    lost = np.cumsum(np.maximum(share, 0.0)) / np.maximum(share, 0.0).sum()
    needed = dimension - int(np.searchsorted(lost, 1 - kept, side="right"))
    wanted = -(-needed // _LANES) * _LANES
    if 2 * wanted > dimension:
        return None
    return np.ascontiguousarray(axes[:, : -wanted - 1 : -1], np.float32)


def _empty_index(dimension: int) -> Any:
    try:
        import hnswlib
    except ModuleNotFoundError as error:
        message = "hnswlib is not installed: pip install 'esi-fast[cqa]', or choose backend='exact'"
        raise ModuleNotFoundError(message, name="hnswlib") from error

    return hnswlib.Index(space="ip", dim=dimension)
