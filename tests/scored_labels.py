"""Label results of numbers that a test chooses."""

from __future__ import annotations

import numpy as np

from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.results import LabelResult

SETTINGS = Resampling(resamples=60, seed=2, min_positives=1)


def label_result(scores: dict[str, np.ndarray], labels: np.ndarray, groups=None, **more):
    n, num_labels = labels.shape
    names = tuple(f"label_{k}" for k in range(num_labels))
    groups = np.array([f"p{i:04d}" for i in range(n)]) if groups is None else np.asarray(groups)
    keys = np.array([f"r{i}" for i in range(n)])
    return LabelResult(
        "probe", "test", names, tuple(n.replace("_", " ") for n in names), keys, groups,
        labels.astype(bool), scores, **more,
    )  # fmt: skip


def two_contenders(seed: int, n: int = 60, num_labels: int = 3):
    rng = np.random.default_rng(seed)
    labels = rng.random((n, num_labels)) < 0.4
    labels[0], labels[1] = True, False
    scores = {c: rng.normal(size=(n, num_labels)) + d * labels for c, d in (("a", 1.0), ("b", 0.5))}
    return scores, labels
