"""The resampler's figures against the analytic signal, beside scipy, soxr and the FFT.

``pytest -s`` shows the table; ``tools/bench signal --accuracy-csv`` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import esi_fast as ef
from benchmarks import resample_figures
from benchmarks.resample_figures import METHODS, RATES, Figures, Real, measure

Table = dict[tuple[int, int, str], Figures]
rates = pytest.mark.parametrize(("fs_in", "fs_out"), RATES)


@pytest.fixture(scope="module")
def table() -> Table:
    figures = resample_figures.measure_all()
    print(f"\n{resample_figures.table(figures)}")
    return {(row.fs_in, row.fs_out, row.method): row for row in figures}


@rates
def test_hq_keeps_its_promises(table: Table, fs_in: int, fs_out: int) -> None:
    found = table[fs_in, fs_out, "esi_fast hq"]
    assert found.ripple_db <= 0.001
    assert found.worst_spur_db <= -100
    assert found.gain_105_db <= -50
    assert found.delay_us < 1
    assert found.dc_error_percent <= 1e-4, "a constant is kept to float32's last bits"
    assert found.snr_db >= 105


@rates
def test_hq_is_better_than_the_default_of_scipy(table: Table, fs_in: int, fs_out: int) -> None:
    ours, scipys = (table[fs_in, fs_out, name] for name in ("esi_fast hq", "scipy resample_poly"))
    assert ours.ripple_db < scipys.ripple_db / 10
    assert ours.worst_spur_db < scipys.worst_spur_db - 40
    assert ours.snr_db > scipys.snr_db + 40
    assert ours.edge_error_percent < scipys.edge_error_percent


@rates
def test_scipy_quality_is_resample_poly(table: Table, fs_in: int, fs_out: int) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(4, 5000)), 5 + rng.normal(size=(4, 5000)).cumsum(axis=1)])
    found = ef.resample(x, fs_in, fs_out, "scipy")
    expected = resample_figures.resample_poly(x, fs_in, fs_out)
    error = np.abs(found - expected).max(axis=1)
    assert (error <= 1e-6 * np.abs(x).max(axis=1)).all()
    ours, theirs = (table[fs_in, fs_out, m] for m in ("esi_fast scipy", "scipy resample_poly"))
    for name in ("ripple_db", "gain_090_db", "gain_105_db", "snr_db", "edge_error_percent"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=0.01), name


def test_every_method_is_measured_at_all_rates(table: Table) -> None:
    assert set(table) == {(*pair, method) for pair in RATES for method in METHODS}
    assert all(math.isfinite(value) for row in table.values() for value in _numbers(row))


def _numbers(row: Figures) -> list[float]:
    names = [name for name in Figures.__dataclass_fields__ if name != "method"]
    return [getattr(row, name) for name in names]


def _late(x: Real, fs_in: int, fs_out: int) -> Real:
    return np.roll(METHODS["soxr HQ"](x, fs_in, fs_out), 1, axis=-1)


@pytest.mark.parametrize(
    ("fault", "name", "expected"),
    [
        (lambda x, fs_in, fs_out: x[:, :: fs_in // fs_out], "worst_spur_db", 0.0),
        (lambda x, fs_in, fs_out: x[:, :: fs_in // fs_out], "gain_105_db", 0.0),
        (lambda x, *rates: 0.5 * METHODS["soxr HQ"](x, *rates), "ripple_db", 6.0206),
        (lambda x, *rates: 0.5 * METHODS["soxr HQ"](x, *rates), "gain_090_db", -6.0206),
        (lambda x, *rates: METHODS["esi_fast hq"](x, *rates) + 0.01, "dc_error_percent", 1.0),
        (lambda x, *rates: METHODS["esi_fast hq"](x, *rates) + 0.01, "snr_db", 40.0),
        (_late, "delay_us", 4000.0),
    ],
)
def test_the_measure_finds_a_fault_of_known_size(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Real], name: str, expected: float
) -> None:
    monkeypatch.setitem(METHODS, "faulty", fault)
    found = getattr(measure("faulty", 500, 250), name)
    assert found == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_the_measure_finds_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def insert_zeros(x: Real, fs_in: int, fs_out: int) -> Real:
        y = np.zeros((len(x), x.shape[1] * fs_out // fs_in))
        y[:, :: fs_out // fs_in] = x * (fs_out // fs_in)
        return y

    monkeypatch.setitem(METHODS, "faulty", insert_zeros)
    found = measure("faulty", 250, 500)
    assert found.worst_spur_db == pytest.approx(0, abs=2e-3)
    assert found.gain_105_db == pytest.approx(0, abs=2e-3)
    assert found.ripple_db == pytest.approx(0, abs=2e-3)
