"""The sections of a report: ``report.json`` in words and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from esi_fast.evaluation.document import Picture, Section, Table
from esi_fast.evaluation.report_details import detail_lines, detail_tables
from esi_fast.evaluation.titles import measure_title, task_text, task_title

# A macro interval wider than this does not rank models that the field would tell apart.
_WIDE = 0.05
_FEW_PATIENTS = 200
_FEW_POSITIVES = 10
_MAX_LISTED = 10


def format_interval(interval: Mapping[str, float | None]) -> str:
    """``0.912 [0.880, 0.941]``, or ``undefined``."""
    if interval["value"] is None:
        return "undefined"
    if interval["low"] is None:
        return f"{interval['value']:.3f} [no interval]"
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def summary_section(report: Mapping[str, Any]) -> Section:
    """What was compared on what, and every task's figures for every contender."""
    of_kind: dict[str, dict[str, Any]] = {"labels": {}, "queries": {}, "pairs": {}}
    for name, task in report["tasks"].items():
        of_kind[task["kind"]][name] = task
    tables = [
        *_figure_tables(of_kind["labels"], "macro"),
        *(_query_table(name, task) for name, task in of_kind["queries"].items()),
        *_figure_tables(of_kind["pairs"], "measures"),
    ]
    took_part = {name for task in report["tasks"].values() for name in task["contenders"]}
    beside = [
        task_title(name)
        for name, task in report["tasks"].items()
        if any(contender.startswith("random-") for contender in task["contenders"])
    ]
    random = (
        f" Random encoders go through the same steps as the model ({', '.join(beside)}): what they "
        "reach is no merit of the pretraining."
        if beside
        else ""
    )
    contenders = Table(
        ("contender", "what it is"),
        tuple(row for row in report["contenders"].items() if row[0] in took_part),
    )
    return Section(
        "Scores",
        (
            f"Dataset: {report['dataset']['name']}, {report['dataset']['root']}. In brackets: 95 % "
            f"bootstrap intervals over patients.{random}",
            *(text for name, task in report["tasks"].items() for text in _certainty(name, task)),
        ),
        (contenders, *tables),
    )


def _query_table(name: str, task: Mapping[str, Any]) -> Table:
    """A row a measure, since there are many of them."""
    contenders = task["contenders"]
    rows = tuple(
        (
            measure_title(measure),
            *(
                format_interval(one["measures"][measure]) if measure in one["measures"] else ""
                for one in contenders.values()
            ),
        )
        for measure in _union(one["measures"] for one in contenders.values())
    )
    return Table((task_title(name), *contenders), rows)


def _figure_tables(tasks: Mapping[str, Any], part: str) -> list[Table]:
    """A table for the tasks of one kind that have the same measures."""
    by_measures: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name, task in tasks.items():
        measures = _union(contender[part] for contender in task["contenders"].values())
        rows = by_measures.setdefault(measures, [])
        for contender, figures in task["contenders"].items():
            cells = (
                format_interval(figures[part][measure]) if measure in figures[part] else ""
                for measure in measures
            )
            rows.append((task_title(name), contender, *cells))
        if "control" in task:
            control = task["control"]
            cells = (format_interval(control[m]) if m in control else "" for m in measures)
            rows.append((task_title(name), "labels shuffled", *cells))
    macro = "macro " if part == "macro" else ""
    return [
        Table(("task", "contender", *(macro + measure_title(m) for m in measures)), tuple(rows))
        for measures, rows in by_measures.items()
    ]


def _union(mappings: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for mapping in mappings for name in mapping))


