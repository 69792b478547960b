"""What an evaluation leaves behind: metrics.json, cached scores, report.md and report.html.

``metrics.json`` is the source: the reports are made from it alone, so that a later report (the
demo's closing one) shows the same numbers.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from esi_fast.evaluation.datasets import EvaluationDataset
from esi_fast.evaluation.document import Document, Picture, Section, Table, picture, write_document
from esi_fast.evaluation.metrics import Interval, ScoreTable, TaskResult
from esi_fast.plot import plot_forest

TASK_TITLES = {"zeroshot": "Zero-shot", "probe": "Linear probe"}
_TASK_TEXTS = {
    "zeroshot": "A record's score for a finding is the cosine of its embedding and the finding's "
    "text prompts. Nothing was fitted to these labels.",
    "probe": "A logistic regression on frozen, standardised embeddings, fitted on the training "
    "patients, C chosen by log-loss on the validation patients.",
}
_FEW_POSITIVES = 10
FORMAT_VERSION = 1


def evaluation_metrics(
    results: Sequence[TaskResult],
    dataset: EvaluationDataset,
    *,
    root: Path,
    model: Path,
    config: Mapping[str, Any],
    command: str,
) -> dict[str, Any]:
    """The content of ``metrics.json``: JSON-ready, undefined scores None.

    Args:
        results: one of each task.
        dataset: that was evaluated.
        root: folder of the dataset.
        model: folder of the model.
        config: the model's configuration.
        command: the command line, for whoever wants the same numbers.
    """
    titles = dict(zip(dataset.label_names, dataset.titles, strict=True))
    return {
        "format_version": FORMAT_VERSION,
        "model": {"path": str(model), "config": dict(config)},
        "dataset": {
            "name": dataset.name,
            "root": str(root),
            "splits": {
                name: {"records": len(split.keys), "patients": len(set(split.groups.tolist()))}
                for name, split in dataset.splits.items()
            },
        },
        "tasks": {result.task: _task_metrics(result, titles) for result in results},
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    }


def _task_metrics(result: TaskResult, titles: Mapping[str, str]) -> dict[str, Any]:
    comparison, resampling = result.comparison, result.resampling
    return {
        "split": result.split,
        "records": len(result.keys),
        "patients": len(set(result.groups.tolist())),
        "resamples": resampling.resamples,
        "seed": resampling.seed,
        "min_positives": resampling.min_positives,
        "trained": _table_metrics(comparison.trained, titles),
        "untrained": _table_metrics(comparison.untrained, titles),
        "macro_auroc_difference": _interval_metrics(comparison.difference),
        "details": dict(result.details),
        "unreadable": dict(result.errors),
    }


def _table_metrics(table: ScoreTable, titles: Mapping[str, str]) -> dict[str, Any]:
    return {
        "macro_auroc": _interval_metrics(table.macro_auroc),
        "macro_auprc": _interval_metrics(table.macro_auprc),
        "per_label": {
            row.label: {
                "title": titles[row.label],
                "positives": row.positives,
                "negatives": row.negatives,
                "auroc": _interval_metrics(row.auroc),
                "auprc": _interval_metrics(row.auprc),
                "left_out": row.left_out,
            }
            for row in table.per_label
        },
    }


def _interval_metrics(interval: Interval) -> dict[str, float | None]:
    # JSON has no NaN.
    return {
        name: None if math.isnan(value) else value
        for name, value in dataclasses.asdict(interval).items()
    }


def _versions() -> dict[str, str]:
    packages = ("esi-fast", "torch", "numpy", "scikit-learn", "transformers")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def write_evaluation(out: Path, metrics: Mapping[str, Any], results: Sequence[TaskResult]) -> None:
    """Write an evaluation folder; ``metrics.json`` comes last, so that its presence means whole.

    Args:
        out: folder to write to; made if absent. Files of an earlier evaluation are replaced.
        metrics: of :func:`evaluation_metrics`.
        results: whose scores are cached in ``predictions-TASK.npz`` (``trained``, ``untrained``
            (n, K) float64, ``labels`` (n, K) bool, ``groups``, ``keys``, ``label_names``).
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").unlink(missing_ok=True)
    for result in results:
        np.savez_compressed(
            out / f"predictions-{result.task}.npz",
            trained=result.trained,
            untrained=result.untrained,
            labels=result.labels,
            groups=result.groups,
            keys=np.array(result.keys, dtype=np.str_),
            label_names=np.array(result.label_names, dtype=np.str_),
        )
    dataset = metrics["dataset"]
    title = f"Evaluation of {Path(metrics['model']['path']).name} on {dataset['name']}"
    sections = (summary_section(metrics), *score_sections(metrics), method_section(metrics))
    write_document(Document(title, sections), out)
    partial = out / "metrics.json.partial"
    partial.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(out / "metrics.json")


