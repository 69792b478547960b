"""What signals are called: by the file, or by who reads it where the file does not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wfdb

from esi_fast.signal.inputs import read_ecg

FS = 250.0
# (2, 250) mV, whole microvolts.
TWO = np.round(np.random.default_rng(0).normal(size=(2, 250)), 3).astype(np.float32)


def csv_of(folder: Path, names: tuple[str, ...]) -> Path:
    path = folder / "ecg.csv"
    rows = [",".join(f"{value:.3f}" for value in row) for row in TWO.T]
    path.write_text("\n".join([",".join(names), *rows]))
    return path


def npz_of(folder: Path, names: tuple[str, ...]) -> Path:
    np.savez(folder / "ecg.npz", signal=TWO, leads=names, fs=FS)
    return folder / "ecg.npz"


def edf_of(folder: Path, names: tuple[str, ...]) -> Path:
    edfio = pytest.importorskip("edfio")
    signals = [
        edfio.EdfSignal(
            row.astype(float), FS, label=name, physical_dimension="mV",
            physical_range=(-8, 8),
        )
        for name, row in zip(names, TWO, strict=True)
    ]  # fmt: skip
    edfio.Edf(signals).write(folder / "ecg.edf")
    return folder / "ecg.edf"


def dicom_of(folder: Path, names: tuple[str, ...]) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm")))
    group = dataset.WaveformSequence[0]
    group.ChannelDefinitionSequence = group.ChannelDefinitionSequence[:2]
    for definition, name in zip(group.ChannelDefinitionSequence, names, strict=True):
        definition.ChannelSourceSequence[0].CodeValue = ""
        definition.ChannelSourceSequence[0].CodeMeaning = name
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = 2, 250
    group.WaveformData = np.rint(TWO.T * 1e3).astype(np.int16).tobytes()
    dataset.save_as(folder / "ecg.dcm")
    return folder / "ecg.dcm"


def wfdb_of(folder: Path, names: tuple[str, ...]) -> Path:
    wfdb.wrsamp(
        "ecg", fs=FS, units=["mV"] * 2, sig_name=list(names), p_signal=TWO.T.astype(float),
        fmt=["16"] * 2, adc_gain=[1000.0] * 2, baseline=[0] * 2, write_dir=str(folder),
    )  # fmt: skip
    return folder / "ecg"


def record_of(_: Path, names: tuple[str, ...]) -> Any:
    return SimpleNamespace(signal=TWO, fs=FS, leads=names)


EVERY_SOURCE = pytest.mark.parametrize(
    "source_of", [csv_of, npz_of, edf_of, dicom_of, wfdb_of, record_of]
)


@EVERY_SOURCE
def test_names_given_do_not_swap_leads(source_of: Callable[..., Any], tmp_path: Path) -> None:
    source = source_of(tmp_path, ("I", "II"))
    given = {"fs": FS} if source_of is csv_of else {}
    whole = read_ecg(source, **given)
    with pytest.raises(ValueError, match=r"names its signals I, II, not II, I; leads= is for"):
        read_ecg(source, leads=["II", "I"], **given)
    with pytest.raises(ValueError, match=r"1 leads are named, .* has 2 signals \(I, II\)"):
        read_ecg(source, leads=["I"], **given)
    same = read_ecg(source, leads=["DI", "lead II"], **given)
    assert np.array_equal(same.signal, whole.signal, equal_nan=True)


@EVERY_SOURCE
def test_names_given_to_signals_that_are_called_no_leads(
    source_of: Callable[..., Any], tmp_path: Path
) -> None:
    given = {"fs": FS} if source_of is csv_of else {}
    whole = read_ecg(source_of(tmp_path, ("II", "V5")), **given).signal
    source = source_of(tmp_path, ("EEG 1", "EEG 2"))
    found = read_ecg(source, leads=["II", "V5"], **given)
    assert np.array_equal(found.signal, whole, equal_nan=True)
    with pytest.raises(ValueError, match=r"'V7' is no lead; known are"):
        read_ecg(source, leads=["II", "V7"], **given)


@pytest.mark.parametrize(
    ("header", "cells", "left_out"),
    [
        ("I,II,label", ",3", "label"),
        ("I,II,label", ",noise", "label"),
        ("I,II,MLII,Time (ms)", ",1,40", "MLII, Time (ms)"),
        ("I,II,", ",", ""),
        ("I,II,", ",7", "a nameless column"),
    ],
)
def test_columns_that_are_no_leads_are_left_out(
    tmp_path: Path, header: str, cells: str, left_out: str
) -> None:
    path = tmp_path / "ecg.csv"
    rows = [f"{one:.3f},{two:.3f}{cells}" for one, two in TWO.T]
    path.write_text("\n".join([header, *rows]))
    found = read_ecg(path, fs=FS)
    assert np.array_equal(found.signal[:2], TWO)
    assert found.source_leads == ("I", "II")
    assert found.digital.shape == TWO.shape
    noted = found.status.partition("left out: ")[2]
    assert noted == left_out
    if left_out:
        names = header.replace("label", "V9").split(",")
        with pytest.raises(ValueError, match=r"is no lead; known are"):
            read_ecg(path, fs=FS, leads=names)


def test_an_npz_may_name_signals_that_are_no_leads(tmp_path: Path) -> None:
    found = read_ecg(npz_of(tmp_path, ("RESP", "II")))
    assert np.array_equal(found.signal[1], TWO[1])
    assert found.status.endswith("left out: RESP")


@pytest.mark.parametrize("name", ["time", "Time [s]", "t(s)", "TIME_S", "Time (seconds)", "sec"])
def test_columns_of_time_in_seconds(tmp_path: Path, name: str) -> None:
    path = tmp_path / "ecg.csv"
    rows = [f"{at / FS:.3f},{value:.3f}" for at, value in enumerate(TWO[0])]
    path.write_text("\n".join([f"{name},II", *rows]))
    found = read_ecg(path)
    assert (found.fs, found.source_leads) == (FS, ("II",))
    assert np.array_equal(found.signal[1], TWO[0])


def test_units_in_names(tmp_path: Path) -> None:
    for first, second, scale in (
        ("I (mV)", "Lead II [mv]", 1.0),
        ("I [uV]", "II (\u00b5V)", 1e-3),
        ("MDC_ECG_LEAD_I", "DII", 1.0),
    ):
        found = read_ecg(csv_of(tmp_path, (first, second)), fs=FS)
        assert found.signal[:2] == pytest.approx(TWO * scale, abs=1e-6)
        assert found.source_leads == (first, second)
    path = csv_of(tmp_path, ("I (uV)", "EEG (uV)"))
    assert read_ecg(path, fs=FS, leads=["I", "II"]).signal[1] == pytest.approx(TWO[1] / 1e3)
    with pytest.raises(ValueError, match="is in uV, not in mV"):
        read_ecg(path, fs=FS, unit="mV")
    with pytest.raises(ValueError, match="is in uV, not in mV"):
        read_ecg(csv_of(tmp_path, ("I (uV)", "II (mV)")), fs=FS)
    path = csv_of(tmp_path, ("I (uV)", "II"))
    with pytest.raises(ValueError, match="a unit for some of its leads only: give unit='uV'"):
        read_ecg(path, fs=FS)
    assert read_ecg(path, fs=FS, unit="uV").signal[1] == pytest.approx(TWO[1] / 1e3)
    # That of a column that is left out says nothing of the leads.
    assert np.array_equal(read_ecg(csv_of(tmp_path, ("I", "resp (V)")), fs=FS).signal[0], TWO[0])
    with pytest.raises(ValueError, match="the record is in mV, not in uV"):
        read_ecg(SimpleNamespace(signal=TWO, fs=FS, leads=["I (uV)", "II (uV)"]))
