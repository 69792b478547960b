"""The retriever: ranking, filters, changes, threads. BM25 is checked against a plain loop."""

from __future__ import annotations

import math
import random
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esi_fast.retriever import BACKENDS, Document, HashingEmbedder, Retriever

DOCUMENTS = (
    Document("a", "the quick brown fox", "fox", {"kind": "animal", "walls": ["x", "y"]}),
    Document("b", "the lazy dog sleeps by the fox", "dog", {"kind": "animal", "walls": []}),
    Document("c", "granite and basalt", "rock", {"kind": "stone"}),
)
every_backend = pytest.mark.parametrize("backend", BACKENDS)
with_vectors = pytest.mark.parametrize("backend", ["dense", "exact", "hnsw", "hybrid"])


def filled(backend: str = "auto", **settings: float) -> Retriever:
    retriever = Retriever(backend, **settings)
    retriever.add_documents(DOCUMENTS)
    return retriever


def ids(retriever: Retriever, query: str, **options: Any) -> list[str]:
    return [hit.document.id for hit in retriever.query(query, **options)]


def slow_bm25(query: str, k1: float, b: float) -> list[float]:
    """Straight from the formula, a word and a document at a time."""
    words = [re.findall(r"\w+", f"{d.title} {d.title} {d.text}".lower()) for d in DOCUMENTS]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for mine in words:
        score = 0.0
        for word in re.findall(r"\w+", query.lower()):
            n = sum(word in other for other in words)
            idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
            tf = mine.count(word)
            score += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(mine) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("settings", [(1.2, 0.75), (0.5, 0.0), (2.0, 1.0)])
def test_scores_are_bm25(settings: tuple[float, float]) -> None:
    k1, b = settings
    retriever = filled(k1=k1, b=b)
    for query in ("fox", "the dog", "Basalt fox fox", "lazy brown granite"):
        expected = slow_bm25(query, k1, b)
        hits = retriever.query(query, k=3)
        for hit in hits:
            position = [d.id for d in DOCUMENTS].index(hit.document.id)
            assert hit.score == pytest.approx(expected[position], rel=1e-12)
        assert len(hits) == sum(score > 0 for score in expected)
        assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)
        assert [hit.rank for hit in hits] == list(range(len(hits)))


def test_a_title_counts_twice() -> None:
    retriever = Retriever()
    retriever.add_documents(
        [
            Document("text", "alpha beta gamma delta epsilon"),
            Document("title", "beta gamma", "alpha"),
        ]
    )
    assert ids(retriever, "alpha") == ["title", "text"]


def test_the_sources_of_scores() -> None:
    sources = {backend: filled(backend).query("fox")[0].source for backend in BACKENDS}
    assert sources.pop("auto") == sources.pop("bm25") == "bm25"
    assert sources.pop("hybrid") == "fused"
    assert set(sources.values()) == {"dense"}
    assert Retriever("auto", embedder=HashingEmbedder(64)).backend == "hybrid"


def test_fusion_is_by_reciprocal_ranks() -> None:
    query = "the lazy granite"
    rankings = [ids(filled(backend), query, k=3) for backend in ("bm25", "exact")]
    wanted = {
        one.id: sum(1 / (61 + ranking.index(one.id)) for ranking in rankings if one.id in ranking)
        for one in DOCUMENTS
    }
    hits = filled("hybrid").query(query, k=3)
    assert {hit.document.id: hit.score for hit in hits} == pytest.approx(wanted)
    assert [hit.score for hit in hits] == sorted(wanted.values(), reverse=True)


@every_backend
def test_k_is_clamped_and_must_be_positive(backend: str) -> None:
    retriever = filled(backend)
    assert len(retriever.query("the fox granite", k=100)) == 3
    assert len(retriever.query("the fox granite", k=1)) == 1
    assert len(retriever.query("the fox granite", k=np.int64(2))) == 2
    for bad in (0, -1, 2.5, 2.0, "3", math.nan, True, np.bool_(True), None, [3]):
        with pytest.raises(ValueError, match=rf"^k is {re.escape(repr(bad))}; give a whole number"):
            retriever.query("fox", k=bad)


@every_backend
def test_nothing_to_find(backend: str) -> None:
    assert Retriever(backend).query("fox") == []
    assert Retriever(backend).query(["fox", ""]) == [[], []]
    assert len(Retriever(backend)) == 0
    retriever = filled(backend)
    assert (
        retriever.query("") == retriever.query(" .,!") == retriever.query("fox", min_score=9) == []
    )
    assert retriever.query([]) == []
    assert retriever.query("fox", filter={"kind": "plant"}) == []
    assert retriever.query("fox", filter={"kind": []}) == []
    for bad in (("fox",), 3, None, ["fox", 3]):
        with pytest.raises(ValueError, match=r"query is a (tuple|int|NoneType)"):
            retriever.query(bad)  # type: ignore[call-overload]


