"""VectorIndex: exact and through the graph, against float64 numpy that does nothing clever."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from esi_fast.retriever import VectorIndex
from esi_fast.retriever.graph import Graph

both = pytest.mark.parametrize("search", ["exact", "hnsw"])
# What float32 vectors of unit length differ by from those given.
NEAR = 1e-6


def oracle(
    vectors: NDArray[Any], alive: NDArray[np.bool_], query: NDArray[Any], k: int
) -> list[tuple[int, float]]:
    """A position at a time."""
    scores = []
    for position, vector in enumerate(vectors.astype(float)):
        if alive[position]:
            cosine = vector @ query / np.linalg.norm(vector) / np.linalg.norm(query)
            scores.append((-cosine, position))
    return [(position, -score) for score, position in sorted(scores)[:k]]


def check_row(
    found: NDArray[np.int64], scores: NDArray[np.float64], wanted: list[tuple[int, float]]
) -> None:
    """Equal to the oracle's, but for the order of cosines that float32 cannot tell apart."""
    num = len(wanted)
    np.testing.assert_array_equal(found[num:], -1)
    assert np.isnan(scores[num:]).all()
    np.testing.assert_allclose(scores[:num], [score for _, score in wanted], atol=NEAR)
    assert len(set(found[:num].tolist())) == num
    for row, (position, score) in enumerate(wanted):
        if found[row] != position:
            assert any(abs(score - other) < NEAR for at, other in wanted if at != position) or (
                abs(score - wanted[-1][1]) < NEAR
            )


def some_vectors(rng: np.random.Generator, n: int, d: int, grid: int) -> NDArray[np.float64]:
    """With many equal ones, where the grid is coarse."""
    vectors = rng.integers(-grid, grid + 1, (n, d)).astype(float)
    vectors[~vectors.any(axis=1), 0] = 1.0
    return vectors


@both
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), d=st.integers(1, 12),
    k=st.integers(1, 70), grid=st.sampled_from([1, 3, 1000]), share=st.floats(0, 1),
    num_deleted=st.integers(0, 60), is_masked=st.booleans(),
)  # fmt: skip
def test_against_the_oracle(
    search: Literal["exact", "hnsw"], seed: int, n: int, d: int, k: int, grid: int, share: float,
    num_deleted: int, is_masked: bool,
) -> None:  # fmt: skip
    # With at most 60 vectors the graph looks at 64 candidates: all of them.
    rng = np.random.default_rng(seed)
    vectors, queries = some_vectors(rng, n, d, grid), some_vectors(rng, 5, d, grid)
    index = VectorIndex(d, search)
    split = int(rng.integers(0, n + 1))
    np.testing.assert_array_equal(index.add(vectors[:split]), np.arange(split))
    if seed % 2 and split:
        index.search(queries, 1)  # the graph must grow then
    np.testing.assert_array_equal(index.add(vectors[split:]), np.arange(split, n))
    alive = np.ones(n, np.bool_)
    gone = rng.permutation(n)[:num_deleted]
    if seed % 3:
        index.prepare()
    index.delete(gone)
    alive[gone] = False
    assert len(index) == alive.sum()
    allowed = rng.random(n) < share if is_masked else None
    found, scores = index.search(queries, k, allowed)
    assert found.shape == scores.shape == (5, min(k, len(index)))
    visible = alive if allowed is None else alive & allowed
    for row, query in enumerate(queries):
        check_row(found[row], scores[row], oracle(vectors, visible, query, k))
        alone = index.search(query, k, allowed)
        np.testing.assert_array_equal(alone[0][0], found[row])
        np.testing.assert_array_equal(alone[1][0], scores[row])


@both
def test_ties_come_in_the_order_of_adding(search: Literal["exact", "hnsw"]) -> None:
    rng = np.random.default_rng(0)
    for d in (3, 21, 384):
        distinct = rng.standard_normal((30, d))
        which = rng.integers(0, 30, 1500)
        index = VectorIndex(d, search)
        index.add(distinct[which])
        found, scores = index.search(distinct, 120)
        for row, (positions, its) in enumerate(zip(found, scores, strict=True)):
            same = np.flatnonzero(which == row)
            np.testing.assert_array_equal(positions[: len(same)], same)
            assert len(set(its[: len(same)])) == 1
            assert its[len(same)] < its[0]


def test_every_vector_fifty_times() -> None:
    """A graph of them falls into islands of equal vectors: found was 0.7 of what is nearest."""
    rng = np.random.default_rng(1)
    vectors = np.repeat(rng.standard_normal((200, 32)), 50, axis=0)[rng.permutation(10_000)]
    queries = rng.standard_normal((40, 32))
    exact, hnsw = VectorIndex(32, "exact"), VectorIndex(32, "hnsw")
    for index in (exact, hnsw):
        index.add(vectors)
    for _ in range(3):
        for k, allowed in ((1, None), (10, None), (130, None), (60, rng.random(10_000) < 0.3)):
            for one, other in zip(
                exact.search(queries, k, allowed), hnsw.search(queries, k, allowed), strict=True
            ):
                np.testing.assert_array_equal(one, other)
        gone = rng.choice(np.flatnonzero(exact._alive), 1500, replace=False)
        exact.delete(gone)
        hnsw.delete(gone)


