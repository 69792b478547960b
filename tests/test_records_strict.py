"""Headers beyond the published syntax: read by default, refused when strict; and why."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
import wfdb
from wfdb_files import MIMIC_ORDER, assert_as_wfdb, samples, write_record

from esi_fast.signal.record_batch import read_records
from esi_fast.signal.records import read_record

# What is changed in a sound header, and what strict reading says about it.
TOLERATED = {
    "date as in Challenge 2021": ("r 12 500 500", "r 12 500 500 05-May-2020 09:49:17", "base time"),
    "day with its month in words": ("r 12 500 500", "r 12 500 500 9:49 05-May-2020", "base date"),
    "only a year": ("r 12 500 500", "r 12 500 500 09:49:17 2020", "base date"),
    "no day of the calendar": ("r 12 500 500", "r 12 500 500 09:49:17 31/2/2020", "base date"),
    "name with a slash": ("r 12", "12sl/r 12", "record name"),
    "name that ends in a slash": ("r 12", "r/ 12", "record name"),
    "name with a dot": ("r 12", "E1.mat 12", "record name"),
    "file name with two dots": ("r.dat", "r.x.dat", "file name"),
    "gain with a capital exponent": ("200.0(0)/mV", "2.0E2(0)/mV", "gain"),
    "unit beyond ASCII": ("200.0(0)/mV", "0.2(0)/µV", "line"),
    "rate with an exponent": ("r 12 500 ", "r 12 5e2 ", "sampling frequency"),
    "sign of a number": (" 16 0 ", " 16 +0 ", "ADC zero"),
    "sign of a baseline": ("200.0(0)/mV", "200.0(+0)/mV", "gain"),
    "negative resolution": (" 16 0 ", " -1 0 ", "ADC resolution"),
    "order in the format": ("r.dat 16 ", "r.dat 16+0:0 ", "format"),
    "no samples a frame": ("r.dat 16 ", "r.dat 16x0 ", "format"),
    "order in the rate": ("r 12 500 ", "r 12 500(0)/5 ", "sampling frequency"),
    "no samples": ("r 12 500 500", "r 12 500 0", "number of samples"),
}  # fmt: skip

# Not the published syntax, but wfdb happens to take the same from it.
READ_ALIKE = (
    "sign of a number", "sign of a baseline", "no samples a frame", "negative resolution",
    "order in the format", "name that ends in a slash",
)  # fmt: skip


@pytest.mark.parametrize("case", TOLERATED)
def test_tolerated_headers(tmp_path: Path, case: str) -> None:
    old, new, field = TOLERATED[case]
    digital = samples()
    expected = read_record(write_record(tmp_path / "r", digital)).signal
    header = (tmp_path / "r.hea").read_text()
    assert old in header
    (tmp_path / "r.hea").write_text(header.replace(old, new), encoding="utf-8")
    (tmp_path / "r.dat").rename(tmp_path / ("r.x.dat" if "two dots" in case else "r.dat"))

    record = read_record(tmp_path / "r")
    assert (record.status, record.fs) == ("ok", 500.0)
    np.testing.assert_array_max_ulp(record.signal, expected, maxulp=1)
    with pytest.raises(ValueError, match=f"r.hea: strict: .*{field} ") as raised:
        read_record(tmp_path / "r", strict=True)
    assert "\n" not in str(raised.value)
    both = read_records([tmp_path / "r"]), read_records([tmp_path / "r"], strict=True, fs=500)
    assert [batch.status for batch in both] == [("ok",), ("format",)]
    assert "strict: " in both[1].errors[0]

    # The reason to be strict: wfdb refuses these headers, or takes something else from them.
    try:
        other = wfdb.rdrecord(str(tmp_path / "r"))
    except Exception:
        return
    if case == "date as in Challenge 2021":
        assert other.base_time == datetime.time(0, 0, 5)
    elif case not in READ_ALIKE:
        assert other.fs != 500 or not np.array_equal(
            other.p_signal.astype(np.float32), record_in_file_order(record.signal)
        )


def record_in_file_order(signal: np.ndarray) -> np.ndarray:
    order = [0, 1, 2, 3, 5, 4, *range(6, 12)]
    return signal[order].T


@pytest.mark.parametrize(
    "record_line",
    [
        "r 12",
        "r 12 500",
        "r 12 500/1000(3) 500 9:49:17.25 31/12/1999",
        "r 12 500.0 500 49:17 29/2/2000",
        "r 12 500 500 17 1/1/2020",
        "r-1_a 12 500 500",
    ],
)
def test_the_published_syntax_is_strict(tmp_path: Path, record_line: str) -> None:
    write_record(tmp_path / "r", samples(), gain="2.0e+2(0)/mV")
    lines = (tmp_path / "r.hea").read_text().splitlines()
    (tmp_path / "r.hea").write_text("\n".join([record_line, *lines[1:], "# µ in a comment"]))
    assert read_record(tmp_path / "r", strict=True).status == "ok"
    if "r-1" not in record_line:
        assert wfdb.rdheader(str(tmp_path / "r")).base_date in (
            None,
            *(datetime.date(*ymd) for ymd in [(1999, 12, 31), (2000, 2, 29), (2020, 1, 1)]),
        )


def test_every_real_record_is_strict(shared_data: Path) -> None:
    paths = [path for path in shared_data.rglob("*.hea") if path.parent.name != "wfdb"]
    batch = read_records(paths, fs=100, duration=1.0, strict=True)
    assert set(batch.status) == {"ok"}


def test_more_signal_lines_than_announced(tmp_path: Path) -> None:
    stem = write_record(tmp_path / "r", samples())
    header = stem.with_suffix(".hea")
    header.write_text(header.read_text() + "r.dat 16 200 16 0 0 0 0 V7\n")
    assert read_record(stem).status == "ok"
    with pytest.raises(ValueError, match="strict: 13 lines describe 12 signals"):
        read_record(stem, strict=True)


def test_units_become_millivolts_and_others_name_the_lead(tmp_path: Path) -> None:
    digital = samples()
    expected = read_record(write_record(tmp_path / "mV", digital, gain="200(0)/mV")).signal
    for unit, gain in (("V", "2e5"), ("uV", "0.2"), ("UV", "0.2"), ("nv", "2e-4"), ("mv", "200")):
        record = read_record(write_record(tmp_path / unit, digital, gain=f"{gain}(0)/{unit}"))
        np.testing.assert_allclose(record.signal, expected, rtol=3e-7)
    stem = write_record(tmp_path / "r", digital, gain="200(0)/mmHg")
    with pytest.raises(ValueError, match="lead I: unit 'mmHg' is not a voltage"):
        read_record(stem)
    assert read_records([stem]).status == ("units",)


def test_lead_names_in_any_case(tmp_path: Path) -> None:
    leads = [name.lower() if row % 2 else name.upper() for row, name in enumerate(MIMIC_ORDER)]
    stem = write_record(tmp_path / "r", samples(), leads)
    assert assert_as_wfdb(stem) == "ok"
    assert read_records([stem]).status == ("ok",)
