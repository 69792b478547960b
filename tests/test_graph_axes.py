"""A graph of fewer axes: it finds what all axes find, and its file is guarded as the graph's is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from esi_fast.retriever import VectorIndex
from esi_fast.retriever.graph import GraphSettings, principal_axes
from esi_fast.search import storage

SETTINGS = GraphSettings(ef=256, kept=0.999)


def flat_vectors(n: int, d: int, rank: int, noise: float, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors near a plane of ``rank`` axes, with a mean of their own."""
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=(rank, d)) / np.sqrt(d)
    x = (rng.normal(size=(n, rank)) + 0.5) @ plane + noise * rng.normal(size=(n, d)) / np.sqrt(d)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_axes_are_the_fewest_that_keep_what_is_asked_for() -> None:
    x = flat_vectors(3000, 96, rank=20, noise=0.02)
    axes = principal_axes(x, 0.999)
    assert axes is not None
    assert axes.shape == (96, 32)  # 20, in lanes of 16
    np.testing.assert_allclose(axes.T @ axes, np.eye(32), atol=1e-5)
    assert np.square(x @ axes).sum() / len(x) > 0.999
    all_axes = principal_axes(x, 0.9)
    assert all_axes is not None
    assert all_axes.shape == (96, 16)
    assert np.square(x @ all_axes).sum() / len(x) > 0.9


def test_there_are_none_where_half_of_the_axes_would_not_do() -> None:
    x = flat_vectors(500, 40, rank=40, noise=1.0)
    assert principal_axes(x, 0.999) is None
    assert principal_axes(x[:1], 0.999) is not None  # one vector is one axis


@pytest.mark.parametrize("num_deleted", [0, 300])
def test_what_is_found_and_its_cosines_are_those_of_all_axes(num_deleted: int) -> None:
    x = flat_vectors(4000, 96, rank=12, noise=0.03)
    x[100:110] = x[0]  # equal vectors are one in the graph
    index = VectorIndex(96, "hnsw", graph=SETTINGS)
    index.add(x)
    gone = np.random.default_rng(1).permutation(np.arange(200, 4000))[:num_deleted]
    index.delete(gone)
    graph = index.graph_to_save()
    assert graph is not None
    assert graph.is_rough
    queries = flat_vectors(50, 96, rank=12, noise=0.03, seed=0)[:50]
    queries += 0.3 * np.random.default_rng(2).normal(size=96).astype(np.float32)  # not of the plane
    found, scores = index.search(queries, 10)
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    cosines = unit.astype(np.float64) @ x.T.astype(np.float64)
    cosines[:, gone] = -np.inf
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, found, 1), atol=1e-6)
    wanted = np.sort(cosines, axis=1)[:, -10:].min(axis=1)
    hits = (np.take_along_axis(cosines, found, 1) >= wanted[:, None] - 1e-6).mean()
    assert hits > 0.99
    assert not np.isin(found, gone).any()
    same = index.search(x[0], 11)[0]
    assert same.tolist() == [[0, *range(100, 110)]]


def test_vectors_that_come_later_go_on_the_same_axes() -> None:
    x = flat_vectors(2000, 64, rank=8, noise=0.02)
    index = VectorIndex(64, "hnsw", graph=SETTINGS)
    index.add(x[:1500])
    index.search(x[0], 1)
    index.add(x[1500:])
    found, _ = index.search(x[1500:], 1)
    assert (found[:, 0] == np.arange(1500, 2000)).mean() > 0.99


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x = flat_vectors(1500, 64, rank=8, noise=0.001)
    out = tmp_path / "index"
    out.mkdir()
    vectors = storage.write_vectors(out, [x], x.shape, "float32")
    index = storage.vector_index(vectors, "hnsw", threads=1)
    storage.write_graph(out, index)
    storage.seal(out, {"search": "hnsw"})
    return out


def test_saved_and_loaded_the_graph_and_its_axes_belong_together(folder: Path) -> None:
    meta = storage.read_meta(folder)
    assert {storage.GRAPH, storage.AXES} <= set(meta["files"])
    vectors = storage.map_vectors(folder)
    fresh = storage.vector_index(vectors, "hnsw", threads=1)
    loaded = storage.vector_index(vectors, "hnsw", threads=1)
    assert storage.adopt_saved_graph(loaded, folder, meta)
    for one, other in zip(
        loaded.search(vectors[:40], 5), fresh.search(vectors[:40], 5), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_axes_are_never_used(folder: Path, damage: str) -> None:
    meta, path = storage.read_meta(folder), folder / storage.AXES
    whole = path.read_bytes()
    flipped = bytes([*whole[:-1], whole[-1] ^ 1])
    path.write_bytes({"flip": flipped, "cut": whole[:-8], "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    index = storage.vector_index(storage.map_vectors(folder), "hnsw", threads=1)
    with pytest.warns(UserWarning, match="is not what was saved: it is built again"):
        assert not storage.adopt_saved_graph(index, folder, meta)