def test_a_graph_in_parts_that_do_not_meet() -> None:
    # Clusters of hundreds, each tighter by far than they are apart: few links lead between them.
    rng = np.random.default_rng(2)
    centres = np.eye(16)[:8]
    vectors = np.repeat(centres, 250, axis=0) + 1e-4 * rng.standard_normal((2000, 16))
    exact, hnsw = VectorIndex(16, "exact"), VectorIndex(16, "hnsw")
    for index in (exact, hnsw):
        index.add(vectors)
    for k in (5, 300, 1999, 2000, 5000):
        found = hnsw.search(centres + 0.01, k)
        wanted = exact.search(centres + 0.01, k)
        assert found[0].shape == (8, min(k, 2000))
        assert all(len(set(row)) == found[0].shape[1] for row in found[0].tolist())
        np.testing.assert_allclose(found[1], wanted[1], atol=1e-3)


def test_filters_of_any_selectivity_are_exact() -> None:
    rng = np.random.default_rng(3)
    n, d = 3000, 24
    vectors, queries = rng.standard_normal((n, d)), rng.standard_normal((30, d))
    hnsw, exact = VectorIndex(d, "hnsw"), VectorIndex(d, "exact")
    for index in (hnsw, exact):
        index.add(vectors)
    for share in (0.0, 0.001, 0.1, 0.149, 0.16, 0.5, 0.99, 1.0):
        allowed = rng.random(n) < share
        found, scores = hnsw.search(queries, 10, allowed)
        wanted = exact.search(queries, 10, allowed)
        shared = [len(np.intersect1d(*rows)) for rows in zip(found, wanted[0], strict=True)]
        assert np.mean(shared) >= 0.99 * max(1, len(np.unique(wanted[0][0])))
        np.testing.assert_allclose(scores, wanted[1], atol=0.02)
        assert allowed[found[found >= 0]].all()
    # All that is near is forbidden.
    for query in queries:
        allowed = vectors @ query < np.quantile(vectors @ query, 0.4)
        found, scores = hnsw.search(query, 10, allowed)
        wanted = exact.search(query, 10, allowed)
        np.testing.assert_array_equal(found, wanted[0])
        np.testing.assert_array_equal(scores, wanted[1])


@both
def test_queries_and_vectors_that_are_refused(search: Literal["exact", "hnsw"]) -> None:
    index = VectorIndex(4, search)
    index.add(np.eye(4))
    good = np.ones((2, 4), np.float32)
    holed, endless, zero = good.copy(), good.copy(), good.copy()
    holed[1, 2], endless[1, 0], zero[1] = np.nan, -np.inf, 0
    cases: list[tuple[Any, str]] = [
        (holed, "1 is not finite"),
        (endless, "1 is not finite"),
        (zero, "1 is all zeros"),
        (np.float32(1), r"shape \(\)"),
        (good[:, :3], r"shape \(2, 3\); give \(n, 4\)"),
        (np.ones(3), r"shape \(3,\)"),
        (np.ones(5), r"shape \(5,\)"),
        (good[None], r"shape \(1, 2, 4\)"),
        ([], r"shape \(0,\)"),
        (good.astype(complex), "complex"),
        (good.astype(object), "object"),
        (good.astype(bool), "bool"),
        (good.astype(str), "<U"),
        (good.astype(np.longdouble), "float128"),
        (["a", "b", "c", "d"], "<U"),
        ([[1.0], [1.0, 2.0]], "inhomogeneous"),
    ]
    for bad, message in cases:
        with pytest.raises(ValueError, match=message):
            index.search(bad, 1)
        with pytest.raises(ValueError, match=message):
            index.add(bad)
        assert len(index) == 4
    for k in (0, -3, 1.5, "3", np.nan, True, None):
        with pytest.raises(ValueError, match=f"^k is {k!r}; give a whole number, 1 or more$"):
            index.search(good, k)  # type: ignore[arg-type]
    for mask in (np.ones(3, np.bool_), np.ones((1, 4), np.bool_), np.ones(4), [0, 1, 2, 3]):
        with pytest.raises(ValueError, match=r"give bool \(4,\)"):
            index.search(good, 1, mask)  # type: ignore[arg-type]
    for gone in ([4], [-1], [0, 9], [0.5], np.ones(4, np.bool_)):
        with pytest.raises(IndexError):
            index.delete(gone)
    index.delete([])
    index.delete([2])
    with pytest.raises(IndexError, match="not all there"):
        index.delete([1, 2])
    assert len(index) == 3
    assert index.search(np.empty((0, 4)), 2)[0].shape == (0, 2)


def test_one_dimension_takes_no_single_number() -> None:
    index = VectorIndex(1)
    index.add([[1], [-2]])
    with pytest.raises(ValueError, match=r"shape \(\)"):
        index.search(3.0, 1)
    assert index.search([-0.5], 2)[0].tolist() == [[1, 0]]


