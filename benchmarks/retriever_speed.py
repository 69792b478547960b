"""Nearest vectors: the exact search and the graph of VectorIndex, beside numpy, faiss and hnswlib.

Import it with the thread counts of BLAS and OpenMP set to 1: they are read when numpy loads.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import hnswlib
import numpy as np
import numpy.typing as npt

from esi_fast.retriever import VectorIndex
from esi_fast.retriever.graph import EF, EF_CONSTRUCTION, M

PACKAGES = ("numpy", "hnswlib", "faiss-cpu")
DIMENSION = 384
K = 10
BATCH = 32
NUMPY, EXACT, HNSW = "numpy exact", "ours exact", "ours hnsw"
# Times numpy exact at 100,000 vectors, and recall@10 at least.
BARS = {1: 40.0, BATCH: 10.0}
MIN_RECALL = 0.99

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
Search = Callable[[Vectors], Positions]


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does.

    Attributes:
        num_vectors: sizes of the indexes.
        num_queries: of each index, a multiple of 32.
        num_rounds: timed rounds.
    """

    num_vectors: tuple[int, ...]
    num_queries: int
    num_rounds: int


FULL = Size((1_000, 10_000, 100_000), 256, 5)
QUICK = Size((1_000, 5_000), 64, 2)


@dataclass(slots=True)
class Figure:
    """One row: a method at a size of index and of batch.

    Attributes:
        size, batch, method: vectors in the index, queries at a time, by what.
        recall_at_10: share of the 10 nearest by float64 that were found.
        build_s: CPU seconds.
        mb: megabytes of what must be held.
        seconds: CPU seconds of every round.
        ratios: how many times faster than numpy, round by round.
        num_queries: in a round.
    """

    size: int
    batch: int
    method: str
    recall_at_10: float
    build_s: float
    mb: float
    num_queries: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def queries_per_core_s(self) -> float:
        """Queries a second of CPU time, the median of the rounds."""
        return self.num_queries / statistics.median(self.seconds)

    @property
    def ratio_to_numpy(self) -> float:
        """How many times faster than numpy exact, the median of the rounds."""
        return statistics.median(self.ratios)

    def as_row(self) -> dict[str, object]:
        """The columns of a result file."""
        return {
            "size": self.size,
            "batch": self.batch,
            "method": self.method,
            "queries_per_core_s": f"{self.queries_per_core_s:.0f}",
            "ratio_to_numpy": f"{self.ratio_to_numpy:.2f}",
            "recall_at_10": f"{self.recall_at_10:.4f}",
            "build_s": f"{self.build_s:.2f}",
            "mb": f"{self.mb:.1f}",
        }


