"""Pictures of a report, each made from cached scores or from ``report.json`` and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from esi_fast.evaluation.calibration import reliability_curve
from esi_fast.evaluation.document import Picture, picture
from esi_fast.evaluation.ranking import RankedScores
from esi_fast.evaluation.results import FloatArray, LabelResult, PairResult
from esi_fast.evaluation.summary import TaskResult
from esi_fast.evaluation.titles import MEASURE_TITLES, task_title
from esi_fast.plot import plot_forest
from esi_fast.plot_curves import Panel, plot_confusion, plot_panels, plot_reliability

MAX_PANELS = 12
MAX_CONTENDERS = 4
_MAX_FOREST = 3  # more lines in a row touch the next row's
_LOWEST_FALSE_ACCEPTS = 1e-4


def shown_contenders(names: Iterable[str]) -> list[str]:
    """At most four for one picture: the first, then the others, random encoders last."""
    first, *others = names
    others.sort(key=lambda name: name.startswith("random-"))
    return [first, *others[: MAX_CONTENDERS - 1]]


def task_pictures(result: TaskResult, task: Mapping[str, Any]) -> tuple[Picture, ...]:
    """Every picture of a task.

    Args:
        result: with the scores.
        task: its entry of ``report.json``.
    """
    if isinstance(result, LabelResult):
        return (
            *forest_picture(result.task, task),
            *_curve_pictures(result, task),
            *_reliability_picture(result, task),
            *_confusion_picture(result.task, task),
        )
    return (_verification_picture(result),) if isinstance(result, PairResult) else ()


def forest_picture(name: str, task: Mapping[str, Any]) -> tuple[Picture, ...]:
    """The forest plot of every label that has an AUROC, if there are any."""
    if task["kind"] != "labels":
        return ()
    shown = shown_contenders(task["contenders"])[:_MAX_FOREST]
    rows = {contender: task["contenders"][contender]["labels"] for contender in shown}
    defined = [label for label, row in rows[shown[0]].items() if row["auroc"]["value"] is not None]
    if not defined:
        return ()
    series = {
        contender: np.array(
            [[rows[contender][label]["auroc"][k] for k in ("value", "low", "high")]
             for label in defined],
            dtype=np.float64,
        )
        for contender in shown
    }  # fmt: skip
    names = [f"{task['labels'][k]['title']} ({task['labels'][k]['positives']})" for k in defined]
    alt = (
        f"{task_title(name)}: AUROC of every finding that has one, with its 95 % interval and its "
        "positive records"
    )
    return (picture(plot_forest(names, series), f"{name}-auroc", alt),)


def _columns(task: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Column and label of those that count, the ones with the most positive records first."""
    rows = [
        (k, label) for k, (label, row) in enumerate(task["labels"].items()) if not row["left_out"]
    ]
    return sorted(rows, key=lambda row: -task["labels"][row[1]]["positives"])[:MAX_PANELS]


def _which(task: Mapping[str, Any]) -> str:
    """What the panels of a task show, in words."""
    counted = sum(not row["left_out"] for row in task["labels"].values())
    if counted <= MAX_PANELS:
        return "of the findings that count in the macro means"
    return f"of the {MAX_PANELS} findings with the most positive records"


def _curve_pictures(result: LabelResult, task: Mapping[str, Any]) -> tuple[Picture, ...]:
    columns = _columns(task)
    if not columns:
        return ()
    roc, precision = [], []
    for k, label in columns:
        row = task["labels"][label]
        title = f"{row['title']} ({row['positives']})"
        positive = result.labels[:, k]
        curves = {
            contender: RankedScores(result.scores[contender][:, k], positive)
            for contender in shown_contenders(result.scores)
        }
        prevalence = row["positives"] / (row["positives"] + row["negatives"])
        roc.append(Panel(title, {name: roc_curve(one) for name, one in curves.items()}))
        precision.append(
            Panel(title, {name: precision_recall(one) for name, one in curves.items()}, prevalence)
        )
    title, which = task_title(result.task), _which(task)
    return (
        picture(
            plot_panels(roc, xlabel="1 - specificity", ylabel="sensitivity"),
            f"{result.task}-roc",
            f"{title}: ROC curves {which}; dashed: chance",
        ),
        picture(
            plot_panels(precision, xlabel="sensitivity (recall)", ylabel="precision"),
            f"{result.task}-precision-recall",
            f"{title}: precision against recall {which}; dashed: chance, the share of positives",
        ),
    )


def roc_curve(ranked: RankedScores) -> tuple[FloatArray, FloatArray]:
    """False positive rate and sensitivity of a label's corners, from (0, 0) to (1, 1)."""
    counts = ranked.counts()
    corners = (
        np.stack([counts.false_above, counts.false], axis=1),
        np.stack([counts.found_above, counts.found], axis=1),
    )
    totals = (counts.negatives, counts.positives)
    x, y = (
        np.concatenate([[0.0], corner.ravel() / total, [1.0]])
        for corner, total in zip(corners, totals, strict=True)
    )
    return x, y


def precision_recall(ranked: RankedScores) -> tuple[FloatArray, FloatArray]:
    """Recall and precision at every threshold, from the highest down."""
    counts = ranked.counts()
    recall = (counts.found / counts.positives)[:, 0]
    precision = (counts.found / (counts.found + counts.false))[:, 0]
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


def _reliability_picture(result: LabelResult, task: Mapping[str, Any]) -> tuple[Picture, ...]:
    counted = [k for k, row in enumerate(task["labels"].values()) if not row["left_out"]]
    curves = {}
    for contender in shown_contenders(result.scores):
        if contender in result.probabilities and counted:
            curve = reliability_curve(
                result.scores[contender][:, counted], result.labels[:, counted]
            )
            curves[contender] = (curve.foretold, curve.observed, curve.counts)
    if not curves:
        return ()
    alt = (
        f"{task_title(result.task)}: calibration of all findings that count, pooled; on the "
        "dashed line what was foretold came as often; below, how often each probability was given"
    )
    return (picture(plot_reliability(curves), f"{result.task}-calibration", alt),)


def _confusion_picture(name: str, task: Mapping[str, Any]) -> tuple[Picture, ...]:
    tables = []
    for _, label in _columns(task):
        row = task["confusion"]["labels"].get(label)
        if row is not None:
            counts = np.array(
                [[row["true_positives"], row["false_negatives"]],
                 [row["false_positives"], row["true_negatives"]]]
            )  # fmt: skip
            tables.append((task["labels"][label]["title"], counts))
    if not tables:
        return ()
    alt = (
        f"{task_title(name)}: records with and without a finding (rows) and what "
        f"{next(iter(task['contenders']))} called them, {_which(task)}"
    )
    return (picture(plot_confusion(tables), f"{name}-confusion", alt),)


def _verification_picture(result: PairResult) -> Picture:
    curves = {
        contender: roc_curve(RankedScores(result.scores[contender], result.same))
        for contender in shown_contenders(result.scores)
    }
    title = task_title(result.task)
    panel = Panel("", curves)
    return picture(
        plot_panels(
            [panel],
            xlabel=MEASURE_TITLES["false_accepts"],
            ylabel=MEASURE_TITLES["true_accepts"],
            min_x=_LOWEST_FALSE_ACCEPTS,
        ),
        f"{result.task}-roc",
        f"{title}: pairs of one patient that are accepted, against pairs of two that are",
    )
