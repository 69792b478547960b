"""What a report says of labels: every measure with its interval, comparisons, the control.

All of it follows from the scores of a :class:`LabelResult`, so that cached scores give it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.bootstrap import (
    Interval,
    Resampling,
    number_patients,
    percentile_interval,
    record_weights,
)
from esi_fast.evaluation.calibration import Calibration
from esi_fast.evaluation.ranking import (
    Counts,
    RankedScores,
    Weights,
    area_under_roc,
    average_precision,
    f_max,
    f_score,
    sensitivity_at,
)
from esi_fast.evaluation.results import BoolArray, FloatArray, LabelResult
from esi_fast.evaluation.significance import macro_auroc_p_value

RANK_MEASURES = ("auroc", "auprc", "f_max", "sensitivity")
CALIBRATION_MEASURES = ("brier", "calibration_error")
MAX_FALSE_RATE = 0.1  # 90 % specificity
# Where ``LabelResult.details`` has thresholds that were chosen on the validation patients:
# contender to label to threshold.
THRESHOLDS = "thresholds"


def summarise_labels(result: LabelResult, settings: Resampling) -> dict[str, Any]:
    """One task's entry of ``report.json``; an interval is ``{"value", "low", "high"}``.

    ``labels`` tells every label's title, counts, and ``left_out``: why the macro means lack it.
    They are the same for all contenders, so that their macro means compare. ``contenders`` has for
    each its ``macro`` measures and those of its ``labels``. ``comparisons`` hold the first
    contender against each other one: the paired interval of each macro difference and the ``p`` of
    the macro AUROC's. ``control`` scores the first contender against labels that were shuffled
    between patients. ``confusion`` counts the first contender's right and wrong calls at the
    threshold of the highest F1, ``chosen_on`` the validation patients where ``result.details`` has
    such (:data:`THRESHOLDS`), or else on the scored split itself.

    Raises:
        ValueError: a score is NaN or infinite in a column that is not NaN throughout, a
            probability is none, or shapes disagree.
    """
    check_labels(result)
    left_out = _left_out(result, settings.min_positives)
    counted = np.array([not reason for reason in left_out.values()])
    measured = _measure(result, settings)
    first, *others = result.scores
    return {
        "kind": "labels",
        "split": result.split,
        "records": len(result.keys),
        "patients": len(set(result.groups.tolist())),
        "labels": {
            name: {
                "title": title,
                "positives": int(result.labels[:, k].sum()),
                "negatives": int((~result.labels[:, k]).sum()),
                "left_out": left_out[name],
            }
            for k, (name, title) in enumerate(zip(result.label_names, result.titles, strict=True))
        },
        "contenders": {
            name: _contender(result, measures, counted) for name, measures in measured.items()
        },
        "comparisons": {
            other: _comparison(result, measured, first, other, counted, settings)
            for other in others
        },
        "control": _control(result, first, counted, settings),
        "confusion": _confusion(result, first),
        "details": {k: v for k, v in result.details.items() if k != THRESHOLDS},
        "unreadable": dict(result.errors),
    }


def check_labels(result: LabelResult) -> None:
    """Refuse scores from which nothing can be computed.

    Raises:
        ValueError: see :func:`summarise_labels`.
    """
    shape = (len(result.keys), len(result.label_names))
    if result.labels.shape != shape or len(result.groups) != shape[0] or not shape[0]:
        raise ValueError(
            f"{result.task}: labels {result.labels.shape} and {len(result.groups)} patients do not "
            f"match {shape[0]} records and {shape[1]} labels, of which there must be one at least"
        )
    if not result.scores:
        raise ValueError(f"{result.task}: there are no scores of any contender")
    for contender, scores in result.scores.items():
        if scores.shape != shape:
            raise ValueError(
                f"{result.task}: scores of {contender} are {scores.shape}, the labels {shape}"
            )
        bad = ~np.isfinite(scores) & ~np.isnan(scores).all(axis=0)
        if bad.any():
            row, k = np.argwhere(bad)[0]
            raise ValueError(
                f"{result.task}: the score of {contender} for label {result.label_names[k]!r}, "
                f"record {result.keys[row]}, is {scores[row, k]} ({int(bad.sum())} such scores)"
            )
    unknown = set(result.not_scored) - set(result.label_names)
    if unknown:
        raise ValueError(f"not_scored names unknown labels: {', '.join(sorted(unknown))}")


class _Measured:
    """Every measure of one contender: (M, K) at the point and (M, K, R) in the resamples."""

    def __init__(self, names: tuple[str, ...], num_labels: int, resamples: int) -> None:
        self.names = names
        self.points = np.full((len(names), num_labels), np.nan)
        self.resampled = np.full((len(names), num_labels, resamples), np.nan)


def _measure(result: LabelResult, settings: Resampling) -> dict[str, _Measured]:
    measured = {}
    prepared: dict[str, dict[int, tuple[RankedScores, Calibration | None]]] = {}
    num_labels = len(result.label_names)
    for name, scores in result.scores.items():
        probable = name in result.probabilities
        names = RANK_MEASURES + (CALIBRATION_MEASURES if probable else ())
        measured[name] = _Measured(names, num_labels, settings.resamples)
        prepared[name] = {
            k: (
                RankedScores(scores[:, k], result.labels[:, k]),
                Calibration(scores[:, k], result.labels[:, k]) if probable else None,
            )
            for k in np.flatnonzero(~np.isnan(scores).any(axis=0)).tolist()
        }
        for k, label in prepared[name].items():
            measured[name].points[:, k] = _measures(*label, np.ones((len(result.keys), 1)))[:, 0]
    if number_patients(result.groups)[1] < 2:  # no resample would differ
        return measured
    start = 0
    for weights in record_weights(result.groups, settings):
        stop = start + weights.shape[1]
        for name, labels in prepared.items():
            for k, label in labels.items():
                measured[name].resampled[:, k, start:stop] = _measures(*label, weights)
        start = stop
    return measured


def _measures(
    ranked: RankedScores, calibration: Calibration | None, weights: Weights
) -> FloatArray:
    """(M, R) measures of one label."""
    values = rank_measures(ranked.counts(weights))
    if calibration is not None:
        values += [calibration.brier(weights), calibration.expected_error(weights)]
    return np.stack(values)


def rank_measures(counts: Counts) -> list[FloatArray]:
    """(R,) of each of :data:`RANK_MEASURES`."""
    return [
        area_under_roc(counts),
        average_precision(counts),
        f_max(counts),
        sensitivity_at(counts, MAX_FALSE_RATE),
    ]


def f_max_threshold(scores: FloatArray, positive: BoolArray) -> float:
    """The score at and above which calling records positive gives the highest F1.

    Args:
        scores: (n,) of one label, no NaN.
        positive: (n,) booleans, one of them true.
    """
    ranked = RankedScores(scores, positive)
    return float(ranked.thresholds[f_score(ranked.counts())[:, 0].argmax()])


def _confusion(result: LabelResult, first: str) -> dict[str, Any]:
    chosen = result.details.get(THRESHOLDS, {}).get(first)
    tables = {}
    for k, name in enumerate(result.label_names):
        scores, positive = result.scores[first][:, k], result.labels[:, k]
        if chosen is None:
            has_both = bool(positive.any() and not positive.all())
            threshold = f_max_threshold(scores, positive) if has_both else None
        else:
            threshold = chosen.get(name)
        if threshold is None or np.isnan(scores).any():
            continue
        called = scores >= threshold
        tables[name] = {
            "threshold": float(threshold),
            "true_positives": int((called & positive).sum()),
            "false_positives": int((called & ~positive).sum()),
            "false_negatives": int((~called & positive).sum()),
            "true_negatives": int((~called & ~positive).sum()),
        }
    return {"chosen_on": result.split if chosen is None else "val", "labels": tables}


def _macro(values: FloatArray, counted: BoolArray) -> FloatArray:
    """Mean over the labels that count and are defined, (K, ...) to (...); NaN where none is."""
    values = values[counted]
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=0)
    number = defined.sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _contender(
    result: LabelResult, measured: _Measured, counted: BoolArray
) -> dict[str, dict[str, Any]]:
    macro, labels = {}, {name: {} for name in result.label_names}  # type: ignore[var-annotated]
    # Of one patient every resample is the same, or lacks the label: no spread, no interval.
    alone = [min(_patients_of(result, k)) < 2 for k in range(len(result.label_names))]
    for index, measure in enumerate(measured.names):
        points, resampled = measured.points[index], measured.resampled[index]
        macro[measure] = _macro_interval(points, resampled, counted).as_json()
        for k, name in enumerate(result.label_names):
            spread = np.full(1, np.nan) if alone[k] else resampled[k]
            labels[name][measure] = percentile_interval(float(points[k]), spread).as_json()
    return {"macro": macro, "labels": labels}


def _macro_interval(points: FloatArray, resampled: FloatArray, counted: BoolArray) -> Interval:
    return percentile_interval(float(_macro(points, counted)), _macro(resampled, counted))


def _comparison(
    result: LabelResult,
    measured: Mapping[str, _Measured],
    first: str,
    other: str,
    counted: BoolArray,
    settings: Resampling,
) -> dict[str, Any]:
    one, two = measured[first], measured[other]
    differences = {}
    for measure in one.names:
        if measure in two.names:
            i, j = one.names.index(measure), two.names.index(measure)
            value = _macro(one.points[i], counted) - _macro(two.points[j], counted)
            resampled = _macro(one.resampled[i], counted) - _macro(two.resampled[j], counted)
            differences[measure] = percentile_interval(float(value), resampled).as_json()
    p = None
    if counted.any():
        p = macro_auroc_p_value(
            result.scores[first][:, counted],
            result.scores[other][:, counted],
            result.labels[:, counted],
            result.groups,
            settings,
        )
    return {"differences": differences, "tested": "auroc", "p": p}


def shuffle_labels(labels: BoolArray, groups: npt.NDArray[Any], seed: int) -> BoolArray:
    """Labels (n, K) dealt to other patients at random: the random-label control.

    A patient's records take the labels of another patient's records in their order, over again if
    that one has fewer, so that what the records of one patient share stays shared.
    """
    patient, num_patients = number_patients(groups)
    rng = np.random.default_rng((seed, 2))
    rows = [np.flatnonzero(patient == p) for p in range(num_patients)]
    shuffled = np.empty_like(labels)
    for own, taken in zip(rows, rng.permutation(num_patients), strict=True):
        shuffled[own] = labels[np.resize(rows[taken], len(own))]
    return shuffled


def _control(
    result: LabelResult, first: str, counted: BoolArray, settings: Resampling
) -> dict[str, Any]:
    """Macro rank measures of the first contender on shuffled labels."""
    shuffled = replace(
        result,
        labels=shuffle_labels(result.labels, result.groups, settings.seed),
        scores={first: result.scores[first]},
        probabilities=frozenset(),
    )
    measured = _measure(shuffled, settings)[first]
    if number_patients(result.groups)[1] < 2:  # there is nobody to deal the labels to
        measured.points[:] = np.nan
    return {
        measure: _macro_interval(measured.points[i], measured.resampled[i], counted).as_json()
        for i, measure in enumerate(measured.names)
    }


def _left_out(result: LabelResult, min_positives: int) -> dict[str, str]:
    """For every label why the macro means lack it; empty if they have it."""
    reasons = {}
    for k, name in enumerate(result.label_names):
        lacking = [c for c, scores in result.scores.items() if np.isnan(scores[:, k]).any()]
        if name in result.not_scored:
            reasons[name] = result.not_scored[name]
        elif lacking:
            reasons[name] = f"not scored by {', '.join(lacking)}"
        else:
            reasons[name] = _too_few(*_patients_of(result, k), min_positives)
    return reasons


def _patients_of(result: LabelResult, k: int) -> tuple[int, int]:
    """How many patients have a record with a label, and how many have one without."""
    positive = result.labels[:, k]
    with_it, without = (np.unique(result.groups[rows]).size for rows in (positive, ~positive))
    return with_it, without


def _too_few(with_it: int, without: int, min_positives: int) -> str:
    counts = {"with it": with_it, "without it": without}
    rarer = min(counts, key=counts.__getitem__)
    if counts[rarer] >= min_positives:
        return ""
    if counts[rarer] == 0:
        return f"no patient {rarer}"
    return f"{counts[rarer]} patient{'s' * (counts[rarer] > 1)} {rarer}, fewer than {min_positives}"
