"""What is found, and which of it a filter lets through."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_WORD = re.compile(r"[^\W_]+")


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
    """A document found.

    Attributes:
        document: the document.
        score: BM25 score (above 0), cosine similarity (-1 to 1) or fused score, by ``source``.
        rank: 0 is the best.
        source: which of the three the score is.
    """

    document: Document
    score: float
    rank: int
    source: Literal["bm25", "dense", "fused"] = "bm25"


class MetadataIndex:
    """Which documents have which metadata, so that a filter need not look at each of them.

    Args:
        documents: by position; None where one was deleted.
    """

    def __init__(self, documents: Sequence[Document | None]) -> None:
        self._count = len(documents)
        self._nowhere = np.empty(0, np.int64)
        where: dict[tuple[str, object], list[int]] = {}
        for position, document in enumerate(documents):
            if document is not None:
                for key, value in document.metadata.items():
                    for member in members_of(value):
                        where.setdefault((key, member), []).append(position)
        self._where = {key: np.array(positions, dtype=np.int64) for key, positions in where.items()}

    def mask(self, wanted: Mapping[str, object]) -> Mask:
        """Documents, by position, that have every wanted key with one of its wanted values."""
        allowed = np.ones(self._count, dtype=np.bool_)
        for key, value in wanted.items():
            has_one = np.zeros(self._count, dtype=np.bool_)
            for member in members_of(value):
                has_one[self._where.get((key, member), self._nowhere)] = True
            allowed &= has_one
        return allowed


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in its order."""
    return _WORD.findall(text.casefold())


def members_of(value: object) -> set[object]:
    """The members of a list, tuple or set; anything else is its own only member.

    Raises:
        ValueError: a member cannot be compared (a mapping, a list in a list).
    """
    try:
        if isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping):
            return set(value)
        return {value}
    except TypeError:
        raise ValueError(
            f"{value!r} cannot be filtered on; give strings, numbers or a list of them"
        ) from None


def check(document: Document) -> None:
    """Makes sure that a document can be found, kept and read again.

    Raises:
        ValueError: it cannot, and why.
    """
    if not isinstance(document, Document):
        raise ValueError(f"{document!r} is no Document; give Document(id, text)")
    for name in ("id", "title", "text"):
        value = getattr(document, name)
        if not isinstance(value, str):
            raise ValueError(f"{name} {value!r} of document {document.id!r} is no string")
    if not words_of(f"{document.title} {document.text}"):
        raise ValueError(f"document {document.id!r} holds no word to search for")
    try:
        same = json.loads(json.dumps(dict(document.metadata)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata of document {document.id!r}: {error}") from None
    if list(same) != list(document.metadata):
        raise ValueError(f"metadata of document {document.id!r}: keys must be strings")
