"""A damaged file is one line that names it, whatever is broken; it is never half an ECG."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esi_fast.signal.inputs import read_ecg

# What other packages warn of is what is refused here.
pytestmark = pytest.mark.filterwarnings("ignore")


def refused(path: Path, message: str = "", **given: Any) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read_ecg(path, **given)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def flip_bytes(path: Path, seed: int, **given: Any) -> None:
    """Read 200 copies with one to three random bytes changed: a record or one line, both occur."""
    rng = np.random.default_rng(seed)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    messages = []
    for _ in range(200):
        damaged = whole.copy()
        damaged[rng.integers(whole.size, size=rng.integers(1, 4))] = rng.integers(256)
        path.write_bytes(damaged.tobytes())
        try:
            read_ecg(path, **given)
        except ValueError as error:
            messages.append(str(error))
    assert 0 < len(messages) < 200
    assert all(str(path) in message and "\n" not in message for message in messages)


@pytest.fixture
def dicom() -> Any:
    """A dataset of one waveform of 12 leads, 20 samples."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm")))
    group = dataset.WaveformSequence[0]
    group.NumberOfWaveformSamples, group.WaveformData = 20, group.WaveformData[: 20 * 12 * 2]
    dataset.WaveformSequence = [group]
    del dataset.WaveformAnnotationSequence
    return dataset


def _of_first_channel(keyword: str, value: object) -> Callable[[Any], None]:
    return lambda group: setattr(group.ChannelDefinitionSequence[0], keyword, value)


def _of_group(keyword: str, value: object) -> Callable[[Any], None]:
    return lambda group: setattr(group, keyword, value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda group: delattr(group, "SamplingFrequency"), "has no SamplingFrequency"),
        (_of_group("SamplingFrequency", None), "has no SamplingFrequency"),
        (_of_group("MultiplexGroupTimeOffset", None), "has no MultiplexGroupTimeOffset"),
        (_of_group("WaveformData", None), ""),
        (_of_group("NumberOfWaveformSamples", None), ""),
        (_of_group("NumberOfWaveformChannels", None), ""),
        (_of_group("NumberOfWaveformChannels", 5), "defines 12 channels of 5"),
        (_of_group("WaveformBitsAllocated", 12), ""),
        (_of_first_channel("ChannelBaseline", None), "has no ChannelBaseline"),
        (_of_first_channel("ChannelSensitivity", None), "has no ChannelSensitivity"),
        (_of_first_channel("ChannelSourceSequence", []), "a channel has no source"),
        (_of_first_channel("ChannelSensitivityUnitsSequence", []), "lead I has no unit"),
        (
            lambda group: group.ChannelDefinitionSequence.append(
                group.ChannelDefinitionSequence[0]
            ),
            "defines 13 channels of 12",
        ),
    ],
)
def test_a_dicom_file_without_what_it_needs(
    dicom: Any, tmp_path: Path, damage: Callable[[Any], None], message: str
) -> None:
    path = tmp_path / "ecg.dcm"
    dicom.save_as(path)
    assert read_ecg(path).signal.shape == (12, 20)
    damage(dicom.WaveformSequence[0])
    dicom.save_as(path)
    refused(path, message)


def test_dicom_waveforms_that_lie_absurdly_far_apart(dicom: Any, tmp_path: Path) -> None:
    from pydicom import Dataset

    later = Dataset()
    later.update(dicom.WaveformSequence[0])
    later.MultiplexGroupTimeOffset = 1e12
    dicom.WaveformSequence.append(later)
    dicom.save_as(tmp_path / "ecg.dcm")
    refused(tmp_path / "ecg.dcm", "its waveforms lie 1e\\+09 s apart")


def test_dicom_with_changed_bytes(dicom: Any, tmp_path: Path) -> None:
    path = tmp_path / "ecg.dcm"
    dicom.save_as(path)
    flip_bytes(path, seed=0)
    with pytest.raises(FileNotFoundError):
        read_ecg(tmp_path / "absent.dcm")


