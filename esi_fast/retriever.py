"""Documents in, nearest documents out.

BM25 (Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework") over the words of title
and text, the title counted twice, with hard filters on metadata. Nothing here knows what the
documents are about.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BACKENDS = ("bm25",)
_FORMAT = 1
_WORD = re.compile(r"[^\W_]+")
_DOCUMENTS, _META = "documents.jsonl", "meta.json"


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found.

    Attributes:
        id: unique among the retriever's documents.
        text: what is searched.
        title: searched with double weight.
        metadata: what filters look at; values are JSON (a list matches any of its members).
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found: its BM25 score (above 0) and its rank (0 is the best)."""

    document: Document
    score: float
    rank: int


class Retriever:
    """Finds documents by their words.

    Equivalent to: score(q, d) = sum over the words of q of
    ``idf(w) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(d) / mean length))`` with
    ``idf(w) = log(1 + (N - n(w) + 0.5) / (n(w) + 0.5))``, where d is title + title + text.

    Args:
        backend: "bm25", or "auto", which is the same today.
        k1: how soon repeated words stop counting.
        b: how much long documents are held back, 0 to 1.

    Raises:
        ValueError: an unknown backend, or ``k1`` or ``b`` out of range.
    """

    def __init__(self, backend: str = "bm25", *, k1: float = 1.2, b: float = 0.75) -> None:
        if backend not in (*BACKENDS, "auto"):
            known = ", ".join((*BACKENDS, "auto"))
            raise ValueError(f"backend {backend!r} is not available; choose one of {known}")
        if not (k1 > 0 and 0 <= b <= 1):
            raise ValueError(f"k1 {k1} and b {b}: k1 must be above 0 and b between 0 and 1")
        self.backend = "bm25" if backend == "auto" else backend
        self.k1 = k1
        self.b = b
        self._documents: list[Document] = []
        self._position: dict[str, int] = {}
        self._postings: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] | None = None

    def __len__(self) -> int:
        return len(self._documents)

    def add_documents(self, documents: Iterable[Document]) -> None:
        """Adds documents; either all of them or, on an error, none.

        Raises:
            ValueError: an id occurs already, or a document has neither title nor text.
        """
        added = list(documents)
        seen = set(self._position)
        for document in added:
            if document.id in seen:
                raise ValueError(f"document id {document.id!r} occurs twice; ids must be unique")
            if not _words(f"{document.title} {document.text}"):
                raise ValueError(f"document {document.id!r} holds no word to search for")
            seen.add(document.id)
        for document in added:
            self._position[document.id] = len(self._documents)
            self._documents.append(document)
        self._postings = None

    def query(
        self,
        text: str,
        k: int = 3,
        filter: Mapping[str, object] | None = None,
        min_score: float | None = None,
    ) -> list[Hit]:
        """The documents nearest to a text, best first, equal scores in the order of adding.

        Args:
            text: the query; words that no document holds do not count.
            k: at most this many; more than there are is no error.
            filter: metadata that a document must have, each value as given or, for a list, tuple
                or set, any of its members. A document's own list matches if a member does.
            min_score: leave out documents below it.

        Returns:
            Hits with a score above 0; none for an empty retriever.

        Raises:
            ValueError: ``k`` is below 1, or the query is not a string.
        """
        if not isinstance(text, str):
            raise ValueError(f"query is a {type(text).__name__}; give a string")
        if k < 1:
            raise ValueError(f"k is {k}; give 1 or more")
        if not self._documents:
            return []
        scores = self._scores(text)
        if filter:
            keep = [_matches(document.metadata, filter) for document in self._documents]
            scores[~np.array(keep)] = 0.0
        lowest = max(0.0, min_score if min_score is not None else 0.0)
        # A stable sort of the negated scores keeps equal ones in the order of adding.
        order = np.argsort(-scores, kind="stable")[: min(k, len(self._documents))]
        return [
            Hit(self._documents[position], float(scores[position]), rank)
            for rank, position in enumerate(order)
            if scores[position] > 0 and scores[position] >= lowest
        ]

    def _scores(self, text: str) -> NDArray[np.float64]:
        if self._postings is None:
            self._postings = self._index()
        scores = np.zeros(len(self._documents))
        for word, count in Counter(_words(text)).items():
            if word in self._postings:
                positions, weights = self._postings[word]
                scores[positions] += count * weights
        return scores

    def _index(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        counts = [Counter(_words(f"{d.title} {d.title} {d.text}")) for d in self._documents]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        norm = self.k1 * (1 - self.b + self.b * lengths / lengths.mean())
        where: dict[str, list[tuple[int, int]]] = {}
        for position, count in enumerate(counts):
            for word, times in count.items():
                where.setdefault(word, []).append((position, times))
        postings = {}
        for word, rows in where.items():
            positions = np.array([row[0] for row in rows], dtype=np.int64)
            times_in = np.array([row[1] for row in rows], dtype=np.float64)
            idf = math.log(1 + (len(counts) - len(rows) + 0.5) / (len(rows) + 0.5))
            weights = idf * times_in * (self.k1 + 1) / (times_in + norm[positions])
            postings[word] = (positions, weights)
        return postings

    def save(self, folder: str | Path) -> None:
        """Writes documents and settings into ``folder``, which must not exist or be one of ours.

        Raises:
            FileExistsError: the folder holds something else.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / _META).is_file():
            raise FileExistsError(f"{folder} exists and is no saved retriever; choose another")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            lines = "".join(
                json.dumps(
                    {"id": d.id, "title": d.title, "text": d.text, "metadata": dict(d.metadata)},
                    ensure_ascii=False,
                )
                + "\n"
                for d in self._documents
            )
            data = lines.encode()
            meta = {
                "format": _FORMAT,
                "backend": self.backend,
                "k1": self.k1,
                "b": self.b,
                "documents": len(self),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            _write(temporary / _DOCUMENTS, data)
            _write(temporary / _META, json.dumps(meta, indent=1).encode())
            temporary.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def load(cls, folder: str | Path) -> Retriever:
        """Reads what ``save`` wrote; queries then give the same hits.

        Raises:
            FileNotFoundError: the folder holds no saved retriever.
            ValueError: the files are damaged or of another format.
        """
        folder = Path(folder)
        if not (folder / _META).is_file() or not (folder / _DOCUMENTS).is_file():
            raise FileNotFoundError(f"{folder} holds no saved retriever")
        data = (folder / _DOCUMENTS).read_bytes()
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{folder / _META} is damaged; save the retriever again") from None
        if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
            raise ValueError(f"{folder / _META} is not of format {_FORMAT}; save it again")
        if hashlib.sha256(data).hexdigest() != meta.get("sha256"):
            raise ValueError(f"{folder / _DOCUMENTS} is damaged; save the retriever again")
        retriever = cls(meta["backend"], k1=meta["k1"], b=meta["b"])
        # JSON escapes every line end but the one that ends a row; splitlines() would cut at others.
        rows = (json.loads(line) for line in data.decode().split("\n") if line)
        retriever.add_documents(Document(**row) for row in rows)
        return retriever


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _matches(metadata: Mapping[str, Any], wanted: Mapping[str, object]) -> bool:
    for key, value in wanted.items():
        if key not in metadata or not _members(metadata[key]) & _members(value):
            return False
    return True


def _members(value: object) -> set[object]:
    if isinstance(value, Collection) and not isinstance(value, str):
        return set(value)
    return {value}


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
