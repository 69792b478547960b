"""What the tasks that learn labels share: which labels can be learned, thresholds, one result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.label_summary import THRESHOLDS, f_max_threshold
from esi_fast.evaluation.results import BoolArray, FloatArray, LabelResult

if TYPE_CHECKING:
    from esi_fast.evaluation.splits import EvaluationDataset


def unfit_labels(names: Sequence[str], labels: BoolArray, where: str = "") -> dict[str, str]:
    """The labels that cannot be learned from training labels (n, K), with the reason.

    Args:
        names: (K) of the columns.
        labels: of the training records.
        where: what the reason says of these records, such as " in 1 % of the patients".
    """
    reasons = {}
    for name, positives in zip(names, labels.sum(axis=0).tolist(), strict=True):
        if positives == 0:
            reasons[name] = f"no positive training record{where}"
        elif positives == len(labels):
            reasons[name] = f"no negative training record{where}"
    return reasons


def require_held_out(split: str) -> None:
    """Refuse to score what a task learns from.

    Raises:
        ValueError: the split is train or val.
    """
    if split in ("train", "val"):
        raise ValueError(
            f"split {split} is learned from and cannot be scored: give another, such as test"
        )


def val_thresholds(names: Sequence[str], scores: FloatArray, labels: BoolArray) -> dict[str, float]:
    """The threshold of the highest F1 on the validation records, for labels that they have.

    Args:
        names: (K) of the columns.
        scores: (m, K), NaN throughout for labels without scores.
        labels: (m, K).
    """
    return {
        name: f_max_threshold(scores[:, k], labels[:, k])
        for k, name in enumerate(names)
        if labels[:, k].any() and not np.isnan(scores[:, k]).any()
    }


def label_result(
    task: str,
    dataset: EvaluationDataset,
    split: str,
    rows: npt.NDArray[np.int64],
    scores: Mapping[str, FloatArray],
    *,
    probabilities: frozenset[str],
    not_scored: Mapping[str, str],
    details: Mapping[str, Any],
    errors: Mapping[str, str],
) -> LabelResult:
    """Scores of rows of a split as the result of a task; see :class:`LabelResult`."""
    target = dataset.split(split)
    return LabelResult(
        task=task,
        split=split,
        label_names=dataset.label_names,
        titles=dataset.titles,
        keys=np.array(target.keys, dtype=np.str_)[rows],
        groups=target.groups[rows],
        labels=target.labels[rows],
        scores=scores,
        probabilities=probabilities,
        not_scored=not_scored,
        details=details,
        errors=errors,
    )


def renamed(result: LabelResult, old: str, new: str) -> LabelResult:
    """A result whose contender has another name."""

    def name_of(name: str) -> str:
        return new if name == old else name

    thresholds = result.details.get(THRESHOLDS, {})
    return replace(
        result,
        scores={name_of(name): values for name, values in result.scores.items()},
        probabilities=frozenset(map(name_of, result.probabilities)),
        details={**result.details, THRESHOLDS: {name_of(k): v for k, v in thresholds.items()}},
    )


def beside(task: str, results: Sequence[LabelResult]) -> LabelResult:
    """Contenders of several results on the records that all of them scored, in the first's order.

    A label is not scored if no result scores it. Details are kept by contender.

    Raises:
        ValueError: no result, different labels or splits, a contender twice, or no record that all
            have.
    """
    if not results:
        raise ValueError("there is no result to put beside another")
    first = results[0]
    for other in results[1:]:
        if (other.label_names, other.split) != (first.label_names, first.split):
            raise ValueError(f"{other.task} and {first.task} differ in labels or split")
    names = [name for result in results for name in result.scores]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"contender {twice} is in two results")
    shared = reduce(np.intersect1d, (result.keys for result in results))
    if not len(shared):
        raise ValueError(f"no record was scored by all of {', '.join(names)}")
    kept = first.keys[np.isin(first.keys, shared)]
    scores: dict[str, FloatArray] = {}
    details: dict[str, Any] = {}
    thresholds: dict[str, Any] = {}
    for result in results:
        row_of = {key: row for row, key in enumerate(result.keys.tolist())}
        rows = [row_of[key] for key in kept.tolist()]
        scores |= {name: values[rows] for name, values in result.scores.items()}
        own = {k: v for k, v in result.details.items() if k != THRESHOLDS}
        details[", ".join(result.scores)] = own
        thresholds |= result.details.get(THRESHOLDS, {})
    where = np.isin(first.keys, kept)
    unscored = set.intersection(*(set(result.not_scored) for result in results))
    return LabelResult(
        task=task,
        split=first.split,
        label_names=first.label_names,
        titles=first.titles,
        keys=kept,
        groups=first.groups[where],
        labels=first.labels[where],
        scores=scores,
        probabilities=frozenset().union(*(result.probabilities for result in results)),
        not_scored={name: why for name, why in first.not_scored.items() if name in unscored},
        details={**details, THRESHOLDS: thresholds},
        errors={key: why for result in results for key, why in result.errors.items()},
    )
