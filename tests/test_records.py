"""The WFDB reader against wfdb, on real recordings and on files made to be awkward."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from wfdb_files import MIMIC_ORDER, assert_as_wfdb, samples, write_record

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.record_batch import read_records
from esi_fast.signal.records import read_record

# ---- real recordings


def test_mimic_like_records_are_as_wfdb_reads_them(shared_data: Path) -> None:
    paths = sorted((shared_data / "mimic-like").rglob("*.hea"))
    assert len(paths) == 353
    batch = read_records(paths)
    assert set(batch.status) == {"ok"}
    assert batch.fs == 500.0
    assert set(batch.source_leads) == {MIMIC_ORDER}
    for path, signal in zip(paths, batch.signal, strict=True):
        stem = path.with_suffix("")
        assert assert_as_wfdb(stem) == "ok"
        np.testing.assert_array_equal(signal, read_record(stem).signal)


@pytest.mark.parametrize(
    ("folder", "step"), [("ptb-xl/records500", 12), ("ptb-xl/records100", 12), ("ludb/data", 6)]
)
def test_other_databases_are_as_wfdb_reads_them(shared_data: Path, folder: str, step: int) -> None:
    for path in sorted((shared_data / folder).rglob("*.hea"))[::step]:
        assert assert_as_wfdb(path.with_suffix("")) == "ok"


def test_matlab_files_are_as_wfdb_reads_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "cinc2021").glob("*.hea")):
        assert assert_as_wfdb(path.with_suffix("")) == "ok"


@pytest.mark.parametrize(
    ("name", "leads"),
    [
        ("100", ["V5"]),
        ("100_3chan", ["III", "I"]),
        ("v102s", ["II"]),
        ("3000003_0003", ["II"]),
        ("binformats", []),
        ("a103l", ["II"]),
        ("s0010_re", STANDARD_LEADS),
    ],
)
def test_other_formats(shared_data: Path, name: str, leads: list[str]) -> None:
    assert assert_as_wfdb(shared_data / "wfdb" / name, leads) == "ok"


def test_every_real_record_passes_its_checksums(shared_data: Path) -> None:
    paths = sorted(shared_data.rglob("*.hea"))
    batch = read_records(paths, fs=100, duration=10.0)
    assert len(paths) == 1216
    assert {status for status in batch.status if status != "ok"} == {"leads"}
    assert batch.status.count("leads") == 6  # the records in wfdb/ with fewer than twelve


# ---- files made to be awkward


@settings(deadline=None, max_examples=40)
@given(
    num_signals=st.integers(1, 15),
    num_samples=st.integers(1, 300),
    offset=st.sampled_from([0, 1, 24, 511]),
    length=st.sampled_from([None, "", "0"]),
    gain=st.sampled_from(["200.0(0)/mV", "1000", "0", "13.7(-421)/uV", "-250(3)/V", "1e3(0)/nV"]),
    seed=st.integers(0, 1000),
)
def test_generated_records(
    tmp_path_factory: pytest.TempPathFactory,
    num_signals: int,
    num_samples: int,
    offset: int,
    length: str | None,
    gain: str,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("generated")
    names = [*MIMIC_ORDER, "VX", "VY", "VZ"][:num_signals]
    digital = samples(num_samples, num_signals, seed)
    digital[seed % num_signals, seed % num_samples] = -32768
    stem = write_record(folder / "r", digital, names, offset=offset, length=length, gain=gain)
    leads = [lead for lead in STANDARD_LEADS if lead in names]
    record = read_record(stem, leads=leads)
    np.testing.assert_array_equal(record.digital, digital)
    if length != "0":  # which wfdb refuses, though the standard says "not stated"
        oracle = wfdb.rdrecord(str(stem), physical=False)
        np.testing.assert_array_equal(oracle.d_signal.T, digital)
    scale, baseline, unit = {
        "200.0(0)/mV": (200.0, 0, 1.0),
        "1000": (1000.0, 0, 1.0),
        "0": (200.0, 0, 1.0),
        "13.7(-421)/uV": (13.7, -421, 1e-3),
        "-250(3)/V": (-250.0, 3, 1e3),
        "1e3(0)/nV": (1e3, 0, 1e-6),
    }[gain]
    rows = digital[[names.index(lead) for lead in leads]].astype(np.float64)
    expected = ((rows - baseline) / scale * unit).astype(np.float32)
    missing = rows == -32768
    assert np.isnan(record.signal[missing]).all()
    np.testing.assert_array_max_ulp(record.signal[~missing], expected[~missing], maxulp=1)


def test_several_data_files(tmp_path: Path) -> None:
    digital = samples(100, 12)
    lines = ["r 12 500 100"]
    for i, (first, end) in enumerate([(0, 1), (1, 7), (7, 12)]):
        (tmp_path / f"part{i}").write_bytes(digital[first:end].T.astype("<i2").tobytes())
        lines += [f"part{i} 16 200 16 0 {digital[row, 0]}" for row in range(first, end)]
    sums = digital.sum(axis=1, dtype=np.int16)
    lines[1:] = [
        f"{line} {checksum} 0 {lead}"
        for line, checksum, lead in zip(lines[1:], sums, MIMIC_ORDER, strict=True)
    ]
    (tmp_path / "r.hea").write_text("\n".join(lines))
    assert assert_as_wfdb(tmp_path / "r") == "ok"
    np.testing.assert_array_equal(
        read_records([tmp_path / "r"]).signal[0], read_record(tmp_path / "r").signal
    )


@pytest.mark.parametrize(
    ("unit", "encoding"),
    [("uV", "utf-8"), ("UV", "utf-8"), ("\u00b5V", "utf-8"), ("\u03bcV", "utf-8"),
     ("\u00b5V", "latin-1")],
)  # fmt: skip
def test_microvolts_in_any_spelling(tmp_path: Path, unit: str, encoding: str) -> None:
    names = [lead.lower() for lead in MIMIC_ORDER]
    write_record(tmp_path / "r", samples(), names, gain="1/uV")
    header = (tmp_path / "r.hea").read_text().replace("uV", unit)
    (tmp_path / "r.hea").write_bytes(header.encode(encoding))
    record = read_record(tmp_path / "r")
    np.testing.assert_allclose(record.signal[3], record.digital[3] / 1000, rtol=1e-6)
    batch = read_records([tmp_path / "r"])
    assert batch.status == ("ok",)
    np.testing.assert_array_equal(batch.signal[0], record.signal)


def test_leads_are_matched_by_name(tmp_path: Path) -> None:
    names = ["v6", "Lead I", "pleth", "DII", "iii", "AVR", "AVL", "AVF"]
    names += ["V1", "V2", "V3", "V4", "ECG V5"]
    digital = samples(num_signals=13)
    stem = write_record(tmp_path / "r", digital, names, gain="1000/mV")
    record = read_record(stem)
    order = [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0]
    np.testing.assert_allclose(record.signal, digital[order] / 1000, rtol=1e-6)
    assert record.leads == STANDARD_LEADS
    assert record.source_leads == tuple(names)
    np.testing.assert_array_equal(read_records([stem]).signal[0], record.signal)
    np.testing.assert_array_equal(
        read_record(stem, leads=["V6", "I"]).signal, record.signal[[11, 0]]
    )


def test_comments_and_ignored_dates(tmp_path: Path) -> None:
    write_record(tmp_path / "r", samples())
    text = (tmp_path / "r.hea").read_text().replace("500 500", "500 500 05-May-2020 09:49:17")
    text = "# before\r\n" + text.replace("\n", "\r\n") + "#Age: 61\r\n\r\n# Dx: 426177001\r\n"
    (tmp_path / "r.hea").write_text(text)
    record = read_record(tmp_path / "r.hea")
    assert record.comments == ("before", "Age: 61", "Dx: 426177001")
    assert record.path == str(tmp_path / "r")


def test_segments_are_joined(tmp_path: Path) -> None:
    digital = samples(80)
    write_record(tmp_path / "a", digital[:, :50])
    write_record(tmp_path / "b", digital[:, 50:])
    (tmp_path / "r.hea").write_text("r/2 12 500 80\na 50\nb 30\n")
    record = read_record(tmp_path / "r")
    assert record.status == "joined: several segments"
    np.testing.assert_array_equal(record.digital, digital)
    batch = read_records([tmp_path / "r", tmp_path / "a"])
    assert batch.status == (record.status, "ok")
    assert batch.errors == ("", "")
    np.testing.assert_array_equal(batch.signal[0], record.signal)
    np.testing.assert_array_equal(batch.signal[1, :, :50], record.signal[:, :50])


@pytest.mark.parametrize("module", ["records", "resample", "catalogues"])
def test_a_missing_core_names_the_fix(module: str) -> None:
    code = f"import sys; sys.modules['esi_fast._core'] = None; import esi_fast.signal.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: esi_fast._core is not built: pip install -e ." in done.stderr
