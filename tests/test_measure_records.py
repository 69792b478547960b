"""Measurements of records whose truth is known, and of records that hold next to nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.measure import measure, measure_records
from esi_fast.signal.measurements import VALUES, Measurements, intervals_from_machine
from esi_fast.signal.simulate import simulate

Signal = NDArray[np.float32]
Wave = tuple[float, float, tuple[float, float, float]]  # centre from R and sd, s; x, y, z, mV
FS = 500.0
INTERVALS = ("rr_interval", "p_duration", "pr", "qrs", "qt")
# x to the left, y to the feet, z to the front.
LEADS = np.array(
    [
        [1, 0, 0], [0.5, 0.866, 0], [-0.5, 0.866, 0], [-0.75, -0.433, 0], [0.75, -0.433, 0],
        [0, 0.866, 0], [-0.4, 0, 0.9], [0.1, 0.1, 1.15], [0.5, 0.1, 1], [0.9, 0.2, 0.7],
        [1, 0.2, 0.2], [0.95, 0.2, -0.05],
    ]
)  # fmt: skip
# A wave ends 2.5 standard deviations from its centre.
P: Wave = (-0.16, 0.018, (0.10, 0.10, 0.05))
NARROW: tuple[Wave, ...] = (
    (-0.024, 0.007, (-0.12, -0.08, 0.35)),
    (0.0, 0.009, (1.2, 0.7, -0.2)),
    (0.024, 0.009, (0.1, -0.1, -0.8)),
)
T: Wave = (0.26, 0.04, (0.30, 0.20, 0.15))
WIDE: tuple[Wave, ...] = ((0.0, 0.028, (-0.9, 0.9, 0.8)), (0.06, 0.028, (-0.6, 0.6, 0.6)))
WIDE_T: Wave = (0.30, 0.045, (0.35, -0.35, -0.3))


def bumps(
    at: list[float], waves: tuple[Wave, ...], seconds: float, fs: float
) -> NDArray[np.float64]:
    """(3, T): the same waves at each time."""
    time = np.arange(round(seconds * fs)) / fs
    dipole = np.zeros((3, len(time)))
    for centre, sd, vector in waves:
        for beat in at:
            dipole += np.outer(vector, np.exp(-0.5 * ((time - beat - centre) / sd) ** 2))
    return dipole


def leads(dipole: NDArray[np.float64], noise: float = 0.005) -> Signal:
    """(12, T) mV, Einthoven's and Goldberger's equations hold; noise in mV."""
    eight = LEADS[[0, 1, *range(6, 12)]] @ dipole
    eight += noise * np.random.default_rng(0).standard_normal(eight.shape)
    one, two = eight[:2]
    limbs = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([limbs, eight[2:]]).astype(np.float32)


def times(rate: float, seconds: float = 10.0, first: float = 0.45) -> list[float]:
    return np.arange(first, seconds - 0.15, 60 / rate).tolist()


def sinus(
    rate: float = 70.0, *, seconds: float = 10.0, fs: float = FS, p: Wave | None = P,
    qrs: tuple[Wave, ...] = NARROW, t: Wave = T,
) -> Signal:  # fmt: skip
    waves = (*(() if p is None else (p,)), *qrs, t)
    return leads(bumps(times(rate, seconds), waves, seconds, fs))


def check(m: Measurements, num_samples: int) -> None:
    """What holds for whatever was measured."""
    for name in VALUES:
        assert math.isnan(getattr(m, name)) == (name in m.reasons), name
        assert m.reasons.get(name, "why") != ""
    assert set(m.reasons) <= set(VALUES)
    values = m.measured()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert list(m.lead_quality) == list(m.fiducials) == list(STANDARD_LEADS)
    tables = [m.common, *m.fiducials.values()]
    for table in tables:
        for marks in table.values():
            assert marks.shape == (m.num_beats,)
            assert ((marks >= -1) & (marks < num_samples)).all()
    for flags in (m.is_premature, m.is_wide, m.is_paced):
        assert flags.shape == (m.num_beats,)
    assert m.num_premature == m.is_premature.sum()
    assert m.num_wide == m.is_wide.sum()
    assert m.num_paced == m.is_paced.sum()


NO_SIGNAL = {
    "flat": np.zeros((12, 5000), np.float32),
    "constant": np.full((12, 5000), 3.7, np.float32),
    "missing": np.full((12, 5000), np.nan, np.float32),
    "infinite": np.full((12, 5000), np.inf, np.float32),
    "one sample": np.ones((12, 1), np.float32),
    "one missing sample": np.full((12, 1), np.nan, np.float32),
}


@pytest.mark.parametrize("name", NO_SIGNAL)
def test_nothing_is_measured_where_nothing_is(name: str) -> None:
    signal = NO_SIGNAL[name]
    m = measure(signal, FS)
    check(m, signal.shape[1])
    assert m.num_beats == 0
    assert set(m.reasons) == {name for name in VALUES if not name.startswith("num_")}
    assert set(m.reasons.values()) == {"no lead records anything"}
    assert all(why.startswith(("flat", "missing")) for why in m.lead_quality.values())
    assert set(m.as_machine().values()) == {29999}


def test_flat_leads_cost_only_what_needs_them() -> None:
    signal = sinus()
    before = measure(signal, FS)
    signal[[3, 7]] = 0.1
    found = measure(signal, FS)
    check(found, 5000)
    assert found.reasons == {"low_voltage": "not measured: aVR, V2"}
    assert found.lead_quality["V2"] == "flat: within 0 uV"
    assert (found.fiducials["aVR"]["r_peak"] == -1).all()
    assert math.isnan(found.amplitudes["V2"]["r"])
    assert [getattr(found, k) for k in INTERVALS] == pytest.approx(
        [getattr(before, k) for k in INTERVALS], abs=4
    )
    signal[[0, 6, 8]] = np.nan
    reasons = measure(signal, FS).reasons
    axes = ("p_axis", "qrs_axis", "t_axis")
    assert {reasons.pop(name) for name in axes} == {"not measured: I or aVF"}
    assert reasons == {
        "sokolow_lyon": "not measured: V1",
        "cornell": "not measured: V3",
        "low_voltage": "not measured: I, aVR, V1, V2, V3",
    }


def test_gaps_in_some_leads_cost_no_beat() -> None:
    signal = sinus()
    whole = measure(signal, FS)
    signal[2:6, 1000:2500] = np.nan
    signal[8, :2400] = np.inf
    signal[9, 2000] = -np.inf
    found = measure(signal, FS)
    check(found, 5000)
    assert found.num_beats == 11
    assert found.reasons == {}
    np.testing.assert_allclose(found.common["r_peak"], whole.common["r_peak"], atol=1)
    assert [getattr(found, k) for k in INTERVALS] == pytest.approx(
        [getattr(whole, k) for k in INTERVALS], abs=4
    )
    signal[:, 1000:2000] = np.nan
    found = measure(signal, FS)
    check(found, 5000)
    assert found.num_beats == 8
    assert found.heart_rate == pytest.approx(70, rel=0.01)


def test_three_beats_are_needed() -> None:
    found = measure(sinus()[:, :1000], FS)
    check(found, 1000)
    assert found.common["r_peak"] == pytest.approx(np.array(times(70)[:2]) * FS, abs=10)
    assert set(found.reasons.values()) == {"2 beats in 2 s; three are needed"}


def test_short_and_long_records() -> None:
    signal = sinus(180, t=(0.2, 0.02, T[2]), p=None)[:, 100:600]
    found = measure(signal, FS)
    check(found, 500)
    assert found.num_beats == 3
    assert found.heart_rate == pytest.approx(180, rel=0.01)
    for num_samples in range(1, 330, 7):
        check(measure(signal[:, 40 : 40 + num_samples], FS), num_samples)
    found = measure(sinus(70, seconds=60), FS)
    check(found, 30_000)
    assert found.num_beats == 70
    assert found.heart_rate == pytest.approx(70, rel=0.01)
    assert found.pr == pytest.approx(163, abs=6)
    assert (found.common["p_onset"] >= 0).all()


def test_marks_lie_inside_wherever_a_record_is_cut() -> None:
    record = next(simulate(1, seed=2))
    for start in range(0, 400, 9):
        for fs, step in ((500.0, 1), (100.0, 5)):
            signal = record.signal[:, start : start + 2100 : step]
            check(measure(signal, fs), signal.shape[1])


def test_saturation_and_offset_are_survived() -> None:
    signal = sinus()
    before = measure(signal, FS)
    clipped = measure(signal.clip(-0.4, 0.4), FS)
    check(clipped, 5000)
    assert clipped.num_beats == 11
    assert clipped.heart_rate == before.heart_rate
    assert max(row["r"] for row in clipped.amplitudes.values()) == pytest.approx(0.4, abs=0.03)
    for offset in (100, -100):
        moved = measure(signal + np.float32(offset), FS)
        check(moved, 5000)
        assert moved.measured() == pytest.approx(before.measured(), rel=0.002, abs=0.01)


def test_the_same_signal_in_another_form() -> None:
    signal = sinus().round(3)
    signal[2, 1000:1500] = np.nan
    signal[7] = np.nan
    copy = signal.copy()
    expected = measure(signal, FS)
    np.testing.assert_array_equal(signal, copy)
    wide = np.full((12, 10_000), 9, np.float32)
    wide[:, ::2] = signal
    for other in (signal.astype(np.float64), wide[:, ::2], np.asfortranarray(signal)):
        same(measure(other, FS), expected)
    microvolts = np.where(np.isnan(signal), -32768, np.rint(signal * 1000)).astype(np.int16)
    given = microvolts.copy()
    rounded = np.where(np.isnan(signal), np.nan, microvolts / np.float32(1000)).astype(np.float32)
    same(measure_records(microvolts[None], FS)[0], measure(rounded, FS))
    np.testing.assert_array_equal(microvolts, given)
    in_whole_mv = np.rint(sinus() * 50).astype(np.int64)
    same(measure(in_whole_mv, FS), measure(in_whole_mv.astype(np.float32), FS))


def same(a: Measurements, b: Measurements) -> None:
    assert a.measured() == b.measured()
    assert a.reasons == b.reasons
    assert a.lead_quality == b.lead_quality
    np.testing.assert_equal(a.common, b.common)
    np.testing.assert_equal(a.fiducials, b.fiducials)
    np.testing.assert_equal(a.amplitudes, b.amplitudes)
    np.testing.assert_array_equal(a.median_beat, b.median_beat)


def test_threads_change_nothing() -> None:
    signals = np.stack([record.signal for record in simulate(6, seed=4)])
    alone = [measure(signal, FS) for signal in signals]
    for threads in (0, 1, 4):
        for a, b in zip(measure_records(signals, FS, threads=threads), alone, strict=True):
            same(a, b)
    assert measure_records(signals[:0], FS, threads=4) == []


@pytest.mark.parametrize("fs", [100.0, 250.0, 360.0, 500.0, 1000.0])
def test_the_sampling_rate_makes_no_difference(fs: float) -> None:
    usual = measure(sinus(), FS)
    found = measure(sinus(fs=fs), fs)
    check(found, round(10 * fs))
    for name in INTERVALS:
        assert getattr(found, name) == pytest.approx(getattr(usual, name), abs=2000 / fs), name
    assert found.qrs_axis == pytest.approx(usual.qrs_axis, abs=2)
    assert (found.num_wide, found.num_premature, found.num_paced) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(11, 100), (12, 0), (12,), (1, 12, 100)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"\(12, T\).*not \({shape[0]},"):
        measure(np.zeros(shape, np.float32), FS)
    with pytest.raises(ValueError, match=rf"\(n, 12, T\).*not \(2, {shape[0]}\b"):
        measure_records(np.zeros((2, *shape), np.float32), FS)


def test_another_type_rate_or_number_of_threads_is_refused() -> None:
    for dtype in (np.complex64, bool, "U3"):
        with pytest.raises(ValueError, match=f"dtype {np.dtype(dtype)}"):
            measure(np.zeros((12, 100), dtype), FS)
    for dtype in (np.float64, np.int32, np.uint16):
        with pytest.raises(ValueError, match=f"dtype {np.dtype(dtype)}"):
            measure_records(np.zeros((1, 12, 100), dtype), FS)
    for fs in (0.0, -500.0, 49.9, 10_001.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"fs must be in 50..10000 Hz, not {fs}"):
            measure(np.zeros((12, 100), np.float32), fs)
    with pytest.raises(ValueError, match=r"threads must be 0 .* got -1"):
        measure_records(np.zeros((1, 12, 100), np.float32), FS, threads=-1)


def test_values_have_a_reason_or_a_number() -> None:
    for record in simulate(20, seed=5):
        m = measure(record.signal, record.fs)
        check(m, 5000)
        machine = intervals_from_machine(m.as_machine())
        names = {*INTERVALS, "heart_rate", "qtc_bazett", "p_axis", "qrs_axis", "t_axis"}
        for name in names:
            assert machine.get(name, math.nan) == pytest.approx(
                getattr(m, name), abs=1, nan_ok=True
            ), name


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
