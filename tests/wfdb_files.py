"""WFDB records made by hand, and wfdb as the oracle of how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import wfdb

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.records import read_record

MIMIC_ORDER = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
Digital = npt.NDArray[np.int16]


def samples(num_samples: int = 500, num_signals: int = 12, seed: int = 0) -> Digital:
    """(num_signals, T), a slow wave of its own for each signal, and noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 500
    wave = 300 * np.sin(2 * np.pi * rng.uniform(1, 9, (num_signals, 1)) * time)
    return np.rint(wave + rng.normal(0, 20, (num_signals, num_samples))).astype(np.int16)


def write_record(
    stem: Path,
    digital: Digital,
    leads: Sequence[str] = MIMIC_ORDER,
    *,
    fs: str = "500",
    length: str | None = None,
    fmt: str = "16",
    gain: str = "200.0(0)/mV",
    offset: int = 0,
    checksum_of: str = "",
) -> Path:
    """A record of format 16, by hand; the checksum of the lead `checksum_of` is wrong by one."""
    sums = digital.sum(axis=1, dtype=np.int64).astype(np.int16).astype(int)
    lines = [f"{stem.name} {len(digital)} {fs} {digital.shape[1] if length is None else length}"]
    for row, lead, checksum in zip(digital, leads, sums, strict=True):
        wrong = int(lead == checksum_of)
        first = row[0] if row.size else 0
        kind = f"{fmt}+{offset}" if offset else fmt
        lines.append(f"{stem.name}.dat {kind} {gain} 16 0 {first} {checksum + wrong} 0 {lead}")
    stem.with_name(f"{stem.name}.hea").write_text("\n".join(lines) + "\n")
    prolog = b"\xff" * offset
    stem.with_name(f"{stem.name}.dat").write_bytes(prolog + digital.T.astype("<i2").tobytes())
    return stem


def assert_as_wfdb(stem: Path, leads: Sequence[str] = STANDARD_LEADS) -> str:
    """Digital values equal wfdb's exactly, millivolts within one unit in the last place."""
    record = read_record(stem, leads=leads)
    oracle = wfdb.rdrecord(str(stem), physical=False)
    assert record.fs == oracle.fs
    assert record.source_leads == tuple(name or "" for name in oracle.sig_name)
    np.testing.assert_array_equal(record.digital, oracle.d_signal.T)
    physical = oracle.dac()
    folded = [name.casefold() for name in oracle.sig_name]
    for row, lead in zip(record.signal, record.leads, strict=True):
        expected = physical[:, folded.index(lead.casefold())].astype(np.float32)
        np.testing.assert_array_equal(np.isnan(row), np.isnan(expected))
        present = ~np.isnan(expected)
        np.testing.assert_array_max_ulp(row[present], expected[present], maxulp=1)
    return record.status
