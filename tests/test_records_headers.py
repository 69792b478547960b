"""What headers may look like, and what is said of those that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esi_fast import _core
from esi_fast.signal.record_batch import read_records
from esi_fast.signal.records import read_record


def test_header_defaults() -> None:
    header = _core.parse_header(
        b"name 2\nd.dat 16\nd.dat 16x2:3+24 100/V 12 7 -5 99 0 a b  c", strict=False
    )
    bare, full = header.signals
    assert (header.name, header.fs, header.num_samples, header.num_segments) == ("name", 250, 0, 1)
    assert (bare.gain, bare.baseline, bare.unit, bare.checksum) == (200.0, 0, "mV", None)
    assert (bare.adc_zero, bare.initial_value, bare.description) == (0, None, "")
    assert (bare.samples_per_frame, bare.skew, bare.byte_offset) == (1, 0, 0)
    assert (full.samples_per_frame, full.skew, full.byte_offset) == (2, 3, 24)
    assert (full.gain, full.baseline, full.unit) == (100.0, 7, "V")
    assert (full.adc_resolution, full.initial_value, full.checksum) == (12, -5, 99)
    assert full.description == "a b  c"


@pytest.mark.parametrize(
    ("line", "name", "fs", "num_samples"),
    [
        ("12sl/00001_medians 0 500 600", "12sl/00001_medians", 500.0, 600),
        ("E1.mat 0 360/1000(5.5) 10 12:30:01.25 1999", "E1.mat", 360.0, 10),
        ("a.b.c 0 1e3", "a.b.c", 1000.0, 0),
        ("\ufeffx 0", "x", 250.0, 0),
    ],
)
def test_record_lines_in_the_wild(line: str, name: str, fs: float, num_samples: int) -> None:
    header = _core.parse_header(line.encode(), strict=False)
    assert (header.name, header.fs, header.num_samples) == (name, fs, num_samples)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "no record line"),
        ("# only a comment\n", "no record line"),
        ("r", "no number of signals"),
        ("r twelve", "'twelve' is not a whole number"),
        ("r -1", "not in 0..4096"),
        ("r 99999999999999999999", "'99999999999999999999' is not a whole number"),
        ("r 12 500 100\nr.dat 16\n", "announces 12 signals and describes 1"),
        ("r 4000", "announces 4000 signals and describes 0"),
        ("r 0 500 5", "describes no signals"),
        ("r 1 0 100\nr.dat 16", "frequency '0' is not a positive number"),
        ("r 1 -5 100\nr.dat 16", "frequency '-5' is not a positive number"),
        ("r 1 nan 100\nr.dat 16", "frequency 'nan' is not a positive number"),
        ("r 1 500Hz 100\nr.dat 16", "frequency '500Hz' is not a positive number"),
        ("r 1 500 1e3\nr.dat 16", "samples '1e3' is not a whole number"),
        ("r 1 500 9999999999999999\nr.dat 16", "samples '9999999999999999' is not in"),
        ("r 1 500 10\nr.dat", "signal 0: the line 'r.dat' has no format"),
        ("r 1 500 10\nr.dat sixteen", "format 'sixteen' is not of the form"),
        ("r 1 500 10\nr.dat 16+", r"format '16\+' is not of the form"),
        ("r 1 500 10\nr.dat 16+-5", r"format '16\+-5' is not of the form"),
        ("r 1 500 10\nr.dat 16 mV", "gain 'mV' does not begin with a number"),
        ("r 1 500 10\nr.dat 16 200(0", "lacks a '\\)'"),
        ("r 1 500 10\nr.dat 16 200(x)/mV", "baseline 'x' is not a whole number"),
        ("r 1 500 10\nr.dat 16 200/", "not of the form gain"),
        ("r 1 500 10\nr.dat 16 200 16 0 0 ?", "checksum '\\?' is not a whole number"),
        ("r 1 500 10\n/etc/passwd 16", "'/etc/passwd' lies outside the record's folder"),
        ("r 1 500 10\n../r.dat 16", "'../r.dat' lies outside"),
        ("r 1 500 10\nx/../../r.dat 16", "'x/../../r.dat' lies outside"),
        ("r 2 500 10\nr.dat 212\n../r.dat 212", "'../r.dat' lies outside"),
        ("r/2 1 500 10\na 5\n../b 5", "'../b' lies outside"),
        ("r 2 500 10\nr.dat 16\nr.dat 16+24", "differ in format or byte offset"),
        ("r 1 500 10\n\x1b[31m\x07\x00.dat 16x", r"signal 0: format '16x'"),
    ],
)
def test_malformed_headers(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "r.hea").write_bytes(header.encode())
    (tmp_path / "r.dat").write_bytes(bytes(24))
    with pytest.raises(ValueError, match=message) as raised:
        read_record(tmp_path / "r")
    text = str(raised.value)
    assert text.startswith(str(tmp_path / "r.hea: "))
    assert text.isprintable()
    batch = read_records([tmp_path / "r"], fs=500, duration=1)
    assert batch.status == ("format",)
    assert batch.errors[0] == text.removeprefix(f"{tmp_path}/")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.text("rd.16x+:(/)0-9emVµ# \n\t", max_size=200).map(str.encode))
def test_any_bytes_are_a_header_or_an_error(text: bytes) -> None:
    for content in (text, b"r 3 500 10\n" + text):
        try:
            header = _core.parse_header(content, strict=False)
        except _core.RecordError as error:
            status, message = error.args
            assert status == "format"
            assert "\n" not in message
        else:
            for spec in header.signals:  # all text can be decoded, and encoded again
                (spec.file + spec.unit + spec.description).encode()


def test_names_of_any_bytes_make_one_printable_line(tmp_path: Path) -> None:
    name = bytes(range(0x21, 0x2F)) + bytes(range(0x30, 0x100)) + b"x" * 300
    (tmp_path / "r.hea").write_bytes(b"r 1 500 10\n" + name + b" 16 200 16 0 0 0 0 I\x85\n")
    for leads in (["I"], ["II"]):
        with pytest.raises((ValueError, OSError)) as raised:
            read_record(tmp_path / "r", leads=leads)
        line = str(raised.value).removeprefix(str(tmp_path))
        assert line.replace("\xad", "").replace("\xa0", "").isprintable()
        assert "\ufffd" not in line
        assert 10 < len(line) < 400
