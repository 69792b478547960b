"""Vectors in, nearest vectors out: exact, or by an hnswlib graph where that pays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esi_fast.retriever.documents import Mask
from esi_fast.retriever.graph import EF, Graph
from esi_fast.retriever.locks import ReadWriteLock

Search = Literal["auto", "exact", "hnsw"]
# Up to here building a graph costs more than it saves.
EXACT_UP_TO = 20_000
# Below this share of vectors let through, their exact search is faster than a graph's.
MIN_SELECTIVITY = 0.15
# Above this share of deleted vectors a graph is built anew.
_MAX_DEAD = 0.2
_QUERY_BLOCK = 256
_ADD_BLOCK = 4096
# Two float32 products of one pair of unit vectors, summed in another order, differ by less.
_ROUNDING = 1e-5


class VectorIndex:
    """Unit vectors by position, with their cosine similarities to queries.

    Vectors are the truth; a graph is built of them when it is first needed. The similarities of
    what is found are computed in float64 from the vectors whatever found it, so that every search
    gives equal scores, and equal scores come in the order of adding.

    Safe to use from several threads: searches run beside each other, changes alone.

    Args:
        dimension: of the vectors.
        search: ``"exact"``; ``"hnsw"``, at any size; or ``"auto"``: exact up to 20,000 vectors.
        threads: for building the graph; with 1 (the default) it always comes out the same.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, dimension: int, search: Search = "auto", *, threads: int = 1) -> None:
        if dimension < 1 or threads < 1:
            raise ValueError(f"dimension {dimension} and threads {threads} must be 1 or more")
        if search not in get_args(Search):
            raise ValueError(f"search is {search!r}; give {', '.join(get_args(Search))}")
        self.dimension = dimension
        self.kind = search
        self._threads = threads
        self._lock = ReadWriteLock()
        self._buffer: NDArray[np.float32] = np.empty((0, dimension), np.float32)
        self._alive: Mask = np.empty(0, np.bool_)
        self._num_live = 0
        self._graph: Graph | None = None
        self._graph_until = 0  # positions from here on are not in the graph yet
        self._graph_dead = 0

    def __len__(self) -> int:
        """Vectors that are not deleted."""
        return self._num_live

    @property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors (n, dimension), float32, of unit length, deleted ones too."""
        return self._buffer[: len(self._alive)]

    @property
    def uses_graph(self) -> bool:
        """Whether searches go through hnswlib."""
        return self.kind == "hnsw" or (self.kind == "auto" and len(self) > EXACT_UP_TO)

    def add(self, vectors: ArrayLike) -> NDArray[np.int64]:
        """Adds vectors (n, dimension) of any length but 0; all of them or, on an error, none.

        Returns:
            Their positions (n,).

        Raises:
            ValueError: wrong shape, or a vector that is not finite or has no direction.
        """
        unit = self._unit(vectors, "vector")
        with self._lock.write():
            first, last = len(self._alive), len(self._alive) + len(unit)
            if last > len(self._buffer):
                grown = np.empty((max(last, 2 * first), self.dimension), np.float32)
                grown[:first] = self._buffer[:first]
                self._buffer = grown
            self._buffer[first:last] = unit
            self._alive = np.concatenate([self._alive, np.ones(len(unit), np.bool_)])
            self._num_live += len(unit)
            return np.arange(first, last, dtype=np.int64)

    def delete(self, positions: ArrayLike) -> None:
        """Takes vectors out of every later result.

        Raises:
            IndexError: there is no such position, or it is deleted already.
        """
        gone = np.unique(np.asarray(positions, dtype=np.int64))
        with self._lock.write():
            known = (gone >= 0) & (gone < len(self._alive))
            if not known.all() or not self._alive[gone].all():
                raise IndexError(f"positions {gone.tolist()} are not all there to be deleted")
            alive = self._alive.copy()
            alive[gone] = False
            self._alive = alive
            self._num_live -= len(gone)
            self._graph_dead += int((gone < self._graph_until).sum())

    def search(
        self, queries: ArrayLike, k: int, allowed: Mask | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The nearest vectors to each query, best first.

        Args:
            queries: (m, dimension) or (dimension,), of any length but 0.
            k: at most this many; more than there are is no error.
            allowed: (n,) positions that may be found; None allows all. Where it lets through less
                than 15 % of the vectors, these are searched exactly.

        Returns:
            Positions (m, min(k, len)) int64, -1 where no more are allowed, and cosine similarities
            of that shape, float64, NaN there.

        Raises:
            ValueError: wrong shape or type, a query that is not finite or has no direction, or
                ``k`` below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; give 1 or more")
        unit = self._unit(queries, "query")
        if self.uses_graph:
            self.prepare()
        with self._lock.read():
            live, num_live = self._alive, self._num_live
            if allowed is not None:
                mask = np.asarray(allowed)
                if mask.dtype != np.bool_ or mask.shape != live.shape:
                    raise ValueError(
                        f"allowed is {mask.dtype} {mask.shape}; give bool ({len(live)},)"
                    )
                live = live & mask
                num_live = int(live.sum())
            width, wanted = min(k, len(self)), min(k, num_live)
            found = np.full((len(unit), width), -1, np.int64)
            scores = np.full((len(unit), width), np.nan)
            if num_live:
                # A change since `prepare` may have left vectors outside the graph.
                is_wide = num_live >= MIN_SELECTIVITY * len(live)
                if is_wide and self.uses_graph and self._is_ready():
                    self._by_graph(unit, wanted, live, num_live, found, scores)
                else:
                    self._exactly(unit, wanted, live, num_live, found, scores)
            return found, scores

    def prepare(self, progress: Callable[[int, int], object] = lambda done, total: None) -> None:
        """Builds or extends the graph, if searches need one; the first search does it otherwise.

        Args:
            progress: called with the vectors added and their number.

        Raises:
            ModuleNotFoundError: hnswlib is not installed.
        """
        if not self.uses_graph or self._is_ready():
            return
        with self._lock.write():
            if self._is_ready():  # another thread was first
                return
            graph, until = self._graph, self._graph_until
            self._graph, self._graph_until = None, 0  # what fails halfway is built anew
            if graph is None or self._is_worn(until):
                graph, until, self._graph_dead = Graph(self.dimension, self._threads), 0, 0
            new = np.flatnonzero(self._alive[until:]) + until
            for first in range(0, len(new), _ADD_BLOCK):
                block = new[first : first + _ADD_BLOCK]
                graph.add(self._buffer[block], block)
                progress(min(first + _ADD_BLOCK, len(new)), len(new))
            self._graph, self._graph_until = graph, len(self._alive)

    def _is_ready(self) -> bool:
        """Whether the graph holds every vector, and not too many deleted ones."""
        until = self._graph_until
        return self._graph is not None and until == len(self._alive) and not self._is_worn(until)

    def _is_worn(self, until: int) -> bool:
        return self._graph_dead > _MAX_DEAD * until

    def _unit(self, vectors: ArrayLike, what: str) -> NDArray[np.float32]:
        """Vectors (m, dimension) at unit length, C-contiguous float32."""
        given = np.asarray(vectors)
        if given.dtype.kind not in "fiu":
            raise ValueError(f"{what} is of {given.dtype}; give floating-point numbers")
        rows = np.atleast_2d(given).astype(np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise ValueError(
                f"{what} has shape {given.shape}; give (n, {self.dimension}) or ({self.dimension},)"
            )
        squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
        if not np.isfinite(squares).all():
            raise ValueError(f"{what} {int(np.argmin(np.isfinite(squares)))} is not finite")
        if not squares.all():
            raise ValueError(f"{what} {int(np.argmin(squares))} is all zeros: it has no direction")
        rows /= np.sqrt(squares)[:, None].astype(np.float32)
        return np.ascontiguousarray(rows)

    def _exactly(
        self,
        queries: NDArray[np.float32],
        k: int,
        live: Mask,
        num_live: int,
        found: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> None:
        all_live = num_live == len(live)
        where = np.arange(num_live) if all_live else np.flatnonzero(live)
        rows = self.vectors if all_live else self._buffer[where]
        for first in range(0, len(queries), _QUERY_BLOCK):
            block = queries[first : first + _QUERY_BLOCK]
            for offset, rough in enumerate(block @ rows.T):
                lowest = np.partition(rough, num_live - k)[num_live - k]
                near = where[np.flatnonzero(rough >= lowest - _ROUNDING)]
                self._rank(block[offset], near, k, first + offset, found, scores)

    def _by_graph(
        self,
        queries: NDArray[np.float32],
        k: int,
        live: Mask,
        num_live: int,
        found: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> None:
        graph = self._graph
        assert graph is not None
        all_live = num_live == len(graph)
        fetch = k if 2 * k <= EF else 2 * k
        if not all_live:  # some of what is found is not wanted
            fetch = math.ceil(fetch * len(graph) / num_live * 1.5) + 16
        fetch = min(fetch, len(graph))
        try:
            near = graph.search(queries, fetch)
        except RuntimeError:  # parts of the graph that its entry does not reach
            self._exactly(queries, k, live, num_live, found, scores)
            return
        for row, positions in enumerate(near):
            kept = positions if all_live else positions[live[positions]]
            if len(kept) < k:
                one = slice(row, row + 1)
                self._exactly(queries[one], k, live, num_live, found[one], scores[one])
            else:
                self._rank(queries[row], kept, k, row, found, scores)

    def _rank(
        self,
        query: NDArray[np.float32],
        near: NDArray[np.int64],
        k: int,
        row: int,
        found: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> None:
        """The best k of some positions, in order, into row ``row`` of the results."""
        exact = np.einsum("nd,d->n", self._buffer[near], query, dtype=np.float64)
        order = np.lexsort((near, -exact))[:k]
        found[row, :k] = near[order]
        scores[row, :k] = exact[order]

    def compacted(self) -> VectorIndex:
        """The same without what was deleted: positions move up. Itself where nothing was."""
        if self._alive.all():
            return self
        index = VectorIndex(self.dimension, self.kind, threads=self._threads)
        index.restore(self.vectors[self._alive])
        return index

    def restore(self, vectors: NDArray[np.float32]) -> None:
        """Takes over the unit vectors of an index like this one, in place of its own."""
        with self._lock.write():
            self._buffer = vectors
            self._alive = np.ones(len(vectors), np.bool_)
            self._num_live = len(vectors)
            self._graph, self._graph_until, self._graph_dead = None, 0, 0

    def graph_to_save(self) -> Graph | None:
        """The graph over all vectors as they are now, or None where there is none."""
        if self.uses_graph:
            self.prepare()
        return self._graph if self.uses_graph else None

    def adopt_graph(self, graph: Graph) -> None:
        """Takes over a graph that was built of these very vectors.

        Raises:
            ValueError: its size is another.
        """
        if len(graph) != len(self._alive) or graph.dimension != self.dimension:
            raise ValueError(f"the graph holds {len(graph)} vectors, not {len(self._alive)}")
        self._graph, self._graph_until = graph, len(self._alive)