@pytest.mark.parametrize(
    "arguments", [(0,), ("4",), (4.0,), (True,), (4, "faiss"), (4, []), (4, "auto", 0)]
)
def test_arguments_out_of_range(arguments: Any) -> None:
    with pytest.raises(
        ValueError, match=r"give a whole number, 1 or more|search is ('faiss'|\[\])"
    ):
        VectorIndex(*arguments[:2], **({"threads": arguments[2]} if arguments[2:] else {}))


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e-42, 1.0, 1e35, 1e300])
def test_length_counts_for_nothing(size: float) -> None:
    index = VectorIndex(3)
    index.add(np.array([[1, 2, 3], [3, 2, 1]]) * size)
    found, scores = index.search(np.array([1, 2, 3]) * size, 2)
    assert found.tolist() == [[0, 1]]
    np.testing.assert_allclose(scores, [[1, 10 / 14]], atol=1e-2 if size < 1e-300 else 1e-6)
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint64", ">f4"])
def test_any_real_numbers_in_any_layout(dtype: str) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.integers(1, 9, (20, 6)).astype(dtype)
    plain, other = VectorIndex(6), VectorIndex(6)
    plain.add(vectors.astype(float))
    other.add(np.asfortranarray(vectors))
    np.testing.assert_array_equal(plain.vectors, other.vectors)
    found = other.search(vectors[::-3], 3)
    np.testing.assert_array_equal(found[0], plain.search(vectors[::-3].astype(float), 3)[0])
    vectors[:] = 1  # what was given is not what is kept
    np.testing.assert_array_equal(plain.vectors, other.vectors)


def test_many_deletions_build_the_graph_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    empty = Graph.__init__

    def count(graph: Graph, dimension: int, *others: Any) -> None:
        built.append(dimension)
        empty(graph, dimension, *others)

    monkeypatch.setattr(Graph, "__init__", count)
    rng = np.random.default_rng(5)
    index = VectorIndex(8, "hnsw")
    index.add(rng.standard_normal((1000, 8)))
    index.delete(np.arange(900))
    for num_deleted, num_built in ((0, 1), (20, 1), (1, 2), (0, 2)):
        index.delete(np.flatnonzero(index._alive)[:num_deleted])
        index.search(np.ones(8), 3)
        assert len(built) == num_built
    graph = index._graph
    index.add(rng.standard_normal((50, 8)))
    found = index.search(index.vectors[-1], 1)[0]
    assert found == [[1049]]
    assert index._graph is graph, "it grows, and is not built anew"
    assert len(graph) == len(index) == 129


def test_the_same_vectors_give_the_same_graph(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    vectors, queries = rng.standard_normal((4000, 16)), rng.standard_normal((200, 16))
    found = []
    for number in range(2):
        index = VectorIndex(16, "hnsw")
        for part in np.split(vectors, [1000 * number, 3000]):
            index.add(part)
        graph = index.graph_to_save()
        assert graph is not None
        found.append(graph.search(queries, 50))
    np.testing.assert_array_equal(*found)


def test_the_graph_is_used_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esi_fast.retriever.vectors.EXACT_UP_TO", 30)
    index = VectorIndex(4)
    index.add(np.random.default_rng(7).standard_normal((31, 4)))
    assert index.uses_graph
    index.delete([0])
    assert not index.uses_graph
    assert VectorIndex(4, "hnsw").uses_graph
    done: list[tuple[int, int]] = []
    index.add(np.eye(4)[:1])
    index.prepare(lambda *numbers: done.append(numbers))
    assert done == [(31, 31)]
    index.prepare(lambda *numbers: done.append(numbers))
    assert len(done) == 1


def test_a_build_that_is_broken_off_starts_again() -> None:
    index = VectorIndex(4, "hnsw")
    index.add(np.eye(4))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.prepare(stop)
    assert index.search(np.eye(4), 1)[0].ravel().tolist() == [0, 1, 2, 3]


@both
@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_searches_beside_changes(search: Literal["exact", "hnsw"], seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = VectorIndex(8, search)
    kept = index.add(rng.standard_normal((50, 8)))
    gone: set[int] = set()
    failures: list[BaseException] = []
    done = threading.Event()

    def ask(query: NDArray[np.float64]) -> None:
        try:
            while not done.is_set():
                before = set(gone)
                found, scores = index.search(query, 200)
                assert not before & set(found.ravel().tolist())
                assert set(kept.tolist()) <= set(found[0].tolist())
                assert (np.diff(scores) <= 0).all()
        except BaseException as error:
            failures.append(error)

    askers = [threading.Thread(target=ask, args=(rng.standard_normal((3, 8)),)) for _ in range(3)]
    for asker in askers:
        asker.start()
    for _ in range(40):
        new = index.add(rng.standard_normal((30, 8)))
        index.delete(new[:-1])
        gone.update(new[:-1].tolist())
    done.set()
    for asker in askers:
        asker.join(30)
        assert not asker.is_alive()
    assert not failures, failures