@every_backend
def test_a_list_of_queries_is_each_of_them(backend: str) -> None:
    retriever = filled(backend)
    texts = ["fox", "", "granite", "fox", "zebra"]
    options = {"k": 2, "filter": {"kind": ["animal", "stone"]}, "min_score": 0.01}
    assert retriever.query(texts, **options) == [retriever.query(text, **options) for text in texts]


@every_backend
def test_filters(backend: str) -> None:
    retriever = filled(backend)

    def found(**wanted: object) -> list[str]:
        return sorted(ids(retriever, "the fox granite", filter=wanted))

    assert found() == ["a", "b", "c"]
    assert found(kind="animal") == ["a", "b"]
    assert found(kind="stone") == ["c"]
    assert found(kind=["stone", "animal"]) == ["a", "b", "c"]
    assert found(walls="x") == ["a"]
    assert found(walls=("y", "z"), kind="animal") == ["a"]
    assert found(walls="x", kind="stone") == []
    assert found(absent="x") == []
    with pytest.raises(ValueError, match="cannot be filtered on"):
        found(kind={"a": 1})
    for bad in ("c", "", 3, ["kind"], {"kind"}, {3: "animal"}, {None: "x"}):
        with pytest.raises(ValueError, match=rf"^filter is {re.escape(repr(bad))}; give a dict"):
            retriever.query("fox", filter=bad)  # type: ignore[call-overload]


@every_backend
def test_min_score(backend: str) -> None:
    retriever = filled(backend)
    best, second = retriever.query("fox", k=2)
    assert best.score > second.score
    assert retriever.query("fox", k=2, min_score=best.score) == [best]
    assert retriever.query("fox", k=2, min_score=second.score) == [best, second]
    assert retriever.query("fox", k=2, min_score=best.score + 1e-9) == []
    assert len(retriever.query("fox", k=2, min_score=np.float32(-1))) == 2
    bad_ones = ("1", math.nan, np.float32("nan"), True, [0.5], 1j, {"bm25": "1"}, {"cosine": 1.0})
    for bad in bad_ones:
        with pytest.raises(ValueError, match=rf"^min_score is {re.escape(repr(bad))}; give a num"):
            retriever.query("fox", min_score=bad)


@every_backend
def test_scores_are_limited_before_they_are_fused(backend: str) -> None:
    retriever = filled(backend)
    lowest = {"bm25": 0.1, "dense": 0.3}
    assert retriever.query("zzz qqq xyz", min_score=lowest) == []
    assert retriever.query(["zzz", "granite"], k=1, min_score=lowest) == [
        [],
        retriever.query("granite", k=1),
    ]
    above = {"bm25": 99.0, "dense": 99.0, "fused": 0.0}
    assert retriever.query("granite", min_score=above) == []
    assert filled("hybrid").query("granite", min_score={"fused": 1.0}) == []


@every_backend
def test_equal_scores_keep_the_order_of_adding(backend: str) -> None:
    names = [f"n{number}" for number in range(200)]
    random.Random(0).shuffle(names)
    retriever = Retriever(backend)
    retriever.add_documents(Document(name, "same words here") for name in names)
    assert ids(retriever, "same words", k=200) == names
    assert ids(retriever, "same words", k=7) == names[:7]
    retriever.delete(names[:150:2])
    assert ids(retriever, "same words", k=7) == names[1:14:2]


@every_backend
def test_duplicates(backend: str) -> None:
    retriever = filled(backend)
    again = [Document("a", "a zebra"), Document("d", "a gnu"), Document("d", "another zebra")]
    with pytest.raises(ValueError, match="'a' occurs twice"):
        retriever.add_documents(again)
    with pytest.raises(ValueError, match="on_duplicate is 'replace'"):
        retriever.add_documents(again, "replace")  # type: ignore[arg-type]
    assert retriever.documents == DOCUMENTS
    assert retriever.add_documents(again, on_duplicate="skip") == ["d"]
    assert retriever.documents == (*DOCUMENTS, again[1])
    assert retriever.add_documents(again, on_duplicate="overwrite") == ["a", "d"]
    assert retriever.documents == (*DOCUMENTS[1:], again[0], again[2])
    assert len(retriever) == 4
    assert set(ids(retriever, "zebra", k=2)) == {"a", "d"}
    assert "a" not in ids(retriever, "quick brown", k=1)


@every_backend
def test_delete(backend: str) -> None:
    retriever = filled(backend)
    assert ids(retriever, "fox", k=1) == ["a"]
    for unknown in (["b", "z"], ["z"]):
        with pytest.raises(KeyError, match="no document 'z'"):
            retriever.delete(unknown)
    with pytest.raises(ValueError, match="ids is 'ab'"):
        retriever.delete("ab")
    assert len(retriever) == 3
    retriever.delete(["a", "a"])
    assert ids(retriever, "fox", k=3)[0] == "b"
    assert "a" not in ids(retriever, "quick brown fox", k=3)
    with pytest.raises(KeyError, match="no document 'a'"):
        retriever.delete(["a"])
    retriever.add_documents([DOCUMENTS[0]])
    assert ids(retriever, "fox", k=1) == ["a"]
    retriever.delete(one.id for one in retriever.documents)
    assert len(retriever) == 0
    assert retriever.query("fox") == []


