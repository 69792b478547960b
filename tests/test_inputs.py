"""Every way in gives the same twelve leads, and what is not known is asked for, never guessed."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.inputs import limb_leads, read_ecg
from esi_fast.signal.records import read_record

FS = 250.0


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    """(12, 500) mV whose limb leads obey Einthoven and Goldberger; float32 whole microvolts."""
    rng = np.random.default_rng(0)
    ecg = np.round(rng.normal(scale=500.0, size=(12, 500)) / 4) * 4 / 1000
    one, two = ecg[0], ecg[1]
    ecg[2:6] = two - one, -(one + two) / 2, one - two / 2, two - one / 2
    return ecg.astype(np.float32)


def write_csv(path: Path, columns: dict[str, np.ndarray], comma: str = ",") -> Path:
    rows = zip(*columns.values(), strict=True)
    lines = [comma.join(columns), *(comma.join(f"{value:.4f}" for value in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def named(ecg: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(STANDARD_LEADS, ecg, strict=True))


def test_arrays_tensors_and_records_give_the_same(ecg: np.ndarray) -> None:
    tensor = torch.from_numpy(ecg).requires_grad_()
    record = SimpleNamespace(signal=ecg, fs=FS, leads=STANDARD_LEADS)
    bare = SimpleNamespace(signal=ecg, fs=FS)
    for source in (ecg, ecg.T, tensor, tensor.T, ecg.tolist(), record, bare):
        fs = None if isinstance(source, SimpleNamespace) else FS
        found = read_ecg(source, fs=fs)
        assert np.array_equal(found.signal, ecg)
        assert (found.signal.dtype, found.fs, found.leads) == (np.float32, FS, STANDARD_LEADS)
        assert found.status == "ok"
        assert np.array_equal(found.digital, np.rint(ecg * 1e3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_types_that_numpy_has_or_has_not(ecg: np.ndarray, dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(ecg).to(dtype).requires_grad_()
    for source in (tensor, SimpleNamespace(signal=tensor, fs=FS)):
        found = read_ecg(source, fs=FS)
        assert np.array_equal(found.signal, tensor.detach().float().numpy())


def test_leads_in_another_order_are_found_by_name(ecg: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(12)
    names = [f"lead {STANDARD_LEADS[at].upper()}" for at in order]
    assert np.array_equal(read_ecg(ecg[order].T, fs=FS, leads=names).signal, ecg)
    shuffled = SimpleNamespace(signal=ecg[order], fs=FS, leads=names)
    assert np.array_equal(read_ecg(shuffled).signal, ecg)


@pytest.mark.parametrize(("first", "second"), [*permutations(range(6), 2)])
def test_two_limb_leads_give_the_other_four(ecg: np.ndarray, first: int, second: int) -> None:
    names = [STANDARD_LEADS[first], STANDARD_LEADS[second], "V3"]
    found = read_ecg(ecg[[first, second, 8]], fs=FS, leads=names)
    assert found.signal[:6] == pytest.approx(ecg[:6], abs=1e-6)
    assert np.array_equal(found.signal[8], ecg[8])
    assert np.isnan(found.signal[[6, 7, 9, 10, 11]]).all()
    computed = [lead for lead in STANDARD_LEADS[:6] if lead not in names]
    assert found.status == (f"computed: {', '.join(computed)}; not recorded: V1, V2, V4, V5, V6")


def test_one_limb_lead_gives_no_other_and_a_recorded_one_is_never_replaced(
    ecg: np.ndarray,
) -> None:
    alone = read_ecg(ecg[1], fs=FS, leads=["II"])
    assert np.isnan(np.delete(alone.signal, 1, axis=0)).all()
    assert np.array_equal(alone.signal[1], ecg[1])
    wrong = ecg[:3].copy()
    wrong[2] = 7.0
    assert np.array_equal(read_ecg(wrong, fs=FS, leads=["I", "II", "III"]).signal[2], wrong[2])


def test_a_computed_lead_is_missing_where_what_it_comes_from_is(ecg: np.ndarray) -> None:
    holed = ecg[:2].copy()
    holed[1, 100:120] = np.nan
    found = read_ecg(holed, fs=FS, leads=["I", "II"]).signal
    for lead in range(2, 6):
        assert np.flatnonzero(np.isnan(found[lead])).tolist() == list(range(100, 120))
    # A lead without a sample is none: III comes from I and aVF.
    empty = np.full_like(ecg[0], np.nan)
    found = limb_leads({"I": ecg[0], "II": empty, "aVF": ecg[5]})
    assert found["III"] == pytest.approx(ecg[2], abs=1e-6)
    assert found["II"] == pytest.approx(ecg[1], abs=1e-6)
    assert limb_leads({"I": ecg[0], "II": empty}) == {}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ";"])
def test_tables_of_text(ecg: np.ndarray, tmp_path: Path, suffix: str) -> None:
    comma = {".tsv": "\t", ";": ";"}.get(suffix, ",")
    path = tmp_path / ("ecg" + (".tsv" if suffix == ".tsv" else ".csv"))
    columns = dict(reversed(named(ecg).items()))
    write_csv(path, columns, comma)
    found = read_ecg(path, fs=FS)
    assert np.array_equal(found.signal, ecg)
    assert found.source_leads == STANDARD_LEADS[::-1]
    assert found.path == str(path)
    write_csv(path, {"time": np.arange(500) / FS} | columns, comma)
    found = read_ecg(path)
    assert found.fs == FS
    assert np.array_equal(found.signal, ecg)
    with pytest.raises(ValueError, match="is at 250 Hz, not at 500 Hz"):
        read_ecg(path, fs=500)
    write_csv(
        path, {"": np.arange(500)} | {name: 1e3 * row for name, row in columns.items()}, comma
    )
    assert read_ecg(path, fs=FS, unit="uV").signal == pytest.approx(ecg, abs=1e-6)


def test_a_table_without_names_and_empty_cells(ecg: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "ecg.csv"
    rows = [",".join(f"{value:.4f}" for value in row) for row in ecg.T]
    rows[3] = ",nan" + ",0.5" * 10
    path.write_text("\n".join(rows))
    found = read_ecg(path, fs=FS).signal
    assert np.isnan(found[:2, 3]).all()
    assert (found[2:, 3] == 0.5).all()
    assert np.array_equal(np.delete(found, 3, axis=1), np.delete(ecg, 3, axis=1))


def test_numpy_files(ecg: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ecg.T)
    assert np.array_equal(read_ecg(tmp_path / "a.npy", fs=FS).signal, ecg)
    microvolts = np.rint(ecg * 1e3).astype(np.int16)
    microvolts[4, 9] = -32768
    np.savez(
        tmp_path / "b.npz", signal=microvolts[::-1], fs=FS, leads=STANDARD_LEADS[::-1], unit="uV"
    )
    found = read_ecg(tmp_path / "b.npz")
    assert np.isnan(found.signal[4, 9])
    assert np.nan_to_num(found.signal, nan=ecg[4, 9]) == pytest.approx(ecg, abs=1e-6)
    np.savez(tmp_path / "c.npz", something=ecg)
    with pytest.raises(ValueError, match="holds something: give it signal"):
        read_ecg(tmp_path / "c.npz", fs=FS)


@pytest.mark.parametrize("suffix", ["edf", "bdf"])
def test_edf_by_another_programs_writer(ecg: np.ndarray, tmp_path: Path, suffix: str) -> None:
    edfio = pytest.importorskip("edfio")
    is_edf = suffix == "edf"
    kind, signal_of = (edfio.Edf, edfio.EdfSignal) if is_edf else (edfio.Bdf, edfio.BdfSignal)
    labels = {"I": "EKG I", "aVR": "AVR"}
    signals = [
        signal_of(
            row.astype(float) * 1e3, FS, label=labels.get(lead, f"ECG {lead}"),
            physical_dimension="uV", physical_range=(-4096, 4096),
        )
        for lead, row in zip(STANDARD_LEADS, ecg, strict=True)
    ]  # fmt: skip
    breath = signal_of(np.zeros(50), 25.0, label="Resp chest", physical_dimension="L")
    path = tmp_path / f"ecg.{suffix}"
    kind([breath, *reversed(signals)]).write(path)
    found = read_ecg(path)
    assert found.fs == FS
    # Half a step of 8192 uV in 2^16 (or 2^24) steps.
    assert found.signal == pytest.approx(ecg, abs=1e-4 if is_edf else 1e-6)
    kind([breath]).write(path)
    with pytest.raises(ValueError, match=r"lead Resp chest: unit 'L' is not a voltage"):
        read_ecg(path)
    path.write_bytes(b"no edf at all" * 100)
    with pytest.raises(ValueError, match="cannot be read as"):
        read_ecg(path)


def test_dicom_as_pydicom_scales_it(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    path = Path(str(get_testdata_file("waveform_ecg.dcm")))
    dataset = pydicom.dcmread(path)
    oracle = dataset.waveform_array(0).T / 1e3  # its first group is the recording, in uV
    names = [
        channel.ChannelSourceSequence[0].CodeMeaning
        for channel in dataset.WaveformSequence[0].ChannelDefinitionSequence
    ]
    found = read_ecg(path)
    assert found.fs == 1000.0
    assert found.status == "ok"
    assert found.signal.shape == (12, 10000)
    assert names[3:5] == ["Lead aVR", "Lead aVL"]
    for lead, row in zip(STANDARD_LEADS, found.signal, strict=True):
        (at,) = [at for at, name in enumerate(names) if name.split()[1] == lead]
        assert row == pytest.approx(oracle[at], abs=1e-6)
    with pytest.raises(ValueError, match="is no DICOM file"):
        read_ecg(_written(tmp_path / "x.dcm", b"nothing" * 50))


def test_dicom_groups_stand_at_their_offsets_and_padding_is_missing(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm")))
    group = dataset.WaveformSequence[0]
    raw = np.frombuffer(group.WaveformData, np.int16).reshape(10000, 12)
    whole = read_ecg(Path(str(get_testdata_file("waveform_ecg.dcm")))).signal
    # Leads V1 to V6, the second half, a second group; one sample is padding.
    later = copy.deepcopy(group)
    for part, columns, rows in (
        (group, slice(0, 6), slice(0, 5000)),
        (later, slice(6, 12), slice(5000, 10000)),
    ):
        part.ChannelDefinitionSequence = part.ChannelDefinitionSequence[columns]
        part.NumberOfWaveformChannels, part.NumberOfWaveformSamples = 6, 5000
        samples = raw[rows, columns].copy()
        if part is group:
            samples[17, 1] = -32768
        part.WaveformData = samples.tobytes()
    group.add_new((0x5400, 0x100A), "OW", np.int16(-32768).tobytes())
    later.MultiplexGroupTimeOffset = 5000.0
    group.MultiplexGroupTimeOffset = 0.0
    dataset.WaveformSequence = [group, later]
    path = tmp_path / "split.dcm"
    dataset.save_as(path)
    found = read_ecg(path).signal
    assert np.isnan(found[:6, 5000:]).all()
    assert np.isnan(found[6:, :5000]).all()
    assert np.flatnonzero(np.isnan(found[1, :5000])).tolist() == [17]
    assert np.array_equal(found[[0, 3], :5000], whole[[0, 3], :5000])
    assert np.array_equal(found[6:, 5000:], whole[6:, 5000:])


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("package", ["edfio", "pydicom"])
def test_a_package_that_is_not_installed_is_one_line_that_names_the_extra(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = _written(tmp_path / {"edfio": "a.edf", "pydicom": "a.dcm"}[package], b"")
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'esi-fast\[io\]'"):
        read_ecg(path)


def test_reading_tables_needs_none_of_the_extras() -> None:
    program = (
        "import sys; import esi_fast.signal.inputs\n"
        "found = {'edfio', 'pydicom', 'torch', 'wfdb', 'pandas'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_wfdb_records_by_any_of_their_names(shared_data: Path) -> None:
    stem = shared_data / "mimic-like/files/p1001/p10015709/s40000001/40000001"
    oracle = read_record(stem)
    for path in (stem, f"{stem}.hea", f"{stem}.dat"):
        found = read_ecg(path)
        assert np.array_equal(found.signal, oracle.signal)
        assert np.array_equal(found.digital, oracle.digital)
        assert found.source_leads == oracle.source_leads
        assert (found.fs, found.path, found.status) == (500.0, str(stem), "ok")
    frank = read_ecg(shared_data / "wfdb/s0010_re")
    assert frank.status == "left out: vx, vy, vz"
    matlab = read_ecg(shared_data / "cinc2021/E07500.mat")
    assert np.array_equal(matlab.signal, read_record(shared_data / "cinc2021/E07500").signal)


def test_a_wfdb_record_of_fewer_leads(shared_data: Path) -> None:
    """Signals of another record: MLII is no lead of the twelve, V5 is."""
    found = read_ecg(shared_data / "wfdb/100")
    assert found.status.startswith("not recorded: I, II, III")
    assert found.status.endswith("left out: MLII")
    assert np.isfinite(found.signal[10]).all()
    as_two = read_ecg(shared_data / "wfdb/100", leads=["II", "V5"])
    assert np.isfinite(as_two.signal[[1, 10]]).all()
    assert np.array_equal(as_two.signal[10], found.signal[10])


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((12, 500), {}, r"the array does not say its rate: give fs= in Hz"),
        ((12, 500), {"fs": -1.0}, r"fs must be in 10..100000 Hz, got -1.0"),
        ((12, 500), {"fs": 0.5}, r"fs must be in 10..100000 Hz, got 0.5"),
        ((12, 12), {"fs": FS}, r"\(12, 12\) for 12 leads, and either axis fits"),
        ((500, 8), {"fs": FS}, r"neither axis has the 12 leads"),
        ((2, 500), {"fs": FS, "leads": ["I", "V7"]}, r"'V7' is no lead; known are I, II, III, aVR"),
        ((2, 500), {"fs": FS, "leads": ["I", "DI"]}, r"lead I occurs twice among I, DI"),
        ((2, 500), {"fs": FS, "leads": "II"}, r"leads is the text 'II': give a sequence"),
        ((2, 3, 4), {"fs": FS}, r"\(2, 3, 4\): give \(leads, samples\)"),
        ((12, 500), {"fs": FS, "unit": "bar"}, r"unit 'bar' is not a voltage"),
        ((12, 0), {"fs": FS}, r"has no sample"),
    ],
)
def test_what_is_not_known_is_asked_for(
    shape: tuple[int, ...], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_ecg(np.zeros(shape, np.float32), **arguments)  # type: ignore[arg-type]


def test_a_rate_that_is_none_of_an_ecg(ecg: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", signal=ecg, fs=0.5)
    for source in (tmp_path / "a.npz", SimpleNamespace(signal=ecg, fs=1e6)):
        with pytest.raises(ValueError, match=r"says .* Hz, which is no rate of an ECG$"):
            read_ecg(source)


def test_units_are_not_guessed(ecg: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"spans .* mV: say unit='uV'"):
        read_ecg(ecg * 1e3, fs=FS)
    with pytest.raises(ValueError, match="holds int16, hardly millivolts: say unit='uV'"):
        read_ecg((ecg * 1e3).astype(np.int16), fs=FS)
    assert read_ecg(ecg * 1e3, fs=FS, unit="uV").signal == pytest.approx(ecg, abs=1e-6)
    assert read_ecg(ecg * 1e3, fs=FS, unit="mV").signal == pytest.approx(ecg * 1e3)
    with pytest.raises(ValueError, match="says its units itself: leave out unit='uV'"):
        read_ecg(SimpleNamespace(signal=ecg, fs=FS), unit="uV")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("I,II\n1,2\n3\n", "line 3: 1 cells, the first line has 2"),
        ("I,II\n1,x\n", "line 2: 'x' is no number"),
        ("heart,x\n1,2\n", r"none of its signals \(heart, x\) is a lead; name them by leads="),
        ("time,I\n0,1\n0.1,1\n0.5,1\n", "the steps of column 'time' differ"),
        ("time,I\n1,1\n1,1\n", "no rising times"),
        ("time,I\n0,1\n2,1\n4,1\n", "0.5 Hz, which is no rate of an ECG: its times must be in sec"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = _written(tmp_path / "ecg.csv", text.encode())
    with pytest.raises(ValueError, match=message) as raised:
        read_ecg(path, fs=10.0)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_paths_that_are_no_ecg(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file, nor a WFDB record .*absent\.hea"):
        read_ecg(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"absent\.edf: no such file"):
        read_ecg(tmp_path / "absent.edf")
    with pytest.raises(ValueError, match=r"page\.pdf is in no known format: WFDB, \.csv"):
        read_ecg(_written(tmp_path / "page.pdf", b"%PDF"))
    with pytest.raises(ValueError, match=r"a\.npy is no NumPy file"):
        read_ecg(_written(tmp_path / "a.npy", b"junk"), fs=FS)
