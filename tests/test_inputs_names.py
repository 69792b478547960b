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
