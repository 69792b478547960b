"""Intervals over patients: every resample draws patients, not records, with replacement.

The records of one patient are not independent, so that copies of them must add no certainty. A
resample is a vector of weights: how often each record's patient was drawn.

Provenance: percentile bootstrap over clusters (Efron & Tibshirani 1993).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.results import FloatArray

# Resample weights held at once: 4 million float32 are 16 MB.
_MAX_WEIGHTS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % percentile bootstrap interval; NaN where undefined."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """``value``, ``low`` and ``high``; None for NaN, which JSON has not."""
        pairs = (("value", self.value), ("low", self.low), ("high", self.high))
        return {name: None if np.isnan(x) else float(x) for name, x in pairs}


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals and tests are made, and which labels count: settings of one evaluation.

    Attributes:
        resamples: number of bootstrap resamples of patients, and of permutations.
        seed: of both.
        min_positives: a label that fewer patients have (or have not) keeps its row in the tables
            and is left out of the macro means: its AUROC is a coin toss, and resamples that miss it
            would pull the macro's interval away from the macro. 1 counts every label that has an
            AUROC.
    """

    resamples: int = 1000
    seed: int = 0
    min_positives: int = 5

    def __post_init__(self) -> None:
        if self.resamples < 1 or self.min_positives < 1:
            raise ValueError(
                f"resamples ({self.resamples}) and min_positives ({self.min_positives}) "
                "must be at least 1"
            )


def draw_patients(
    num_patients: int, settings: Resampling, *, num_rows: int
) -> Iterator[npt.NDArray[np.float32]]:
    """How often each patient is drawn, (num_patients, r) whole numbers, a block at a time.

    A single patient is never drawn: every resample would be the same, an interval of no width.

    Args:
        num_patients: of which each resample draws as many.
        settings: number of resamples and seed; the blocks do not change the draws.
        num_rows: that the caller makes of a block, a weight each; a block is sized by it.
    """
    rng = np.random.default_rng(settings.seed)
    block = max(1, _MAX_WEIGHTS // max(num_rows, num_patients))
    for start in range(0, settings.resamples, block):
        size = min(block, settings.resamples - start)
        drawn = rng.integers(num_patients, size=(size, num_patients))
        drawn += np.arange(size)[:, None] * num_patients
        counts = np.bincount(drawn.ravel(), minlength=size * num_patients)
        if num_patients < 2:
            counts[:] = 0
        yield np.ascontiguousarray(counts.reshape(size, num_patients).T, dtype=np.float32)


def record_weights(
    groups: npt.NDArray[Any], settings: Resampling
) -> Iterator[npt.NDArray[np.float32]]:
    """How often each record counts, (n, r) for a block of resamples: as often as its patient."""
    patient, num_patients = number_patients(groups)
    for drawn in draw_patients(num_patients, settings, num_rows=len(patient)):
        yield drawn[patient]


def number_patients(groups: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], int]:
    """The number, from 0, of each entry's patient (shape as ``groups``), and how many there are."""
    names, patient = np.unique(groups, return_inverse=True)
    return patient.reshape(np.shape(groups)), len(names)


def percentile_interval(value: float, resampled: FloatArray) -> Interval:
    """The estimate with the 2.5 and 97.5 percentiles of its resamples (R,), NaN left aside."""
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not defined.size:
        return Interval(float(value), np.nan, np.nan)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))