@every_backend
def test_adding_is_all_or_nothing(backend: str) -> None:
    retriever = filled(backend)
    before = retriever.query("fox")
    for bad, message in (
        ([Document("d", "new"), Document("a", "again")], "'a' occurs twice"),
        ([Document("e", "x"), Document("e", "y")], "'e' occurs twice"),
        ([Document("f", "x"), Document("g", " .,! ")], "'g' holds no word"),
        ([Document("f", "x"), "fox"], "'fox' is no Document"),  # type: ignore[list-item]
        ([Document("f", "x"), Document("g", None)], "text None of document 'g'"),  # type: ignore
        ([Document("f", "x"), Document(7, "x")], "id 7 of document 7"),  # type: ignore[arg-type]
        ([Document("f", "x"), Document("g", "x", "", {"y": {1, 2}})], "metadata of document 'g'"),
        ([Document("f", "x"), Document("g", "x", "", {3: "y"})], "keys must be"),  # type: ignore
        ([Document("f", "x"), Document("g", "x", "", {"y": {"z": 1}})], "cannot be filtered on"),
    ):
        with pytest.raises(ValueError, match=message):
            retriever.add_documents(bad)
        assert retriever.documents == DOCUMENTS
        assert retriever.query("fox") == before
    retriever.add_documents([Document("d", "fox fox fox")])
    assert ids(retriever, "fox", k=1) == ["d"]


def test_what_makes_the_documents_may_query_the_retriever() -> None:
    retriever = filled()
    retriever.add_documents(
        Document(f"{name}2", retriever.query(name)[0].document.text) for name in ("fox", "dog")
    )
    assert len(retriever) == 5


@every_backend
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("adwo")), max_size=12))
def test_any_changes_end_as_a_fresh_retriever(backend: str, steps: list[tuple[int, str]]) -> None:
    texts = ("fox", "fox dog", "dog dog gnu", "gnu", "the fox", "fox gnu")
    retriever = Retriever(backend)
    wanted: dict[str, Document] = {}
    for number, what in steps:
        one = Document(str(number), texts[number - (what == "w")])
        if what == "d" and one.id in wanted:
            retriever.delete([one.id])
            del wanted[one.id]
        elif what in "aw" or one.id not in wanted:
            retriever.add_documents([one], on_duplicate="overwrite")
            wanted.pop(one.id, None)
            wanted[one.id] = one
        assert retriever.documents == tuple(wanted.values())
    fresh = Retriever(backend)
    fresh.add_documents(wanted.values())
    assert retriever.query(["fox", "dog gnu"], k=4) == fresh.query(["fox", "dog gnu"], k=4)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns a thousand times as often as they would."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


@every_backend
@pytest.mark.usefixtures("restless")
def test_queries_beside_changes(backend: str) -> None:
    """Never an exception, never a document after its deletion, never one against the filter."""
    retriever = filled(backend)
    failures: list[BaseException] = []
    gone: set[str] = set()
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                before = set(gone)
                hits = retriever.query(["fox number", "granite"], k=9, filter={"kind": "animal"})
                found = {hit.document.id for of_query in hits for hit in of_query}
                assert {"a", "b"} <= found
                assert not found & (before | {"c"})
        except BaseException as error:
            failures.append(error)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for number in range(60):
        new = [Document(f"{number}{part}", f"number {part}", "", {"kind": kind})
               for part, kind in (("x", "animal"), ("y", "stone"))]  # fmt: skip
        retriever.add_documents(new)
        retriever.delete([one.id for one in new])
        gone.update(one.id for one in new)
    done.set()
    for asker in askers:
        asker.join(30)
        assert not asker.is_alive()
    assert not failures, failures


def test_settings_out_of_range_are_refused() -> None:
    for backend in ("faiss", "", "BM25"):
        with pytest.raises(ValueError, match="choose one of auto, bm25, dense"):
            Retriever(backend)
    with pytest.raises(ValueError, match="uses no embedder"):
        Retriever("bm25", embedder=HashingEmbedder())
    with pytest.raises(ValueError, match=r"embedder is 'a/model'; give .* TransformersEmbedder"):
        Retriever("dense", embedder="a/model")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k1 inf"):
        Retriever(k1=math.inf)
    for wrong in ({"k1": "1"}, {"b": None}, {"k1": True}):
        with pytest.raises(ValueError, match=r"^k1 .* and b .*: k1 must be"):
            Retriever(**wrong)
    with pytest.raises(ValueError, match="k1 0"):
        Retriever(k1=0)
    with pytest.raises(ValueError, match=r"b 1\.5"):
        Retriever(b=1.5)
