"""An index on disk: vectors and records are the truth, the graph is a cache of the vectors.

A folder holds ``vectors.npy`` (unit length, float32 or float16, mapped when it is read), the files
of `esi_fast.search.records`, ``graph.bin`` (hnswlib's own file; none where searches are exact),
``graph.axes.npy`` (those of the graph's own vectors, where it has fewer) and ``index.json`` with
the sha256 of each and of itself. A file that is not the one that was written is
refused; a graph that is not, is never loaded: it is built again from the vectors.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esi_fast.data.journal import sync_path
from esi_fast.data.shard_index import sealed, sha256_of, write_synced
from esi_fast.retriever.graph import SEED, Graph, GraphSettings
from esi_fast.retriever.vectors import Search, VectorIndex
from esi_fast.search.records import FILES

FORMAT, VERSION = "esi_fast ECG index", 2
# Chosen on embeddings with a trained model's spread: benchmarks/search.csv.
GRAPH_SETTINGS = GraphSettings(m=16, ef_construction=500, ef=1024, kept=0.9998)
_BUILT_WITH = {
    "m": GRAPH_SETTINGS.m,
    "ef_construction": GRAPH_SETTINGS.ef_construction,
    "kept": GRAPH_SETTINGS.kept,
    "seed": SEED,
}
StageProgress = Callable[[str, int, int], object]
META, VECTORS, GRAPH, AXES = "index.json", "vectors.npy", "graph.bin", "graph.axes.npy"


def write_vectors(
    folder: Path, arrays: Iterable[NDArray[Any]], shape: tuple[int, int], dtype: str
) -> NDArray[Any]:
    """Write the vectors part by part, and map them."""
    path = folder / VECTORS
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    done = 0
    for array in arrays:
        whole[done : done + len(array)] = array
        done += len(array)
    whole.flush()
    del whole
    return map_vectors(folder)


def map_vectors(folder: Path) -> NDArray[Any]:
    """The vectors (n, D), mapped: searches read of the file what they need."""
    vectors: NDArray[Any] = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    return vectors


def vector_index(vectors: NDArray[Any], search: Search, threads: int = 0) -> VectorIndex:
    """Mapped vectors, to be searched; ``threads`` build the graph, 0: all cores."""
    num_threads = threads or len(os.sched_getaffinity(0))
    index = VectorIndex(vectors.shape[1], search, threads=num_threads, graph=GRAPH_SETTINGS)
    index.restore(vectors)
    return index


def seal(folder: Path, meta: dict[str, Any]) -> None:
    """Put every file on disk for good, and write index.json with their sums.

    Args:
        folder: holds the files.
        meta: what `read_meta` is to give back.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name != META)
    for name in names:
        sync_path(folder / name)
    sums = {name: sha256_of(folder / name) for name in names}
    about = {"format": FORMAT, "version": VERSION, "files": sums, "graph": _BUILT_WITH}
    whole = {**meta, **about}
    temporary = folder / f".{META}.partial"
    write_synced(temporary, sealed(whole))
    temporary.replace(folder / META)
    sync_path(folder)


def put_in_place(temporary: Path, folder: Path) -> None:
    """Give a sealed folder its name, for good."""
    temporary.replace(folder)
    sync_path(folder.parent)


def read_meta(folder: Path) -> dict[str, Any]:
    """What index.json says.

    Raises:
        FileNotFoundError: the folder holds no index.
        ValueError: index.json is damaged or of another format.
    """
    path = folder / META
    try:
        written = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{folder} holds no index of ECGs; make one with tools/search build"
        ) from None
    try:
        meta = json.loads(written)
    except ValueError:
        raise _damaged(path) from None
    found = (meta.get("format"), meta.get("version")) if isinstance(meta, dict) else None
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path} is {found}, not {(FORMAT, VERSION)}: build the index again")
    if sealed(meta) != written:
        raise _damaged(path)
    return dict(meta)


def check_files(folder: Path, meta: dict[str, Any]) -> None:
    """Make sure that vectors and records are what was written.

    Raises:
        ValueError: one is not; it is named.
    """
    for name in (VECTORS, *FILES):
        path = folder / name
        if not _is(path, meta["files"].get(name)):
            raise _damaged(path)


def adopt_saved_graph(index: VectorIndex, folder: Path, meta: dict[str, Any]) -> bool:
    """Load the graph of an index's vectors, if it is what was written; says whether it was."""
    path = folder / GRAPH
    files = {name: meta["files"].get(name) for name in (GRAPH, AXES)}
    if files[AXES] is None:  # the graph has all axes
        del files[AXES]
    is_ours = meta["graph"] == _BUILT_WITH
    if not is_ours or any(not _is(folder / name, wanted) for name, wanted in files.items()):
        warnings.warn(
            f"{path} is not what was saved: it is built again, which takes a while at each load; "
            "tools/search build ... --resume mends it",
            stacklevel=3,
        )
        return False
    try:
        axes = np.load(folder / AXES, allow_pickle=False) if AXES in files else None
        index.adopt_graph(Graph.load(path, index.dimension, settings=GRAPH_SETTINGS, axes=axes))
    except (RuntimeError, ValueError) as error:
        warnings.warn(f"{path}: {error}: it is built again", stacklevel=3)
        return False
    return True


def write_graph(folder: Path, index: VectorIndex) -> None:
    """Write the graph of an index, in place of what was there; none where searches are exact."""
    graph = index.graph_to_save()
    for name in (GRAPH, AXES):
        (folder / name).unlink(missing_ok=True)
    if graph is not None:
        graph.save(folder / GRAPH)
        if graph.axes is not None:
            np.save(folder / AXES, graph.axes, allow_pickle=False)


def fresh_folder(folder: Path) -> Path:
    """An empty folder, whatever a killed job has left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is damaged; build the index again")


def _is(path: Path, sha256: str | None) -> bool:
    """Whether a file is there and is the one that was written."""
    return path.is_file() and sha256_of(path) == sha256
