"""Scores with their uncertainty: AUROC and AUPRC per label, bootstrap intervals over patients.

Every resample draws patients, not records, with replacement: the records of one patient are not
independent. A resample is a vector of record weights (how often the record's patient was drawn),
and both areas are computed from weights for many resamples at once, so that 1,000 resamples of 15
labels take about a second.

Provenance: AUROC as the Mann-Whitney probability with ties counted half (Hanley & McNeil 1982);
AUPRC as average precision (no interpolation; Davis & Goadrich 2006); percentile bootstrap over
clusters (Efron & Tibshirani 1993). scikit-learn is the oracle in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Resample weights held at once: 4 million float64 are 32 MB.
_MAX_WEIGHTS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % percentile bootstrap interval; NaN where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Scores of one label. ``left_out`` says why the macro means lack it; empty: they have it."""

    label: str
    positives: int
    negatives: int
    auroc: Interval
    auprc: Interval
    left_out: str


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of every label and their macro means (unweighted, over the labels not left out)."""

    macro_auroc: Interval
    macro_auprc: Interval
    per_label: tuple[LabelScores, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same records; ``difference`` is macro AUROC of the first less the second's.

    The interval of the difference is paired: each resample draws the same patients for both.
    """

    trained: ScoreTable
    untrained: ScoreTable
    difference: Interval


@dataclass(frozen=True)
class Resampling:
    """How intervals are made and which labels count: settings of one evaluation.

    Attributes:
        resamples: number of bootstrap resamples of patients.
        seed: of the resampling.
        min_positives: a label with fewer positive (or negative) test records keeps its row in the
            table and is left out of the macro means: its AUROC is a coin toss, and resamples that
            miss it would pull the macro's interval away from the macro. 1 counts every label that
            has an AUROC.
        not_scored: labels that the model could not be made to score, with the reason.
    """

    resamples: int = 1000
    seed: int = 0
    min_positives: int = 5
    not_scored: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.resamples < 1 or self.min_positives < 1:
            raise ValueError(
                f"resamples ({self.resamples}) and min_positives ({self.min_positives}) "
                "must be at least 1"
            )


@dataclass(frozen=True)
class TaskResult:
    """What a task hands to the report: cached scores and everything computed from them.

    Attributes:
        task: "zeroshot" or "probe".
        split: the split that was scored.
        label_names: (K) columns of the arrays.
        keys: (n) records scored.
        groups: (n,) their patients.
        labels: (n, K) booleans.
        trained: (n, K) scores of the model; NaN columns for labels not scored.
        untrained: (n, K) scores of the same model with fresh random weights.
        comparison: scores of both with intervals, and the interval of their difference.
        resampling: settings behind the intervals.
        details: what the task chose or used, JSON-ready.
        errors: key to reason for records that could not be read.
    """

    task: str
    split: str
    label_names: tuple[str, ...]
    keys: tuple[str, ...]
    groups: npt.NDArray[np.str_]
    labels: BoolArray
    trained: FloatArray
    untrained: FloatArray
    comparison: Comparison
    resampling: Resampling
    details: Mapping[str, Any]
    errors: Mapping[str, str]


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Area under the ROC curve of every label.

    Args:
        scores: (n, K) floats, higher means more likely positive.
        labels: (n, K) booleans.

    Returns:
        (K,) float64; NaN for a label with no positive or no negative record.

    Raises:
        ValueError: shapes differ or a score is NaN.
    """
    areas: FloatArray = _point_areas(scores, labels)[0]
    return areas


def auprc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Average precision of every label; arguments, result and errors as :func:`auroc`."""
    areas: FloatArray = _point_areas(scores, labels)[1]
    return areas


