"""What a report says of queries and of pairs: figures with intervals, comparisons of contenders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.bootstrap import (
    Interval,
    Resampling,
    draw_patients,
    number_patients,
    percentile_interval,
    record_weights,
)
from esi_fast.evaluation.ranking import RankedScores, Weights, equal_error_rate, sensitivity_at
from esi_fast.evaluation.results import CEILING, FloatArray, PairResult, QueryResult
from esi_fast.evaluation.significance import paired_p_value

PAIR_MEASURES = ("eer", "tar")
MAX_FALSE_ACCEPTS = 1e-3


def summarise_queries(result: QueryResult, settings: Resampling) -> dict[str, Any]:
    """One task's entry of ``report.json``: means (or medians) of every measure over the queries.

    ``contenders`` has for each the ``measures`` and how many queries had an outcome (``queries``).
    ``comparisons`` hold the first contender against each other one, over the queries that have an
    outcome of both: the paired interval of each difference and the ``p`` of the measure that is
    ``tested``, which is the first.

    Raises:
        ValueError: there is no query, an outcome is infinite, or shapes disagree.
    """
    _check_queries(result)
    first, *others = result.outcomes
    rivals = [other for other in others if other != CEILING]
    return {
        "kind": "queries",
        "split": result.split,
        "records": len(result.keys),
        "patients": len(set(result.groups.tolist())),
        "medians": sorted(result.medians),
        "contenders": {
            name: {
                "measures": {
                    measure: _estimate(result, measure, values, settings).as_json()
                    for measure, values in outcomes.items()
                },
                "queries": {
                    measure: int((~np.isnan(values)).sum()) for measure, values in outcomes.items()
                },
            }
            for name, outcomes in result.outcomes.items()
        },
        "comparisons": {other: _comparison(result, first, other, settings) for other in rivals},
        "details": dict(result.details),
        "unreadable": dict(result.errors),
    }


def _check_queries(result: QueryResult) -> None:
    if not len(result.keys) or len(result.groups) != len(result.keys):
        raise ValueError(
            f"{result.task}: {len(result.keys)} queries of {len(result.groups)} patients: each of "
            "at least one query needs a patient"
        )
    if not result.outcomes or not all(result.outcomes.values()):
        raise ValueError(f"{result.task}: there are no outcomes of any contender")
    for name, outcomes in result.outcomes.items():
        for measure, values in outcomes.items():
            if values.shape != (len(result.keys),) or np.isinf(values).any():
                raise ValueError(
                    f"{result.task}: {measure} of {name} must be {len(result.keys)} finite numbers "
                    f"(NaN: no outcome), got shape {values.shape}"
                )


def _estimate(
    result: QueryResult, measure: str, values: FloatArray, settings: Resampling
) -> Interval:
    return percentile_interval(*_centres(result, measure, values, settings))


def _centres(
    result: QueryResult, measure: str, values: FloatArray, settings: Resampling
) -> tuple[float, FloatArray]:
    """The mean or median of a measure, and (R,) those of its resamples; NaN without outcomes.

    The draws are the same for every measure and contender, so that differences are paired.
    """
    has = ~np.isnan(values)
    if not has.any():
        return float("nan"), np.full(settings.resamples, np.nan)
    values = values[has]
    median = measure in result.medians
    centre = weighted_median if median else weighted_mean
    blocks = [centre(values, drawn[has]) for drawn in record_weights(result.groups, settings)]
    return float(np.median(values) if median else values.mean()), np.concatenate(blocks)


def weighted_mean(values: FloatArray, weights: Weights) -> FloatArray:
    """(R,) means of values (n,) under weights (n, R); NaN where nothing has weight."""
    total = weights.sum(axis=0, dtype=np.float64)
    return np.where(total > 0, values @ weights / np.maximum(total, 1.0), np.nan)


def weighted_median(values: FloatArray, weights: Weights) -> FloatArray:
    """(R,) medians of values (n,) of which each occurs as often as its weight (n, R) says.

    An even number of occurrences gives the mean of the middle two; none at all gives NaN.
    """
    order = np.argsort(values)
    values = values[order]
    through = np.cumsum(weights[order], axis=0, dtype=np.float64)
    half = through[-1] / 2
    lower = (through >= half).argmax(axis=0)
    upper = (through > half).argmax(axis=0)
    return np.where(half > 0, (values[lower] + values[upper]) / 2, np.nan)


def _comparison(
    result: QueryResult, first: str, other: str, settings: Resampling
) -> dict[str, Any]:
    tested = next(iter(result.outcomes[first]))
    differences: dict[str, Any] = {}
    p = None
    for measure, one in result.outcomes[first].items():
        two = result.outcomes[other].get(measure)
        if two is None or np.isnan(one + two).all():
            continue
        has_both = ~np.isnan(one + two)
        one, two = (np.where(has_both, values, np.nan) for values in (one, two))
        value, resampled = _centres(result, measure, one, settings)
        other_value, other_resampled = _centres(result, measure, two, settings)
        interval = percentile_interval(value - other_value, resampled - other_resampled)
        differences[measure] = interval.as_json()
        if measure == tested:
            pairs = (one[has_both], two[has_both])
            p = paired_p_value(
                *pairs, result.groups[has_both], settings, median=measure in result.medians
            )
    return {"differences": differences, "tested": tested, "p": p}


def summarise_pairs(result: PairResult, settings: Resampling) -> dict[str, Any]:
    """One task's entry of ``report.json``: equal error rate and true accepts at 1e-3 false ones.

    In a resample a pair counts as often as its first patient was drawn times its second one; a pair
    of one patient as often as that one. There is no permutation test (``tested`` is None): a pair
    of two patients cannot be swapped by patient.

    Raises:
        ValueError: there are no pairs of one patient or none of two, a score is not finite, or
            shapes disagree.
    """
    _check_pairs(result)
    points = {}
    resampled: dict[str, list[FloatArray]] = {name: [] for name in result.scores}
    ranked = {name: RankedScores(scores, result.same) for name, scores in result.scores.items()}
    for name, scores in ranked.items():
        points[name] = _pair_measures(scores, np.ones((len(result.same), 1)))[:, 0]
    for weights in pair_weights(result.groups, settings):
        for name, scores in ranked.items():
            resampled[name].append(_pair_measures(scores, weights))
    draws = {name: np.concatenate(blocks, axis=1) for name, blocks in resampled.items()}
    first, *others = result.scores
    return {
        "kind": "pairs",
        "split": result.split,
        "patients": len(np.unique(result.groups)),
        "same_pairs": int(result.same.sum()),
        "other_pairs": int((~result.same).sum()),
        "contenders": {
            name: {
                "measures": {
                    measure: percentile_interval(points[name][i], draws[name][i]).as_json()
                    for i, measure in enumerate(PAIR_MEASURES)
                }
            }
            for name in result.scores
        },
        "comparisons": {
            other: {
                "differences": {
                    measure: percentile_interval(
                        points[first][i] - points[other][i], draws[first][i] - draws[other][i]
                    ).as_json()
                    for i, measure in enumerate(PAIR_MEASURES)
                },
                "tested": None,
                "p": None,
            }
            for other in others
        },
        "details": dict(result.details),
        "unreadable": {},
    }


def pair_weights(
    groups: npt.NDArray[Any], settings: Resampling
) -> Iterator[npt.NDArray[np.float32]]:
    """Weights (p, r) of pairs with patients ``groups`` (p, 2), a block of resamples at a time."""
    patient, num_patients = number_patients(groups)
    one, two = patient.T
    for drawn in draw_patients(num_patients, settings, num_rows=len(patient)):
        weights = drawn[one]
        different = one != two
        weights[different] *= drawn[two[different]]
        yield weights


def _pair_measures(scores: RankedScores, weights: Weights) -> FloatArray:
    counts = scores.counts(weights)
    return np.stack([equal_error_rate(counts), sensitivity_at(counts, MAX_FALSE_ACCEPTS)])


def _check_pairs(result: PairResult) -> None:
    num_pairs = len(result.same)
    if result.groups.shape != (num_pairs, 2) or not result.same.any() or result.same.all():
        raise ValueError(
            f"{result.task}: {num_pairs} pairs with patients {result.groups.shape}, "
            f"{int(result.same.sum())} of one patient: both kinds are needed"
        )
    if not result.scores:
        raise ValueError(f"{result.task}: there are no scores of any contender")
    for name, scores in result.scores.items():
        if scores.shape != (num_pairs,) or not np.isfinite(scores).all():
            raise ValueError(
                f"{result.task}: {name} must give {num_pairs} finite scores, got {scores.shape} "
                f"with {int((~np.isfinite(scores)).sum())} that are not finite"
            )
