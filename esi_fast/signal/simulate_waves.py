"""The waves of a simulated beat, each an asymmetric Gaussian on the cardiac vector.

A wave is a row of six: its centre in seconds from the R peak, its standard deviations before and
after the centre in seconds, and its x, y, z amplitude in mV.
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

# A wave begins and ends this many standard deviations from its centre (4 % of its peak).
WAVE_SIGMAS = 2.5
FloatArray = NDArray[np.float32]
_QRS_GRID_S = np.linspace(-0.1, 0.2, 101, dtype=np.float32)
_ST_RISE_S = 0.004


class Dice:
    """Scalar draws served from blocks: many times faster than one generator call each."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._block: list[float] = []

    def random(self) -> float:
        """From 0 up to 1."""
        if not self._block:
            self._block = self.rng.random(4096).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """From ``low`` up to ``high``."""
        return low + (high - low) * self.random()

    def pick(self, options: dict[str, float]) -> str:
        """One of the options; their weights add up to 1."""
        mark = self.random()
        for option, end in zip(options, accumulate(options.values()), strict=True):
            if mark < end:
                return option
        return option


def rotation(angle: float) -> FloatArray:
    """The (2, 2) matrix that turns the frontal plane by ``angle`` radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]], np.float32)


def degrees(vector: NDArray[np.floating]) -> float:
    """The frontal angle of a vector, 0 to the left and 90 to the feet."""
    return round(math.degrees(math.atan2(vector[1], vector[0])), 1)


def qrs_waves(
    conduction: str, shape: FloatArray, qrs: float, *, lvh: bool
) -> tuple[FloatArray, float]:
    """Four waves that fill the QRS exactly, and the time from its onset to the R peak, seconds."""
    if conduction == "left_bundle_branch_block":
        # Leftward from the start, broad and notched; no septal q.
        vectors = [[0.15, 0.05, -0.1], [0.95, 0.35, -0.75], [0.85, 0.3, -0.9], [0.35, 0.1, -0.5]]
        sigma = np.array([0.08, 0.11, 0.13, 0.08]) * qrs
        share = np.array([0.20, 0.40, 0.64, 0.80])
    elif conduction == "right_bundle_branch_block":
        # A normal start, then a late slow vector to the right and the front: rSR' in V1.
        vectors = [[-0.12, -0.05, 0.3], [1.15, 0.55, -0.3], [0.1, -0.1, -0.25], [-0.45, 0.05, 0.85]]
        sigma = np.array([0.06, 0.085, 0.07, 0.12]) * qrs
        share = np.array([0.15, 0.34, 0.52, 0.70])
    else:
        vectors = [[-0.15, -0.08, 0.32], [1.2, 0.6, -0.15], [0.2, -0.05, -0.7], [-0.1, -0.15, -0.3]]
        sigma = np.array([0.09, 0.12, 0.11, 0.08]) * qrs
        share = np.array([0.225, 0.44, 0.62, 0.80])
    amplitude = np.array(vectors) * (1 + 0.12 * shape)
    if lvh:
        amplitude[1:3] *= np.array([1.3, 1.0, 1.9])
    # The first wave starts at the onset and the last one ends at the end, whatever their widths.
    centre = share * qrs
    centre[0] = WAVE_SIGMAS * sigma[0]
    centre[-1] = qrs - WAVE_SIGMAS * sigma[-1]
    r_offset = centre[1]
    waves = np.column_stack([centre - r_offset, sigma, sigma, amplitude]).astype(np.float32)
    return waves, float(r_offset)


def voltage_scale(dice: Dice, leads_8V: FloatArray, waves: FloatArray, findings: set[str]) -> float:
    """The factor that makes the QRS voltages agree with what the findings say of them."""
    gaussians = np.exp(-0.5 * ((_QRS_GRID_S - waves[:, 0:1]) / waves[:, 1:2]) ** 2)
    eight = leads_8V @ (waves[:, 3:].T @ gaussians)
    sokolow = float(-eight[2].min() + max(eight[6].max(), eight[7].max()))
    three = np.stack([eight[0], eight[1], eight[1] - eight[0]])
    limb = float(np.ptp(three, axis=1).max())
    if "low_qrs_voltage" in findings:
        return dice.uniform(0.26, 0.44) / limb
    if "left_ventricular_hypertrophy" in findings:
        return dice.uniform(3.9, 5.6) / sokolow
    usual = dice.uniform(0.85, 1.25)
    return max(min(usual, 3.1 / sokolow), 0.7 / limb)


def t_and_st(
    dice: Dice,
    conduction: str,
    marks: dict[str, float],
    t_sigma: float,
    st: str,
    *,
    lvh: bool,
    low: bool,
) -> list[FloatArray]:
    """The T wave, then the ST segment's shift: sudden at the end of the QRS, fading into the T."""
    height = dice.uniform(0.25, 0.42) * (0.5 if low else 1.0)
    if conduction == "left_bundle_branch_block":
        direction = np.array([-0.8, 0.2, 0.8])
    elif conduction == "right_bundle_branch_block":
        direction = np.array([0.85, 0.45, -0.35])
    elif lvh:
        direction = np.array([-0.75, 0.25, 0.7])
    else:
        direction = np.array([0.8, 0.5, 0.45])
    direction = direction + 0.08 * dice.rng.standard_normal(3)
    gap = marks["t_peak"] - marks["qrs_end"]
    st_direction = {
        "": np.zeros(3),
        "anterior_st_elevation": np.array([0.15, -0.45, 1.0]),
        "inferior_st_elevation": np.array([-0.35, 1.1, -0.25]),
    }[st]
    # At the J point this is over 0.2 mV in V2 and V3, or over 0.1 mV in II, III and aVF.
    st_vector = st_direction * dice.uniform(0.28, 0.50)
    return [
        np.array([marks["t_peak"], t_sigma, t_sigma, *(height * direction)], np.float32),
        np.array([marks["qrs_end"], _ST_RISE_S, 0.45 * gap, *st_vector], np.float32),
    ]