def _certainty(name: str, task: Mapping[str, Any]) -> list[str]:
    """How much a task's figures can tell: patients, labels left out, width of the interval."""
    first, figures = next(iter(task["contenders"].items()))
    if task["kind"] == "labels":
        counted = sum(not row["left_out"] for row in task["labels"].values())
        number = len(task["labels"])
        basis = (
            f"{task['records']} records of {task['patients']} patients; {counted} of {number} "
            f"labels count in the macro means, {number - counted} are left out"
        )
        what, interval = "macro AUROC", figures["macro"]["auroc"]
    else:
        measure, interval = next(iter(figures["measures"].items()))
        what = measure_title(measure)
        basis = (
            f"{task['records']} queries of {task['patients']} patients"
            if task["kind"] == "queries"
            else f"{task['same_pairs']} pairs of one patient and {task['other_pairs']} of two, "
            f"among {task['patients']} patients"
        )
    text = f"{task_title(name)}: {basis}"
    if interval["low"] is None:
        text += f"; {what} of {first} has no interval"
        wide = False
    else:
        width = interval["high"] - interval["low"]
        text += f"; the interval of {what} of {first} is {width:.3f} wide"
        # A median rank has no such width: only measures from 0 to 1 are judged by it.
        wide = width > _WIDE and 0 <= interval["low"] <= interval["high"] <= 1
        if not width:
            text += ", since no resample differs: that says nothing of how certain it is"
    if wide or task["patients"] < _FEW_PATIENTS:
        text += ". That is a small set: read the intervals, where there are any, not the scores"
    if task["kind"] == "pairs" and task["other_pairs"] < 1000:
        text += ". With fewer than 1,000 pairs of two patients, FAR 1e-3 allows none of them"
    return [f"{text}."]


def comparison_section(report: Mapping[str, Any]) -> tuple[Section, ...]:
    """The first contender against each other one; no section if there is no other."""
    rows = []
    for name, task in report["tasks"].items():
        first = next(iter(task["contenders"]))
        for other, comparison in task["comparisons"].items():
            for measure, interval in comparison["differences"].items():
                tested = comparison["tested"] == measure
                rows.append(
                    (
                        task_title(name),
                        f"{first} - {other}",
                        ("macro " if task["kind"] == "labels" else "") + measure_title(measure),
                        format_interval(interval),
                        _p_text(comparison["p"]) if tested else "",
                        _p_text(comparison["p_holm"]) if tested else "",
                    )
                )
    if not rows:
        return ()
    header = ("task", "contenders", "measure", "difference, paired", "p", "p, Holm")
    settings = report["settings"]
    tests = sum(
        row["p"] is not None for t in report["tasks"].values() for row in t["comparisons"].values()
    )
    return (
        Section(
            "Differences",
            (
                "Differences are resampled in pairs: each resample draws the same patients for "
                "both. p is of a paired permutation test on one measure of each comparison: macro "
                "AUROC of labels, the first measure of queries. "
                f"{settings['resamples']:,} permutations swap all scores of some patients between "
                "the two contenders. Scores have different scales, so each label's scores are "
                "replaced by their ranks within the contender first; ties that a swap makes count "
                "half. Verification has no such test, since a pair of two patients cannot be "
                f"swapped by patient. Holm's correction is over the {tests} tests of this report.",
            ),
            (Table(header, tuple(rows)),),
        ),
    )


def _p_text(p: float | None) -> str:
    return "none" if p is None else f"{p:.4f}"


def task_sections(
    report: Mapping[str, Any], pictures: Mapping[str, Sequence[Picture]]
) -> tuple[Section, ...]:
    """For each task its tables and pictures.

    Args:
        report: ``report.json``.
        pictures: of each task that has any.
    """
    return tuple(
        _label_section(name, task, pictures.get(name, ()))
        if task["kind"] == "labels"
        else Section(
            task_title(name),
            (f"{task_text(name)} Split {task['split']}.".strip(), *detail_lines(task)),
            detail_tables(task),
            figures=tuple(pictures.get(name, ())),
        )
        for name, task in report["tasks"].items()
    )


