"""The numbers of a report: each task's figures, and one correction over all of its comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.label_summary import summarise_labels
from esi_fast.evaluation.query_summary import summarise_pairs, summarise_queries
from esi_fast.evaluation.results import LabelResult, PairResult, QueryResult
from esi_fast.evaluation.significance import holm

TaskResult = LabelResult | QueryResult | PairResult


def summarise(results: Sequence[TaskResult], settings: Resampling) -> dict[str, Any]:
    """Task name to its entry of ``report.json``, with ``p_holm`` beside every ``p``.

    Holm's correction is over all tests of the results given: one of each task and contender.

    Raises:
        ValueError: two results are of one task, or one cannot be summed up.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for result in results:
        if result.task in tasks:
            raise ValueError(f"two results are named {result.task!r}")
        tasks[result.task] = _summarise_one(result, settings)
    correct(tasks)
    return tasks


def _summarise_one(result: TaskResult, settings: Resampling) -> dict[str, Any]:
    if isinstance(result, LabelResult):
        return summarise_labels(result, settings)
    if isinstance(result, QueryResult):
        return summarise_queries(result, settings)
    return summarise_pairs(result, settings)


def correct(tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``p_holm`` beside every ``p`` of the tasks' comparisons."""
    comparisons = [row for task in tasks.values() for row in task["comparisons"].values()]
    tested = [row for row in comparisons if row["p"] is not None]
    for row in comparisons:
        row["p_holm"] = None
    for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = adjusted