def p_waves(
    dice: Dice, pr: float, r_offset: float, marks: dict[str, float]
) -> tuple[list[FloatArray], float]:
    """Right then left atrium; adds the marks of the P wave. Returns the waves and the axis."""
    duration = dice.uniform(0.085, min(0.110, pr - 0.025))
    onset = -r_offset - pr
    sigma = duration / (2 * WAVE_SIGMAS + 1.6)
    centres = onset + WAVE_SIGMAS * sigma, onset + duration - WAVE_SIGMAS * sigma
    height = dice.uniform(0.10, 0.16)
    vectors = np.array([[0.5, 0.75, 0.45], [0.75, 0.45, -0.35]])
    vectors = vectors + 0.06 * dice.rng.standard_normal((2, 3))
    marks |= {"p_onset": onset, "p_peak": sum(centres) / 2, "p_end": onset + duration}
    waves = [
        np.array([centre, sigma, sigma, *(height * vector)], np.float32)
        for centre, vector in zip(centres, vectors, strict=True)
    ]
    total = vectors.sum(axis=0)
    return waves, degrees(total)


def pvc_waves(dice: Dice, *, from_right: bool) -> tuple[FloatArray, dict[str, float]]:
    """A wide ventricular beat without P wave, its T wave opposite to its QRS."""
    qrs = dice.uniform(0.145, 0.180)
    side = 1.0 if from_right else -1.0
    direction = np.array([0.7 * side, math.copysign(0.8, dice.random() - 0.5), -0.9 * side])
    height = dice.uniform(1.1, 1.7)
    sigma = qrs / (2 * WAVE_SIGMAS + 1.2)
    first = WAVE_SIGMAS * sigma
    t_sigma = 0.045
    t_peak = qrs + 0.19 - first
    waves = [
        [0.0, sigma, sigma, *(height * direction)],
        [qrs - 2 * first, sigma, sigma, *(0.7 * height * direction)],
        [t_peak, t_sigma, t_sigma, *(-0.35 * height * direction)],
    ]
    marks = {
        "qrs_onset": -first,
        "r_peak": 0.0,
        "qrs_end": qrs - first,
        "t_onset": t_peak - WAVE_SIGMAS * t_sigma,
        "t_peak": t_peak,
        "t_end": t_peak + WAVE_SIGMAS * t_sigma,
    }
    return np.array(waves, np.float32), marks
