"""The simulator against what its ground truth says of the samples."""

from __future__ import annotations

import csv
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.measure import measure
from esi_fast.signal.measurements import intervals_from_machine
from esi_fast.signal.simulate import SimulatedRecord, simulate
from esi_fast.signal.simulate_plan import FINDINGS
from esi_fast.signal.simulate_tree import write_tree

LEAD = {name: index for index, name in enumerate(STANDARD_LEADS)}


@pytest.fixture(scope="module")
def records() -> list[SimulatedRecord]:
    return list(simulate(600, seed=11))


def beat(record: SimulatedRecord, lead: str, start: float, end: float) -> np.ndarray:
    """Mean of all normal beats in a lead, from ``start`` to ``end`` seconds around the R peak."""
    fs = record.fs
    low, high = round(start * fs), round(end * fs)
    peaks = record.fiducials["r_peak"][~record.is_pvc]
    peaks = peaks[(peaks + low >= 0) & (peaks + high < record.digital.shape[1])]
    signal = record.signal[LEAD[lead]]
    return np.mean([signal[peak + low : peak + high] for peak in peaks], axis=0)


def test_equal_seeds_give_equal_records() -> None:
    first, again = simulate(5, seed=3), simulate(5, seed=3)
    for left, right in zip(first, again, strict=True):
        assert np.array_equal(left.digital, right.digital)
        assert left.findings == right.findings
    assert not np.array_equal(next(simulate(1, seed=4)).digital, next(simulate(1, seed=3)).digital)


def test_einthoven_and_goldberger_hold_in_adc_units(records: list[SimulatedRecord]) -> None:
    for record in records[:50]:
        i, ii, iii, avr, avl, avf = record.digital[:6].astype(np.int64)
        assert np.array_equal(ii - i, iii)
        # Halves are rounded to whole ADC units.
        assert np.abs(2 * avr + i + ii).max() <= 1
        assert np.abs(2 * avl - 2 * i + ii).max() <= 1
        assert np.abs(2 * avf - 2 * ii + i).max() <= 1


def test_every_finding_occurs_and_no_impossible_pair(records: list[SimulatedRecord]) -> None:
    counts = Counter(name for record in records for name in record.findings)
    assert set(counts) == set(FINDINGS)
    assert min(counts.values()) >= 20
    impossible = [
        {"atrial_fibrillation", "first_degree_av_block"},
        {"left_bundle_branch_block", "right_bundle_branch_block"},
        {"left_ventricular_hypertrophy", "low_qrs_voltage"},
        {"left_axis_deviation", "right_axis_deviation"},
        {"anterior_st_elevation", "inferior_st_elevation"},
        {"left_bundle_branch_block", "anterior_st_elevation"},
    ]
    rhythms = {"sinus_rhythm", "sinus_bradycardia", "sinus_tachycardia", "atrial_fibrillation"}
    for record in records:
        assert len(rhythms & set(record.findings)) == 1
        for pair in impossible:
            assert not pair <= set(record.findings)


def test_findings_agree_with_the_measurements(records: list[SimulatedRecord]) -> None:
    for record in records:
        found, measured = set(record.findings), record.measurements
        rate = measured["heart_rate"]
        if "sinus_bradycardia" in found:
            assert rate < 60
        if "sinus_tachycardia" in found:
            assert rate > 100
        if "sinus_rhythm" in found:
            assert 58 < rate < 102
        assert ("pr" in measured) == ("atrial_fibrillation" not in found)
        if "pr" in measured:
            assert ("first_degree_av_block" in found) == (measured["pr"] > 200)
        wide = {"left_bundle_branch_block", "right_bundle_branch_block"} & found
        assert bool(wide) == (measured["qrs"] >= 120)
        if "pr" in measured:  # irregular RR intervals make QTc a matter of chance
            assert ("prolonged_qt" in found) == (measured["qtc_bazett"] > 475)
        axis = measured["qrs_axis"]
        assert ("left_axis_deviation" in found) == (axis < -30)
        assert ("right_axis_deviation" in found) == (axis > 90)


def test_samples_show_what_the_findings_say(records: list[SimulatedRecord]) -> None:
    checked: Counter[str] = Counter()
    for record in records:
        found = set(record.findings)
        marks = record.fiducials
        normal = ~record.is_pvc
        whole = normal & (marks["qrs_onset"] >= 0) & (marks["qrs_end"] >= 0)
        onset = np.median((marks["qrs_onset"] - marks["r_peak"])[whole]) / record.fs
        j_point = np.median((marks["qrs_end"] - marks["r_peak"])[whole]) / record.fs
        if "low_qrs_voltage" in found:
            for lead in ("I", "II", "III"):
                assert np.ptp(beat(record, lead, onset, j_point - 0.012)) < 0.55
            checked["low voltage"] += 1
        if "left_ventricular_hypertrophy" in found:
            sokolow = -beat(record, "V1", -0.1, 0.12).min() + max(
                beat(record, lead, -0.1, 0.12).max() for lead in ("V5", "V6")
            )
            assert sokolow > 3.4
            checked["hypertrophy"] += 1

        def j_level(lead: str) -> float:
            """The J point against the level just before the QRS, as electrocardiographs do."""
            after = beat(record, lead, j_point, j_point + 0.01).mean()  # noqa: B023
            return float(after - beat(record, lead, onset - 0.02, onset).mean())  # noqa: B023

        if "anterior_st_elevation" in found:
            assert min(j_level("V2"), j_level("V3")) > 0.18
            assert j_level("aVF") < -0.03
            checked["anterior"] += 1
        if "inferior_st_elevation" in found:
            assert min(j_level("II"), j_level("III"), j_level("aVF")) > 0.1
            assert j_level("aVL") < -0.05
            checked["inferior"] += 1
        if "left_bundle_branch_block" in found:
            assert (
                beat(record, "V1", onset, j_point).max()
                < 0.35 * -beat(record, "V1", onset, j_point).min()
            )
            checked["LBBB"] += 1
        if "right_bundle_branch_block" in found:
            late = beat(record, "V1", j_point - 0.06, j_point - 0.02)
            assert late.mean() > beat(record, "V1", onset - 0.02, onset).mean() + 0.02
            checked["RBBB"] += 1
    assert min(checked.values()) >= 20
    assert len(checked) == 6


