"""Is a difference more than luck? Paired permutation tests over patients, with Holm's correction.

Under the null hypothesis the two contenders of a comparison are exchangeable, patient by patient:
which of them gave which score does not matter. A permutation therefore swaps all scores of some
patients, each with probability one half, and the p value says how often the swapped difference is
as large as the observed one.

Scores of two contenders lie on different scales (a cosine, a logit), and swapped raw they would
not compare at all. Each label's scores are replaced by their ranks within the contender first
(equal scores share the mean rank), which changes none of a contender's AUROCs. Ties that a swap
makes between the two contenders' ranks count half.

Provenance: permuting ranks between paired ROC curves, Venkatraman & Begg (Biometrika 1996;83:835)
and Bandos, Rockette & Gur (Stat Med 2005;24:2873); the count of the observed one, Phipson & Smyth
(2010); correction, Holm (Scand J Stat 1979;6:65).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.bootstrap import Resampling, number_patients
from esi_fast.evaluation.ranking import RankedScores, area_under_roc
from esi_fast.evaluation.results import BoolArray, FloatArray

_MAX_SWAPS = 4_000_000
# Differences that are equal up to rounding are as large as the observed one.
_ROUNDING = 1e-12


def macro_auroc_p_value(
    first: FloatArray,
    second: FloatArray,
    labels: BoolArray,
    groups: npt.NDArray[Any],
    settings: Resampling,
) -> float:
    """Two-sided p value of the difference of two contenders' macro AUROCs.

    Args:
        first: (n, K) scores of the labels that count.
        second: (n, K) scores of the other contender.
        labels: (n, K) booleans; each column has a positive and a negative record.
        groups: (n,) patients.
        settings: number of permutations (``resamples``) and seed.
    """
    pooled = [
        RankedScores(
            np.concatenate([_mid_ranks(first[:, k]), _mid_ranks(second[:, k])]),
            np.tile(labels[:, k], 2),
        )
        for k in range(labels.shape[1])
    ]
    everything = [label.counts(np.ones((2 * len(labels), 1))) for label in pooled]
    differences = []
    for swap in _swaps(groups, settings):
        taken = np.concatenate([1 - swap, swap])  # the records, scored by the one and by the other
        total = np.zeros(swap.shape[1])
        for label, whole in zip(pooled, everything, strict=True):
            counts = label.counts(taken)
            total += area_under_roc(counts) - area_under_roc(counts.complement(whole))
        differences.append(total / len(pooled))
    return p_value(np.concatenate(differences))


def paired_p_value(
    first: FloatArray,
    second: FloatArray,
    groups: npt.NDArray[Any],
    settings: Resampling,
    *,
    median: bool = False,
) -> float:
    """Two-sided p value of the difference of two contenders' mean (or median) outcomes.

    Outcomes of queries have one scale for all contenders, so they are swapped as they are.

    Args:
        first: (n,) outcomes, no NaN.
        second: (n,) outcomes of the other contender for the same queries.
        groups: (n,) patients.
        settings: number of permutations (``resamples``) and seed.
        median: compare medians rather than means.
    """
    differences = []
    for swap in _swaps(groups, settings):
        if median:
            swapped = swap > 0
            one = np.median(np.where(swapped, second[:, None], first[:, None]), axis=0)
            other = np.median(np.where(swapped, first[:, None], second[:, None]), axis=0)
            differences.append(one - other)
        else:
            differences.append((first - second) @ (1 - 2 * swap) / len(first))
    return p_value(np.concatenate(differences))


def p_value(differences: FloatArray) -> float:
    """Share of differences as large as the first one, which was observed and counts with them."""
    size = np.abs(differences)
    return float(np.mean(size >= size[0] - _ROUNDING))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values for which "any false alarm at all" has the stated rate.

    Args:
        p_values: of all comparisons that are reported together.

    Returns:
        The adjusted p values in the same order, at most 1.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _swaps(groups: npt.NDArray[Any], settings: Resampling) -> Iterator[npt.NDArray[np.float32]]:
    """Which records are swapped, (n, r) of 0 and 1; the first of all columns swaps none."""
    patient, num_patients = number_patients(groups)
    # Another stream than the bootstrap's, of the same seed.
    rng = np.random.default_rng((settings.seed, 1))
    columns = settings.resamples + 1
    block = max(1, _MAX_SWAPS // len(patient))
    for start in range(0, columns, block):
        size = min(block, columns - start)
        swap = rng.integers(2, size=(size, num_patients)).astype(np.float32).T
        if start == 0:
            swap[:, 0] = 0
        yield np.ascontiguousarray(swap[patient])


def _mid_ranks(scores: FloatArray) -> FloatArray:
    """Ranks from 1, equal scores sharing the mean of theirs."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: FloatArray = (last - (counts - 1) / 2)[place]
    return ranks
