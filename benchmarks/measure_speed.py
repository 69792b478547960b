"""Measuring 12-lead records, beside what people use to delineate them; and within a shard build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.comparison import Comparison, time_in_turn
from benchmarks.ludb_marks import Marks, mark_with_neurokit, mark_with_xqrs
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.shards import write_shards
from esi_fast.signal.catalogue import Catalogue
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.measure import measure_records
from esi_fast.signal.record_batch import read_records
from esi_fast.signal.simulate import simulate
from esi_fast.signal.simulate_tree import write_tree

PACKAGES = ("numpy", "numba", "neurokit2", "wfdb")
FS = 500.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does.

    Attributes:
        num_records: measured by both.
        num_repeats: how often ours does them, so that its time is long enough to be taken.
        num_built: records of the tree from which shards are built.
        num_rounds: timed rounds.
    """

    num_records: int
    num_repeats: int
    num_built: int
    num_rounds: int


FULL = Size(6, 40, 400, 5)
QUICK = Size(2, 5, 24, 2)


def compile_seconds() -> float:
    """How long the first call of an installation takes, for compiling, in a cache of its own."""
    code = (
        "import time, numpy as np\n"
        "from esi_fast.signal.measure import measure\n"
        "from esi_fast.signal.simulate import simulate\n"
        "signal = next(simulate(1)).signal\n"
        "started = time.perf_counter()\nmeasure(signal, 500.0)\n"
        "print(time.perf_counter() - started)\n"
    )
    with tempfile.TemporaryDirectory(prefix="esi_numba_") as folder:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "NUMBA_CACHE_DIR": folder},
        )  # fmt: skip
    return float(done.stdout)


def measure(
    folder: Path, size: Size, progress: Callable[[int, int], object] = lambda done, total: None
) -> list[Comparison]:
    """All rows.

    Args:
        folder: where to write records and shards.
        size: how much to do.
        progress: called with the rows done and their number.

    Raises:
        ValueError: a rival finds the same beats as ours in no record, or the build measures
            otherwise.
    """
    records = np.stack([record.signal for record in simulate(size.num_records, seed=3)])
    jobs = [
        partial(_against, records, size, "neurokit2 dwt", 150, 280),
        partial(_against, records, size, "neurokit2 prominence", None, None),
        partial(_against, records, size, "wfdb xqrs", None, None),
        partial(_within_a_build, folder, size),
    ]
    rows = []
    for done, job in enumerate(jobs):
        progress(done, len(jobs))
        rows.append(job())
    progress(len(jobs), len(jobs))
    return rows


def _rival(signal: npt.NDArray[np.float32], who: str) -> dict[str, Marks]:
    if who == "wfdb xqrs":
        return mark_with_xqrs(signal, FS)
    return mark_with_neurokit(signal, FS, who.partition(" ")[2])


def _same_beats(record: npt.NDArray[np.float32], who: str) -> bool:
    """Whether lead II has as many beats for both, each within 50 ms."""
    ours = measure_records(record[None], FS)[0].fiducials["II"]["r_peak"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _rival(record, who)["II"]["r_peak"]
    ours = ours[ours >= 0]
    return len(ours) == len(theirs) and bool((np.abs(ours - theirs) <= 0.05 * FS).all())


def _against(
    records: npt.NDArray[np.float32], size: Size, who: str, bar: float | None, aim: float | None
) -> Comparison:
    what = "QRS complexes" if who == "wfdb xqrs" else "P, QRS, T"
    note = f"ours measures everything, the rival marks {what} in 12 leads"
    row = Comparison("measure, 500 Hz, 10 s", "measure_records", who, bar=bar, aim=aim, note=note)
    measure_records(records, FS)
    many = np.concatenate([records] * size.num_repeats)
    row.num_compared = sum(_same_beats(one, who) for one in records)
    if not row.num_compared:
        raise ValueError(f"{who} finds other beats than measure_records in every record")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Ours takes so little time that it does the records many times over for one of the rival.
        ours, rival = Comparison("", "", ""), Comparison("", "", "")
        names = [str(number) for number in range(len(many))]
        few = names[: len(records)]
        for _ in range(size.num_rounds):
            time_in_turn(ours, lambda _: measure_records(many, FS), _nothing, [names], 1)
            time_in_turn(rival, _nothing, lambda _: [_rival(one, who) for one in records], [few], 1)
    row.rounds = [(a[0], b[1]) for a, b in zip(ours.rounds, rival.rounds, strict=True)]
    return row


def _within_a_build(folder: Path, size: Size) -> Comparison:
    """A build that measures, beside a build that does not and measuring what it wrote."""
    tree = folder / "tree"
    write_tree(tree, size.num_built, seed=1)
    catalogue = open_catalogue(tree)
    paths = [entry.path for entry in catalogue]
    signal = read_records(paths, fs=FS, duration=10.0, dtype="int16").signal
    row = Comparison(
        "build with measuring", "write_shards", "without, and measure_records", bar=0.83,
        note="1 is no cost of its own; the bar is 1.2 times as long",
    )  # fmt: skip

    def build(out: Path, *, with_measuring: bool) -> None:
        shutil.rmtree(out, ignore_errors=True)
        settings = BuildSettings(measure=with_measuring, val_fraction=0.0, test_fraction=0.0)
        write_shards(open_catalogue(tree), out, settings, workers=1)

    def apart(_: Sequence[str]) -> None:
        build(folder / "apart", with_measuring=False)
        measure_records(signal, FS)

    build(folder / "together", with_measuring=True)
    row.num_compared = _compare(folder / "together", catalogue, signal)
    time_in_turn(
        row,
        lambda _: build(folder / "together", with_measuring=True),
        apart,
        [[str(number) for number in range(len(paths))]],
        size.num_rounds,
    )
    return row


def _compare(shards: Path, catalogue: Catalogue, signal: npt.NDArray[np.int16]) -> int:
    """Number of records, in each of which the build counted the beats that we measure.

    Raises:
        ValueError: a record has others.
    """
    found = measure_records(signal, FS)
    expected = {entry.key: one.num_beats for entry, one in zip(catalogue, found, strict=True)}
    built = ShardSet(shards)
    for row in range(len(built)):
        key, num_beats = built.key(row), built.read_meta(row)["measurements"]["num_beats"]
        if num_beats != expected.pop(key):
            raise ValueError(f"{key} has {num_beats:g} beats in the shards and others beside them")
    if expected:
        raise ValueError(f"{len(expected)} records are not in the shards")
    return len(built)


def _nothing(_: Sequence[str]) -> None:
    pass
