"""Measurements of records that hold next to nothing, and of one signal in many forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from measure_fakes import (
    FS,
    INTERVALS,
    T,
    check,
    sinus,
    times,
)
from numpy.typing import NDArray

from esi_fast.signal.measure import measure, measure_records
from esi_fast.signal.measurements import VALUES, Measurements, intervals_from_machine
from esi_fast.signal.simulate import simulate

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
    in_whole_mv: NDArray[Any] = np.rint(sinus() * 50).astype(np.int64)
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
    for other in (np.float64, np.int32, np.uint16):
        with pytest.raises(ValueError, match=f"dtype {np.dtype(other)}"):
            measure_records(np.zeros((1, 12, 100)).astype(other), FS)  # type: ignore[arg-type]
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


def test_padding_is_no_gap() -> None:
    for record in simulate(6, seed=3):
        short = record.signal[:, :2500]
        padded = np.pad(short, ((0, 0), (0, 2500)), constant_values=np.nan)
        alone, found = measure(short, FS), measure(padded, FS)
        assert alone.num_beats >= 3
        assert found.measured() == alone.measured()
        assert found.lead_quality == alone.lead_quality
        for lead, table in alone.fiducials.items():
            for name, marks in table.items():
                assert np.array_equal(marks, found.fiducials[lead][name])