def score_table(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Sequence[str] | npt.NDArray[Any],
    label_names: Sequence[str],
    settings: Resampling | None = None,
) -> ScoreTable:
    """Score one model: per label and macro AUROC and AUPRC with intervals over patients.

    A label whose AUROC is undefined in a resample (all its positive patients were left undrawn) is
    left out of that resample's macro mean only.

    Args:
        scores: (n, K) floats.
        labels: (n, K) booleans.
        groups: (n,) the patient of each record.
        label_names: (K) names.
        settings: resampling and the rule for the macro means.

    Raises:
        ValueError: shapes differ, or a score of a label that is not in ``not_scored`` is NaN.
    """
    settings = settings or Resampling()
    areas = _Areas(scores, labels, groups, label_names, settings)
    return areas.table()


def compare(
    trained: npt.ArrayLike,
    untrained: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Sequence[str] | npt.NDArray[Any],
    label_names: Sequence[str],
    settings: Resampling | None = None,
) -> Comparison:
    """Score two models on the same records, with the paired interval of their difference.

    Arguments and errors as :func:`score_table`, which each half of the result equals.
    """
    settings = settings or Resampling()
    first = _Areas(trained, labels, groups, label_names, settings)
    second = _Areas(untrained, labels, groups, label_names, settings)
    value = first.macro(first.points[0]) - second.macro(second.points[0])
    resampled = first.macro(first.resampled[0]) - second.macro(second.resampled[0])
    return Comparison(first.table(), second.table(), _interval(float(value), resampled))


class _Areas:
    """Both areas of every label, at the point (2, K) and in every resample (2, R, K)."""

    def __init__(
        self,
        scores: npt.ArrayLike,
        labels: npt.ArrayLike,
        groups: Sequence[str] | npt.NDArray[Any],
        label_names: Sequence[str],
        settings: Resampling,
    ) -> None:
        scores, labels = _checked(scores, labels)
        groups = np.asarray(groups)
        if len(groups) != len(labels) or len(label_names) != labels.shape[1]:
            raise ValueError(
                f"labels {labels.shape} do not match {len(groups)} groups and "
                f"{len(label_names)} label names"
            )
        unknown = set(settings.not_scored) - set(label_names)
        if unknown:
            raise ValueError(f"not_scored names unknown labels: {', '.join(sorted(unknown))}")
        self.label_names = tuple(label_names)
        self.positives = labels.sum(axis=0)
        self.negatives = len(labels) - self.positives
        self.left_out = [
            settings.not_scored.get(name) or _reason(int(p), int(q), settings.min_positives)
            for name, p, q in zip(label_names, self.positives, self.negatives, strict=True)
        ]
        scored = [k for k, name in enumerate(label_names) if name not in settings.not_scored]
        for k in scored:
            if np.isnan(scores[:, k]).any():
                raise ValueError(f"scores of label {label_names[k]!r} hold NaN")
        shape = (settings.resamples, labels.shape[1])
        self.points = np.full((2, labels.shape[1]), np.nan)
        self.resampled = np.full((2, *shape), np.nan)
        sorted_labels = {k: _SortedLabel(scores[:, k], labels[:, k]) for k in scored}
        for k, label in sorted_labels.items():
            self.points[:, k] = label.areas(np.ones((1, len(labels))))[:, 0]
        start = 0
        for weights in _patient_weights(groups, settings.resamples, settings.seed):
            stop = start + len(weights)
            for k, label in sorted_labels.items():
                self.resampled[:, start:stop, k] = label.areas(weights)
            start = stop

    def macro(self, areas: FloatArray) -> FloatArray:
        """Mean over the labels that count and are defined; (..., K) to (...), NaN where none is."""
        counted = areas[..., [not reason for reason in self.left_out]]
        defined = ~np.isnan(counted)
        total = np.where(defined, counted, 0.0).sum(axis=-1)
        number = defined.sum(axis=-1)
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)

    def table(self) -> ScoreTable:
        """What was computed, with intervals."""
        per_label = tuple(
            LabelScores(
                label=name,
                positives=int(self.positives[k]),
                negatives=int(self.negatives[k]),
                auroc=_interval(float(self.points[0, k]), self.resampled[0, :, k]),
                auprc=_interval(float(self.points[1, k]), self.resampled[1, :, k]),
                left_out=self.left_out[k],
            )
            for k, name in enumerate(self.label_names)
        )
        macros = [
            _interval(float(self.macro(self.points[area])), self.macro(self.resampled[area]))
            for area in (0, 1)
        ]
        return ScoreTable(macros[0], macros[1], per_label)


