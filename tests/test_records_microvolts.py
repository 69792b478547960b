"""int16 microvolts: of whole steps without floating point, and what else a batch tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb
from wfdb_files import MIMIC_ORDER, write_record

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.record_batch import read_records


@pytest.mark.parametrize("length", [1, 7, 8, 9, 1001])
@pytest.mark.parametrize(
    ("gains", "extremes"),
    [
        ([200.0] * 12, 6553),
        ([1000.0] * 12, 32767),
        ([200.0, 1000.0, 500.0, 100.0, 1.0, 125.0] * 2, 30),
        ([200.0] * 12, 6554),  # clipped: 32.77 mV
        ([204.8] * 12, 3000),  # no whole microvolts
        ([200.0] * 11 + [0.5], 5),
    ],
)
def test_whole_microvolts_are_what_floating_point_gives(
    tmp_path: Path, length: int, gains: list[float], extremes: int
) -> None:
    digital = np.random.default_rng(length).integers(-extremes, extremes + 1, (length, 12))
    digital[length // 2, 3] = -32768
    digital[0, 0] = -extremes
    digital[-1, 11] = extremes
    wfdb.wrsamp(
        "r",
        fs=500,
        units=["mV"] * 12,
        sig_name=[STANDARD_LEADS[lead] for lead in (0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11)],
        d_signal=digital,
        fmt=["16"] * 12,
        adc_gain=gains,
        baseline=[0] * 12,
        write_dir=str(tmp_path),
    )
    for duration in (length / 500, (length + 3) / 500, max(1, length - 2) / 500):
        stored = read_records([tmp_path / "r"], fs=500, duration=duration, dtype="int16")
        floats = read_records([tmp_path / "r"], fs=500, duration=duration)
        assert stored.errors == floats.errors == ("",)
        microvolts = np.rint(floats.signal * np.float32(1000))
        expected = np.where(np.isnan(microvolts), -32768, microvolts.clip(-32767, 32767))
        np.testing.assert_array_equal(stored.signal, expected)
        assert stored.clipped[0] == bool((np.abs(microvolts) > 32767).any())


def test_source_rate_and_length_are_told(tmp_path: Path) -> None:
    good = np.zeros((12, 750), np.int16)
    write_record(tmp_path / "short", good, MIMIC_ORDER)
    batch = read_records([tmp_path / "short", tmp_path / "gone"], fs=250, duration=2.0)
    assert batch.source_fs[0] == 500.0
    assert batch.source_duration[0] == 1.5
    assert np.isnan([batch.source_fs[1], batch.source_duration[1]]).all()
