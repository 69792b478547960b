"""The search of ECGs at the size of MIMIC-IV-ECG: recall, time a query, building, memory, disk.

The index is `esi_fast.search`'s own, of drawn embeddings in place of a model's: `search_spread`
says how they are drawn. Queries are 400 records that are not in the index, and 400 texts. What is
exact is found by this module's own products in float32, of the vectors before they are rounded to
the index's type. Times are CPU time of one thread in a process that holds nothing but the index.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.search_spread import Drawer, Spread, Vectors, local_dimension
from esi_fast.search import EcgIndex, RecordFilter, storage
from esi_fast.search.records import FILES, write_records

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "hnswlib")
DIMENSION = 512
K = 10
MAX_MS, MIN_RECALL = 2.0, 0.99
_BARRED = 800_000
EFS = (128, 256, 512, 1024, 2048)
_CAPTION = "This tracing shows number {}. " + "Rate 71 beats per minute, normal axis. " * 7

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does.

    Attributes:
        indexes: records of each, and over how many times as many axes as measured its variance
            is stretched.
        num_queries: of each kind.
        dtype: of the vectors on disk.
    """

    indexes: tuple[tuple[int, float], ...]
    num_queries: int
    dtype: Literal["float32", "float16"] = "float32"


FULL = Size(((_BARRED, 1), (100_000, 1), (100_000, 4)), 400)
QUICK = Size(((21_000, 1),), 40)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    Attributes:
        records: in the index.
        stretch: of its variance, see `Size`.
        quantity, setting: what was measured, of what.
        value, unit: the number.
        verdict: how it stands to its bar; "" without one.
    """

    records: int
    stretch: float
    quantity: str
    setting: str
    value: float
    unit: str
    verdict: str = ""

    def as_row(self) -> dict[str, object]:
        """The columns of a result file."""
        value = f"{self.value:.4f}" if self.unit == "share" else f"{self.value:.4g}"
        return {
            "records": self.records, "stretch": self.stretch, "quantity": self.quantity,
            "setting": self.setting, "value": value, "unit": self.unit, "verdict": self.verdict,
        }  # fmt: skip


class Nearest:
    """The K nearest of queries (m, D), of vectors that come in blocks."""

    def __init__(self, queries: Vectors) -> None:
        self._queries = queries
        self._scores = np.full((len(queries), K), -np.inf, np.float32)
        self.rows = np.full((len(queries), K), -1, np.int64)

    def add(self, block: Vectors, first: int) -> None:
        """Look at the vectors of rows ``first`` and on."""
        products = self._queries @ block.T
        best = np.argpartition(products, -K, axis=1)[:, -K:]
        scores = np.concatenate([self._scores, np.take_along_axis(products, best, 1)], axis=1)
        rows = np.concatenate([self.rows, best + first], axis=1)
        kept = np.argpartition(scores, -K, axis=1)[:, -K:]
        self._scores = np.take_along_axis(scores, kept, 1)
        self.rows = np.take_along_axis(rows, kept, 1)


def recall(found: Positions, wanted: Positions) -> float:
    """Share of what is wanted that was found."""
    shared = [len(np.intersect1d(*rows)) for rows in zip(found, wanted, strict=True)]
    return sum(shared) / wanted.size


def measure(
    size: Size,
    spread: Spread,
    progress: Callable[[str, int, int], object] = lambda stage, done, total: None,
) -> Iterator[list[Figure]]:
    """The figures of each size of index, when they are there.

    Args:
        size: how much to do.
        spread: of a model's embeddings, in the model's width.
        progress: called with what is done, how much of it, and in all.
    """
    for num_records, stretch in size.indexes:
        with tempfile.TemporaryDirectory(prefix="esi_bench_") as folder:
            drawer = Drawer(spread.widened(DIMENSION, stretch))
            found = _measure_one(Path(folder), num_records, size, drawer, progress)
        yield [_judged(Figure(num_records, stretch, *row)) for row in found]


Told = tuple[str, str, float, str]  # quantity, setting, value, unit


def _measure_one(
    folder: Path,
    num_records: int,
    size: Size,
    drawer: Drawer,
    progress: Callable[[str, int, int], object],
) -> list[Told]:
    queries = {
        "ECG": np.concatenate([block for block, _ in drawer.records(size.num_queries, seed=2)]),
        "text": drawer.texts(size.num_queries, seed=3),
    }
    exact = {kind: Nearest(vectors) for kind, vectors in queries.items()}
    rounded = {kind: Nearest(vectors) for kind, vectors in queries.items()}
    index_folder = storage.fresh_folder(folder / "index")
    clusters: list[npt.NDArray[np.int64]] = []

    def drawn() -> Iterator[Vectors]:
        first = 0
        for block, which in drawer.records(num_records, seed=1):
            for kind in queries:
                exact[kind].add(block, first)
                if size.dtype == "float16":
                    rounded[kind].add(block.astype(np.float16).astype(np.float32), first)
            clusters.append(which)
            first += len(block)
            progress("draw", first, num_records)
            yield block

    vectors = storage.write_vectors(index_folder, drawn(), (num_records, DIMENSION), size.dtype)
    write_records(index_folder, _lines(np.concatenate(clusters)))
    index = storage.vector_index(vectors, "hnsw", threads=0)
    wall, cpu = time.perf_counter(), time.process_time()
    index.prepare(lambda done, total: progress("graph", done, total))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    storage.write_graph(index_folder, index)
    graph = index.graph_to_save()
    assert graph is not None
    axes = DIMENSION if graph.axes is None else graph.axes.shape[1]
    sample = np.asarray(vectors[:8192], np.float32)
    meta = {"model": {"sha256": "", "name": "drawn", "path": None}, "shards": [], "rejected": []}
    storage.seal(index_folder, {**meta, "search": "hnsw"})
    del index, vectors, graph
    wanted = {kind: one.rows for kind, one in exact.items()}
    np.savez(folder / "queries.npz", **queries, **{f"{kind} rows": wanted[kind] for kind in wanted})
    sizes = {name: (index_folder / name).stat().st_size / 1e6 for name in os.listdir(index_folder)}  # noqa: PTH208
    settings = storage.GRAPH_SETTINGS
    how = f"M {settings.m}, ef_construction {settings.ef_construction}"
    told: list[Told] = [
        ("intrinsic dimension of 8,192", "drawn", local_dimension(sample), ""),
        ("axes of the graph", f"keep {settings.kept} of the vectors", axes, ""),
        ("build of the graph", f"{how}, CPU", cpu, "s"),
        ("build of the graph", f"{how}, wall", wall, "s"),
        ("on disk", f"vectors, {size.dtype}", sizes[storage.VECTORS], "MB"),
        ("on disk", "graph", sizes[storage.GRAPH], "MB"),
        ("on disk", "records", sum(sizes[name] for name in FILES), "MB"),
    ]
    if size.dtype == "float16":
        for kind, one in rounded.items():
            share = recall(one.rows, wanted[kind])
            told.append((f"recall@10, {kind}", "exact, of vectors in float16", share, "share"))
    progress("query", 0, 1)
    command = [sys.executable, "-m", "benchmarks.search_speed", str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return told + [(*row,) for row in json.loads(done.stdout)]


def _judged(figure: Figure) -> Figure:
    """With a verdict, where there is a bar."""
    if figure.records < _BARRED or figure.setting != _default():
        return figure
    is_share = figure.unit == "share"
    is_met = figure.value >= MIN_RECALL if is_share else figure.value < MAX_MS
    return replace(figure, verdict="met" if is_met else "MISSED")


def _default() -> str:
    return f"ef {storage.GRAPH_SETTINGS.ef}"


def _lines(clusters: Positions) -> Iterator[list[dict[str, Any]]]:
    """Records like a shard set's: a statement and a finding a cluster, a caption of 300 letters."""
    rng = np.random.default_rng(4)
    for row, cluster in enumerate(clusters.tolist()):
        yield [
            {
                "key": f"{40_000_000 + row}", "subject_id": f"{10_000_000 + row // 5}",
                "split": "train", "age": float(rng.integers(18, 91)),
                "sex": ("male", "female")[row % 2], "statements": [f"Statement {cluster}"],
                "findings": [f"finding_{cluster}"], "caption": _CAPTION.format(cluster),
            }
        ]  # fmt: skip


