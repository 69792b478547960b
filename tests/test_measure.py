"""Machine measurements and R peaks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ludb_marks import MarkScore, mark_with_esi_fast, score_ludb
from esi_fast.signal.measure import measure, measure_records
from esi_fast.signal.measurements import VALUES, Measurements, intervals_from_machine
from esi_fast.signal.record_batch import read_records


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


@pytest.fixture(scope="module")
def mimic_like(shared_data: Path) -> list[tuple[dict[str, str], str, Measurements]]:
    """Every third record's machine row and report, and what is measured."""
    root = shared_data / "mimic-like"
    with (root / "record_list.csv").open() as file:
        paths = {row["study_id"]: row["path"] for row in csv.DictReader(file)}
    with (root / "machine_measurements.csv").open() as file:
        rows = list(csv.DictReader(file))[::3]
    batch = read_records([root / paths[row["study_id"]] for row in rows], fs=500, duration=10)
    reports = [" ".join(v for k, v in row.items() if k.startswith("report")) for row in rows]
    return list(zip(rows, reports, measure_records(batch.signal, 500.0), strict=True))


Measured = list[tuple[dict[str, str], str, Measurements]]


def test_rr_intervals_of_real_recordings_agree_with_lead_ii(mimic_like: Measured) -> None:
    close = [
        abs(found.rr_interval / float(row["rr_interval"]) - 1) < 0.03
        for row, _, found in mimic_like
    ]
    assert np.mean(close) >= 0.96


def test_waves_of_real_recordings_do_not_overlap(mimic_like: Measured) -> None:
    num_seen = 0
    for _, _, found in mimic_like:
        for table in found.fiducials.values():
            for earlier, later in (("p_end", "qrs_onset"), ("qrs_end", "t_onset")):
                one, other = table[earlier], table[later]
                seen = (one >= 0) & (other >= 0)
                assert (one <= other)[seen].all()
                num_seen += seen.sum()
            seen = (table["t_onset"] >= 0) & (table["t_peak"] >= 0)
            assert (table["t_onset"] <= table["t_peak"])[seen].all()
    assert num_seen > 5000


def test_normal_recordings_have_normal_intervals(mimic_like: Measured) -> None:
    normal = [found for _, report, found in mimic_like if "Normal ECG" in report]
    assert len(normal) > 60
    assert 80 <= np.median([found.qrs for found in normal]) <= 105
    assert 140 <= np.nanmedian([found.pr for found in normal]) <= 175
    assert 390 <= np.median([found.qtc_fridericia for found in normal]) <= 425
    with_p = [found.p_per_qrs > 0.9 for found in normal]
    assert np.mean(with_p) > 0.9


def test_no_p_wave_is_measured_in_atrial_fibrillation(shared_data: Path) -> None:
    root = shared_data / "mimic-like"
    with (root / "record_list.csv").open() as file:
        paths = {row["study_id"]: row["path"] for row in csv.DictReader(file)}
    with (root / "machine_measurements.csv").open() as file:
        fibrillating = [
            paths[row["study_id"]]
            for row in csv.DictReader(file)
            if "Atrial fibrillation" in row.values()
        ]
    assert len(fibrillating) == 9
    batch = read_records([root / path for path in fibrillating], fs=500, duration=10)
    for found in measure_records(batch.signal, 500.0):
        assert found.p_per_qrs == 0
        assert np.isnan(found.pr)
        assert "P" in found.reasons["pr"]
        assert found.rr_irregularity > 0.1


def test_marks_on_ludb_that_were_not_tuned_on(shared_data: Path) -> None:
    root = shared_data / "ludb"
    found = score_ludb(root, {"esi_fast": mark_with_esi_fast})["esi_fast"]
    for mark, least, onset_sd, end_sd in (
        ("qrs", 0.995, 14, 16),
        ("p", 0.93, 17, 17),
        ("t", 0.97, np.inf, 26),
    ):
        peak = found["r_peak" if mark == "qrs" else f"{mark}_peak"]
        assert peak.f1 >= least
        assert found[f"{mark}_onset"].sd_ms <= onset_sd
        assert found[f"{mark}_end"].sd_ms <= end_sd
        assert peak.num_annotated > 500
    assert found["p_peak"].false_per_af_beat < 0.05


def test_the_score_sees_what_is_wrong() -> None:
    truth = np.array([100, 600, 1100, 1600])
    found = np.array([110, 590, 1090, 1400, 1690])
    score = MarkScore()
    score.add(truth, found, fs=500, first=100, last=1600)
    # 1400 is nobody's, 1690 is more than 150 ms from 1600 and beyond the span.
    assert (score.num_matched, score.num_missed, score.num_false) == (3, 1, 1)
    assert score.sensitivity == 0.75
    assert score.ppv == 0.75
    assert sorted(score.errors_ms) == [-20, -20, 20]


def test_signals_without_beats_give_nothing() -> None:
    for value in (0.0, np.nan):
        found = measure(np.full((12, 5000), value, np.float32), 500.0)
        assert found.measured() == dict.fromkeys(
            ("num_beats", "num_premature", "num_wide", "num_paced"), 0.0
        )
        assert np.isnan(found.heart_rate)
        assert len(found.fiducials["II"]["r_peak"]) == 0
        assert set(found.reasons) == {name for name in VALUES if not name.startswith("num_")}
