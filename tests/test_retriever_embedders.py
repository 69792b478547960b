"""The retriever beside embedders that fail, or keep their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from test_retriever import DOCUMENTS, with_vectors

from esi_fast.retriever import Document, HashingEmbedder, Retriever


class Faulty(HashingEmbedder):
    """Makes of documents, or of queries, what it is told to."""

    def __init__(self) -> None:
        super().__init__(8)
        self.made: Any = None

    def embed_documents(self, documents: Sequence[Document]) -> Any:
        return super().embed_documents(documents) if self.made is None else self.made

    def embed_queries(self, texts: Sequence[str]) -> Any:
        return super().embed_queries(texts) if self.made is None else self.made


@with_vectors
@pytest.mark.parametrize(
    "made",
    [np.ones((1, 8)), np.ones((3, 8)), np.ones((2, 7)), np.ones(16), np.zeros((2, 8)),
     np.full((2, 8), np.nan), np.full((2, 8), 1e300), [["x"] * 8] * 2, np.ones((2, 8), complex),
     np.ones((2, 8), bool), [[1.0], [1.0, 2.0]], None],
)  # fmt: skip
def test_an_embedder_that_fails_changes_nothing(backend: str, made: Any) -> None:
    embedder = Faulty()
    retriever = Retriever(backend, embedder=embedder)
    retriever.add_documents(DOCUMENTS)
    before = retriever.query("fox")
    embedder.made = [] if made is None else made
    new = [Document("a", "anew"), Document("d", "new")]
    with pytest.raises(ValueError, match=r"^the embedder made .*2 documents.*; "):
        retriever.add_documents(new, on_duplicate="overwrite")
    assert retriever.documents == DOCUMENTS
    assert retriever.query("fox") == before


@with_vectors
@pytest.mark.parametrize(
    "made",
    [np.ones((1, 8)), np.ones((2, 7)), np.ones((2, 1)), np.ones(16), np.full((2, 8), np.inf),
     np.full((2, 8), 1e300), [["x"] * 8] * 2, np.ones((2, 8), complex), np.ones((2, 8), bool),
     [[1.0], [1.0, 2.0]]],
)  # fmt: skip
def test_what_an_embedder_makes_of_queries_is_looked_at_before_it_is_remembered(
    backend: str, made: Any
) -> None:
    embedder = Faulty()
    retriever = Retriever(backend, embedder=embedder)
    retriever.add_documents(DOCUMENTS)
    embedder.made = made
    for _ in range(2):  # not only the first time
        with pytest.raises(ValueError, match=r"^the embedder made .*2 queries.*; "):
            retriever.query(["fox", "granite"])
    embedder.made = None
    fresh = Retriever(backend, embedder=Faulty())
    fresh.add_documents(DOCUMENTS)
    assert retriever.query(["fox", "granite"]) == fresh.query(["fox", "granite"])


@with_vectors
def test_an_embedder_may_use_its_array_again(backend: str) -> None:
    class Thrifty(HashingEmbedder):
        row = np.zeros((1, 1024), np.float32)

        def embed_queries(self, texts: Sequence[str]) -> Any:
            self.row[:] = super().embed_queries(texts)
            return self.row

    retriever = Retriever(backend, embedder=Thrifty())
    retriever.add_documents(DOCUMENTS)
    before = retriever.query("fox")
    retriever.query("granite")
    assert retriever.query("fox") == before