def _label_section(name: str, task: Mapping[str, Any], pictures: Sequence[Picture]) -> Section:
    first, *others = task["contenders"]
    paragraphs = [f"{task_text(name)} Split {task['split']}.".strip(), *detail_lines(task)]
    few = [
        f"{row['title']} ({row['positives']})"
        for row in task["labels"].values()
        if 0 < row["positives"] < _FEW_POSITIVES
    ]
    if few:
        paragraphs.append(
            f"Fewer than {_FEW_POSITIVES} positive records, so read the interval, if there is one, "
            f"rather than the score: {', '.join(few)}."
        )
    tables = [_measure_table(task, first)]
    if others:
        tables.append(_contender_table(task))
    confusion = task["confusion"]
    if confusion["labels"]:
        paragraphs.append(
            f"The counts of right and wrong calls are {first}'s, at each finding's threshold of "
            "the highest F1. "
            + (
                "It was chosen on the validation patients."
                if confusion["chosen_on"] == "val"
                else "It was chosen on the very records that it is applied to, since this task has "
                "no validation scores: the counts are optimistic."
            )
        )
        tables.append(_confusion_table(task))
    tables += detail_tables(task)
    return Section(task_title(name), tuple(paragraphs), tuple(tables), tuple(pictures))


def _measure_table(task: Mapping[str, Any], first: str) -> Table:
    rows = task["contenders"][first]["labels"]
    measures = _union(rows.values())
    cells = tuple(
        (
            row["title"],
            str(row["positives"]),
            *(format_interval(rows[label][measure]) for measure in measures),
            f"not in the macro means: {row['left_out']}" if row["left_out"] else "",
        )
        for label, row in task["labels"].items()
    )
    return Table((first, "positives", *map(measure_title, measures), "note"), cells)


def _contender_table(task: Mapping[str, Any]) -> Table:
    contenders = task["contenders"]
    cells = tuple(
        (row["title"], *(format_interval(c["labels"][label]["auroc"]) for c in contenders.values()))
        for label, row in task["labels"].items()
    )
    return Table(("AUROC", *contenders), cells)


def _confusion_table(task: Mapping[str, Any]) -> Table:
    names = ("true_positives", "false_negatives", "false_positives", "true_negatives")
    cells = tuple(
        (task["labels"][label]["title"], f"{row['threshold']:.4g}", *(str(row[n]) for n in names))
        for label, row in task["confusion"]["labels"].items()
    )
    return Table(("calls", "threshold", *(name.replace("_", " ") for name in names)), cells)


def method_section(report: Mapping[str, Any]) -> Section:
    """How the numbers came about: rules, command, versions."""
    settings = report["settings"]
    few = settings["min_positives"]
    paragraphs = [
        f"Intervals: {settings['resamples']:,} bootstrap resamples of patients (seed "
        f"{settings['seed']}), 2.5 and 97.5 percentiles. Macro means are unweighted over the "
        f"labels that every contender scored and that at least {few} patients have and {few} have "
        "not; a label without both has no AUROC, and one of a single patient no interval. In a "
        "resample that drew no positive patient of a label, that label is left out. F-max is the "
        "mean of each label's own highest F1. In a resample a pair of records counts as often as "
        "its first patient was drawn times its second one. Labels shuffled: the first contender's "
        "scores against labels that were dealt to other patients; their AUROC should be 0.5 within "
        "the interval, which each of these rows misses about once in twenty times. Calibration "
        "errors and F-max grow when records are drawn twice: their intervals lie somewhat too "
        "high. What a query or a probe is compared with stays the same in every resample. Tasks "
        "count their own labels, so that macro means of two tasks compare only where these agree.",
        *report["notes"],
    ]
    unreadable = {k: v for task in report["tasks"].values() for k, v in task["unreadable"].items()}
    if unreadable:
        shown = ", ".join(f"{key} ({why})" for key, why in [*unreadable.items()][:_MAX_LISTED])
        more = ", ..." if len(unreadable) > _MAX_LISTED else ""
        paragraphs.append(f"{len(unreadable)} records could not be read: {shown}{more}.")
    splits = Table(
        ("split", "records", "patients"),
        tuple(
            (name, str(split["records"]), str(split["patients"]))
            for name, split in report["dataset"]["splits"].items()
        ),
    )
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return Section(
        "How this was computed",
        (*paragraphs, f"Versions: {versions}. Date: {report['date']}."),
        (splits,),
        listings=tuple(
            dict.fromkeys((report["command"], report.get("report_command", report["command"])))
        ),
    )
