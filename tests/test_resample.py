"""Resampling against scipy and against signals whose samples are known analytically."""

from __future__ import annotations

import math
from collections.abc import Iterator

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from esi_fast import _core
from esi_fast.signal.resample import resample

RATES = [(500, 100), (500, 250), (500, 257), (500, 360), (257, 500), (1000, 500), (100, 500)]
rates = st.sampled_from(
    [*RATES, (500, 500), (128, 2000), (2000, 100), (360, 250.5), (333.25, 500), (1000, 999)]
)
Float = npt.NDArray[np.float64]


def tones(frequencies: Float, fs: float, seconds: float) -> Float:
    """A sum of sines with fixed phases, sampled at fs."""
    time = np.arange(math.ceil(seconds * fs)) / fs
    phases = np.arange(len(frequencies)) * 2.4
    return np.sin(2 * np.pi * frequencies[:, None] * time + phases[:, None]).sum(axis=0)


def decibels(error: Float, signal: Float) -> float:
    return 20 * math.log10(np.sqrt(np.mean(error**2)) / np.sqrt(np.mean(signal**2)))


@pytest.mark.parametrize(("fs_in", "fs_out"), RATES)
@pytest.mark.parametrize("num_samples", [1, 2, 7, 100, 999, 5000])
def test_scipy_parity(fs_in: int, fs_out: int, num_samples: int) -> None:
    x = np.random.default_rng(num_samples).normal(0.3, 1.0, (13, num_samples)).astype(np.float32)
    divisor = math.gcd(fs_in, fs_out)
    expected = scipy.signal.resample_poly(
        x.astype(np.float64), fs_out // divisor, fs_in // divisor, axis=-1
    )
    found = resample(x, fs_in, fs_out, quality="scipy")
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(x).max())


@pytest.mark.parametrize(("fs_in", "fs_out"), RATES)
def test_hq_reproduces_band_limited_signals(fs_in: int, fs_out: int) -> None:
    frequencies = np.linspace(0.5, 0.7 * min(fs_in, fs_out) / 2, 9)
    found = resample(tones(frequencies, fs_in, 10.0), fs_in, fs_out)
    expected = tones(frequencies, fs_out, 10.0)
    interior = slice(2 * fs_out, 8 * fs_out)
    error = (found - expected)[interior]
    assert decibels(error, expected[interior]) <= -100


@pytest.mark.parametrize(("fs_in", "fs_out"), [r for r in RATES if r[1] < r[0]])
def test_hq_lets_nothing_fold_back(fs_in: int, fs_out: int) -> None:
    nyquist = fs_out / 2
    for share in (1.2, 1.5, 1.9):
        if share * nyquist >= fs_in / 2:
            continue
        x = tones(np.array([share * nyquist]), fs_in, 10.0)
        alias = resample(x, fs_in, fs_out)[2 * fs_out : 8 * fs_out]
        assert decibels(alias, x) <= -100


@settings(deadline=None, max_examples=60)
@given(rates, st.integers(1, 400), st.floats(-1e4, 1e4, width=32))
def test_hq_keeps_a_constant_up_to_both_ends(
    rates: tuple[float, float], num_samples: int, level: float
) -> None:
    found = resample(np.full(num_samples, level), *rates)
    np.testing.assert_allclose(found, level, rtol=2e-6, atol=1e-30)


@pytest.mark.parametrize("num_samples", [2, 3, 10, 41, 300])
def test_hq_keeps_a_straight_line_up_to_both_ends(num_samples: int) -> None:
    # Odd reflection continues a line as that line; mirrors or held ends would bend it.
    found = resample(np.arange(num_samples, dtype=np.float64), 500, 100)
    expected = np.arange(len(found)) * 5.0
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(num_samples, 100))


def test_hq_has_no_delay() -> None:
    x = np.zeros(1001)
    x[500] = 1.0
    y = resample(x, 500, 250)
    np.testing.assert_array_equal(y, y[::-1])
    assert y.argmax() == 250


@settings(deadline=None, max_examples=60)
@given(rates, st.integers(0, 700), st.sampled_from(["hq", "scipy"]))
def test_length(rates: tuple[float, float], num_samples: int, quality: str) -> None:
    from fractions import Fraction

    fs_in, fs_out = (Fraction(rate) for rate in rates)
    found = resample(np.ones((2, num_samples)), *rates, quality=quality)  # type: ignore[arg-type]
    assert found.shape == (2, math.ceil(num_samples * fs_out / fs_in))
    assert found.dtype == np.float32


finite = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-8, 8, width=32))


