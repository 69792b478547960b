"""Are probabilities what they say? Brier score, expected calibration error, reliability curve.

Provenance: Brier (Mon Weather Rev 1950;78:1), the score of one label (its two-class half);
expected calibration error over equal-width bins, Naeini, Cooper & Hauskrecht (AAAI 2015), here of
the label's own probability and not of the predicted class's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esi_fast.evaluation.ranking import Weights
from esi_fast.evaluation.results import BoolArray, FloatArray

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability curve: what was foretold and what came, bin by bin.

    Attributes:
        foretold: (bins,) mean probability in each bin, NaN where it is empty.
        observed: (bins,) share of positives in it.
        counts: (bins,) number of probabilities in it.
    """

    foretold: FloatArray
    observed: FloatArray
    counts: FloatArray


class Calibration:
    """Probabilities of one label, ready for many weightings.

    Args:
        probabilities: (n,) from 0 to 1.
        positive: (n,) booleans.

    Raises:
        ValueError: a probability is outside 0 to 1, or NaN.
    """

    def __init__(self, probabilities: FloatArray, positive: BoolArray) -> None:
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            outside = probabilities[~((probabilities >= 0) & (probabilities <= 1))][0]
            raise ValueError(
                f"{outside:g} is no probability: contenders in `probabilities` must score 0 to 1"
            )
        self._bin = _bins(probabilities)
        self._gap = probabilities - positive

    def brier(self, weights: Weights) -> FloatArray:
        """(R,) mean squared difference of probability and outcome under weights (n, R)."""
        total = np.maximum(weights.sum(axis=0), 1.0)
        score: FloatArray = (self._gap**2) @ weights / total
        return score

    def expected_error(self, weights: Weights) -> FloatArray:
        """(R,) mean distance of foretold and observed over ten bins, weighted by their records."""
        in_bin = np.zeros((NUM_BINS, len(self._bin)))
        in_bin[self._bin, np.arange(len(self._bin))] = self._gap
        total = np.maximum(weights.sum(axis=0), 1.0)
        error: FloatArray = np.abs(in_bin @ weights).sum(axis=0) / total
        return error


def reliability_curve(probabilities: FloatArray, positive: BoolArray) -> Reliability:
    """The reliability curve of probabilities over ten equal-width bins, whatever their shape."""
    place = _bins(probabilities.ravel())
    counts = np.bincount(place, minlength=NUM_BINS).astype(np.float64)
    sums = (
        np.bincount(place, weights=values.ravel(), minlength=NUM_BINS)
        for values in (probabilities, positive)
    )
    with np.errstate(invalid="ignore"):
        foretold, observed = (total / counts for total in sums)
    return Reliability(foretold, observed, counts)


def _bins(probabilities: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The bin of each; an edge belongs to the bin below it, as in scikit-learn."""
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    return np.searchsorted(edges[1:-1], probabilities).astype(np.int64)
