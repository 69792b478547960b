"""Recall between embeddings against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from esi_fast.evaluation import retrieval
from esi_fast.evaluation.retrieval import recall_at


def unit(rows: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("chunk", [7, 1024])
def test_recall_is_the_count_by_hand(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_CHUNK", chunk)
    queries, gallery = unit(60, 1), unit(50, 2)
    keys = np.random.default_rng(3)
    query_keys, gallery_keys = keys.integers(0, 20, 60), keys.integers(0, 20, 50)
    found = recall_at(queries, gallery, query_keys, gallery_keys, (1, 5, 50))
    for k in (1, 5, 50):
        hits = 0
        for query, key in zip(queries, query_keys, strict=True):
            nearest = sorted(range(50), key=lambda row: -float(query @ gallery[row]))[:k]
            hits += any(gallery_keys[row] == key for row in nearest)
        assert found[k] == hits / 60


def test_each_finds_itself_and_a_wrong_key_nothing() -> None:
    own, keys = unit(30, 4), np.arange(30)
    assert recall_at(own, own, keys, keys) == {1: 1.0, 5: 1.0, 10: 1.0}
    assert recall_at(own, own, keys, keys + 100) == {1: 0.0, 5: 0.0, 10: 0.0}
    assert recall_at(own, own[:3], keys, keys[:3], (10,)) == {10: 3 / 30}


def test_nothing_to_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="0 queries and a gallery of 3"):
        recall_at(unit(0, 1), unit(3, 1), np.arange(0), np.arange(3))
    with pytest.raises(ValueError, match="have 2 and 3 keys"):
        recall_at(unit(3, 1), unit(3, 1), np.arange(2), np.arange(3))