def read_metrics(folder: Path) -> dict[str, Any]:
    """The ``metrics.json`` of an evaluation folder.

    Raises:
        FileNotFoundError: there is none: the evaluation did not finish, or never ran.
        ValueError: it is of another format version, or damaged.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run tools/evaluate first")
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = metrics["format_version"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an evaluation's metrics: {error}") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"{path} has format version {version}, this code reads {FORMAT_VERSION}")
    return metrics


def macro_lines(metrics: Mapping[str, Any]) -> list[str]:
    """One line a task with the macro AUROCs, for a terminal."""
    lines = []
    for name, task in metrics["tasks"].items():
        trained, untrained = (task[model]["macro_auroc"] for model in ("trained", "untrained"))
        lines.append(
            f"{TASK_TITLES[name]}: macro AUROC {format_interval(trained)} trained, "
            f"{format_interval(untrained)} untrained, "
            f"difference {format_interval(task['macro_auroc_difference'])} "
            f"({task['records']} records of {task['patients']} patients)"
        )
    return lines


def format_interval(interval: Mapping[str, float | None]) -> str:
    """``0.912 [0.880, 0.941]``, or ``undefined``."""
    if interval["value"] is None:
        return "undefined"
    if interval["low"] is None:
        return f"{interval['value']:.3f} [no interval]"
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def summary_section(metrics: Mapping[str, Any]) -> Section:
    """Macro scores of every task, trained beside untrained."""
    rows = [
        (
            TASK_TITLES[name],
            format_interval(task["trained"]["macro_auroc"]),
            format_interval(task["untrained"]["macro_auroc"]),
            format_interval(task["macro_auroc_difference"]),
            format_interval(task["trained"]["macro_auprc"]),
            format_interval(task["untrained"]["macro_auprc"]),
            f"{task['records']} of {task['patients']} patients",
        )
        for name, task in metrics["tasks"].items()
    ]
    header = (
        "task",
        "macro AUROC, trained",
        "macro AUROC, untrained",
        "difference, paired",
        "macro AUPRC, trained",
        "macro AUPRC, untrained",
        "records",
    )
    return Section(
        "Scores",
        (
            "Trained is the model; untrained is the same architecture with random weights, put "
            "through the same steps. In brackets: 95 % bootstrap intervals over patients.",
        ),
        (Table(header, tuple(rows)),),
    )


def score_sections(metrics: Mapping[str, Any]) -> tuple[Section, ...]:
    """For each task every label's scores, as a table and as a forest plot."""
    return tuple(_score_section(name, task) for name, task in metrics["tasks"].items())


def _score_section(name: str, task: Mapping[str, Any]) -> Section:
    trained, untrained = (task[model]["per_label"] for model in ("trained", "untrained"))
    rows = tuple(
        (
            row["title"],
            str(row["positives"]),
            format_interval(row["auroc"]),
            format_interval(untrained[label]["auroc"]),
            format_interval(row["auprc"]),
            format_interval(untrained[label]["auprc"]),
            f"not in the macro means: {row['left_out']}" if row["left_out"] else "",
        )
        for label, row in trained.items()
    )
    header = (
        "finding",
        "positives",
        "AUROC, trained",
        "AUROC, untrained",
        "AUPRC, trained",
        "AUPRC, untrained",
        "note",
    )
    paragraphs = [
        f"{_TASK_TEXTS[name]} {task['records']} records of {task['patients']} patients, "
        f"split {task['split']}."
    ]
    few = [
        f"{row['title']} ({row['positives']})"
        for row in trained.values()
        if 0 < row["positives"] < _FEW_POSITIVES
    ]
    if few:
        paragraphs.append(
            f"Fewer than {_FEW_POSITIVES} positive records, so read the interval rather than the "
            f"score: {', '.join(few)}."
        )
    return Section(
        TASK_TITLES[name],
        tuple(paragraphs),
        (Table(header, rows),),
        _forest_pictures(name, trained, untrained),
    )


def _forest_pictures(
    name: str, trained: Mapping[str, Any], untrained: Mapping[str, Any]
) -> tuple[Picture, ...]:
    """The forest plot of every label that has an AUROC; none if no label has one."""
    defined = [label for label, row in trained.items() if row["auroc"]["value"] is not None]
    if not defined:
        return ()
    series = {
        model: np.array(
            [[rows[label]["auroc"][k] for k in ("value", "low", "high")] for label in defined],
            dtype=np.float64,
        )
        for model, rows in (("trained", trained), ("untrained", untrained))
    }
    names = [f"{trained[label]['title']} ({trained[label]['positives']})" for label in defined]
    title = (
        f"{TASK_TITLES[name]}: AUROC of every finding that has one, with its 95 % interval and "
        "its positive records"
    )
    return (picture(plot_forest(names, series), f"{name}-auroc", title),)


def method_section(metrics: Mapping[str, Any]) -> Section:
    """How the numbers came about: rules, command, versions."""
    task = next(iter(metrics["tasks"].values()))
    unreadable = {k: v for task in metrics["tasks"].values() for k, v in task["unreadable"].items()}
    paragraphs = [
        f"Intervals: {task['resamples']} bootstrap resamples of patients (seed {task['seed']}), "
        "2.5 and 97.5 percentiles; the difference is resampled in pairs. Macro means are "
        f"unweighted over the labels with at least {task['min_positives']} positive and "
        f"{task['min_positives']} negative test records; a label without both has no AUROC. "
        "In a resample that drew no positive patient of a label, that label is left out.",
    ]
    if unreadable:
        listed = ", ".join(f"{key} ({reason})" for key, reason in list(unreadable.items())[:10])
        paragraphs.append(f"{len(unreadable)} records could not be read: {listed}.")
    splits = Table(
        ("split", "records", "patients"),
        tuple(
            (name, str(split["records"]), str(split["patients"]))
            for name, split in metrics["dataset"]["splits"].items()
        ),
    )
    versions = ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
    return Section(
        "How this was computed",
        (*paragraphs, f"Versions: {versions}. Date: {metrics['date']}."),
        (splits,),
        listings=(metrics["command"],),
    )
