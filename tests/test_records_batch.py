"""Many records at once: bad ones among good ones, rates, lengths, types, threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import wfdb
from wfdb_files import MIMIC_ORDER, samples, write_record

from benchmarks.record_files import evict, resident_share
from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.record_batch import read_records
from esi_fast.signal.records import read_record
from esi_fast.signal.resample import resample

# ---- bad records, alone and in a batch


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.hea: no such file"):
        read_record(tmp_path / "nothing")
    stem = write_record(tmp_path / "r", samples())
    (tmp_path / "r.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"r\.dat: no such file"):
        read_record(stem)


def test_bad_files_harm_no_other(tmp_path: Path) -> None:
    good = samples(500)
    write_record(tmp_path / "good", good)
    write_record(tmp_path / "truncated", good)
    data = tmp_path / "truncated.dat"
    data.write_bytes(data.read_bytes()[:-1])
    write_record(tmp_path / "checksum", good, checksum_of="II")
    write_record(tmp_path / "leads", good, [*MIMIC_ORDER[:10], "V7", "V8"])
    write_record(tmp_path / "twice", good, [*MIMIC_ORDER[:11], "V5"])
    write_record(tmp_path / "units", good, gain="200/mmHg")
    write_record(tmp_path / "odd", good, length="")
    (tmp_path / "odd.dat").write_bytes(bytes(1201))
    write_record(tmp_path / "huge", good, length="900000000000")
    write_record(tmp_path / "empty", good[:, :0])
    write_record(tmp_path / "absurd", good, gain="1e-300/V")
    write_record(tmp_path / "infinite", good, gain="inf/mV")
    write_record(tmp_path / "first", good, first_of="V1")
    write_record(tmp_path / "rates", good, fs="0.001")
    (tmp_path / "nodata.hea").write_text((tmp_path / "good.hea").read_text().replace("good", "x"))
    write_record(tmp_path / "folder", good)
    (tmp_path / "folder.dat").unlink()
    (tmp_path / "folder.dat").mkdir()
    write_record(tmp_path / "pipe", good)
    (tmp_path / "pipe.dat").unlink()
    os.mkfifo(tmp_path / "pipe.dat")
    wrong = int(good[1].sum(dtype=np.int16))
    expected = {
        "truncated": ("truncated", "truncated.dat: expected 12000 bytes, found 11999"),
        "checksum": (
            "checksum",
            f"checksum.dat: checksum of lead II is {wrong}, header says {wrong + 1}",
        ),
        "leads": ("leads", "leads.hea: lacks lead(s) V5, V6; it has "),
        "twice": ("leads", "twice.hea: lead V5 occurs twice"),
        "units": ("units", "units.hea: "),
        "odd": ("truncated", "odd.dat: 1201 bytes are no whole number of frames of 12 samples"),
        "huge": ("truncated", "huge.dat: expected 21600000000000 bytes, found 12000"),
        "empty": ("truncated", "empty.dat: holds no samples"),
        "absurd": ("non-finite", "absurd.hea: lead I has the absurd gain"),
        "infinite": ("non-finite", "infinite.hea: signal 0: gain 'inf/mV' is not finite"),
        "first": ("checksum", f"first.dat: first sample of lead V1 is {good[6, 0]}, header says "),
        "rates": ("format", "rates.hea: cannot resample"),
        "nodata": ("missing", "x.dat: no such file"),
        "folder": ("io", "folder.dat: not a regular file"),
        "pipe": ("io", "pipe.dat: not a regular file"),
    }
    names = ["good", *expected, "good", "absent"]
    batch = read_records([tmp_path / name for name in names], fs=250, duration=1.0, threads=3)
    alone = read_records([tmp_path / "good"], fs=250, duration=1.0)
    for index, name in enumerate(names):
        if name == "good":
            assert (batch.status[index], batch.errors[index]) == ("ok", "")
            np.testing.assert_array_equal(batch.signal[index], alone.signal[0])
            continue
        status, error = expected.get(name, ("missing", "absent.hea: no such file"))
        assert batch.status[index] == status
        assert batch.errors[index].startswith(error)
        assert "\n" not in batch.errors[index]
        assert np.isnan(batch.signal[index]).all()
        if name != "rates":
            with pytest.raises((ValueError, OSError)) as raised:
                read_record(tmp_path / name)
            assert str(raised.value).startswith(f"{tmp_path}/{error}")
    # Without a rate and a length asked for, the sound records set them.
    batch = read_records([tmp_path / name for name in names])
    assert (batch.fs, batch.signal.shape) == (500.0, (len(names), 12, 500))
    assert batch.status[0] == "ok"
    assert batch.status[names.index("rates")] == "rate"


def test_unverified_checksums_are_not_looked_at(tmp_path: Path) -> None:
    stem = write_record(tmp_path / "r", samples(), checksum_of="V3")
    with pytest.raises(ValueError, match="checksum of lead V3"):
        read_record(stem)
    assert read_record(stem, verify=False).status == "ok"
    assert read_records([stem], verify=False).status == ("ok",)


# ---- batches


@pytest.mark.parametrize("quality", ["hq", "scipy"])
def test_batch_is_read_then_resampled_then_cropped_or_padded(tmp_path: Path, quality: str) -> None:
    long = samples(777, seed=1)
    long[4, 100:160] = -32768
    stems = [write_record(tmp_path / "long", long), write_record(tmp_path / "short", samples(200))]
    for fs in (100.0, 257.0, 500.0, 1000.0):
        length = int(fs)
        batch = read_records(stems, fs=fs, duration=1.0, quality=quality, threads=2)  # type: ignore[arg-type]
        again = read_records(stems, fs=fs, duration=1.0, quality=quality, threads=1)  # type: ignore[arg-type]
        np.testing.assert_array_equal(batch.signal, again.signal)
        for stem, signal in zip(stems, batch.signal, strict=True):
            record = read_record(stem)
            whole = resample(record.signal, record.fs, fs, quality)  # type: ignore[arg-type]
            kept = min(length, whole.shape[1])
            np.testing.assert_array_equal(signal[:, :kept], whole[:, :kept])
            assert np.isnan(signal[:, kept:]).all()
        assert np.isnan(batch.signal[0]).any()
        stored = read_records(stems, fs=fs, duration=1.0, dtype="int16", quality=quality)  # type: ignore[arg-type]
        missing = np.isnan(batch.signal)
        np.testing.assert_array_equal(stored.signal == -32768, missing)
        microvolt = batch.signal[~missing] * np.float32(1000)
        np.testing.assert_array_equal(stored.signal[~missing], np.rint(microvolt))
        assert not stored.clipped.any()


def test_int16_saturates_and_says_so(tmp_path: Path) -> None:
    digital = np.zeros((12, 50), dtype=np.int16)
    fine = write_record(tmp_path / "fine", digital + np.int16(3276), gain="100/mV")
    digital[3, 7], digital[5, 9] = 4000, -4000
    stem = write_record(tmp_path / "r", digital, gain="100/mV")
    batch = read_records([fine, stem], dtype="int16")
    assert batch.clipped.tolist() == [False, True]
    assert (batch.signal[0] == 32760).all()
    assert batch.signal[1, 3, 7] == 32767
    assert batch.signal[1, 4, 9] == -32767  # aVF before aVL in the file
    assert not read_records([fine, stem]).clipped.any()


def test_a_batch_of_nothing_readable(tmp_path: Path) -> None:
    batch = read_records([tmp_path / "a"])
    assert batch.signal.shape == (1, 12, 0)
    assert np.isnan(batch.fs)
    assert read_records([], fs=100, duration=2).signal.shape == (0, 12, 200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fs": 0}, "fs must be a positive number of Hz, got 0"),
        ({"duration": -1.0}, "duration must be a positive number of s, got -1"),
        ({"fs": 100, "duration": 0.001}, "less than one sample"),
        ({"dtype": "float64"}, "dtype must be 'float32' or 'int16', got 'float64'"),
        ({"threads": -2}, "threads must be 0"),
        ({"quality": "vhq"}, "quality must be 'hq' or 'scipy', got 'vhq'"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_records([], **options)  # type: ignore[arg-type]


def test_gaps_and_padding_by_policy(tmp_path: Path) -> None:
    digital = samples(400)
    digital[1, 100:150] = -32768
    stems = [
        write_record(tmp_path / "gap", digital),
        write_record(tmp_path / "whole", samples(400)),
    ]
    bad = tmp_path / "absent"
    for fs in (500.0, 250.0):
        marked = read_records([*stems, bad], fs=fs, duration=1.0).signal
        zeroed = read_records([*stems, bad], fs=fs, duration=1.0, nan_policy="zero").signal
        np.testing.assert_array_equal(zeroed, np.nan_to_num(marked, nan=0.0))
        filled = read_records([*stems, bad], fs=fs, duration=1.0, nan_policy="interpolate").signal
        end = int(0.8 * fs)
        assert not np.isnan(filled[:2, :, :end]).any()
        assert np.isnan(filled[:2, :, end:]).all()  # beyond the record there is nothing
        assert np.isnan(filled[2]).all()
        present = ~np.isnan(marked)
        np.testing.assert_array_equal(filled[present], marked[present])
        whole = read_records(stems, fs=fs, duration=1.0, nan_policy="zero", dtype="int16").signal
        assert not (whole == -32768).any()
    assert np.isnan(marked[0, 1]).sum() > np.isnan(marked[1, 1]).sum()


def test_one_gain_in_place_of_the_headers(tmp_path: Path) -> None:
    digital = samples()
    lines = []
    for name, fmt in (("native", "16"), ("other", "516")):
        wfdb.wrsamp(
            name, fs=500, units=["furlong"] * 12, sig_name=list(MIMIC_ORDER), fmt=[fmt] * 12,
            d_signal=digital.T.astype(np.int64), adc_gain=[3.0 + i for i in range(12)],
            baseline=[7] * 12, write_dir=str(tmp_path),
        )  # fmt: skip
        lines.append(tmp_path / name)
    batch = read_records(lines, adc_units_per_mv=400.0)
    assert batch.status == ("ok", "read through wfdb: format 516")
    order = [MIMIC_ORDER.index(lead) for lead in STANDARD_LEADS]
    for signal in batch.signal:
        np.testing.assert_array_max_ulp(signal, (digital[order] / 400).astype(np.float32), maxulp=1)
    assert read_records(lines).status == ("units", "units")
    with pytest.raises(ValueError, match="adc_units_per_mv must be a positive number, got 0"):
        read_records(lines, adc_units_per_mv=0)


def test_reads_are_in_flight_for_files_outside_the_page_cache(tmp_path: Path) -> None:
    digital = [samples(5000, seed=seed) for seed in range(80)]
    stems = [write_record(tmp_path / f"r{i}", one) for i, one in enumerate(digital)]
    stems.insert(40, tmp_path / "absent")
    warm = read_records(stems, fs=250, duration=10.0)
    files = [str(stem) for stem in stems if stem.name != "absent"]
    for _ in range(9):  # pages that another CPU holds leave at a later attempt
        evict(files)
        if (share := resident_share(files)) < 0.1:
            break
    else:
        pytest.skip(f"this file system keeps {share:.0%} of its pages in memory")
    threads: list[int] = []
    done = threading.Event()

    def num_threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def watch() -> None:
        while not done.is_set():
            threads.append(num_threads())

    before = num_threads()
    watcher = threading.Thread(target=watch)
    watcher.start()
    cold = read_records(stems, fs=250, duration=10.0, threads=1)
    done.set()
    watcher.join()
    np.testing.assert_array_equal(cold.signal, warm.signal)
    assert cold.status == warm.status == ("ok",) * 40 + ("missing",) + ("ok",) * 40
    assert max(threads) >= before + 10  # beside the watcher: those that fetch ahead


def test_a_header_that_announces_what_no_file_holds(tmp_path: Path) -> None:
    """wfdb allocates what a header says: it is checked before wfdb sees it."""
    (tmp_path / "d.flac").write_bytes(b"fLaC" + bytes(60))
    flac = "r 1 500 99999999999\nd.flac 516 200 16 0 0 0 0 I\n"
    skewed = "r 1 500 99999999999\nd.flac 16:3 200 16 0 0 0 0 I\n"
    for header, message in ((flac, "64 bytes cannot hold"), (skewed, "64 bytes cannot hold")):
        (tmp_path / "r.hea").write_text(header)
        batch = read_records([tmp_path / "r"])
        assert batch.status == ("truncated",)
        assert batch.errors[0].startswith(f"d.flac: {message} 99999999999 frames")
    write_record(tmp_path / "part", samples(100))
    (tmp_path / "r.hea").write_text("r/2 12 500 99999999999\n~ 99999999899\npart 100\n")
    batch = read_records([tmp_path / "r"])
    assert batch.status == ("format",)
    assert batch.errors[0] == "r.hea: spans 99999999999 samples, its segments hold 100"


# ---- a bad record among good ones, whatever it is that is bad


def test_the_rate_is_that_of_most_sound_records(tmp_path: Path) -> None:
    good = write_record(tmp_path / "good", samples(500))
    others = {
        "leads": write_record(tmp_path / "two", samples(9000, 2), MIMIC_ORDER[:2], fs="360"),
        "checksum": write_record(tmp_path / "sum", samples(400), fs="360", checksum_of="I"),
        "rate": write_record(tmp_path / "rate", samples(400), fs="250"),
    }
    for status, bad in others.items():
        for paths in ([bad, good, good], [good, good, bad]):
            batch = read_records(paths)
            expected = "rate" if status == "checksum" else status
            assert sorted(batch.status) == sorted([expected, "ok", "ok"])
            assert (batch.fs, batch.signal.shape) == (500.0, (3, 12, 500))
    for fs in ("1e7", "1e12", "1e300", "0.01", "1e-300"):
        bad = write_record(tmp_path / "bad", samples(500), fs=fs)
        for options in ({}, {"duration": 1.0}):
            batch = read_records([bad, good], **options)
            assert (batch.fs, batch.status) == (500.0, ("rate", "ok"))
            assert batch.errors[0].startswith("bad.hea: ")
    slow = write_record(tmp_path / "slow", samples(4000), fs="2")
    batch = read_records([slow, good], fs=500)
    assert batch.status == ("format", "ok")
    assert batch.signal.shape == (2, 12, 500)


def test_unnamed_signals_keep_their_place_in_the_lead_names(tmp_path: Path) -> None:
    stem = write_record(tmp_path / "r", samples(100, 14), ["", "", *MIMIC_ORDER])
    assert read_records([stem]).source_leads == (read_record(stem).source_leads,)
    assert read_record(stem).source_leads == ("", "", *MIMIC_ORDER)


def test_paths_that_are_none(tmp_path: Path) -> None:
    good = write_record(tmp_path / "good", samples(100))
    batch = read_records([good, f"{good}\0x", "\ud800", os.fsencode(good)])  # type: ignore[list-item]
    assert batch.status == ("ok", "missing", "missing", "ok")
    with pytest.raises(ValueError, match="give a sequence of paths"):
        read_records(str(good))
    with pytest.raises(ValueError, match=r"give a sequence of names, \['II'\]"):
        read_record(good, leads="II")
    assert read_record(good, leads=["avr", "v1"]).leads == ("aVR", "V1")