def test_fiducials_are_in_order_and_at_the_peaks(records: list[SimulatedRecord]) -> None:
    for record in records[:100]:
        names = ("p_onset", "p_peak", "p_end", "qrs_onset", "r_peak", "qrs_end", "t_onset", "t_end")
        for marks in zip(*(record.fiducials[name] for name in names), strict=True):
            present = [mark for mark in marks if mark >= 0]
            assert all(before < after for before, after in pairwise(present))


def test_the_detector_finds_the_beats(records: list[SimulatedRecord]) -> None:
    found = total = extra = 0
    for record in records[:200]:
        detected = measure(record.signal, record.fs).common["r_peak"]
        truth = record.fiducials["r_peak"][~record.is_pvc]
        inner = truth[(truth > 250) & (truth < record.digital.shape[1] - 250)]
        distance = np.abs(detected[None, :] - inner[:, None]).min(axis=1)
        found += int((distance <= 0.1 * record.fs).sum())
        total += len(inner)
        beats = record.fiducials["r_peak"]
        distance = np.abs(detected[:, None] - beats[None, :]).min(axis=1)
        inside = (detected > 100) & (detected < record.digital.shape[1] - 100)
        extra += int((distance[inside] > 0.1 * record.fs).sum())
    assert found / total > 0.97
    assert extra / total < 0.06


def test_studies_of_a_patient_share_their_geometry(records: list[SimulatedRecord]) -> None:
    chronic = {"left_bundle_branch_block", "left_ventricular_hypertrophy", "right_axis_deviation"}
    by_subject: dict[int, list[SimulatedRecord]] = {}
    for record in records:
        by_subject.setdefault(record.subject_id, []).append(record)
    several = [studies for studies in by_subject.values() if len(studies) > 1]
    assert len(several) > 50
    for studies in several:
        assert len(studies) <= 5
        assert len({frozenset(chronic & set(record.findings)) for record in studies}) == 1


def test_the_tree_has_the_layout_of_mimic_iv_ecg(tmp_path: Path) -> None:
    out = tmp_path / "tree"
    num_patients = write_tree(out, 12, seed=5, duration=6)
    with (out / "record_list.csv").open() as file:
        records = list(csv.DictReader(file))
    with (out / "machine_measurements.csv").open() as file:
        machine = list(csv.DictReader(file))
    with (out / "patients.csv").open() as file:
        patients = {row["subject_id"]: row for row in csv.DictReader(file)}
    assert len(records) == len(machine) == 12
    assert len(patients) == num_patients
    for row, measured, truth in zip(
        records, machine, simulate(12, seed=5, duration=6), strict=True
    ):
        base = out / row["path"]
        header = base.with_suffix(".hea").read_text().splitlines()
        assert [line.split()[-1] for line in header[1:13]][3:6] == ["aVR", "aVF", "aVL"]
        digital = np.fromfile(base.with_suffix(".dat"), "<i2").reshape(-1, 12)
        assert np.array_equal(digital[:, 4], truth.digital[LEAD["aVF"]])
        patient = patients[row["subject_id"]]
        year = int(row["ecg_time"][:4])
        assert int(patient["anchor_age"]) + year - int(patient["anchor_year"]) == truth.age
        intervals = intervals_from_machine(measured)
        assert intervals["qrs"] == pytest.approx(truth.measurements["qrs"], abs=1)
        assert ("pr" in intervals) == ("pr" in truth.measurements)
    with pytest.raises(FileExistsError, match="exists"):
        write_tree(out, 1)


@pytest.mark.parametrize(
    "arguments",
    [{"num_records": 0}, {"num_records": 1, "fs": 50}, {"num_records": 1, "fs": np.nan}],
)
def test_bad_arguments_name_the_value(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"num_records is 0|fs is (50|nan)"):
        next(simulate(**arguments))  # type: ignore[arg-type]


def test_a_stray_quote_damages_its_own_line_and_no_other(tmp_path: Path) -> None:
    out = tmp_path / "tree"
    write_tree(out, 8, seed=5, duration=5)
    rows = (out / "record_list.csv").read_text().splitlines(keepends=True)
    rows[3] = rows[3].replace(",files/", ',"files/')
    (out / "record_list.csv").write_text("".join(rows))
    entries = list(open_catalogue(out))
    assert len(entries) == 8
    assert [bool(entry.error) for entry in entries] == [row == 2 for row in range(8)]
    (out / "record_list.csv").unlink()
    with pytest.raises(ValueError, match=r"lacks record_list\.csv"):
        open_catalogue(out)
