"""Twelve leads whose waves are known, for the tests of the measurements."""

from __future__ import annotations

import json
import math

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.measurements import VALUES, Measurements

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
