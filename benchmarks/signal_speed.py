"""Reading and resampling WFDB records, beside what ECG people use for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.signal
import soxr
import wfdb

import esi_fast as ef
from benchmarks.agreement import same_header, same_passband, within_a_millionth, within_one_ulp
from benchmarks.comparison import Comparison, time_in_turn
from benchmarks.record_files import (
    BATCH_SIZE,
    DURATION_S,
    FS,
    MIMIC_ORDER,
    in_batches,
    read,
    read_by_hand,
    write_records,
)
from benchmarks.resample_figures import resample_poly
from benchmarks.signal_scaling import cold_files, instruction_sets, two_threads
from esi_fast import _core

Array = npt.NDArray[np.floating]
RATES = (100, 250, 257)
FORMATS = ("212", "24", "32")
CHECKSUMS = "ours verifies checksums, the rival does not"
PACKAGES = ("numpy", "wfdb", "scipy", "soxr")


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does.

    Attributes:
        num_records: of format 16.
        num_other_format: records of each other format.
        num_rounds: timed rounds of every row but the next.
        num_thread_rounds: of the rows of threads: others' work disturbs wall time most.
    """

    num_records: int
    num_other_format: int
    num_rounds: int
    num_thread_rounds: int


FULL = Size(num_records=200, num_other_format=48, num_rounds=9, num_thread_rounds=70)
QUICK = Size(num_records=24, num_other_format=6, num_rounds=3, num_thread_rounds=10)


@dataclass(frozen=True, slots=True)
class Contest:
    """A row whose rival takes one record at a time.

    Attributes:
        row: to fill.
        ours: records to results.
        rival: record to result.
        agree: one of the checks of ``agreement``.
    """

    row: Comparison
    ours: Callable[[Sequence[str]], Sequence[Any]]
    rival: Callable[[str], Any]
    agree: Callable[[Any, Any], bool]


def measure(
    folder: Path, size: Size, progress: Callable[[int, int], object] = lambda done, total: None
) -> list[Comparison]:
    """All rows, each timed after its results were found equal.

    Args:
        folder: where to write the records.
        size: how much to do.
        progress: called with the rows done and their number.

    Raises:
        ValueError: a rival's result differs from ours: the line says where.
    """
    stems = write_records(folder / "format_16", size.num_records, "16")
    rounds = size.num_rounds
    jobs: list[Callable[[], list[Comparison]]] = [
        partial(_run, contest, stems, rounds) for contest in contests()
    ]
    for fmt in FORMATS:
        folder_of_format = folder / f"format_{fmt}"
        jobs.append(partial(_other_format, folder_of_format, fmt, size.num_other_format, rounds))
    jobs.append(partial(two_threads, stems, size.num_thread_rounds))
    jobs.append(partial(instruction_sets, stems, rounds))
    jobs.append(partial(cold_files, stems, rounds))
    rows: list[Comparison] = []
    for done, job in enumerate(jobs):
        progress(done, len(jobs))
        rows += job()
    progress(len(jobs), len(jobs))
    return rows


def contests() -> list[Contest]:
    """The rows for format 16."""
    # wfdb's users get (T, 12) in the file's order; what we check has the leads first, by name.
    as_wfdb = partial(_in_standard_order, agree=within_one_ulp)
    found = [
        Contest(
            Comparison("header", "_core.read_header", "wfdb.rdheader", bar=100, aim=250),
            read_headers,
            wfdb.rdheader,
            same_header,
        ),
        Contest(
            Comparison("read", "read_records", "wfdb.rdrecord", bar=40, aim=70, note=CHECKSUMS),
            read,
            _rdrecord,
            as_wfdb,
        ),
        Contest(
            Comparison("read", "read_records", "numpy by hand", note=CHECKSUMS),
            read,
            read_by_hand,
            within_one_ulp,
        ),
        Contest(
            Comparison("read one", "read_record", "wfdb.rdrecord", note=CHECKSUMS),
            lambda stems: [ef.read_record(stem).signal for stem in stems],
            _rdrecord,
            as_wfdb,
        ),
    ]
    for fs in RATES:
        row = Comparison(f"read, {FS}->{fs}", "scipy", "wfdb + resample_poly", bar=40, aim=55)
        ours = partial(read, fs=fs, quality="scipy")
        agree = partial(_in_standard_order, agree=within_a_millionth)
        found.append(Contest(row, ours, partial(_rdrecord_resample_poly, fs=fs), agree))
    for fs in RATES:
        row = Comparison(f"read, {FS}->{fs}", "hq", "by hand + soxr HQ", bar=3, aim=5)
        ours = partial(read, fs=fs)
        found.append(Contest(row, ours, partial(_by_hand_soxr, fs=fs), same_passband))
    for fs in RATES:
        row = Comparison(f"read, {FS}->{fs}", "hq", "by hand + scipy FFT")
        ours = partial(read, fs=fs)
        found.append(Contest(row, ours, partial(_by_hand_fft, fs=fs), same_passband))
    return found


def compare(contest: Contest, batches: Sequence[Sequence[str]]) -> int:
    """The number of records on which both agree.

    Raises:
        ValueError: there is one on which they do not, or none that can be compared.
    """
    names = f"{contest.row.pipeline}: {contest.row.ours} and {contest.row.rival}"
    num_compared = 0
    for batch in batches:
        for stem, result in zip(batch, contest.ours(batch), strict=True):
            try:
                num_compared += contest.agree(result, contest.rival(stem))
            except ValueError as error:
                raise ValueError(f"{names} differ on {Path(stem).name}: {error}") from None
    if not num_compared:
        raise ValueError(f"{names} have no record on which they can be compared")
    return num_compared


def _run(contest: Contest, stems: Sequence[str], num_rounds: int) -> list[Comparison]:
    def rival(batch: Sequence[str]) -> None:
        for stem in batch:
            contest.rival(stem)

    batches = in_batches(stems, BATCH_SIZE)
    contest.row.num_compared = compare(contest, batches)
    time_in_turn(contest.row, contest.ours, rival, batches, num_rounds)
    return [contest.row]


def _other_format(folder: Path, fmt: str, num_records: int, num_rounds: int) -> list[Comparison]:
    row = Comparison(f"read, format {fmt}", "read_records", "wfdb.rdrecord", note=CHECKSUMS)
    stems = write_records(folder, num_records, fmt)
    status = ef.read_record(stems[0]).status
    if status != "ok":
        row.note = f"not measured: {status}"
        return [row]
    agree = partial(_in_standard_order, agree=within_one_ulp)
    return _run(Contest(row, read, _rdrecord, agree), stems, num_rounds)


def read_headers(stems: Sequence[str]) -> list[_core.Header]:
    """Each record's header, by ours."""
    return [_core.read_header(os.fsencode(stem), strict=False) for stem in stems]


def _in_standard_order(
    found: Array, expected: Array, agree: Callable[[Array, Array], bool]
) -> bool:
    return agree(found, expected.T[MIMIC_ORDER])


def _rdrecord(stem: str) -> Array:
    return wfdb.rdrecord(stem).p_signal


def _rdrecord_resample_poly(stem: str, fs: int) -> Array:
    return resample_poly(wfdb.rdrecord(stem).p_signal.T, FS, fs).T


def _by_hand_soxr(stem: str, fs: int) -> Array:
    # (T, 12) whose channels lie one after the other: the layout on which soxr is fastest.
    return soxr.resample(read_by_hand(stem).T, FS, fs, quality="HQ").T


def _by_hand_fft(stem: str, fs: int) -> Array:
    return scipy.signal.resample(read_by_hand(stem), DURATION_S * fs, axis=1)
