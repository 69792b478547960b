"""Every native format against wfdb, sample by sample, on files packed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import wfdb
from wfdb_files import MIMIC_ORDER, assert_as_wfdb, pack, samples, write_record

from esi_fast import _core
from esi_fast.signal.record_batch import read_records
from esi_fast.signal.records import read_record

# Range of the samples; the lowest value of all but format 8 means "missing".
BITS = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12, 310: 10, 311: 10}
LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6", "x", "y", "z")


def random_samples(fmt: int, num_signals: int, length: int, seed: int) -> npt.NDArray[np.int64]:
    """(num_signals, length) over the whole range, its ends and the missing value included."""
    rng = np.random.default_rng([fmt, num_signals, length, seed])
    low, high = -(1 << (BITS[fmt] - 1)), (1 << (BITS[fmt] - 1)) - 1
    values = rng.integers(low, high, (num_signals, length), endpoint=True)
    values.flat[rng.integers(values.size, size=3)] = low, low, high
    return values


def write(
    folder: Path,
    fmt: int,
    values: npt.NDArray[np.int64],
    *,
    samples_per_frame: int = 1,
    offset: int = 0,
    stated: bool = True,
) -> tuple[Path, npt.NDArray[np.int64]]:
    """A record of one format, and the samples that a reader must find in it."""
    num_signals, length = values.shape
    frames = values.reshape(num_signals, -1, samples_per_frame).transpose(1, 0, 2)
    initial = np.arange(num_signals) - 5
    digital = values if fmt != 8 else initial[:, None] + values.cumsum(axis=1)
    first = initial if fmt == 8 else digital[:, 0]
    frames_stated = length // samples_per_frame if stated else ""
    kind = f"{fmt}x{samples_per_frame}" if samples_per_frame > 1 else str(fmt)
    lines = [f"r {num_signals} 250 {frames_stated}"]
    for row in range(num_signals):
        checksum = int(digital[row].sum()) & 0xFFFF
        checksum -= 0x10000 if row % 2 and checksum > 0x7FFF else 0  # signed or not, both occur
        lines.append(
            f"r.dat {kind}+{offset} {200 + row}({row - 7})/mV 12 0 {first[row]} {checksum} 0 "
            f"{LEADS[row]}"
        )
    (folder / "r.hea").write_text("\n".join(lines) + "\n")
    (folder / "r.dat").write_bytes(b"\xa5" * offset + pack(fmt, frames.ravel()))
    return folder / "r", digital


@pytest.mark.parametrize("fmt", BITS)
@pytest.mark.parametrize("num_signals", range(1, 16))
def test_formats_are_as_wfdb_reads_them(tmp_path: Path, fmt: int, num_signals: int) -> None:
    for length in (1, 2, 3, 4, 5, 37):
        for offset, stated in ((0, True), (24, True), (7, False)):
            values = random_samples(fmt, num_signals, length, offset)
            stem, digital = write(tmp_path, fmt, values, offset=offset, stated=stated)
            if not stated and fmt in (310, 311) and (num_signals * length) % 3:
                continue  # padding of the last block may look like one sample more
            assert assert_as_wfdb(stem, LEADS[: min(num_signals, 12)]) == "ok"
            np.testing.assert_array_equal(read_record(stem, leads=["I"]).digital, digital)


@pytest.mark.parametrize("fmt", BITS)
def test_batches_are_as_single_records(tmp_path: Path, fmt: int) -> None:
    for num_signals in (12, 15):
        stem, _ = write(tmp_path, fmt, random_samples(fmt, num_signals, 41, 0))
        record = read_record(stem)
        for isa in _core.instruction_sets():
            _core.use_instruction_set(isa)
            batch = read_records([stem, stem], threads=2)
            assert batch.status == ("ok", "ok")
            for signal in batch.signal:
                np.testing.assert_array_equal(np.isnan(signal), np.isnan(record.signal))
                np.testing.assert_array_max_ulp(
                    np.nan_to_num(signal), np.nan_to_num(record.signal), maxulp=1
                )
        _core.use_instruction_set(_core.instruction_sets()[0])


@pytest.mark.parametrize("fmt", [8, 16, 24, 212, 310, 311])
@pytest.mark.parametrize("samples_per_frame", [2, 3])
def test_samples_of_a_frame_are_kept(tmp_path: Path, fmt: int, samples_per_frame: int) -> None:
    values = random_samples(fmt, 12, 6 * samples_per_frame, 0)
    stem, digital = write(tmp_path, fmt, values, samples_per_frame=samples_per_frame)
    record = read_record(stem)
    oracle = wfdb.rdrecord(str(stem), physical=False, smooth_frames=False)
    np.testing.assert_array_equal(record.digital, np.stack(oracle.e_d_signal))
    np.testing.assert_array_equal(record.digital, digital)
    assert (record.status, record.fs) == ("ok", 250.0 * samples_per_frame)
    batch = read_records([stem])
    assert (batch.fs, batch.signal.shape) == (record.fs, (1, *record.signal.shape))
    np.testing.assert_array_max_ulp(
        np.nan_to_num(batch.signal[0]), np.nan_to_num(record.signal), maxulp=1
    )
    # strict: as wfdb does by default, which averages them, and averages missing ones like others
    strict = read_record(stem, strict=True)
    averaged = wfdb.rdrecord(str(stem), physical=False)
    lost = np.isnan(record.signal).reshape(12, -1, samples_per_frame).any(axis=2)
    stored_order = [record.source_leads.index(lead) for lead in strict.leads]
    same = np.ones_like(strict.digital, dtype=bool)
    same[stored_order] = ~lost
    np.testing.assert_array_equal(strict.digital[same], averaged.d_signal.T[same])
    np.testing.assert_array_equal(np.isnan(strict.signal), lost)
    assert (strict.status, strict.fs) == ("read through wfdb: several samples per frame", 250.0)


def test_unequal_samples_per_frame_are_averaged(tmp_path: Path) -> None:
    frames = random_samples(16, 1, 18 * 5, 3)[0].reshape(18, 5)
    frames[4, 1] = frames[9, 4] = -32768
    lines = ["r 3 250 18"]
    for lead, spf, columns in (("I", 2, [0, 1]), ("II", 2, [2, 3]), ("III", 1, [4])):
        stored = frames[:, columns]
        checksum = int(stored.sum()) & 0xFFFF
        lines.append(f"r.dat 16x{spf} 200(3)/mV 16 0 {stored[0, 0]} {checksum} 0 {lead}")
    (tmp_path / "r.hea").write_text("\n".join(lines))
    (tmp_path / "r.dat").write_bytes(frames.astype("<i2").tobytes())
    record = read_record(tmp_path / "r", leads=["I", "II", "III"])
    assert record.status == "read through wfdb: unequal samples per frame"
    lost = np.zeros((3, 18), bool)
    for row, columns in enumerate(([0, 1], [2, 3], [4])):
        lost[row] = (frames[:, columns] == -32768).any(axis=1)
    assert lost[0, 4]
    assert lost[2, 9]
    np.testing.assert_array_equal(np.isnan(record.signal), lost)
    oracle = wfdb.rdrecord(str(tmp_path / "r"))
    np.testing.assert_array_max_ulp(
        record.signal[~lost], oracle.p_signal.T.astype(np.float32)[~lost], maxulp=1
    )
    (tmp_path / "r.hea").write_text("\n".join(lines).replace(" 0 II\n", "1 0 II\n"))
    with pytest.raises(ValueError, match="checksum of lead II is"):
        read_record(tmp_path / "r", leads=["I"])


# ---- segments


def write_segments(
    folder: Path, gains: list[str], leads: list[list[str]], *, layout: bool = False
) -> tuple[Path, npt.NDArray[np.int16]]:
    """A record `ms` of two segments of 100 samples; returns all its ADC units."""
    lines = [f"ms/{2 + layout} 12 500 200"]
    digital = samples(200)
    if layout:
        signals = "\n".join(f"~ 16 {gains[0]} 16 0 0 0 0 {lead}" for lead in leads[0])
        (folder / "lay.hea").write_text(f"lay 12 500 0\n{signals}\n")
        lines.append("lay 0")
    for i, gain in enumerate(gains):
        part = digital[:, 100 * i : 100 * (i + 1)]
        order = [leads[0].index(lead) for lead in leads[i]]
        write_record(folder / f"s{i}", part[order], leads[i], gain=gain)
        lines.append(f"s{i} 100")
    (folder / "ms.hea").write_text("\n".join(lines) + "\n")
    return folder / "ms", digital


@pytest.mark.parametrize("layout", [False, True])
@pytest.mark.parametrize("gains", [("200(0)/mV", "200(0)/mV"), ("200(0)/mV", "400(7)/mV")])
def test_segments_keep_their_calibrations(
    tmp_path: Path, layout: bool, gains: tuple[str, str]
) -> None:
    order = list(MIMIC_ORDER)
    stem, digital = write_segments(tmp_path, list(gains), [order, order], layout=layout)
    record = read_record(stem)
    assert record.status == "joined: several segments"
    np.testing.assert_array_equal(record.digital, digital)
    expected = wfdb.rdrecord(str(stem)).p_signal.T.astype(np.float32)
    rows = [order.index(lead) for lead in record.leads]
    np.testing.assert_array_max_ulp(record.signal, expected[rows], maxulp=1)
    np.testing.assert_array_equal(read_records([stem]).signal[0], record.signal)


def test_segments_that_do_not_fit_together(tmp_path: Path) -> None:
    order = list(MIMIC_ORDER)
    swapped = [*order[1:], order[0]]
    stem, _ = write_segments(tmp_path, ["200/mV", "200/mV"], [order, swapped])
    with pytest.raises(ValueError, match="segment s1 has other leads, or in another order"):
        read_record(stem)
    stem, digital = write_segments(tmp_path, ["200/mV", "200/mV"], [order, order])
    write_record(tmp_path / "s1", digital[:, 100:], order, fs="250")
    with pytest.raises(ValueError, match="segment s1 is sampled at 250 Hz, unlike the others"):
        read_record(stem)
    write_record(tmp_path / "s1", digital[:, 100:], order, checksum_of="V4")
    assert read_records([stem]).status == ("checksum",)
    assert read_record(stem, verify=False).status == "joined: several segments"
    for gain, status in (("1e-300/mV", "non-finite"), ("200(2000000000)/mV", "non-finite")):
        stem, _ = write_segments(tmp_path, ["200/mV", gain], [order, order])
        assert read_records([stem]).status == (status,)
    for lines, message in (
        ("ms/2 12 500 200\ns0 100\n", "announces 2 segments and names 1"),
        ("ms/2 12 500 300\ns0 100\ns1 100\n", "states 300 samples, its segments 200"),
        ("ms/2 12 500\ns0 100\ns1 90\n", "segment s1 holds 100 samples, 90 are announced"),
        ("ms/2 12 500\ns0 100\ns0 100\n", "names segment s0 more than once"),
        ("ms/2 12 500\ns0 100\ns1\n", "length of a segment '' is not a whole number"),
        ("ms/2 0 500 0\n~ 0\n~ 0\n", "none of its segments holds samples"),
    ):
        stem.with_suffix(".hea").write_text(lines)
        batch = read_records([stem, tmp_path / "s0"], fs=500, duration=1)
        assert batch.status == ("format", "ok")
        assert message in batch.errors[0]


def test_segments_each_by_its_own_header(tmp_path: Path) -> None:
    """Units, names that occur twice, leads and samples that are missing, gaps, formats."""
    digital = samples(300, 14)
    names = ["x", "x", *MIMIC_ORDER]
    digital[5, 110:120] = -32768
    write_record(tmp_path / "a", digital[:, :100], names, gain="200(0)/mV")
    write_record(tmp_path / "b", digital[:, 100:200], names, gain="0.2(3)/µV")
    write_record(tmp_path / "c", digital[3:, 200:], names[3:], gain="2E5(0)/V", fmt="16")
    signals = "\n".join(f"~ 16 200 16 0 0 0 0 {name}" for name in names)
    (tmp_path / "lay.hea").write_text(f"lay 14 500 0\n{signals}\n")
    (tmp_path / "m.hea").write_text("m/5 14 500 350\nlay 0\na 100\n~ 50\nb 100\nc 100\n")
    record = read_record(tmp_path / "m")
    assert record.source_leads == tuple(names)
    for begin, part in ((0, "a"), (150, "b")):
        alone = read_record(tmp_path / part)
        np.testing.assert_array_equal(record.signal[:, begin : begin + 100], alone.signal)
        np.testing.assert_array_equal(record.digital[:, begin : begin + 100], alone.digital)
    part_c = read_record(tmp_path / "c", leads=record.leads[1:])
    np.testing.assert_array_equal(record.signal[1:, 250:], part_c.signal)
    assert np.isnan(record.signal[0, 250:]).all()  # lead I is not in c
    assert np.isnan(record.signal[:, 100:150]).all()
    assert (record.digital[:, 100:150] == -32768).all()
    assert np.isnan(record.signal[3, 160:170]).all()  # aVR, the sixth signal
    gain = read_records([tmp_path / "m"], adc_units_per_mv=100.0).signal[0]
    np.testing.assert_allclose(gain[3, :100], digital[5, :100] / 100, rtol=1e-6)
    assert np.isnan(gain[3, 160:170]).all()


def test_skew_in_every_format(tmp_path: Path) -> None:
    for fmt in BITS:
        values = random_samples(fmt, 12, 40, 1)
        stem, digital = write(tmp_path, fmt, values)
        header = stem.with_suffix(".hea")
        header.write_text(header.read_text().replace(f"{fmt}+0", f"{fmt}:3+0"))
        if fmt == 8:
            with pytest.raises(ValueError, match="format 8 has no mark"):
                read_record(stem)
            continue
        record = read_record(stem)
        assert record.status == "read through wfdb: skewed signals"
        np.testing.assert_array_equal(record.digital[:, :37], digital[:, 3:])
        assert np.isnan(record.signal[:, 37:]).all()


def test_files_of_a_linked_folder_are_the_folders(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link").symlink_to(tmp_path / "real" / "sub")
    for folder, seed in (("real", 1), ("other", 2)):
        write_record(tmp_path / folder / "r", samples(100, seed=seed), fmt="16:1")
    expected = read_record(tmp_path / "real" / "r")
    through_link = read_record(f"{tmp_path}/other/link/../r")
    np.testing.assert_array_equal(through_link.digital, expected.digital)


def test_mixed_formats_in_one_record(tmp_path: Path) -> None:
    lines = ["mixed 12 500 7"]
    expected = []
    for row, fmt in enumerate((16, 212, 24, 8, 80, 310, 311, 61, 160, 32, 16, 212)):
        values = random_samples(fmt, 1, 7, row)
        lines.append(f"d{row} {fmt} 100 12 0 0 0 0 {LEADS[row]}")
        (tmp_path / f"d{row}").write_bytes(pack(fmt, values[0]))
        expected.append(values[0].cumsum() if fmt == 8 else values[0])
    (tmp_path / "mixed.hea").write_text("\n".join(lines))
    record = read_record(tmp_path / "mixed", verify=False)
    np.testing.assert_array_equal(record.digital, expected)
    batch = read_records([tmp_path / "mixed"], verify=False)
    np.testing.assert_array_equal(batch.signal[0], record.signal)


@pytest.mark.parametrize("fmt", BITS)
def test_one_byte_less_is_truncated(tmp_path: Path, fmt: int) -> None:
    stem, _ = write(tmp_path, fmt, random_samples(fmt, 12, 35, 0))
    data = stem.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"r\.dat: expected .* bytes, found"):
        read_record(stem)
    assert read_records([stem], fs=250, duration=1).status == ("truncated",)
