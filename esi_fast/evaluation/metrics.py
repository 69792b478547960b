"""Measures of labels, one number a label: for whoever has scores and wants no intervals.

Reports have the same measures with intervals over patients, see ``label_summary``. scikit-learn is
the oracle in the tests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.ranking import (
    Counts,
    RankedScores,
    area_under_roc,
    average_precision,
)
from esi_fast.evaluation.results import FloatArray


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Area under the ROC curve of every label, ties counted half.

    Args:
        scores: (n, K) floats, higher means more likely positive.
        labels: (n, K) booleans.

    Returns:
        (K,) float64; NaN for a label with no positive or no negative record.

    Raises:
        ValueError: shapes differ or a score is NaN.
    """
    return _of_labels(area_under_roc, scores, labels)


def auprc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Average precision of every label; arguments, result and errors as :func:`auroc`."""
    return _of_labels(average_precision, scores, labels)


def _of_labels(
    measure: Callable[[Counts], FloatArray], scores: npt.ArrayLike, labels: npt.ArrayLike
) -> FloatArray:
    scores = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.bool_)
    if scores.ndim != 2 or scores.shape != labels.shape or not len(labels):
        raise ValueError(
            f"scores {scores.shape} and labels {labels.shape} must both be (records, labels), "
            "with at least one record"
        )
    if np.isnan(scores).any():
        raise ValueError(f"scores hold {int(np.isnan(scores).sum())} NaN")
    columns = zip(scores.T, labels.T, strict=True)
    return np.array([measure(RankedScores(s, y).counts())[0] for s, y in columns])