class _SortedLabel:
    """One label's records in ascending order of score, ready for many weightings."""

    def __init__(self, scores: FloatArray, labels: BoolArray) -> None:
        self._order = np.argsort(scores, kind="stable")
        ascending = scores[self._order]
        self._positive = labels[self._order].astype(np.float64)
        # Where each run of equal scores starts: equal scores are one threshold.
        self._starts = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))

    def areas(self, weights: FloatArray) -> FloatArray:
        """AUROC and AUPRC, (2, R), under each row of record weights (R, n); NaN if undefined."""
        weights = weights[:, self._order]
        positive = np.add.reduceat(weights * self._positive, self._starts, axis=1)
        negative = np.add.reduceat(weights * (1.0 - self._positive), self._starts, axis=1)
        total_positive, total_negative = positive.sum(axis=1), negative.sum(axis=1)
        defined = (total_positive > 0) & (total_negative > 0)

        below = np.cumsum(negative, axis=1) - negative
        pairs = (positive * (below + 0.5 * negative)).sum(axis=1)
        # From the highest threshold down: what was found, and of what was called positive.
        positive, negative = positive[:, ::-1], negative[:, ::-1]
        found = np.cumsum(positive, axis=1)
        called = found + np.cumsum(negative, axis=1)
        precision = found / np.maximum(called, 1.0)
        hits = (positive * precision).sum(axis=1)

        areas = np.full((2, len(weights)), np.nan)
        areas[0, defined] = (pairs / np.maximum(total_positive * total_negative, 1.0))[defined]
        areas[1, defined] = (hits / np.maximum(total_positive, 1.0))[defined]
        return areas


def _patient_weights(groups: npt.NDArray[Any], resamples: int, seed: int) -> Iterator[FloatArray]:
    """Record weights (r, n) of ``resamples`` draws of patients with replacement, a block a time."""
    _, patient = np.unique(groups, return_inverse=True)
    num_patients = int(patient.max()) + 1
    rng = np.random.default_rng(seed)
    block = max(1, _MAX_WEIGHTS // len(patient))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(num_patients, size=(rows, num_patients))
        drawn += np.arange(rows)[:, None] * num_patients
        counts = np.bincount(drawn.ravel(), minlength=rows * num_patients)
        yield counts.reshape(rows, num_patients)[:, patient].astype(np.float64)


def _reason(positives: int, negatives: int, min_positives: int) -> str:
    counts = {"positive": positives, "negative": negatives}
    rarer = min(counts, key=counts.__getitem__)
    if counts[rarer] >= min_positives:
        return ""
    if counts[rarer] == 0:
        return f"no {rarer} record"
    return f"{counts[rarer]} {rarer} record{'s' * (counts[rarer] > 1)}, fewer than {min_positives}"


def _interval(value: float, resampled: FloatArray) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not defined.size:
        return Interval(value, np.nan, np.nan)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _point_areas(scores: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    scores, labels = _checked(scores, labels)
    if np.isnan(scores).any():
        raise ValueError(f"scores hold {int(np.isnan(scores).sum())} NaN")
    ones = np.ones((1, len(labels)))
    columns = [_SortedLabel(scores[:, k], labels[:, k]).areas(ones) for k in range(labels.shape[1])]
    return np.concatenate(columns, axis=1)


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    scores = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.bool_)
    if scores.ndim != 2 or scores.shape != labels.shape or not len(labels):
        raise ValueError(
            f"scores {scores.shape} and labels {labels.shape} must both be (records, labels), "
            "with at least one record"
        )
    return scores, labels
