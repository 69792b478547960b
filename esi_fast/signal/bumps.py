"""Where in a median beat P and T are: the bumps that stand out; compiled with numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.arrays import FloatArray
from esi_fast.signal.compiled import compiled

# Half the width of what is sought as P and as T, s.
P_HALF_S, T_HALF_S = 0.02, 0.03
P_BEFORE_QRS_S = 0.04  # at least, from its peak
# When T is usual after the QRS onset at 60 beats a minute, and the spread of that, s.
T_TIME_S, T_SPREAD_S = 0.30, 0.10


@compiled
def bump_energy(beat: FloatArray, usable: NDArray[np.bool_], half: int) -> FloatArray:
    """(N,): how far the mean of 2 ``half`` + 1 samples stands off its surroundings, mV^2.

    Squared and summed over leads; the surroundings are 2 ``half`` samples to either side.
    """
    num_leads, length = beat.shape
    energy = np.zeros(length, np.float32)
    total = np.zeros(length + 1)
    for lead in range(num_leads):
        if not usable[lead]:
            continue
        for i in range(length):
            total[i + 1] = total[i] + beat[lead, i]
        for i in range(length):
            a, b = max(0, i - half), min(length, i + half + 1)
            low, high = max(0, i - 3 * half), min(length, i + 3 * half + 1)
            middle = (total[b] - total[a]) / (b - a)
            left = (total[a] - total[low]) / (a - low) if a > low else beat[lead, 0]
            right = (total[high] - total[b]) / (high - b) if high > b else beat[lead, length - 1]
            energy[i] += (middle - 0.5 * (left + right)) ** 2
    return energy


@compiled
def find_t(
    beat: FloatArray, usable: NDArray[np.bool_], qrs: tuple[int, int], last: int, rr: float,
    fs: float,
) -> int:  # fmt: skip
    """Index of the T wave, the bump after the QRS that stands out most near its usual time; or -1.

    The usual time is 0.30 s after the QRS onset at 60 beats a minute, and goes with the cube root
    of the RR interval (samples).
    """
    start = qrs[1] + round(0.02 * fs)
    if start + round(0.1 * fs) >= beat.shape[1]:
        return -1
    energy = bump_energy(beat[:, start:], usable, round(T_HALF_S * fs))
    usual = qrs[0] + T_TIME_S * fs * (rr / fs) ** (1 / 3)
    best, peak = 0.0, -1
    last = min(last, qrs[1] + round(0.45 * fs)) - start
    for i in range(round(0.03 * fs), min(energy.shape[0] - 1, last)):
        if energy[i] > energy[i - 1] and energy[i] >= energy[i + 1]:
            z = (start + i - usual) / (T_SPREAD_S * fs)
            height = np.sqrt(energy[i]) * np.exp(-0.5 * z * z)
            if height > best:
                best, peak = height, start + i
    return peak


@compiled
def find_p(
    beat: FloatArray, usable: NDArray[np.bool_], first: int, qrs_onset: int, fs: float
) -> int:
    """Index of the bump from ``first`` to the QRS that stands out most; or -1."""
    stop = qrs_onset - round(0.004 * fs)
    first = max(1, first)
    if stop - first < round(0.05 * fs):
        return -1
    energy = bump_energy(beat[:, :stop], usable, round(P_HALF_S * fs))
    best, peak = np.float32(0), -1
    for i in range(first, qrs_onset - round(P_BEFORE_QRS_S * fs)):
        if energy[i] > energy[i - 1] and energy[i] >= energy[i + 1] and energy[i] > best:
            best, peak = energy[i], i
    return peak
