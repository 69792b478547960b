"""Two ways to do one thing, timed in turn in one run; and the table and CSV of what was found."""

from __future__ import annotations

import csv
import datetime
import gc
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
Work = Callable[[Sequence[str]], object]


@dataclass(slots=True)
class Comparison:
    """One row: our time and the rival's in every round.

    Attributes:
        pipeline, ours, rival: what is done, and by whom.
        num_compared: records on which both gave the same result before any was timed; 0 where
            nothing was compared.
        clock: ``"cpu"`` (of the whole process; the median of the rounds counts), ``"thread"`` (CPU
            of the calling thread alone; the median) or ``"wall"`` (for threads and disks; the best
            round counts).
        bar, aim: wanted ratio, None where there is none.
        note: what else the reader must know; begins with "not measured" where that is so.
        rounds: microseconds a record, (ours, rival), a pair a round.
    """

    pipeline: str
    ours: str
    rival: str
    num_compared: int = 0
    clock: Literal["cpu", "thread", "wall"] = "cpu"
    bar: float | None = None
    aim: float | None = None
    note: str = ""
    rounds: list[tuple[float, float]] = field(default_factory=list)

    @property
    def ours_us(self) -> float:
        """Microseconds a record."""
        return self._summary([ours for ours, _ in self.rounds])

    @property
    def rival_us(self) -> float:
        """Microseconds a record."""
        return self._summary([rival for _, rival in self.rounds])

    @property
    def ratios(self) -> list[float]:
        """How many times faster we are, round by round."""
        return [rival / ours for ours, rival in self.rounds]

    @property
    def ratio(self) -> float:
        """How many times faster we are."""
        if self.clock == "wall":
            return self.rival_us / self.ours_us
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """How the ratio stands to bar and aim; empty where there is neither."""
        if self.bar is None or not self.rounds:
            return ""
        if self.ratio < self.bar:
            return "MISSED"
        return "met" if self.aim is None or self.ratio < self.aim else "aim met"

    def _summary(self, times: list[float]) -> float:
        return min(times) if self.clock == "wall" else statistics.median(times)


def time_in_turn(
    row: Comparison,
    ours: Work,
    rival: Work,
    batches: Sequence[Sequence[str]],
    num_rounds: int,
    before: Callable[[], object] = lambda: None,
) -> None:
    """Fill ``row.rounds``: both do every batch in every round, and take turns in going first.

    Args:
        row: its clock says what is measured.
        ours, rival: take a batch; what they return is dropped within the time.
        batches: names of records.
        num_rounds: how often.
        before: called, untimed, before each batch of each.
    """
    clocks = {"cpu": time.process_time, "thread": time.thread_time, "wall": time.perf_counter}
    clock = clocks[row.clock]
    num_records = sum(map(len, batches))
    gc.collect()
    gc.disable()  # one's garbage must not be collected in the other's time
    try:
        for number in range(num_rounds):
            seconds = [0.0, 0.0]
            for index, batch in enumerate(batches):
                first = (number + index) % 2
                for which in (first, 1 - first):
                    before()
                    work = (ours, rival)[which]
                    started = clock()
                    work(batch)
                    seconds[which] += clock() - started
            row.rounds.append((seconds[0] / num_records * 1e6, seconds[1] / num_records * 1e6))
            gc.collect()
    finally:
        gc.enable()


def provenance(command: str, packages: Sequence[str]) -> dict[str, str]:
    """What a reader needs to judge or repeat a result: command, date, machine, versions, commit."""
    commit, changed = "no repository", ""
    if shutil.which("git") is not None:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        # Results decide on nothing: a command may have written one of its two tables already.
        wanted = ["status", "--porcelain", "--", ".", ":!benchmarks/*.csv"]
        status = subprocess.run([*git, *wanted], capture_output=True, text=True)
        commit = head.stdout.strip() if head.returncode == 0 else commit
        changed = " with uncommitted changes" if status.stdout.strip() else ""
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu_model()}, {len(os.sched_getaffinity(0))} usable CPUs",
        "versions": ", ".join(versions),
        "commit": commit + changed,
    }


def cpu_model() -> str:
    """As the system names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_csv(path: Path, header: dict[str, str], rows: Sequence[dict[str, object]]) -> None:
    """Rows of equal keys, below a comment line for each entry of ``header``; at once or not."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", newline="") as file:
        file.writelines(f"# {name}: {value}\n" for name, value in header.items())
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def as_csv_row(row: Comparison) -> dict[str, object]:
    """The columns of a result file."""
    measured = bool(row.rounds)
    return {
        "pipeline": row.pipeline,
        "ours": row.ours,
        "rival": row.rival,
        "clock": row.clock,
        "ours_us_per_record": f"{row.ours_us:.2f}" if measured else "",
        "rival_us_per_record": f"{row.rival_us:.2f}" if measured else "",
        "ratio": f"{row.ratio:.3f}" if measured else "",
        "ratio_min": f"{min(row.ratios):.3f}" if measured else "",
        "ratio_max": f"{max(row.ratios):.3f}" if measured else "",
        "bar": "" if row.bar is None else row.bar,
        "aim": "" if row.aim is None else row.aim,
        "num_rounds": len(row.rounds),
        "num_compared": row.num_compared,
        "note": row.note,
    }


def table(rows: Sequence[Comparison]) -> str:
    """The rows as lines of text."""
    names = [(row.pipeline, f"{row.ours} | {row.rival}") for row in rows]
    widths = [max(len(name[column]) for name in names) for column in (0, 1)]
    lines = [
        f"{'us a record':<{widths[0]}}  {'ours | rival':<{widths[1]}}"
        f"{'ours':>10}{'rival':>10}{'ratio':>9}  {'min..max':<15}{'bar':>5}{'aim':>6}"
    ]
    for row, (pipeline, who) in zip(rows, names, strict=True):
        start = f"{pipeline:<{widths[0]}}  {who:<{widths[1]}}"
        if row.rounds:
            spread = f"{min(row.ratios):.2f}..{max(row.ratios):.2f}"
            start += f"{row.ours_us:>10.1f}{row.rival_us:>10.1f}{row.ratio:>9.2f}  {spread:<15}"
        else:
            start += " " * 46
        wanted = [f"{value:g}" if value is not None else "" for value in (row.bar, row.aim)]
        line = f"{start}{wanted[0]:>5}{wanted[1]:>6}  {row.verdict:<8}{row.note}"
        lines.append(line.rstrip())
    return "\n".join(lines)
