"""Records of a batch that the core hands on to the wfdb package, or that lack leads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from wfdb_files import MIMIC_ORDER, assert_as_wfdb, samples, write_record

from esi_fast.signal import record_batch
from esi_fast.signal.record_batch import read_records
from esi_fast.signal.records import read_record


def test_formats_the_core_lacks_join_the_batch_through_wfdb(tmp_path: Path) -> None:
    digital = samples(300)
    for name, fmt in (("other", "516"), ("native", "16")):
        wfdb.wrsamp(
            name, fs=500, units=["mV"] * 12, sig_name=list(MIMIC_ORDER), fmt=[fmt] * 12,
            d_signal=digital.T.astype(np.int64), adc_gain=[200.0] * 12, baseline=[0] * 12,
            write_dir=str(tmp_path),
        )  # fmt: skip
    stems = [tmp_path / "native", tmp_path / "other"]
    assert assert_as_wfdb(stems[1]) == "read through wfdb: format 516"
    for options in ({}, {"fs": 100.0, "duration": 1.0}, {"dtype": "int16"}):
        batch = read_records(stems, **options)  # type: ignore[arg-type]
        assert batch.status == ("ok", "read through wfdb: format 516")
        assert batch.errors == ("", "")
        assert batch.source_leads == (MIMIC_ORDER, MIMIC_ORDER)
        np.testing.assert_array_equal(batch.signal[0], batch.signal[1])
    header = (tmp_path / "other.hea").read_text()
    first = digital[0, 0]
    for wrong, status, message in (
        (header.replace(" 516 ", " 999 "), "format", "other.hea: format 999 is not one"),
        (header.replace(f" {first} ", " 7 "), "checksum", "other_1.dat: first sample of lead I is"),
        (header.replace(" 300\n", " 300000000000\n"), "truncated", "other_1.dat: "),
        (header.replace(" 300\n", "\n"), "format", "other.hea: the length of a FLAC record"),
    ):
        (tmp_path / "other.hea").write_text(wrong)
        batch = read_records(stems)
        assert batch.status == ("ok", status)
        assert batch.errors[1].startswith(message)


def test_what_goes_through_wfdb_harms_no_other(tmp_path: Path) -> None:
    good = write_record(tmp_path / "good", samples(500))
    cases = {
        "rate": ("500", "16:1", "format", "cannot resample"),
        "skew": ("500", "16:400000000", "format", "a skew of 400000000 exceeds the 500 frames"),
    }
    for name, (fs, fmt, status, message) in cases.items():
        bad = write_record(tmp_path / name, samples(500), fs=fs, fmt=fmt)
        target = 0.25 if name == "rate" else 250.0
        batch = read_records([good, bad], fs=target, duration=10.0)
        assert batch.status[1] == status
        assert message in batch.errors[1]
    pipe = write_record(tmp_path / "pipe", samples(500), fmt="16:1")
    (tmp_path / "pipe.dat").unlink()
    os.mkfifo(tmp_path / "pipe.dat")
    long = (tmp_path / "pipe.hea").read_text().replace("pipe.dat", "x" * 300)
    (tmp_path / "long.hea").write_text(long)
    gone = (tmp_path / "pipe.hea").read_text().replace("pipe.dat", "gone.dat")
    (tmp_path / "gone.hea").write_text(gone)
    batch = read_records([good, pipe, tmp_path / "long", tmp_path / "gone"])
    assert batch.status == ("ok", "io", "io", "missing")
    assert batch.errors[1:] == (
        "pipe.dat: not a regular file",
        "x" * 300 + ": File name too long",
        "gone.dat: no such file",
    )


def test_skew_and_headers_that_wfdb_refuses(tmp_path: Path) -> None:
    digital = samples(300)
    stem = write_record(tmp_path / "r", digital, fmt="16:2")
    header = stem.with_suffix(".hea")
    assert assert_as_wfdb(stem) == "read through wfdb: skewed signals"
    plain = read_record(stem).signal
    header.write_text(header.read_text().replace("r 12 500 300", "x/y.z 12 500 300 05-May-2020"))
    np.testing.assert_array_equal(read_record(stem).signal, plain)
    header.write_text(header.read_text().replace("200.0(0)/mV", "0.02E1(0)/µV"), encoding="utf-8")
    np.testing.assert_allclose(read_record(stem).signal, plain, rtol=1e-6)
    write_record(tmp_path / "sum", digital, fmt="16:2", checksum_of="V2")
    assert read_records([tmp_path / "sum"]).status == ("checksum",)
    assert read_records([tmp_path / "sum"], verify=False).status[0].startswith("read through")


def test_what_goes_through_wfdb_is_let_go_of_once_it_is_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stems = [write_record(tmp_path / f"r{n}", samples(300), length="300") for n in range(6)]
    for stem in stems:  # a lead that is none of the twelve: the core hands the record on
        header = stem.with_suffix(".hea")
        header.write_text(header.read_text().replace(" aVR\n", " X\n"))
    held = []
    place = record_batch._Batch._place

    def counted(self: record_batch._Batch, *rest: Any) -> None:
        held.append(len(self.through_wfdb))
        place(self, *rest)

    monkeypatch.setattr(record_batch._Batch, "_place", counted)
    batch = read_records(stems, fs=500, duration=0.6, required_leads=("I", "II"))
    assert batch.status == ("lacks leads: aVR",) * 6
    assert held == [1] * 6
    assert np.isfinite(batch.signal[:, 0]).all()