@settings(deadline=None, max_examples=50)
@given(finite, rates, st.sampled_from(["hq", "scipy"]), st.floats(-2, 2))
def test_linearity(x: Float, rates: tuple[float, float], quality: str, factor: float) -> None:
    other = np.cos(np.arange(len(x)) * 0.3)
    both = resample(x + factor * other, *rates, quality=quality)  # type: ignore[arg-type]
    apart = resample(x, *rates, quality=quality) + factor * resample(  # type: ignore[arg-type]
        other,
        *rates,
        quality=quality,  # type: ignore[arg-type]
    )
    # Odd reflection of a short signal grows with each turn: the scale is what the filter saw.
    scale = 1 + 16 * (1 + 400 // len(x))
    np.testing.assert_allclose(both, apart, rtol=0, atol=2e-5 * scale)


def test_rows_do_not_influence_each_other() -> None:
    x = np.random.default_rng(0).normal(size=(3, 9, 700)).astype(np.float32)
    together = resample(x, 500, 257)
    for i in range(3):
        for j in range(9):
            np.testing.assert_array_equal(resample(x[i, j], 500, 257), together[i, j])


def test_equal_rates_copy() -> None:
    x = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    y = resample(x, 360, 360)
    np.testing.assert_array_equal(x, y)
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize(
    ("rates", "gap", "masked"),
    [
        ((500, 100), (200, 298), range(40, 60)),  # outputs 200, 205 ... 295
        ((500, 100), (201, 204), range(40, 42)),  # 201, 202 -> 40; 203 -> 41
        ((500, 250), (101, 102), range(51, 52)),  # an odd sample between two outputs
        ((100, 200), (10, 12), range(19, 23)),  # nearest input: 9.5 -> 10 ... 11.0 -> 11
        ((500, 500), (3, 9), range(3, 9)),
    ],
)
def test_a_gap_stays_a_gap(rates: tuple[float, float], gap: tuple[int, int], masked: range) -> None:
    whole = tones(np.array([3.0, 11.0]), rates[0], 2.0)
    bridged = whole.copy()
    first, end = gap
    bridged[first:end] = np.interp(np.arange(first, end), [first - 1, end], whole[[first - 1, end]])
    holed = whole.copy()
    holed[first:end] = np.nan
    found = resample(holed, *rates)
    assert np.flatnonzero(np.isnan(found)).tolist() == list(masked)
    expected = resample(bridged, *rates)
    present = ~np.isnan(found)
    np.testing.assert_allclose(found[present], expected[present], atol=1e-6)


@settings(deadline=None, max_examples=80)
@given(rates, st.integers(1, 120), st.data())
def test_missing_samples_never_spread_nor_vanish(
    rates: tuple[float, float], num_samples: int, data: st.DataObject
) -> None:
    missing = data.draw(hnp.arrays(np.bool_, num_samples))
    x = np.ones((2, num_samples))
    x[0, missing] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    y = resample(x, *rates)
    np.testing.assert_allclose(y[1], 1.0, rtol=2e-6)
    lost = np.isnan(y[0])
    assert lost.any() == missing.any()
    np.testing.assert_allclose(y[0, ~lost], 1.0, rtol=2e-6)
    # Each lost output has a missing input within half of the longer of the two sample periods;
    # the outputs after the last input, and the inputs after the last output, count as next to it.
    reach = 0.5 * max(1.0, rates[0] / rates[1]) + 1e-9
    inputs = np.flatnonzero(missing)
    for j in np.flatnonzero(lost):
        time = min(j * rates[0] / rates[1], num_samples - 1)
        assert np.abs(inputs - time).min() <= (2 * reach if j == len(lost) - 1 else reach)


def test_gaps_at_the_ends_hold_the_nearest_sample() -> None:
    x = np.full(500, 2.0)
    x[:50] = x[-50:] = np.nan
    y = resample(x, 500, 250)
    # The sample at 98 ms lies halfway between two outputs and counts for the later one.
    assert np.flatnonzero(np.isnan(y)).tolist() == [*range(26), *range(225, 250)]
    np.testing.assert_allclose(y[26:225], 2.0, rtol=2e-6)
    assert np.isnan(resample(np.full(70, np.nan), 500, 100)).all()


def test_integers_and_shapes() -> None:
    x = np.arange(600, dtype=np.int16).reshape(2, 3, 100)
    np.testing.assert_array_equal(resample(x, 500, 250), resample(x.astype(np.float64), 500, 250))
    assert resample(x, 500, 250).shape == (2, 3, 50)
    assert resample(x[:0], 500, 250).shape == (0, 3, 50)
    assert resample(x[:, :, ::2], 250, 125).shape == (2, 3, 25)


@pytest.mark.parametrize(
    ("x", "fs_in", "fs_out", "quality", "message"),
    [
        (np.ones(9), 0, 100, "hq", "must be positive"),
        (np.ones(9), 500, -1, "hq", "must be positive"),
        (np.ones(9), float("nan"), 100, "hq", "must be positive"),
        (np.ones(9), 500, float("inf"), "hq", "must be positive"),
        (np.ones(9), 1e6, 100, "hq", "more than a factor of 256"),
        (np.ones(9), 1.0, math.pi * 50, "hq", "no fraction"),
        (np.ones(9), 500, 100, "best", "quality must be 'hq' or 'scipy', got 'best'"),
        (np.float64(1.0), 500, 100, "hq", "scalar"),
        (np.ones(9, dtype=np.complex128), 500, 100, "hq", "complex128"),
    ],
)
def test_what_makes_no_sense_is_named(
    x: Float, fs_in: float, fs_out: float, quality: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        resample(x, fs_in, fs_out, quality)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_an_output_beyond_the_last_input_is_missing_when_that_is() -> None:
    x = np.array([1.0, 1.0, np.nan])
    y = resample(x, 360, 250.5)
    assert len(y) == 3
    assert np.isnan(y[2])
    assert y[0] == pytest.approx(1.0, rel=1e-5)
    assert np.isnan(resample(np.full(3, np.nan), 360, 250.5)).all()


# ---- what becomes of gaps, and which kernels run


@pytest.mark.parametrize("rates", [(500, 500), (500, 250), (257, 500)])
def test_nan_policies(rates: tuple[float, float]) -> None:
    whole = tones(np.array([3.0, 11.0]), rates[0], 2.0)
    x = np.stack([whole, whole, np.full_like(whole, np.nan)])
    x[1, 60:90] = np.nan
    marked = resample(x, *rates)
    gap = np.isnan(marked[1])
    assert 0 < gap.sum() < gap.size / 4

    zeroed = resample(x, *rates, nan_policy="zero")
    np.testing.assert_array_equal(zeroed, np.nan_to_num(marked, nan=0.0))

    bridged = x[1].copy()
    bridged[60:90] = np.interp(np.arange(60, 90), [59, 90], whole[[59, 90]])
    filled = resample(x, *rates, nan_policy="interpolate")
    np.testing.assert_allclose(filled[1], resample(bridged, *rates), atol=1e-6)
    np.testing.assert_array_equal(filled[1, ~gap], marked[1, ~gap])
    np.testing.assert_array_equal(filled[0], marked[0])
    assert np.isnan(filled[2]).all()  # nothing to interpolate between

    with pytest.raises(ValueError, match="nan_policy must be 'nan', 'interpolate' or 'zero'"):
        resample(x, *rates, nan_policy="drop")  # type: ignore[arg-type]


@pytest.fixture(params=_core.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    _core.use_instruction_set(request.param)
    yield request.param
    _core.use_instruction_set(_core.instruction_sets()[0])


@pytest.mark.parametrize("num_rows", [1, 4, 5, 12, 13])
@pytest.mark.parametrize("quality", ["hq", "scipy"])
def test_every_instruction_set(instruction_set: str, num_rows: int, quality: str) -> None:
    """Against the filter in float64, for all ways in which rows share vectors."""
    rng = np.random.default_rng(num_rows)
    x = rng.normal(size=(num_rows, 157))
    for fs_in, fs_out in RATES:
        found = resample(x, fs_in, fs_out, quality)
        one_by_one = np.stack([resample(row, fs_in, fs_out, quality) for row in x])
        np.testing.assert_array_equal(found, one_by_one)
        up, down = fs_out // math.gcd(fs_in, fs_out), fs_in // math.gcd(fs_in, fs_out)
        if quality == "scipy":
            expected = scipy.signal.resample_poly(x[-1], up, down)
        else:
            expected = hq_in_float64(x[-1], up, down)
        np.testing.assert_allclose(found[-1], expected, atol=1e-6 * np.abs(x).max())


def hq_in_float64(x: Float, up: int, down: int) -> Float:
    """The "hq" filter as the documentation describes it, output by output."""
    widest = max(up, down)
    half = 17 * widest
    last = len(x) - 1
    reach = half // up + 2
    extended = np.concatenate(
        [2 * x[0] - x[reach:0:-1], x, 2 * x[last] - x[last - 1 : last - 1 - reach : -1]]
    )
    outputs = []
    for j in range(-(-len(x) * up // down)):
        # Inputs lie at multiples of `up` on the fine grid, this output at j * down.
        inputs = np.arange(-(-(j * down - half) // up), (j * down + half) // up + 1)
        offset = inputs * up - j * down
        window = np.i0(10.5 * np.sqrt(1 - (offset / half) ** 2))
        taps = np.sinc(0.895 * offset / widest) * window
        outputs.append(taps @ extended[inputs + reach] / taps.sum())
    return np.array(outputs)


def test_unknown_instruction_sets_are_named() -> None:
    with pytest.raises(ValueError, match="'sse9' is not available on this CPU"):
        _core.use_instruction_set("sse9")
    assert _core.instruction_sets()[-1] == "baseline"