ECG = np.random.default_rng(0).normal(size=(12, 20)).astype(np.float32)


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
def test_half_an_npz_and_one_with_changed_bytes(
    tmp_path: Path, compress: Callable[..., None]
) -> None:
    path = tmp_path / "ecg.npz"
    compress(path, signal=ECG, fs=500.0)
    whole = path.read_bytes()
    flip_bytes(path, seed=1)
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "is no NumPy file")
    path.write_bytes(whole.replace(ECG[3, :2].tobytes(), bytes(8)))
    if compress is np.savez:
        refused(path, "Bad CRC-32")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"fs": [500.0, 500.0]}, "its fs is 2 values, not one"),
        ({"fs": "x"}, "could not convert string to float: 'x'"),
        ({"fs": 500j}, ""),
        ({"fs": 500.0, "unit": "bar"}, "unit 'bar' is not a voltage"),
        ({"fs": 500.0, "unit": ["uV", "mV"]}, "its unit is 2 values, not one"),
    ],
)
def test_an_npz_that_says_nonsense(tmp_path: Path, stated: dict[str, object], message: str) -> None:
    np.savez(tmp_path / "ecg.npz", signal=ECG, **stated)  # type: ignore[arg-type]
    refused(tmp_path / "ecg.npz", message)


def test_damaged_npy(tmp_path: Path) -> None:
    path = tmp_path / "ecg.npy"
    np.save(path, ECG)
    flip_bytes(path, seed=2, fs=500.0, unit="mV")
    np.save(path, ECG)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "is no NumPy file", fs=500.0)
    # 2 PiB, by a header of the same length.
    path.write_bytes(whole.replace(b"(12, 20), }" + b" " * 12, b"(12, 49999999999999), }"))
    refused(path, "is no NumPy file", fs=500.0)


def test_an_npz_whose_signal_is_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ecg.npz", "w") as archive:
        archive.writestr("signal", "1,2,3")
    refused(tmp_path / "ecg.npz", "not numbers", fs=500.0)


@pytest.fixture(params=["edf", "bdf"])
def edf(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two leads, five data records of 1 s at 20 Hz."""
    edfio = pytest.importorskip("edfio")
    name = request.param.capitalize()
    signals = [
        getattr(edfio, f"{name}Signal")(
            np.tile(row, 5).astype(float), 20.0, label=label, physical_dimension="mV",
            physical_range=(-8, 8),
        )
        for label, row in zip(("I", "II"), ECG, strict=False)
    ]  # fmt: skip
    path = tmp_path / f"ecg.{request.param}"
    getattr(edfio, name)(signals, data_record_duration=1).write(path)
    return path


def test_an_edf_file_that_is_not_as_long_as_its_header_says(edf: Path) -> None:
    assert read_ecg(edf).signal.shape == (12, 100)
    whole = edf.read_bytes()
    record = (len(whole) - 3 * 256) // 5
    edf.write_bytes(whole[: -record - 1])
    refused(edf, "its header says 100 samples a lead, it holds 60")
    edf.write_bytes(whole + whole[-record:])
    refused(edf, "its header says 100 samples a lead, it holds 120")
    # Of a recording that was not closed: what is whole of it counts.
    edf.write_bytes(whole[:236] + b"-1      " + whole[244 : -record - 1])
    assert read_ecg(edf).signal.shape == (12, 60)


def test_edf_with_changed_bytes(edf: Path) -> None:
    flip_bytes(edf, seed=3)
    edf.write_bytes(edf.read_bytes()[:300])
    refused(edf, "cannot be read as")


def test_csv_with_changed_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ecg.csv"
    rows = [f"{at / 250},{one:.3f},{two:.3f}" for at, (one, two) in enumerate(ECG[:2].T)]
    path.write_text("\n".join(["time,I,II", *rows]))
    flip_bytes(path, seed=4)
