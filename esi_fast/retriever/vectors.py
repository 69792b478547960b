"""Vectors in, nearest vectors out: exact, or by an hnswlib graph where that pays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esi_fast.retriever.arguments import whole_number
from esi_fast.retriever.documents import Mask
from esi_fast.retriever.duplicates import Distinct
from esi_fast.retriever.graph import Graph, GraphSettings, principal_axes
from esi_fast.retriever.locks import ReadWriteLock
from esi_fast.retriever.products import best, products

Search = Literal["auto", "exact", "hnsw"]
_Found = tuple[NDArray[np.int64], NDArray[np.float64]]  # positions and similarities
# Up to here building a graph costs more than it saves.
EXACT_UP_TO = 20_000
# Below this share of vectors let through, their exact search is faster than a graph's.
MIN_SELECTIVITY = 0.15
# Above this share of deleted vectors a graph is built anew.
_MAX_DEAD = 0.2
_BLOCK = 4096
# Of what a graph finds by fewer axes, so many are compared by all of them.
_RESCORED = 64
# Similarities held at a time by an exact search: 64 MiB.
_MAX_PRODUCTS = 1 << 24
# Two float32 products of one pair of unit vectors, summed in another order, differ by less.
_ROUNDING = 1e-5
# Squared lengths of which float64 loses nothing; others are scaled first.
_SAFE_SQUARES = (1e-200, 1e200)
_SAFE_SQUARES_32 = (1e-20, 1e20)


class VectorIndex:
    """Unit vectors by position, with their cosine similarities to queries.

    Vectors are the truth; a graph is built of them when it is first needed. Similarities are summed
    in float64, those that a graph finds in float32: the two differ by less than 1e-6. Equal vectors
    have equal scores and come in the order of adding.

    Safe to use from several threads: searches run beside each other, changes alone.

    Args:
        dimension: of the vectors.
        search: ``"exact"``; ``"hnsw"``, at any size; or ``"auto"``: exact up to 20,000 vectors.
        threads: for building the graph; with 1 (the default) it always comes out the same.
        graph: how the graph is built and searched.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        dimension: int,
        search: Search = "auto",
        *,
        threads: int = 1,
        graph: GraphSettings | None = None,
    ) -> None:
        if search not in get_args(Search):
            raise ValueError(f"search is {search!r}; give {', '.join(get_args(Search))}")
        self.dimension = whole_number("dimension", dimension)
        self.kind = search
        self._threads = whole_number("threads", threads)
        self._settings = graph or GraphSettings()
        self._lock = ReadWriteLock()
        self._buffer: NDArray[Any] = np.empty((0, dimension), np.float32)
        self._alive: Mask = np.empty(0, np.bool_)
        self._num_live = 0
        self._graph: Graph | None = None
        self._graph_until = 0  # positions from here on are not in the graph yet
        self._graph_dead = 0
        self._distinct = Distinct()  # of the graph

    def __len__(self) -> int:
        """Vectors that are not deleted."""
        return self._num_live

    @property
    def vectors(self) -> NDArray[Any]:
        """All vectors (n, dimension), of unit length, deleted ones too; float32, or restored so."""
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
        given = np.asarray(positions)
        if given.size and given.dtype.kind not in "iu":
            raise IndexError(f"positions are of {given.dtype}; give whole numbers")
        gone = np.unique(given.astype(np.int64))
        with self._lock.write():
            known = (gone >= 0) & (gone < len(self._alive))
            if not known.all() or not self._alive[gone].all():
                raise IndexError(f"positions {gone.tolist()} are not all there to be deleted")
            alive = self._alive.copy()
            alive[gone] = False
            self._alive = alive
            self._num_live -= len(gone)
            self._graph_dead += int((gone < self._graph_until).sum())

    def search(self, queries: ArrayLike, k: int, allowed: Mask | None = None) -> _Found:
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
                ``k`` no whole number or below 1.
        """
        k = whole_number("k", k)
        unit = self._unit(queries, "query")
        if self.uses_graph and not self._is_ready():
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
            width, k = min(k, len(self)), min(k, num_live)
            # A change since `prepare` may have left vectors outside the graph.
            is_wide = 0 < num_live >= MIN_SELECTIVITY * len(self)
            if is_wide and self.uses_graph and self._is_ready():
                found, scores = self._by_graph(unit, k, live, num_live)
            else:
                found, scores = self._exactly(unit, k, live, num_live)
        if k < width:
            missing = ((0, 0), (0, width - k))
            found = np.pad(found, missing, constant_values=-1)
            scores = np.pad(scores, missing, constant_values=np.nan)
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
            graph, until, distinct = self._graph, self._graph_until, self._distinct
            is_worn = self._is_worn()
            self._graph, self._graph_until = None, 0  # what fails halfway is built anew
            if graph is None or is_worn:
                graph = Graph(self.dimension, self._threads, self._settings, self._axes())
                until, distinct, self._graph_dead = 0, Distinct(), 0
            new = np.flatnonzero(self._alive[until:]) + until
            if not until:
                graph.reserve(len(new))
            for first in range(0, len(new), _BLOCK):
                block = new[first : first + _BLOCK]
                vectors = np.asarray(self._buffer[block], np.float32)
                is_new = distinct.add(vectors, block)
                if is_new.any():
                    graph.add(vectors[is_new], block[is_new])
                progress(min(first + _BLOCK, len(new)), len(new))
            self._graph, self._graph_until = graph, len(self._alive)
            self._distinct = distinct

    def _axes(self) -> NDArray[np.float32] | None:
        """Those of a new graph's own vectors, if it is to have fewer."""
        kept = self._settings.kept
        return principal_axes(self.vectors, kept) if kept < 1 and len(self._alive) else None

    def _is_ready(self) -> bool:
        """Whether the graph holds every vector, and not too many deleted ones."""
        is_full = self._graph is not None and self._graph_until == len(self._alive)
        return is_full and not self._is_worn()

    def _is_worn(self) -> bool:
        return self._graph_dead > _MAX_DEAD * self._distinct.num_vectors

    def _unit(self, vectors: ArrayLike, what: str) -> NDArray[np.float32]:
        """Vectors (m, dimension) at unit length, C-contiguous float32."""
        given = np.asarray(vectors)
        if given.dtype.kind not in "fiu" or given.dtype.itemsize > 8:
            raise ValueError(f"{what} is of {given.dtype}; give floating-point numbers")
        if given.ndim not in (1, 2) or given.shape[-1] != self.dimension:
            raise ValueError(
                f"{what} has shape {given.shape}; give (n, {self.dimension}) or ({self.dimension},)"
            )
        rows = given.reshape(-1, self.dimension)
        if len(rows) == 1 and what == "query" and given.dtype == np.float32:
            # Of one query every step counts: a graph throws all else out of the caches.
            square = float(rows[0] @ rows[0])
            if _SAFE_SQUARES_32[0] < square < _SAFE_SQUARES_32[1]:
                one: NDArray[np.float32] = rows * np.float32(square**-0.5)
                return one
        if len(rows) > _BLOCK:
            blocks = range(0, len(rows), _BLOCK)
            return np.concatenate([_unit(rows[at : at + _BLOCK], what, at) for at in blocks])
        return _unit(rows, what)

    def _exactly(self, queries: NDArray[np.float32], k: int, live: Mask, num_live: int) -> _Found:
        found, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
        if not k:
            return found, scores
        # Copying the rows that are live pays where they are few.
        is_whole = 4 * num_live >= len(live)
        where = np.arange(len(live)) if is_whole else np.flatnonzero(live)
        rows = self.vectors if is_whole else self._buffer[where]
        dead = np.flatnonzero(~live) if is_whole and num_live < len(live) else None
        step = max(1, _MAX_PRODUCTS // len(rows))
        for first in range(0, len(queries), step):
            rough_QN = products(queries[first : first + step], rows)
            if dead is not None:
                rough_QN[:, dead] = -np.inf
            for row, rough in enumerate(rough_QN, start=first):
                lowest = np.partition(rough, len(rows) - k)[len(rows) - k]
                near = where[None, rough >= lowest - _ROUNDING]
                exact = self._similarities(queries[row : row + 1], near)
                found[row], scores[row] = best(near, exact, k)
        return found, scores

    def _by_graph(self, queries: NDArray[np.float32], k: int, live: Mask, num_live: int) -> _Found:
        graph, distinct = self._graph, self._distinct
        assert graph is not None
        fetch = k if 2 * k <= self._settings.ef else 2 * k
        if graph.is_rough:  # the nearest are among a few more
            fetch = max(2 * fetch, _RESCORED)
        is_whole = num_live == distinct.num_vectors
        if not is_whole:  # some of what is found is not wanted
            fetch = math.ceil(fetch * distinct.num_vectors / num_live * 1.5) + 16
        try:
            near, cosines = graph.search(queries, min(fetch, len(graph)))
        except RuntimeError:  # parts of the graph that its entry does not reach
            return self._exactly(queries, k, live, num_live)
        if is_whole and len(graph) == num_live and not graph.is_rough:
            # The library's own float32 cosines, sorted: a third of the time of asking the vectors.
            return near[:, :k], cosines[:, :k].astype(np.float64)
        exact = self._similarities(queries, near)
        found, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
        for row in range(len(queries)):
            kept, its = self._spread(near[row], exact[row], k, live)
            if kept.size >= k:
                found[row], scores[row] = best(kept, its, k)
            else:
                alone = self._exactly(queries[row : row + 1], k, live, num_live)
                found[row], scores[row] = alone
        return found, scores

    def _spread(
        self, near: NDArray[np.int64], exact: NDArray[np.float64], k: int, live: Mask
    ) -> _Found:
        """At least k live positions (1, n), if so many are near, and their similarities.

        Those of equal vectors are spread over all of them, the nearest first.
        """
        if len(self._distinct) == self._distinct.num_vectors:
            wanted = live[near]
            return near[None, wanted], exact[None, wanted]
        kept: list[NDArray[np.int64]] = []
        scores: list[float] = []
        num_kept, last = 0, -math.inf
        for which in np.argsort(-exact):
            if num_kept >= k and exact[which] < last:
                break
            alike = np.array(self._distinct.equals(int(near[which])), np.int64)
            alike = alike[live[alike]]
            kept.append(alike)
            scores.append(float(exact[which]))
            num_kept, last = num_kept + len(alike), scores[-1]
        its = np.repeat(scores, [len(alike) for alike in kept])
        return np.concatenate(kept)[None], its[None]

    def _similarities(
        self, queries: NDArray[np.float32], near: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Cosines (m, n) of queries (m, dimension) with the vectors at positions (m, n).

        Each is summed by itself: a product of matrices rounds the same row differently from place
        to place, and equal vectors must have equal scores.
        """
        step = max(1, _BLOCK // max(1, len(queries)))
        if near.shape[1] > step:
            parts = range(0, near.shape[1], step)
            one_by_one = [self._similarities(queries, near[:, at : at + step]) for at in parts]
            return np.concatenate(one_by_one, axis=1)
        rows = self._buffer[near].astype(np.float64)
        rows *= queries.astype(np.float64)[:, None]
        exact: NDArray[np.float64] = np.add.reduce(rows, axis=2)
        return exact

    def compacted(self) -> VectorIndex:
        """The same without what was deleted: positions move up. Itself where nothing was."""
        if self._alive.all():
            return self
        index = VectorIndex(self.dimension, self.kind, threads=self._threads, graph=self._settings)
        index.restore(self.vectors[self._alive])
        return index

    def restore(self, vectors: NDArray[Any]) -> None:
        """Takes over the unit vectors of an index like this one, in place of its own.

        They may be float16, and mapped from a file: searches then read what they need of it, and
        adding more copies all of them into memory.
        """
        with self._lock.write():
            self._buffer = vectors
            self._alive = np.ones(len(vectors), np.bool_)
            self._num_live = len(vectors)
            self._graph, self._graph_until, self._graph_dead = None, 0, 0
            self._distinct = Distinct()

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
        distinct = Distinct()
        for first in range(0, len(self._alive), _BLOCK):
            block = np.asarray(self.vectors[first : first + _BLOCK], np.float32)
            distinct.add(block, np.arange(first, first + len(block)))
        if len(graph) != len(distinct) or graph.dimension != self.dimension:
            raise ValueError(f"the graph holds {len(graph)} vectors, not {len(distinct)}")
        self._graph, self._graph_until = graph, len(self._alive)
        self._distinct = distinct


def _unit(rows: NDArray[Any], what: str, first: int = 0) -> NDArray[np.float32]:
    """Rows (m, dimension) at unit length; ``first`` is the number of the first, for errors."""
    wide = rows.astype(np.float64)
    squares = np.einsum("nd,nd->n", wide, wide)  # which warns of no overflow
    low, high = _SAFE_SQUARES
    if not all(low < square < high for square in squares.tolist()):
        peaks = np.abs(wide).max(axis=1)
        for is_bad, why in (
            (~np.isfinite(peaks), "is not finite"),
            (peaks == 0, "is all zeros: it has no direction"),
        ):
            if is_bad.any():
                raise ValueError(f"{what} {first + int(np.argmax(is_bad))} {why}")
        wide /= peaks[:, None]
        squares = np.einsum("nd,nd->n", wide, wide)
    wide /= np.sqrt(squares)[:, None]
    return wide.astype(np.float32)
