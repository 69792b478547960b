"""Where marks lie: in order, inside the record, at slow rates and beside what is no heartbeat."""

from __future__ import annotations

import numpy as np
import pytest
from measure_fakes import FS, NARROW, P, T, bumps, check, leads, sinus, times

from esi_fast.signal.measure import measure
from esi_fast.signal.simulate import simulate

WAVES = (
    ("p_onset", "p_peak", "p_end"),
    ("qrs_onset", "r_peak", "qrs_end"),
    ("t_onset", "t_peak", "t_end"),
)


def test_marks_are_in_order() -> None:
    for record in simulate(60, seed=5):
        m = measure(record.signal, FS)
        for lead, table in [("common", m.common), *m.fiducials.items()]:
            for names in WAVES:
                o, k, e = (table[n] for n in names)
                assert (k >= o)[(k >= 0) & (o >= 0)].all(), (record.study_id, lead, names)
                assert (e >= k)[(k >= 0) & (e >= 0)].all(), (record.study_id, lead, names)


def test_marks_lie_inside_the_record() -> None:
    for record in simulate(60, seed=5):
        check(measure(record.signal, FS), 5000)


def test_one_beat_in_one_second() -> None:
    m = measure(sinus()[:, :500], FS)
    assert m.common["r_peak"] == pytest.approx([225], abs=10)


@pytest.mark.parametrize("rate", [15, 20])
@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_very_slow(rate: float, noise: float) -> None:
    m = measure(leads(bumps(times(rate), (P, *NARROW, T), 10, FS), noise=noise), FS)
    assert m.num_beats == len(times(rate))


def test_simulated_pvcs() -> None:
    for record in simulate(60, seed=7):
        truth = record.fiducials["r_peak"][record.is_pvc]
        for at in truth[(truth > 100) & (truth < 4900)]:
            m = measure(record.signal, FS)
            wide = m.common["r_peak"][m.is_wide]
            assert np.abs(wide - at).min(initial=5000) < 50, record.study_id


def test_no_spikes_at_250() -> None:
    assert len(measure(sinus(fs=250.0), 250.0).pacing_spikes) == 0
    for record in simulate(10, seed=8, fs=250.0):
        assert len(measure(record.signal, 250.0).pacing_spikes) == 0, record.study_id


def test_blocked_p_is_the_onset() -> None:
    beats = times(40)
    d = bumps(beats, (P, *NARROW, T), 10, FS) + bumps([t + 0.75 for t in beats], (P,), 10, FS)
    truth = [round((t + 0.75 - 0.205) * FS) for t in beats[:-1]]
    assert measure(leads(d), FS).blocked_p == pytest.approx(truth, abs=5)


def test_float64_beyond_float32() -> None:
    s = sinus().astype(float)
    s[4, 1000] = 1e300
    assert measure(s, FS).num_beats == 11


# Clean, then with noise of 5, 10 and 20 uV RMS: how far P, PR and QT may be off, ms. The QRS is
# longer than where a Gaussian falls to 4 %: it is set to what electrocardiographs report.
@pytest.mark.parametrize(("noise", "most"), [(0.0, 2.0), (0.005, 2.0), (0.01, 3.0), (0.02, 14.0)])
@pytest.mark.parametrize("rate", [50, 70, 90])
def test_intervals_of_exact_truth(noise: float, most: float, rate: float) -> None:
    m = measure(leads(bumps(times(rate), (P, *NARROW, T), 10, FS), noise=noise), FS)
    onset, end = NARROW[0][0] - 2.5 * NARROW[0][1], NARROW[-1][0] + 2.5 * NARROW[-1][1]
    assert m.rr_interval == pytest.approx(60000 / rate, abs=2)
    assert m.p_duration == pytest.approx(5 * P[1] * 1000, abs=most)
    assert m.pr == pytest.approx((onset - P[0] + 2.5 * P[1]) * 1000, abs=most)
    assert m.qt == pytest.approx((T[0] + 2.5 * T[1] - onset) * 1000, abs=most)
    assert m.qrs == pytest.approx((end - onset) * 1000, abs=6)


def test_p_is_not_told_in_much_noise() -> None:
    m = measure(leads(bumps(times(70), (P, *NARROW, T), 10, FS), noise=0.05), FS)
    assert np.isnan(m.pr)
    assert m.qrs == pytest.approx(88, abs=12)