def clustered(n: int, num_queries: int, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Unit vectors around n / 100 centres, and queries around the same that are none of them."""
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((max(1, n // 100), DIMENSION), np.float32))

    def around(count: int) -> Vectors:
        spread = rng.standard_normal((count, DIMENSION), np.float32)
        spread *= 0.6 / DIMENSION**0.5
        return _unit(spread + centres[rng.integers(0, len(centres), count)])

    return around(n), around(num_queries)


def nearest(vectors: Vectors, queries: Vectors) -> Positions:
    """The 10 nearest of each query by float64, in any order."""
    wide = queries.astype(np.float64)
    scores = np.empty((len(queries), len(vectors)))
    for first in range(0, len(vectors), 8192):
        block = vectors[first : first + 8192].astype(np.float64)
        scores[:, first : first + 8192] = wide @ block.T
    return np.argpartition(scores, -K, axis=1)[:, -K:]


def recall(found: Positions, wanted: Positions) -> float:
    """Share of what is wanted that was found."""
    shared = [len(np.intersect1d(*rows)) for rows in zip(found, wanted, strict=True)]
    return sum(shared) / wanted.size


def with_numpy(vectors: Vectors) -> tuple[Search, float]:
    """A product of matrices, and a partition."""

    def search(queries: Vectors) -> Positions:
        scores = queries @ vectors.T
        best = np.argpartition(scores, -K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)

    return search, vectors.nbytes


def with_ours(vectors: Vectors, kind: Any) -> tuple[Search, float]:
    """`VectorIndex`, which holds the vectors beside their graph."""
    index = VectorIndex(DIMENSION, kind)
    index.add(vectors)
    graph = index.graph_to_save()
    size = index.vectors.nbytes + (0 if graph is None else _file_size(graph.save))
    return lambda queries: index.search(queries, K)[0], size


def with_faiss(vectors: Vectors, kind: str) -> tuple[Search, float]:
    """Flat, or a graph of the same parameters as ours."""
    index: Any = faiss.IndexFlatIP(DIMENSION)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(DIMENSION, M, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = EF_CONSTRUCTION, EF
    index.add(vectors)
    return lambda queries: index.search(queries, K)[1], faiss.serialize_index(index).nbytes


def with_hnswlib(vectors: Vectors) -> tuple[Search, float]:
    """The library without our guard."""
    index = hnswlib.Index(space="ip", dim=DIMENSION)
    index.init_index(
        max_elements=len(vectors), M=M, ef_construction=EF_CONSTRUCTION, random_seed=100
    )
    index.set_ef(EF)
    index.add_items(vectors, num_threads=1)

    def search(queries: Vectors) -> Positions:
        found: Positions = index.knn_query(queries, k=K, num_threads=1)[0]
        return found

    return search, _file_size(lambda path: index.save_index(str(path)))


METHODS: dict[str, Callable[[Vectors], tuple[Search, float]]] = {
    NUMPY: with_numpy,
    EXACT: lambda vectors: with_ours(vectors, "exact"),
    "faiss Flat": lambda vectors: with_faiss(vectors, "flat"),
    HNSW: lambda vectors: with_ours(vectors, "hnsw"),
    "faiss HNSW": lambda vectors: with_faiss(vectors, "hnsw"),
    "raw hnswlib": with_hnswlib,
}


def measure(
    size: Size, progress: Callable[[int, int], object] = lambda done, total: None
) -> list[Figure]:
    """All rows.

    Args:
        size: how much to do.
        progress: called with the indexes built and measured, and their number.

    Raises:
        ValueError: a method that is exact finds something else than float64 does.
    """
    faiss.omp_set_num_threads(1)
    total = len(size.num_vectors) * (len(METHODS) + 1)
    done = 0
    figures: list[Figure] = []
    for n in size.num_vectors:
        vectors, queries = clustered(n, size.num_queries)
        wanted = nearest(vectors, queries)
        searches: dict[str, Search] = {}
        rows: list[Figure] = []
        for method, build in METHODS.items():
            progress(done, total)
            started = time.process_time()
            searches[method], num_bytes = build(vectors)
            build_s = time.process_time() - started
            for batch in BARS:
                share = recall(_in_batches(searches[method], queries, batch), wanted)
                if method in (NUMPY, EXACT, "faiss Flat") and share < 0.999:
                    raise ValueError(f"{method} at {n}: recall {share}, and it is no exact search")
                row = Figure(n, batch, method, share, build_s, num_bytes / 1e6, len(queries))
                rows.append(row)
            done += 1
        progress(done, total)
        _time_in_turn(rows, searches, queries, size.num_rounds)
        done += 1
        figures += rows
    progress(done, total)
    return figures


def _time_in_turn(
    rows: Sequence[Figure], searches: dict[str, Search], queries: Vectors, num_rounds: int
) -> None:
    """Every row in every round, in an order that turns."""
    gc.collect()
    gc.disable()
    try:
        for number in range(num_rounds):
            turned = [*rows[number % len(rows) :], *rows[: number % len(rows)]]
            for row in turned:
                # Untimed, for another's index is in the caches.
                _in_batches(searches[row.method], queries[:BATCH], row.batch)
                started = time.process_time()
                _in_batches(searches[row.method], queries, row.batch)
                row.seconds.append(time.process_time() - started)
            of_numpy = {row.batch: row.seconds[-1] for row in rows if row.method == NUMPY}
            for row in rows:
                row.ratios.append(of_numpy[row.batch] / row.seconds[-1])
    finally:
        gc.enable()


def _in_batches(search: Search, queries: Vectors, batch: int) -> Positions:
    starts = range(0, len(queries), batch)
    return np.concatenate([search(queries[first : first + batch]) for first in starts])


def verdicts(figures: Sequence[Figure]) -> list[str]:
    """How the graph stands to its bars, where 100,000 vectors were measured."""
    lines = []
    for row in figures:
        if row.method == HNSW and row.size == 100_000:
            bar = BARS[row.batch]
            is_met = row.ratio_to_numpy >= bar and row.recall_at_10 >= MIN_RECALL
            lines.append(
                f"{HNSW}, batches of {row.batch}: {row.ratio_to_numpy:.1f} x {NUMPY} at recall "
                f"{row.recall_at_10:.3f}; the bar of {bar:g} x at {MIN_RECALL} is "
                f"{'met' if is_met else 'MISSED'}"
            )
    return lines


def table(figures: Sequence[Figure]) -> str:
    """The rows as lines of text."""
    rows = [figure.as_row() for figure in figures]
    lines = [[*rows[0]], *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            value.ljust(width) if name == "method" else value.rjust(width)
            for name, value, width in zip(rows[0], line, widths, strict=True)
        )
        for line in lines
    )


def _unit(vectors: Vectors) -> Vectors:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _file_size(save: Callable[[Path], object]) -> int:
    with tempfile.TemporaryDirectory(prefix="esi_bench_") as folder:
        path = Path(folder) / "graph.bin"
        save(path)
        return path.stat().st_size
