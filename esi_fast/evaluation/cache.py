"""Cached results: everything that the figures of a report follow from, and nothing else.

A folder holds ``scores-TASK.npz`` (arrays) and ``scores-TASK.json`` (the rest) for each task, and
``evaluation.json``: what was evaluated and with which settings. Files are written beside their
place and moved there, so that a killed run leaves none of them torn.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.data.shard_index import sha256_of
from esi_fast.evaluation.results import LabelResult, PairResult, QueryResult
from esi_fast.evaluation.summary import TaskResult

FORMAT_VERSION = 2
CONTEXT = "evaluation.json"

Arrays = dict[str, npt.NDArray[Any]]


def write_result(folder: Path, result: TaskResult, request: str = "") -> None:
    """Cache one task's result.

    Args:
        folder: an existing folder.
        result: whose ``details`` are JSON-ready; what they hold comes back as JSON gives it.
        request: digest of all that the result depends on, see :func:`has_result`.

    Raises:
        ValueError: ``details`` are not JSON-ready.
    """
    arrays, rest = _PACK[type(result)](result)
    partial = folder / f"scores-{result.task}.npz.partial"
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    about = {
        "format_version": FORMAT_VERSION,
        "kind": type(result).__name__,
        "request": request,
        "sha256": sha256_of(partial),
        "task": result.task,
        "split": result.split,
        "details": dict(result.details),
        **rest,
    }
    try:
        text = json.dumps(about, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"the result of {result.task} is not JSON-ready: {error}") from None
    # The description last: it names the arrays' digest, so that one of another run is noticed.
    partial.replace(_arrays_path(folder, result.task))
    write_text(_about_path(folder, result.task), text)


def has_result(folder: Path, task: str, request: str) -> bool:
    """Whether a whole result of a task is cached that was made for the same request."""
    try:
        about = _read_about(folder, task)
    except (FileNotFoundError, ValueError):
        return False
    path = _arrays_path(folder, task)
    whole = path.is_file() and sha256_of(path) == about["sha256"]
    return bool(whole and about["request"] == request)


def results_in(folder: Path) -> list[str]:
    """The tasks that have a description of a cached result in a folder, of whichever run."""
    found = []
    for path in sorted(folder.glob("scores-*.json")):
        task = path.stem.removeprefix("scores-")
        with contextlib.suppress(ValueError):  # somebody else's file
            _read_about(folder, task)
            found.append(task)
    return found


def read_result(folder: Path, task: str) -> TaskResult:
    """A cached result.

    Raises:
        FileNotFoundError: one of its two files is missing.
        ValueError: they are damaged, of another format version, or not of one result.
    """
    about = _read_about(folder, task)
    path = _arrays_path(folder, task)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run tools/evaluate again")
    if sha256_of(path) != about["sha256"]:
        raise ValueError(f"{path} is damaged, or of another run than its .json; evaluate again")
    try:
        # Opened here: numpy leaves a file open that is no archive.
        with path.open("rb") as file, np.load(file) as archive:
            arrays = dict(archive)
        return _UNPACK[about["kind"]](arrays, about)
    except (KeyError, IndexError, TypeError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no cached result: {error}; evaluate again") from None


def write_context(folder: Path, context: Mapping[str, Any]) -> None:
    """Write ``evaluation.json``: the part of ``report.json`` that is no score, and its tasks."""
    content = {"format_version": FORMAT_VERSION, **context}
    write_text(folder / CONTEXT, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_context(folder: Path) -> dict[str, Any]:
    """The content of ``evaluation.json``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another format version, or damaged.
    """
    return read_json(folder / CONTEXT, "an evaluation's settings")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object of this module's format version.

    Raises:
        FileNotFoundError: no such file: the evaluation did not finish, or never ran.
        ValueError: it is of another format version, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run tools/evaluate first")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not {what}: {error}") from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, this code reads {FORMAT_VERSION}; evaluate again"
        )
    return content


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _arrays_path(folder: Path, task: str) -> Path:
    return folder / f"scores-{task}.npz"


def _about_path(folder: Path, task: str) -> Path:
    return folder / f"scores-{task}.json"


def _read_about(folder: Path, task: str) -> dict[str, Any]:
    about = read_json(_about_path(folder, task), "a cached result")
    missing = {"kind", "request", "sha256", "task", "split", "details"} - about.keys()
    if missing:
        path = _about_path(folder, task)
        raise ValueError(f"{path} is not a cached result: it lacks {', '.join(sorted(missing))}")
    return about


def _pack_labels(result: LabelResult) -> tuple[Arrays, dict[str, Any]]:
    arrays: Arrays = {"keys": result.keys, "groups": result.groups, "labels": result.labels}
    arrays |= {f"scores_{i}": scores for i, scores in enumerate(result.scores.values())}
    return arrays, {
        "contenders": list(result.scores),
        "label_names": result.label_names,
        "titles": result.titles,
        "probabilities": sorted(result.probabilities),
        "not_scored": dict(result.not_scored),
        "errors": dict(result.errors),
    }


def _unpack_labels(arrays: Arrays, about: Mapping[str, Any]) -> LabelResult:
    return LabelResult(
        task=about["task"],
        split=about["split"],
        label_names=tuple(about["label_names"]),
        titles=tuple(about["titles"]),
        keys=arrays["keys"],
        groups=arrays["groups"],
        labels=arrays["labels"],
        scores={name: arrays[f"scores_{i}"] for i, name in enumerate(about["contenders"])},
        probabilities=frozenset(about["probabilities"]),
        not_scored=about["not_scored"],
        details=about["details"],
        errors=about["errors"],
    )


def _pack_queries(result: QueryResult) -> tuple[Arrays, dict[str, Any]]:
    arrays: Arrays = {"keys": result.keys, "groups": result.groups}
    for i, outcomes in enumerate(result.outcomes.values()):
        arrays |= {f"outcomes_{i}_{j}": values for j, values in enumerate(outcomes.values())}
    return arrays, {
        "contenders": {name: list(outcomes) for name, outcomes in result.outcomes.items()},
        "medians": sorted(result.medians),
        "errors": dict(result.errors),
    }


def _unpack_queries(arrays: Arrays, about: Mapping[str, Any]) -> QueryResult:
    return QueryResult(
        task=about["task"],
        split=about["split"],
        keys=arrays["keys"],
        groups=arrays["groups"],
        outcomes={
            name: {m: arrays[f"outcomes_{i}_{j}"] for j, m in enumerate(measures)}
            for i, (name, measures) in enumerate(about["contenders"].items())
        },
        medians=frozenset(about["medians"]),
        details=about["details"],
        errors=about["errors"],
    )


def _pack_pairs(result: PairResult) -> tuple[Arrays, dict[str, Any]]:
    arrays: Arrays = {"groups": result.groups, "same": result.same}
    arrays |= {f"scores_{i}": scores for i, scores in enumerate(result.scores.values())}
    return arrays, {"contenders": list(result.scores)}


def _unpack_pairs(arrays: Arrays, about: Mapping[str, Any]) -> PairResult:
    return PairResult(
        task=about["task"],
        split=about["split"],
        groups=arrays["groups"],
        same=arrays["same"],
        scores={name: arrays[f"scores_{i}"] for i, name in enumerate(about["contenders"])},
        details=about["details"],
    )


_PACK: Mapping[type, Callable[[Any], tuple[Arrays, dict[str, Any]]]] = {
    LabelResult: _pack_labels,
    QueryResult: _pack_queries,
    PairResult: _pack_pairs,
}
_UNPACK: Mapping[str, Callable[[Arrays, Mapping[str, Any]], TaskResult]] = {
    "LabelResult": _unpack_labels,
    "QueryResult": _unpack_queries,
    "PairResult": _unpack_pairs,
}
