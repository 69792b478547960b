"""One label's records in order of score: what every threshold finds, under many weightings at once.

A weighting says how often each record counts: all once (the estimate itself), as often as its
patient was drawn (a bootstrap resample), or 1 and 0 (which contender's score a permutation took).
Every measure that rests on thresholds follows from the same few counts, so that 1,000 weightings
cost one cumulative sum.

Provenance: AUROC as the Mann-Whitney probability with ties counted half (Hanley & McNeil 1982);
AUPRC as average precision, without interpolation (Davis & Goadrich 2006); the equal error rate
where the ROC's polyline crosses the diagonal of equal errors (ISO/IEC 19795-1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.results import BoolArray, FloatArray

# Sums of whole numbers up to here are exact in float32, which is twice as fast.
_EXACT_FLOAT32 = 2**24
# Of a rate that is a quotient of two counts: far below one record in any test set.
_ROUNDING = 1e-9

Weights = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Counts:
    """What J thresholds find under R weightings.

    A threshold is a score that some positive record has: between two of them only negatives are
    added, and no measure has its optimum there.

    Attributes:
        found: (J, R) weight of the positives at or above each threshold, from the highest down.
        false: (J, R) weight of the negatives at or above it.
        found_above: (J, R) weight of the positives above it.
        false_above: (J, R) weight of the negatives above it.
        positives: (R,) weight of all positives.
        negatives: (R,) weight of all negatives.
    """

    found: FloatArray
    false: FloatArray
    found_above: FloatArray
    false_above: FloatArray
    positives: FloatArray
    negatives: FloatArray

    @property
    def defined(self) -> BoolArray:
        """(R,) weightings with a positive and a negative record; the measures of others are NaN."""
        return (self.positives > 0) & (self.negatives > 0)

    def complement(self, whole: Counts) -> Counts:
        """The counts of the weights that are left of ``whole``, whose single column is theirs."""
        return Counts(
            whole.found - self.found,
            whole.false - self.false,
            whole.found_above - self.found_above,
            whole.false_above - self.false_above,
            whole.positives - self.positives,
            whole.negatives - self.negatives,
        )


class RankedScores:
    """Scores of one label in descending order; equal scores are one threshold.

    Args:
        scores: (n,) higher is more likely positive; no NaN.
        positive: (n,) booleans.
    """

    def __init__(self, scores: FloatArray, positive: BoolArray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        descending = scores[self._order]
        self._positive = positive[self._order]
        last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
        first = np.append(0, last[:-1] + 1)
        num_found = np.cumsum(self._positive)[last]
        thresholds = np.diff(num_found, prepend=0) > 0
        self._first, self._last = first[thresholds], last[thresholds]
        self._num_found = num_found[thresholds]
        self.thresholds: FloatArray = descending[self._last]

    def counts(self, weights: Weights | None = None) -> Counts:
        """Count what each threshold finds.

        Args:
            weights: (n, R) how often each record counts, whole numbers; all once if not given.
        """
        if weights is None:
            weights = np.ones((len(self._order), 1))
        exact = weights.sum(axis=0, dtype=np.float64).max(initial=0) < _EXACT_FLOAT32
        ordered = np.take(weights, self._order, axis=0).astype(
            np.float32 if exact else np.float64, copy=False
        )
        called = np.cumsum(ordered, axis=0)
        all_found = np.cumsum(ordered[self._positive], axis=0)
        total = called[-1].astype(np.float64)
        found = all_found[self._num_found - 1].astype(np.float64)
        found_above = np.concatenate([np.zeros((1, weights.shape[1])), found[:-1]])[: len(found)]
        called_above = called[np.maximum(self._first - 1, 0)].astype(np.float64)
        called_above[self._first == 0] = 0.0
        positives = found[-1] if len(found) else np.zeros_like(total)
        return Counts(
            found=found,
            false=called[self._last] - found,
            found_above=found_above,
            false_above=called_above - found_above,
            positives=positives,
            negatives=total - positives,
        )


def area_under_roc(counts: Counts) -> FloatArray:
    """(R,) probability that a positive record scores higher than a negative one, ties half."""
    below = counts.negatives - 0.5 * (counts.false + counts.false_above)
    pairs = ((counts.found - counts.found_above) * below).sum(axis=0)
    return _where_defined(counts, pairs / np.maximum(counts.positives * counts.negatives, 1.0))


def average_precision(counts: Counts) -> FloatArray:
    """(R,) precision averaged over the positive records, each at its own threshold."""
    precision = counts.found / np.maximum(counts.found + counts.false, 1.0)
    hits = ((counts.found - counts.found_above) * precision).sum(axis=0)
    return _where_defined(counts, hits / np.maximum(counts.positives, 1.0))


def f_score(counts: Counts) -> FloatArray:
    """(J, R) F1 of every threshold: the harmonic mean of precision and sensitivity."""
    called = counts.found + counts.false
    score: FloatArray = 2.0 * counts.found / np.maximum(called + counts.positives, 1.0)
    return score


def f_max(counts: Counts) -> FloatArray:
    """(R,) the highest F1 of any threshold."""
    return _where_defined(counts, f_score(counts).max(axis=0, initial=0.0))


def sensitivity_at(counts: Counts, max_false_rate: float) -> FloatArray:
    """(R,) the highest sensitivity of a threshold that accepts so few of the negatives; else 0.

    Args:
        counts: of one label.
        max_false_rate: 0.1 for sensitivity at 90 % specificity, 1e-3 for TAR@FAR 1e-3.
    """
    allowed = counts.false <= (max_false_rate + _ROUNDING) * counts.negatives
    found = np.where(allowed, counts.found, 0.0).max(axis=0, initial=0.0)
    return _where_defined(counts, found / np.maximum(counts.positives, 1.0))


def equal_error_rate(counts: Counts) -> FloatArray:
    """(R,) the rate at which as large a share of negatives is accepted as of positives refused."""
    shape = (2 * len(counts.found) + 2, len(counts.positives))
    accepted, missed = np.zeros(shape), np.ones(shape)
    for rate, above, at, total in (
        (accepted, counts.false_above, counts.false, counts.negatives),
        (missed, counts.found_above, counts.found, counts.positives),
    ):
        rate[1:-1:2], rate[2:-1:2] = (x / np.maximum(total, 1.0) for x in (above, at))
    missed[1:-1] = 1.0 - missed[1:-1]
    accepted[-1], missed[-1] = 1.0, 0.0
    gap = accepted - missed  # from -1 to 1, never falling
    after = (gap >= 0).argmax(axis=0)
    column = np.arange(shape[1])
    gap_before, gap_after = gap[after - 1, column], gap[after, column]
    share = -gap_before / (gap_after - gap_before)
    start = accepted[after - 1, column]
    return _where_defined(counts, start + share * (accepted[after, column] - start))


def _where_defined(counts: Counts, values: FloatArray) -> FloatArray:
    result: FloatArray = np.where(counts.defined, values, np.nan)
    return result
