"""The records of the signal benchmarks, how they are read, and how they leave the page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

import esi_fast as ef
from esi_fast.leads import NUM_LEADS, STANDARD_LEADS
from esi_fast.signal.resample import Quality
from esi_fast.signal.simulate import ADC_UNITS_PER_MV, simulate

FS = 500
DURATION_S = 10
# MIMIC-IV-ECG stores aVF before aVL. The permutation is its own inverse.
MIMIC_ORDER = np.array([0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11])
GAP_EVERY = 20  # records
BATCH_SIZE = 64
_MISSING = {"16": -32768, "212": -2048, "24": -(1 << 23), "32": -(1 << 31)}


def write_records(folder: Path, num_records: int, fmt: str) -> list[str]:
    """Simulated 12-lead records, 10 s at 500 Hz, as MIMIC-IV-ECG has them but for the format.

    Every twentieth lacks 0.4 s of two leads. They are written by ``wfdb``: no reader here is also
    the writer.

    Args:
        folder: to make.
        num_records: how many.
        fmt: WFDB format.

    Returns:
        Each record's path without suffix.
    """
    import wfdb

    folder.mkdir()
    stems = []
    for number, record in enumerate(simulate(num_records, fs=FS, duration=DURATION_S)):
        digital = record.digital[MIMIC_ORDER].T.astype(np.int64)
        if has_gap(number):
            digital[1000:1200, 6:8] = _MISSING[fmt]
        name = str(40_000_000 + number)
        wfdb.wrsamp(
            name,
            fs=FS,
            units=["mV"] * NUM_LEADS,
            sig_name=[STANDARD_LEADS[lead] for lead in MIMIC_ORDER],
            d_signal=digital,
            fmt=[fmt] * NUM_LEADS,
            adc_gain=[float(ADC_UNITS_PER_MV)] * NUM_LEADS,
            baseline=[0] * NUM_LEADS,
            comments=[f"<subject_id>: {10_000_000 + number}"],
            write_dir=str(folder),
        )
        stems.append(str(folder / name))
    return stems


def has_gap(number: int) -> bool:
    """Whether the record of this number lacks samples."""
    return number % GAP_EVERY == GAP_EVERY // 2


def read(
    stems: Sequence[str], fs: float = FS, quality: Quality = "hq", threads: int = 1
) -> npt.NDArray[np.float32]:
    """(n, 12, T) float32 mV, by ours.

    Raises:
        ValueError: a record cannot be read, or not by the core.
    """
    batch = ef.read_records(stems, fs=fs, duration=DURATION_S, threads=threads, quality=quality)
    for status, error in zip(batch.status, batch.errors, strict=True):
        if status != "ok":
            raise ValueError(error or status)
    return batch.signal


_SIGNAL_LINE = re.compile(
    r"^(\S+) (\d+) ([\d.]+)(?:\((-?\d+)\))?/\S+ \d+ -?\d+ -?\d+ -?\d+ \d+ (\S+)$", re.MULTILINE
)


def read_by_hand(stem: str) -> npt.NDArray[np.float32]:
    """What a careful user writes for exactly these files: header regex, ``np.fromfile``, NaN mask.

    It checks nothing and reads nothing else, so no general reader in Python is faster.

    Args:
        stem: path without suffix.

    Returns:
        (12, T) float32 mV, standard lead order.
    """
    # Path.open costs a tenth of the whole.
    with open(f"{stem}.hea") as file:  # noqa: PTH123
        lines = _SIGNAL_LINE.findall(file.read())
    rows = {name: row for row, (*_, name) in enumerate(lines)}
    order = [rows[lead] for lead in STANDARD_LEADS]
    stored = np.fromfile(f"{stem}.dat", dtype="<i2").reshape(-1, len(lines))
    digital = np.ascontiguousarray(stored.T[order])
    signal = digital.astype(np.float32)
    baseline = np.array([float(lines[row][3] or 0) for row in order], dtype=np.float32)
    if baseline.any():
        signal -= baseline[:, None]
    signal /= np.array([float(lines[row][2]) for row in order], dtype=np.float32)[:, None]
    if digital.min() == _MISSING["16"]:
        signal[digital == _MISSING["16"]] = np.nan
    return signal


def read_bytes(stems: Sequence[str]) -> None:
    """Both files of each record, one after the other, and nothing else."""
    for stem in stems:
        for suffix in (".hea", ".dat"):
            Path(stem + suffix).read_bytes()


def evict(stems: Sequence[str]) -> None:
    """Ask the system to drop these records from the page cache."""
    for path in _files(stems):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages not yet on disk cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def resident_share(stems: Sequence[str]) -> float:
    """Share of these records' pages that are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    resident = total = 0
    for path in _files(stems):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
            pages = ctypes.create_string_buffer(-(-len(view) // mmap.PAGESIZE))
            anchor = ctypes.c_char.from_buffer(view)
            failed = libc.mincore(ctypes.addressof(anchor), len(view), pages)
            del anchor  # the map cannot close while it is referred to
            if failed:
                raise OSError(ctypes.get_errno(), "mincore", str(path))
            resident += sum(page & 1 for page in pages.raw)
            total += len(pages)
    return resident / total


def _files(stems: Sequence[str]) -> list[Path]:
    return [Path(stem + suffix) for stem in stems for suffix in (".hea", ".dat")]


def in_batches(stems: Sequence[str], size: int) -> list[Sequence[str]]:
    """Batches of ``size`` records, the last one shorter."""
    edges = [*range(0, len(stems), size), len(stems)]
    return [stems[begin:end] for begin, end in pairwise(edges)]
