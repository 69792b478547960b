"""Documents by their words: BM25 (Robertson & Zaragoza 2009)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from esi_fast.retriever.documents import Document, words_of


class Bm25:
    """Scores of documents, the title's words counted twice.

    Equivalent to: score(q, d) = sum over the words of q of
    ``idf(w) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(d) / mean length))`` with
    ``idf(w) = log(1 + (N - n(w) + 0.5) / (n(w) + 0.5))``, where d is title + title + text.

    Args:
        documents: by position; None where one was deleted.
        k1: how soon repeated words stop counting.
        b: how much long documents are held back, 0 to 1.
    """

    def __init__(self, documents: Sequence[Document | None], k1: float, b: float) -> None:
        self._count = len(documents)
        counts: dict[int, Counter[str]] = {
            position: Counter(words_of(f"{one.title} {one.title} {one.text}"))
            for position, one in enumerate(documents)
            if one is not None
        }
        lengths = np.zeros(self._count)
        lengths[list(counts)] = [sum(count.values()) for count in counts.values()]
        mean = lengths.sum() / max(len(counts), 1)
        norm = k1 * (1 - b + b * lengths / max(mean, 1.0))
        where: dict[str, list[tuple[int, int]]] = {}
        for position, count in counts.items():
            for word, times in count.items():
                where.setdefault(word, []).append((position, times))
        self._postings: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for word, rows in where.items():
            positions = np.array([row[0] for row in rows], dtype=np.int64)
            times_in = np.array([row[1] for row in rows], dtype=np.float64)
            idf = math.log(1 + (len(counts) - len(rows) + 0.5) / (len(rows) + 0.5))
            weights = idf * times_in * (k1 + 1) / (times_in + norm[positions])
            self._postings[word] = (positions, weights)

    def scores(self, text: str) -> NDArray[np.float64]:
        """Of every document, by position; 0 where it holds no word of the text."""
        scores = np.zeros(self._count)
        for word, count in Counter(words_of(text)).items():
            if word in self._postings:
                positions, weights = self._postings[word]
                scores[positions] += count * weights
        return scores
