"""Machine measurements and R peaks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from esi_fast.signal.measure import intervals_from_machine, measure, r_peaks
from esi_fast.signal.records import read_record


def test_the_published_example_row_of_mimic_iv_ecg(shared_data: Path) -> None:
    with (shared_data / "mimic-iv-ecg-rows" / "machine_measurements.csv").open() as file:
        row = next(csv.DictReader(file))
    found = intervals_from_machine(row)
    assert found["heart_rate"] == pytest.approx(60000 / 659)
    assert found["pr"] == 170 - 40
    assert found["p_duration"] == 128 - 40
    assert found["qrs"] == 258 - 170
    assert found["qt"] == 518 - 170
    assert found["qtc_bazett"] == pytest.approx(348 / 0.659**0.5)
    assert (found["p_axis"], found["qrs_axis"], found["t_axis"]) == (81, 77, 79)


@pytest.mark.parametrize("value", ["29999", "", "nan", "-5", "abc", 29999])
def test_what_was_not_measured_is_absent(value: str | float) -> None:
    row = {"rr_interval": value, "p_onset": value, "qrs_onset": "170", "qrs_end": "258"}
    assert intervals_from_machine(row) == {"qrs": 88.0}


def test_axes_come_into_range() -> None:
    assert intervals_from_machine({"qrs_axis": "270"})["qrs_axis"] == -90
    assert intervals_from_machine({"qrs_axis": "180"})["qrs_axis"] == 180


def test_rate_of_real_recordings_agrees_with_their_machine_rr(shared_data: Path) -> None:
    root = shared_data / "mimic-like"
    with (root / "record_list.csv").open() as file:
        paths = {row["study_id"]: row["path"] for row in csv.DictReader(file)}
    with (root / "machine_measurements.csv").open() as file:
        rows = list(csv.DictReader(file))[::6]
    close = 0
    for row in rows:
        record = read_record(root / paths[row["study_id"]])
        found = measure(record.signal, record.fs).rr_interval
        close += abs(found / float(row["rr_interval"]) - 1) < 0.03
    assert close / len(rows) > 0.9


def test_signals_without_beats_give_nothing() -> None:
    for value in (0.0, np.nan):
        found = measure(np.full((12, 5000), value, np.float32), 500.0)
        assert found.measured() == {}
        assert np.isnan(found.heart_rate)
        assert len(found.fiducials["II"]["r_peak"]) == 0
    assert len(r_peaks(np.zeros((12, 100), np.float32), 500.0)) == 0
