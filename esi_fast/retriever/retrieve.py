"""Documents in, nearest documents out: by words, by meaning, or both."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from esi_fast.retriever import storage
from esi_fast.retriever.arguments import (
    check_filter,
    is_number,
    lowest_scores,
    made_vectors,
    whole_number,
)
from esi_fast.retriever.bm25 import Bm25
from esi_fast.retriever.documents import Document, Hit, Mask, MetadataIndex, check
from esi_fast.retriever.embedders import Embedder, HashingEmbedder
from esi_fast.retriever.locks import ReadWriteLock
from esi_fast.retriever.vectors import Search, VectorIndex

BACKENDS = ("auto", "bm25", "dense", "exact", "hnsw", "hybrid")
_SEARCH: dict[str, Search] = {
    "dense": "auto", "hybrid": "auto", "exact": "exact", "hnsw": "hnsw",
}  # fmt: skip
# Cormack et al. 2009, "Reciprocal rank fusion outperforms Condorcet": score = sum 1 / (60 + rank).
_RRF = 60
_CACHED_QUERIES = 10_000

_Ranked = list[tuple[int, float]]  # position and score, best first


class Retriever:
    """Finds documents.

    Safe to use from several threads: queries run beside each other, changes alone.

    Args:
        backend: ``"bm25"``: by words (the title's count twice), no model. ``"dense"``: by the
            cosine of embeddings, exactly up to 20,000 documents and through hnswlib beyond;
            ``"exact"`` and ``"hnsw"`` choose one at any size. ``"hybrid"``: both, by reciprocal
            rank fusion. ``"auto"``: hybrid if an embedder is given, else bm25.
        embedder: of the backends other than bm25; by default `HashingEmbedder`, which needs no
            model and knows no meaning.
        k1: of BM25: how soon repeated words stop counting.
        b: of BM25: how much long documents are held back, 0 to 1.

    Raises:
        ValueError: an unknown backend, an embedder for bm25 or one that is none, or ``k1`` or
            ``b`` out of range.
    """

    def __init__(
        self,
        backend: str = "auto",
        *,
        embedder: Embedder | None = None,
        k1: float = 1.2,
        b: float = 0.75,
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"backend {backend!r}: choose one of {', '.join(BACKENDS)}")
        if backend == "bm25" and embedder is not None:
            raise ValueError("backend 'bm25' uses no embedder; choose dense or hybrid, or leave it")
        if embedder is not None and not hasattr(embedder, "embed_documents"):
            raise ValueError(
                f"embedder is {embedder!r}; give an object, such as TransformersEmbedder(MODEL)"
            )
        if not (is_number(k1) and is_number(b) and 0 < k1 < math.inf and 0 <= b <= 1):
            raise ValueError(f"k1 {k1} and b {b}: k1 must be above 0 and b between 0 and 1")
        if backend == "auto":
            backend = "bm25" if embedder is None else "hybrid"
        self.backend = backend
        self.k1, self.b = k1, b
        self.embedder = embedder
        self._vectors: VectorIndex | None = None
        if backend != "bm25":
            self.embedder = embedder or HashingEmbedder()
            self._vectors = VectorIndex(self.embedder.dimension, _SEARCH[backend])
        self._lock = ReadWriteLock()
        self._documents: list[Document | None] = []
        self._position: dict[str, int] = {}
        self._tables: tuple[Bm25 | None, MetadataIndex] | None = None  # made by the next query
        self._tables_lock = threading.Lock()
        self._embedded: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._embedded_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._position)

    @property
    def score_kind(self) -> Literal["bm25", "dense", "fused"]:
        """What the scores of its hits are: `Hit.source`."""
        if self.backend == "bm25":
            return "bm25"
        return "fused" if self.backend == "hybrid" else "dense"

    @property
    def documents(self) -> tuple[Document, ...]:
        """All documents in the order of adding."""
        return tuple(one for one in self._documents if one is not None)

    def add_documents(
        self,
        documents: Iterable[Document],
        on_duplicate: Literal["error", "skip", "overwrite"] = "error",
    ) -> list[str]:
        """Adds documents; either all of them or, on an error, none.

        Args:
            documents: the documents.
            on_duplicate: what to do with an id that occurs already.

        Returns:
            Ids of what was added, in order.

        Raises:
            ValueError: an id occurs twice, a document is none or holds no word, its metadata are
                no JSON, or the embedder makes something else of them than a finite vector each
                that has a direction.
        """
        if on_duplicate not in ("error", "skip", "overwrite"):
            raise ValueError(f"on_duplicate is {on_duplicate!r}; give error, skip or overwrite")
        documents = tuple(documents)  # what makes them may query this very retriever
        for document in documents:
            check(document)
        MetadataIndex(documents)  # refuses what cannot be filtered on
        added: dict[str, Document] = {}
        with self._lock.write():
            for document in documents:
                if document.id in added or document.id in self._position:
                    if on_duplicate == "error":
                        raise ValueError(
                            f"document id {document.id!r} occurs twice; ids must be unique"
                        )
                    if on_duplicate == "skip":
                        continue
                added[document.id] = document
            if self._vectors is not None and added:
                assert self.embedder is not None
                made = self.embedder.embed_documents(tuple(added.values()))
                embedded = made_vectors(made, len(added), self._vectors.dimension, "documents")
                nowhere = np.flatnonzero(~embedded.any(axis=1))
                if nowhere.size:
                    raise ValueError(
                        f"the embedder made all zeros of {nowhere.size} of {len(added)} documents "
                        f"({list(added)[nowhere[0]]!r}); a document's vector must have a direction"
                    )
                self._vectors.add(embedded)
            self._forget([one for one in added if one in self._position])
            for document in added.values():
                self._position[document.id] = len(self._documents)
                self._documents.append(document)
            self._tables = None
        return list(added)

    def delete(self, ids: Iterable[str]) -> None:
        """Takes documents out; either all of them or, on an error, none.

        Raises:
            KeyError: there is no document of that id.
            ValueError: ``ids`` is a string, whose letters would be taken for ids.
        """
        if isinstance(ids, str):
            raise ValueError(f"ids is {ids!r}; give a list of ids")
        gone = list(dict.fromkeys(ids))
        with self._lock.write():
            for one in gone:
                if one not in self._position:
                    raise KeyError(f"no document {one!r} to delete")
            self._forget(gone)
            self._tables = None

    def _forget(self, ids: Sequence[str]) -> None:
        positions = [self._position.pop(one) for one in ids]
        if self._vectors is not None and positions:
            self._vectors.delete(positions)
        for position in positions:
            self._documents[position] = None

    @overload
    def query(
        self,
        text: str,
        k: int = 3,
        filter: Mapping[str, object] | None = None,
        min_score: float | Mapping[str, float] | None = None,
    ) -> list[Hit]: ...

    @overload
    def query(
        self,
        text: list[str],
        k: int = 3,
        filter: Mapping[str, object] | None = None,
        min_score: float | Mapping[str, float] | None = None,
    ) -> list[list[Hit]]: ...

    def query(
        self,
        text: str | list[str],
        k: int = 3,
        filter: Mapping[str, object] | None = None,
        min_score: float | Mapping[str, float] | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The documents nearest to a text, best first, equal scores in the order of adding.

        Args:
            text: the query, or a list of queries.
            k: at most this many; more than there are is no error.
            filter: metadata that a document must have, each value as given or, for a list, tuple
                or set, any of its members. A document's own list matches if a member does.
            min_score: leave out documents below it; what a score is, `Hit` says. A BM25 score of
                0 (no word in common) is never a hit. A fused score tells ranks alone: for hybrid,
                ``{"bm25": 1.0, "dense": 0.1}`` limits the scores that are ranked.

        Returns:
            Hits, or for a list of queries a list of them each; none for an empty retriever or a
            text without a word.

        Raises:
            ValueError: a query is not a string, ``k`` no whole number or below 1, ``filter`` no
                mapping of strings or with a value that cannot be compared, ``min_score`` neither
                a number nor a dict of them by `Hit.source`, or NaN, or the embedder makes
                something else of a query than a finite vector.
        """
        texts = text if isinstance(text, list) else [text]
        for one in texts:
            if not isinstance(one, str):
                raise ValueError(f"query is a {type(one).__name__}; give a string")
        k = whole_number("k", k)
        check_filter(filter)
        lowest = lowest_scores(min_score, self.score_kind)
        vectors = self._embed(texts) if self._vectors is not None else None
        with self._lock.read():
            bm25, metadata = self._tables_of_now()
            allowed = metadata.mask(filter) if filter else None
            hits = [
                [
                    Hit(document, score, rank, self.score_kind)
                    for rank, (position, score) in enumerate(ranked)
                    if (document := self._documents[position]) is not None
                ]
                for ranked in self._find(texts, vectors, bm25, k, allowed, lowest)
            ]
        return hits if isinstance(text, list) else hits[0]

    def _find(
        self,
        texts: Sequence[str],
        vectors: NDArray[np.float32] | None,
        bm25: Bm25 | None,
        k: int,
        allowed: Mask | None,
        lowest: Mapping[str, float],
    ) -> list[_Ranked]:
        if not self._position:
            return [[] for _ in texts]
        depth = max(5 * k, 50) if self.backend == "hybrid" else k
        found = []
        if bm25 is not None:
            words = [_by_words(bm25, text, depth, allowed) for text in texts]
            found.append([_above(ranked, lowest.get("bm25")) for ranked in words])
        if vectors is not None:
            near = self._by_vectors(vectors, depth, allowed)
            found.append([_above(ranked, lowest.get("dense")) for ranked in near])
        if len(found) == 1:
            return found[0]
        return [_above(_fuse(*both), lowest.get("fused"))[:k] for both in zip(*found, strict=True)]

    def _by_vectors(
        self, vectors: NDArray[np.float32], k: int, allowed: Mask | None
    ) -> list[_Ranked]:
        assert self._vectors is not None
        found: list[_Ranked] = [[] for _ in vectors]
        rows = np.flatnonzero(vectors.any(axis=1))
        if len(rows):
            # In float64 one query and a list of them are made unit vectors by the same arithmetic.
            wide = vectors[rows].astype(np.float64)
            positions, scores = self._vectors.search(wide, k, allowed)
            for row, of_row, its_scores in zip(rows, positions, scores, strict=True):
                found[row] = [
                    (int(one), float(score))
                    for one, score in zip(of_row, its_scores, strict=True)
                    if one >= 0
                ]
        return found

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of queries, each distinct one made once as long as it is remembered."""
        assert self.embedder is not None
        assert self._vectors is not None
        with self._embedded_lock:
            known = {text: self._embedded[text] for text in texts if text in self._embedded}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            made = self.embedder.embed_queries(new)
            vectors = made_vectors(made, len(new), self._vectors.dimension, "queries")
            known.update(zip(new, vectors, strict=True))
            with self._embedded_lock:
                self._embedded.update((text, known[text]) for text in new)
                while len(self._embedded) > _CACHED_QUERIES:
                    self._embedded.popitem(last=False)
        return np.array([known[text] for text in texts]).reshape(-1, self._vectors.dimension)

    def _tables_of_now(self) -> tuple[Bm25 | None, MetadataIndex]:
        """What words and metadata are where; for readers, so that no change comes between."""
        with self._tables_lock:
            if self._tables is None:
                by_words = self.backend in ("bm25", "hybrid")
                bm25 = Bm25(self._documents, self.k1, self.b) if by_words else None
                self._tables = bm25, MetadataIndex(self._documents)
            return self._tables

    def save(self, folder: str | Path) -> None:
        """Writes the documents, their vectors and the graph, if there is one, into a folder.

        Deleted documents are not in it. The folder appears whole or not at all; it must not exist,
        or be one that ``save`` wrote.

        Raises:
            FileExistsError: the folder holds something else.
        """
        with self._lock.write():
            if len(self._documents) != len(self._position):
                self._documents = list(self.documents)
                self._position = {one.id: at for at, one in enumerate(self.documents)}
                self._tables = None
                if self._vectors is not None:
                    self._vectors = self._vectors.compacted()
            identity = None if self.embedder is None else self.embedder.identity
            meta: dict[str, Any] = {
                "backend": self.backend,
                "k1": self.k1,
                "b": self.b,
                "embedder": identity,
            }
            if self.embedder is not None:
                meta["probe"] = storage.probe_of(self.embedder)
            storage.save(Path(folder), self.documents, meta, self._vectors)

    @classmethod
    def load(cls, folder: str | Path, *, embedder: Embedder | None = None) -> Retriever:
        """Reads what ``save`` wrote; queries then give the same hits.

        Documents and vectors must be whole. The graph is a cache of the vectors: where its file
        is missing or not the one that was written, it is built again (and a warning says so).

        Args:
            folder: as saved.
            embedder: the one that made the vectors; by default it is made again from what the
                folder says of it.

        Raises:
            FileNotFoundError: the folder holds no saved retriever.
            ValueError: the files are damaged or of another format, or the embedder is not the one
                that made the vectors.
        """
        saved = storage.load(Path(folder))
        meta = saved.meta
        if meta["embedder"] is not None and embedder is None:
            embedder = storage.embedder_of(meta["embedder"])
        retriever = cls(meta["backend"], embedder=embedder, k1=meta["k1"], b=meta["b"])
        if embedder is not None:
            storage.check_probe(embedder, meta.get("probe", []), Path(folder))
        retriever._documents = list(saved.documents)
        retriever._position = {one.id: at for at, one in enumerate(saved.documents)}
        if retriever._vectors is not None:
            storage.restore_vectors(retriever._vectors, saved)
        return retriever


def _by_words(bm25: Bm25, text: str, k: int, allowed: Mask | None) -> _Ranked:
    scores = bm25.scores(text)
    if allowed is not None:
        scores[~allowed] = 0.0
    # A stable sort of the negated scores keeps equal ones in the order of adding.
    order = np.argsort(-scores, kind="stable")[:k]
    return [(int(one), float(scores[one])) for one in order if scores[one] > 0]


def _above(ranked: _Ranked, least: float | None) -> _Ranked:
    return [row for row in ranked if least is None or row[1] >= least]


def _fuse(first: _Ranked, second: _Ranked) -> _Ranked:
    """Two rankings as one, equal scores by position."""
    scores: dict[int, float] = {}
    for ranked in (first, second):
        for rank, (position, _) in enumerate(ranked, start=1):
            scores[position] = scores.get(position, 0.0) + 1 / (_RRF + rank)
    return sorted(scores.items(), key=lambda row: (-row[1], row[0]))
