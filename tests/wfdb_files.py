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
    checksum_of: str | None = None,
    first_of: str | None = None,
) -> Path:
    """A record of format 16, by hand.

    The checksum of the lead `checksum_of`, and the initial value of `first_of`, are wrong by one.
    """
    sums = digital.sum(axis=1, dtype=np.int64).astype(np.int16).astype(int)
    lines = [f"{stem.name} {len(digital)} {fs} {digital.shape[1] if length is None else length}"]
    for row, lead, checksum in zip(digital, leads, sums, strict=True):
        wrong = int(lead == checksum_of)
        first = (row[0] if row.size else 0) + int(lead == first_of)
        kind = f"{fmt}+{offset}" if offset else fmt
        lines.append(f"{stem.name}.dat {kind} {gain} 16 0 {first} {checksum + wrong} 0 {lead}")
    stem.with_name(f"{stem.name}.hea").write_text("\n".join(lines) + "\n")
    prolog = b"\xff" * offset
    stem.with_name(f"{stem.name}.dat").write_bytes(prolog + digital.T.astype("<i2").tobytes())
    return stem


def pack(fmt: int, values: npt.NDArray[np.integer]) -> bytes:
    """The bytes of a format, from samples in the order of the file (of format 8: differences)."""
    unsigned = values.astype(np.int64)
    if fmt in (8, 16, 24, 32):
        width = {8: 1, 16: 2, 24: 3, 32: 4}[fmt]
        return b"".join(int(v).to_bytes(width, "little", signed=True) for v in unsigned)
    if fmt == 61:
        return values.astype(">i2").tobytes()
    if fmt in (80, 160):
        return (
            (unsigned + (128 if fmt == 80 else 32768))
            .astype(f"<u{1 if fmt == 80 else 2}")
            .tobytes()
        )
    bits, per_block = (12, 2) if fmt == 212 else (10, 3)
    out = bytearray()
    for begin in range(0, len(unsigned), per_block):
        block = [int(v) & ((1 << bits) - 1) for v in unsigned[begin : begin + per_block]]
        present = len(block)
        a, b, *more = [*block, 0, 0]
        if fmt == 212:
            whole, sizes = bytes([a & 255, a >> 8 | b >> 8 << 4, b & 255]), (0, 2, 3)
        elif fmt == 311:
            whole, sizes = (a | b << 10 | more[0] << 20).to_bytes(4, "little"), (0, 2, 3, 4)
        else:
            words = (a << 1 | (more[0] & 31) << 11, b << 1 | more[0] >> 5 << 11)
            whole, sizes = b"".join(w.to_bytes(2, "little") for w in words), (0, 2, 4, 4)
        out += whole[: sizes[present]]
    return bytes(out)


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
