"""A caption job's files, and its way with answers: what ``tools/caption`` does beside talking.

The files to write are looked at before any work: a run over many recordings must not end at one
that cannot be written, nor write over what it reads.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from esi_fast.cqa.answers import AnswerFile
from esi_fast.cqa.batch_files import BatchBackend, import_results
from esi_fast.cqa.coverage import Coverage
from esi_fast.cqa.whole_file import check_writable, regular_file


@dataclass(frozen=True, slots=True)
class Target:
    """A file that a run writes.

    Attributes:
        name: the option that names it, or what it is.
        path: where.
        rule: ``"new"``: it must not exist, unless it may be replaced. ``"continued"``: what it
            holds is gone on with. ``"later"``: another run will write it; its name is taken.
    """

    name: str
    path: Path
    rule: Literal["new", "continued", "later"] = "new"


def beside(out: Path, suffix: str) -> Path:
    """A file beside another, under its name without .jsonl: those of a.b and a.jsonl differ."""
    return out.parent / f"{out.name.removesuffix('.jsonl')}{suffix}"


def targets_of(
    out: Path, *, report: Path | None, export: Path | None, remembers: bool
) -> list[Target]:
    """All files that a run writes.

    Args:
        out: the dictionary, which an export leaves to a later run.
        report: the lines that were not read whole.
        export: requests.
        remembers: whether answers are kept beside ``out``.
    """
    rule: Literal["new", "later"] = "new" if export is None else "later"
    targets = [
        Target("--out", out, rule),
        Target("the count of checks of --out", beside(out, ".checks.csv"), rule),
    ]
    if remembers:
        answers = beside(out, ".answers.jsonl")
        targets.append(Target("the answers of --out", answers, "continued"))
    if export is not None:
        targets.append(Target("--export-batch", export))
    if report is not None:
        targets.append(Target("--report", report))
    return targets


def check_targets(
    targets: Sequence[Target], inputs: Mapping[str, Path], *, overwrite: bool
) -> None:
    """Makes sure that every file can be written, and takes nobody's place.

    Args:
        targets: the files to write.
        inputs: files and folders that are read, by the option that names them.
        overwrite: whether files that exist may be replaced. In a folder that is read none may.

    Raises:
        ValueError: one cannot be written, is another one or an input, or exists.
    """
    names = {_identity(path): name for name, path in inputs.items() if path.is_file()}
    folders = {name: Path(os.path.realpath(path)) for name, path in inputs.items() if path.is_dir()}
    for target in targets:
        try:
            check_writable(target.path)
        except OSError as error:
            raise ValueError(f"{target.name}: {error}") from None
        other = names.setdefault(_identity(target.path), target.name)
        if other != target.name:
            raise ValueError(f"{target.name} {target.path} is {other} as well; choose another file")
        if target.path.exists():
            _check_existing(target, folders, overwrite)


def _check_existing(target: Target, folders: Mapping[str, Path], overwrite: bool) -> None:
    if target.rule == "later":
        return
    if target.rule == "continued":
        if not os.access(target.path, os.R_OK | os.W_OK):
            raise ValueError(f"{target.name} {target.path} cannot be read and added to")
        return
    for name, folder in folders.items():
        if regular_file(target.path).is_relative_to(folder):
            raise ValueError(
                f"{target.name} {target.path} exists and is in {name}, which is read; choose "
                "another file"
            )
    if not overwrite:
        raise ValueError(f"{target.name} {target.path} exists; --overwrite replaces it")


def _identity(path: Path) -> object:
    """Equal for two names of one file, of which there need be none yet."""
    real = os.path.realpath(path)
    try:
        found = os.stat(real)  # noqa: PTH116  # realpath resolves what Path.resolve raises at
    except OSError:
        return real
    return found.st_dev, found.st_ino


def count_lines(reports: Mapping[tuple[str, ...], int]) -> Counter[str]:
    """How often each line occurs in reports given with how often each of them does."""
    lines: Counter[str] = Counter()
    for report, count in reports.items():
        for line in report:
            lines[line] += count
    return lines


def write_unread(coverage: Coverage, file: TextIO) -> None:
    """The lines that were not read whole, as csv: count, line, read_as, not_read."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["count", "line", "read_as", "not_read"])
    for row in coverage.rows:
        writer.writerow([row.count, row.line, " ".join(row.concepts), row.remainder])


def import_batch(path: Path, backend: BatchBackend, answers: AnswerFile) -> Counter[str]:
    """Takes the results of a batch into the answer file: of requests that have no answer yet.

    Returns:
        Lines by what became of them.

    Raises:
        ValueError: a line is no result of a batch, or no line is of use.
    """
    wanted = {request.key(backend) for request in backend.collected}
    return import_results(path, answers, wanted)
