"""What an evaluation leaves behind: report.json, report.md and report.html, from cached scores.

``report.json`` holds every number; the two others show them. All three are made from the files of
:mod:`esi_fast.evaluation.cache` alone, so that they can be made again without model and records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.cache import (
    read_context,
    read_json,
    read_result,
    write_text,
)
from esi_fast.evaluation.document import FIGURES, Document, Picture, Section, write_document
from esi_fast.evaluation.figures import task_pictures
from esi_fast.evaluation.leaks import LEAK
from esi_fast.evaluation.report_sections import (
    comparison_section,
    format_interval,
    method_section,
    summary_section,
    task_sections,
)
from esi_fast.evaluation.summary import summarise
from esi_fast.evaluation.titles import measure_title, task_title

REPORT = "report.json"


def make_report(
    folder: Path,
    *,
    command: str,
    errors: Sequence[Picture] = (),
    settings: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Compute every figure from a folder's cached scores and write the three reports into it.

    ``report.json`` comes last, so that its presence means whole. It holds what ``evaluation.json``
    does and ``tasks`` (see :func:`esi_fast.evaluation.summary.summarise`), ``command`` (of the
    scores), ``report_command``, ``date``.

    Args:
        folder: with ``evaluation.json`` and the scores of the tasks that it names.
        command: the command line, for whoever wants the same numbers.
        errors: pages of the worst errors; without, those that the evaluation drew.
        settings: of :class:`Resampling`, in the place of the evaluation's own.

    Returns:
        The content of ``report.json``.

    Raises:
        FileNotFoundError: a file of the cache is missing.
        ValueError: one is damaged, or its scores hold NaN.
    """
    context = read_context(folder)
    try:
        tasks = context.pop("tasks")
        context["settings"] |= settings
        used = Resampling(**context["settings"])
        kept = _kept_pages(folder, context.pop("pages", {}))
        results = [read_result(folder, task) for task in tasks]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no whole evaluation: {error}; evaluate again") from None
    (folder / REPORT).unlink(missing_ok=True)
    report = {
        **context,
        "tasks": summarise(results, used),
        "command": context.pop("command", command),
        "report_command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    pictures = {
        result.task: task_pictures(result, report["tasks"][result.task]) for result in results
    }
    title = f"Evaluation of {Path(report['model']['path']).name} on {report['dataset']['name']}"
    sections = (
        summary_section(report),
        *comparison_section(report),
        *task_sections(report, pictures),
        _error_section(tuple(errors) or kept),
        method_section(report),
    )
    leaks = tuple(note for note in report["notes"] if note.startswith(LEAK))
    write_document(Document(title, sections, leaks), folder)
    write_text(folder / REPORT, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


def _kept_pages(folder: Path, names: Mapping[str, str]) -> tuple[Picture, ...]:
    """The pages that an evaluation drew, as they lie in its folder."""
    paths = {name: folder / FIGURES / f"{name}.png" for name in names}
    return tuple(
        Picture(name, names[name], path.read_bytes())
        for name, path in paths.items()
        if path.is_file()
    )


def _error_section(errors: Sequence[Picture]) -> Section:
    if not errors:
        text = (
            "No page is drawn: no task of labels has an error to show, or signals were not in mV."
        )
        return Section("Worst errors", (text,))
    text = (
        "For the two findings with the most positive records, of those that fewer than half have, "
        "the record that scored highest without it and the one that scored lowest with it. Some of "
        "them are errors of the label."
    )
    return Section("Worst errors", (text,), figures=tuple(errors))


def read_report(folder: Path) -> dict[str, Any]:
    """The ``report.json`` of an evaluation folder.

    Raises:
        FileNotFoundError: there is none: the evaluation did not finish, or never ran.
        ValueError: it is of another format version, or damaged.
    """
    report = read_json(folder / REPORT, "an evaluation's report")
    if "tasks" not in report:
        raise ValueError(f"{folder / REPORT} is not an evaluation's report: it has no tasks")
    return report


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """What leaked; one line a task and contender with its first measure, for a terminal."""
    lines = [note for note in report["notes"] if note.startswith(LEAK)]
    for name, task in report["tasks"].items():
        for contender, figures in task["contenders"].items():
            macro = task["kind"] == "labels"
            measures = figures["macro" if macro else "measures"]
            measure, interval = next(iter(measures.items()))
            line = (
                f"{task_title(name)}: {'macro ' * macro}{measure_title(measure)} "
                f"{format_interval(interval)} {contender}"
            )
            compared = task["comparisons"].get(contender)
            if compared is not None and compared["p_holm"] is not None:
                line += f" (p {compared['p_holm']:.4f} after Holm)"
            lines.append(line)
    return lines