def answer(folder: Path) -> list[Told]:
    """What a process that loads the index measures: quantity, setting, value, unit."""
    before = _memory()
    started = time.perf_counter()
    index = EcgIndex.load(folder / "index")
    rows: list[Told] = [("load, every file verified", "wall", time.perf_counter() - started, "s")]
    with np.load(folder / "queries.npz") as held:
        queries = {kind: held[kind] for kind in ("ECG", "text")}
        wanted = {kind: held[f"{kind} rows"] for kind in queries}
    graph = index._vectors.graph_to_save()
    assert graph is not None
    for kind, vectors in queries.items():
        for ef in EFS:
            graph._index.set_ef(ef)
            found, ms = _timed(vectors, lambda one: index.nearest(one, K)[0][0])
            rows.append((f"recall@10, {kind}", f"ef {ef}", recall(found, wanted[kind]), "share"))
            rows.append((f"a query, {kind}", f"ef {ef}", ms, "ms"))
    graph._index.set_ef(storage.GRAPH_SETTINGS.ef)
    used = _memory()
    rows += [("memory after the queries", kind, used[kind] - before[kind], "MB") for kind in used]
    for name, wanted_of in (
        ("none", None),
        ("sex: half of all", RecordFilter(sex="female")),
        ("age 60 to 64: 7 %", RecordFilter(age=(60, 64))),
    ):
        _, ms = _timed(queries["ECG"][:40], lambda one, by=wanted_of: _keys(index, one, by))
        rows.append(("a query with records and filter", name, ms, "ms"))
    return rows


def _keys(index: EcgIndex, vector: Vectors, wanted: RecordFilter | None) -> Positions:
    return np.array([int(hit.key) for hit in index.query_vector(vector, K, wanted)])


def _timed(vectors: Vectors, search: Callable[[Vectors], Positions]) -> tuple[Positions, float]:
    """What is found of each, and the median of 3 rounds of CPU milliseconds a query."""
    found = np.stack([search(vector) for vector in vectors])
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for vector in vectors:
            search(vector)
        rounds.append((time.process_time() - started) / len(vectors) * 1e3)
    return found, sorted(rounds)[1]


def _memory() -> dict[str, float]:
    """Resident megabytes of this process: its own, and of mapped files."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    kinds = {"resident, own": "RssAnon", "resident, of mapped files": "RssFile"}
    return {kind: int(fields[name].split()[0]) / 1e3 for kind, name in kinds.items()}


def table(figures: list[Figure]) -> str:
    """The figures as lines of text."""
    rows = [figure.as_row() for figure in figures]
    lines = [[*rows[0]], *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(Path(sys.argv[1]))))
