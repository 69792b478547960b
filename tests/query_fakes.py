"""Contenders whose embeddings are given outright, over a dataset of keys and patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from esi_fast.evaluation.embed import Embeddings


def contender(
    values: np.ndarray,
    groups: Sequence[str],
    keys: Sequence[str] | None = None,
    unreadable: Mapping[int, str] | None = None,
    model: Any = None,
    **of_split: Any,
) -> Any:
    """An embedder whose split has ``values`` (n, D); ``unreadable`` maps rows to reasons."""
    bad = unreadable or {}
    rows = np.array([row for row in range(len(values)) if row not in bad], dtype=np.int64)
    names = tuple(keys if keys is not None else (f"k{row:05d}" for row in range(len(values))))
    fields = {"times": None} | of_split
    split = SimpleNamespace(name="test", keys=names, groups=np.array(groups), **fields)
    embeddings = Embeddings(
        values[rows].astype(np.float32), rows, {names[row]: why for row, why in bad.items()}
    )
    dataset = SimpleNamespace(name="planted", split=lambda name: split)
    return SimpleNamespace(dataset=dataset, ecg=lambda name: embeddings, model=model)


def brute_force_rank(query: np.ndarray, gallery: np.ndarray, matches: np.ndarray) -> float:
    """The rank by sorting: what ties with a match comes before it."""
    cosine = gallery.astype(float) @ query.astype(float)
    order = sorted(range(len(gallery)), key=lambda row: (-cosine[row].round(9), matches[row]))
    return next(place for place, row in enumerate(order, 1) if matches[row])
