"""Measurements of rhythms, conduction and voltages whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from measure_fakes import (
    FS,
    LEADS,
    NARROW,
    WIDE,
    WIDE_T,
    P,
    T,
    Wave,
    bumps,
    check,
    leads,
    sinus,
    times,
)

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.measure import measure
from esi_fast.signal.simulate import simulate


@pytest.mark.parametrize("rate", [30, 40, 60, 100, 150, 180, 200])
def test_rate(rate: int) -> None:
    p, t = P, T
    if rate >= 100:  # room for both
        p, t = (-0.13, 0.012, P[2]), (0.15, 0.02, T[2])
    found = measure(sinus(rate, p=p, t=t), FS)
    check(found, 5000)
    assert found.heart_rate == pytest.approx(rate, rel=0.01)
    assert found.num_beats == len(times(rate))
    assert found.rr_irregularity < 0.02
    assert found.atrial_rate == pytest.approx(rate, rel=0.01)
    assert found.p_per_qrs == pytest.approx(1, abs=0.05)
    assert (found.num_wide, found.num_premature, found.num_paced) == (0, 0, 0)


def test_a_right_bundle_branch_block_is_wide() -> None:
    others = {"left_bundle_branch_block", "low_qrs_voltage"}
    num_blocks = 0
    for record in simulate(60, seed=11):
        if others & set(record.findings):
            continue
        is_block = "right_bundle_branch_block" in record.findings
        found = measure(record.signal, FS)
        assert (found.qrs >= 120) == is_block, record.study_id
        assert found.qrs == pytest.approx(record.measurements["qrs"], abs=12), record.study_id
        num_blocks += is_block
    assert num_blocks >= 8


def test_a_wide_beat_of_the_usual_shape_is_not_counted_as_wide() -> None:
    found = measure(sinus(p=None, qrs=WIDE, t=WIDE_T), FS)
    check(found, 5000)
    assert 200 - 5 < found.qrs < 228 + 5  # 2.5 and 3 standard deviations to either side
    assert found.num_wide == 0


def test_ventricular_premature_beats_are_told() -> None:
    at = times(70)
    early = [3, 7]
    sinus_at = [t for i, t in enumerate(at) if i not in early]
    pvc_at = [at[i] - 0.3 for i in early]
    dipole = bumps(sinus_at, (P, *NARROW, T), 10, FS) + bumps(pvc_at, (*WIDE, WIDE_T), 10, FS)
    found = measure(leads(dipole), FS)
    check(found, 5000)
    assert (found.num_beats, found.num_wide, found.num_premature) == (11, 2, 2)
    assert np.flatnonzero(found.is_wide).tolist() == early
    assert np.flatnonzero(found.is_premature).tolist() == early
    assert found.qrs == pytest.approx(88, abs=8)
    assert (found.common["p_onset"][early] == -1).all()


def test_an_atrial_premature_beat_is_early_and_narrow() -> None:
    at = times(70)
    at[4] -= 0.3
    found = measure(leads(bumps(at, (P, *NARROW, T), 10, FS)), FS)
    check(found, 5000)
    assert np.flatnonzero(found.is_premature).tolist() == [4]
    assert found.num_wide == 0
    assert found.heart_rate == pytest.approx(70, rel=0.01)


@pytest.mark.parametrize("fs", [360.0, 500.0, 1000.0])
def test_pacing_spikes_are_found_and_disturb_nothing(fs: float) -> None:
    signal = sinus(fs=fs)
    before = measure(signal, fs)
    truth = []
    for beat in times(70)[1:]:
        start = round((beat - 0.0615) * fs)
        length = max(1, round(0.002 * fs))
        signal[:9, start : start + length] += np.linspace(1, 2, 9, dtype=np.float32)[:, None]
        truth.append(start)
    found = measure(signal, fs)
    check(found, round(10 * fs))
    assert len(found.pacing_spikes) == len(truth)
    assert np.abs(found.pacing_spikes - truth).max() <= 2
    assert found.is_paced.tolist() == [False] + [True] * 10
    assert found.qrs == pytest.approx(before.qrs, abs=10)
    assert found.num_wide == 0


def test_unpaced_records_have_no_spikes() -> None:
    for fs in (100.0, 360.0, 500.0, 1000.0):
        assert len(measure(sinus(fs=fs), fs).pacing_spikes) == 0, fs
        for record in simulate(10, seed=8, fs=fs):
            assert len(measure(record.signal, fs).pacing_spikes) == 0, (fs, record.study_id)


def test_there_is_no_p_in_atrial_fibrillation() -> None:
    num_records = num_without = 0
    for record in simulate(60, seed=9):
        if "atrial_fibrillation" in record.findings and num_records < 12:
            found = measure(record.signal, FS)
            num_records += 1
            num_without += math.isnan(found.pr)
            assert found.rr_irregularity > 0.1
    assert num_records >= 8
    assert num_without >= num_records - 1


def test_second_degree_block_two_to_one() -> None:
    beats = times(40)
    dipole = bumps(beats, (P, *NARROW, T), 10, FS)
    dipole += bumps([t + 0.75 for t in beats], (P,), 10, FS)
    found = measure(leads(dipole), FS)
    check(found, 5000)
    assert found.heart_rate == pytest.approx(40, rel=0.01)
    assert found.p_per_qrs == pytest.approx(2, abs=0.2)
    assert found.atrial_rate == pytest.approx(80, rel=0.02)
    assert found.pr == pytest.approx(163, abs=6)
    assert len(found.blocked_p) == len(beats) - 1


def test_a_single_blocked_p_is_told() -> None:
    beats = times(60)
    dipole = bumps(beats, (P,), 10, FS) + bumps(beats[:5] + beats[6:], (*NARROW, T), 10, FS)
    found = measure(leads(dipole), FS)
    check(found, 5000)
    assert found.num_beats == 9
    assert len(found.blocked_p) == 1
    assert found.blocked_p[0] == pytest.approx((beats[5] - 0.205) * FS, abs=15)
    assert found.atrial_rate == pytest.approx(60, rel=0.01)


@pytest.mark.parametrize("pr", [0.14, 0.24, 0.32])
def test_pr(pr: float) -> None:
    p: Wave = (0.0, 0.018, P[2])
    onset = -0.0415 - pr  # the QRS begins 41.5 ms before R
    found = measure(sinus(60, p=(onset + 0.045, p[1], p[2])), FS)
    check(found, 5000)
    assert found.pr == pytest.approx(1000 * pr, abs=12)
    assert found.p_duration == pytest.approx(90, abs=12)


@pytest.mark.parametrize("axis", [-120, -60, 0, 60, 120, 180])
def test_axes_of_a_known_dipole(axis: int) -> None:
    x, y = math.cos(math.radians(axis)), math.sin(math.radians(axis))
    qrs = ((0.0, 0.016, (1.2 * x, 1.2 * y, 0.3)),)
    t: Wave = (0.26, 0.04, (0.3 * x, 0.3 * y, 0.1))
    found = measure(sinus(60, p=(-0.16, 0.018, (0.15 * x, 0.15 * y, 0.05)), qrs=qrs, t=t), FS)
    for name in ("p_axis", "qrs_axis", "t_axis"):
        difference = (getattr(found, name) - axis + 180) % 360 - 180
        assert abs(difference) < 5, (name, getattr(found, name))


def test_voltages() -> None:
    signal = sinus()
    beat = leads(bumps([1.0], NARROW, 2, FS), noise=0).astype(float)
    found = measure(signal, FS)
    top, low = beat.max(axis=1), beat.min(axis=1)
    peak = beat.argmax(axis=1)
    for row, lead in enumerate(STANDARD_LEADS):
        values = found.amplitudes[lead]
        assert values["r"] == pytest.approx(top[row] if top[row] > 0.025 else 0, abs=0.03), lead
        before, after = beat[row, : peak[row]].min(), beat[row, peak[row] :].min()
        if top[row] < 0.02:  # no R: all is Q
            before, after = after, 0.0
        assert values["q"] == pytest.approx(before if before < -0.025 else 0, abs=0.03), lead
        assert values["s"] == pytest.approx(after if after < -0.025 else 0, abs=0.03), lead
        p, t = (float(LEADS[row] @ wave[2]) for wave in (P, T))
        assert values["p"] == pytest.approx(p, abs=0.03), lead
        assert values["t"] == pytest.approx(t, abs=0.03), lead
    at = {lead: row for row, lead in enumerate(STANDARD_LEADS)}
    sokolow = -low[at["V1"]] + max(top[at["V5"]], top[at["V6"]])
    assert found.sokolow_lyon == pytest.approx(sokolow, rel=0.03)
    assert found.cornell == pytest.approx(top[at["aVL"]] - low[at["V3"]], rel=0.03)
    assert found.low_voltage == 0
    chest_only = signal.copy()
    chest_only[6:] *= 0.3
    limbs_only = signal.copy()
    limbs_only[:6] *= 0.25
    for low_record in (chest_only, limbs_only):
        assert measure(low_record, FS).low_voltage == 1


@pytest.mark.parametrize("shift", [0.2, -0.2])
def test_st_level(shift: float) -> None:
    qrs = (*NARROW[:2], (0.022, 0.006, NARROW[2][2]))  # over when the ST segment has risen
    time = np.arange(5000) / FS
    dipole = bumps(times(60), (P, *qrs, T), 10, FS)
    for beat in times(60):
        rise = 0.5 + 0.5 * np.tanh((time - beat - 0.034) / 0.004)
        fall = (1 - (time - beat - 0.16) / 0.14).clip(0, 1)
        dipole[2] += shift * rise * fall
    found = measure(leads(dipole), FS)
    check(found, 5000)
    for row, lead in enumerate(STANDARD_LEADS):
        for name in ("j", "st60"):
            expected = shift * LEADS[row, 2]
            assert found.amplitudes[lead][name] == pytest.approx(expected, abs=0.03), (lead, name)
