"""Voltages, areas and noise of the median beat, lead by lead; compiled with numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.arrays import FloatArray, Indices, Marks
from esi_fast.signal.compiled import compiled

LEAST_WAVE_MV = 0.02  # a smaller deflection of the QRS is no Q, R or S (Minnesota code: 0.025 mV)
ST_S = 0.06
P, Q, R, S, T, J, ST60, LOWEST, SPAN, P_AREA, QRS_AREA, T_AREA = range(12)


@compiled
def extreme(lead: FloatArray, low: int, high: int, level: float) -> float:
    """The value within [low, high] that is furthest from ``level``, less that."""
    furthest = 0.0
    for i in range(low, high + 1):
        if abs(lead[i] - level) > abs(furthest):
            furthest = lead[i] - level
    return furthest


@compiled
def area(lead: FloatArray, low: int, high: int, start: float, end: float) -> float:
    """Sum over [low, high] above the line from ``start`` to ``end``, mV samples."""
    total = 0.0
    for i in range(low, high + 1):
        share = (i - low) / max(1, high - low)
        total += lead[i] - start - (end - start) * share
    return total


@compiled
def lead_values(
    beat: FloatArray, usable: NDArray[np.bool_], limits: Indices, fs: float
) -> NDArray[np.float64]:
    """(L, 12): amplitudes in mV, then the areas under P, QRS and T; NaN where there is no wave.

    Args:
        beat: (L, N) mV, the level before the QRS at 0.
        usable: (L,).
        limits: (6,) onset and end of P, QRS, T in ``beat``; -1 where absent.
        fs: Hz.
    """
    num_leads, length = beat.shape
    values = np.full((num_leads, 12), np.nan)
    p_onset, p_end, onset, end, t_onset, t_end = limits
    for lead in range(num_leads):
        if not usable[lead] or onset < 0 or end < onset:
            continue
        x, row = beat[lead], values[lead]
        top = onset
        lowest, highest = x[onset], x[onset]
        for i in range(onset, end + 1):
            lowest = min(lowest, x[i])
            if x[i] > highest:
                highest, top = x[i], i
        row[LOWEST], row[SPAN] = lowest, highest - lowest
        row[Q], row[R], row[S] = 0.0, 0.0, 0.0
        if highest >= LEAST_WAVE_MV:
            row[R] = highest
            before, after = 0.0, 0.0
            for i in range(onset, top):
                before = min(before, x[i])
            for i in range(top, end + 1):
                after = min(after, x[i])
            row[Q] = before if before <= -LEAST_WAVE_MV else 0.0
            row[S] = after if after <= -LEAST_WAVE_MV else 0.0
        elif lowest <= -LEAST_WAVE_MV:
            row[Q] = lowest
        row[J] = x[end]
        row[ST60] = x[min(length - 1, end + round(ST_S * fs))]
        row[QRS_AREA] = area(x, onset, end, 0.0, 0.0)
        if p_onset >= 0 and p_end > p_onset:
            row[P] = extreme(x, p_onset, p_end, x[p_onset])
            row[P_AREA] = area(x, p_onset, p_end, x[p_onset], x[p_end])
        if t_onset >= 0 and t_end > t_onset:
            row[T] = extreme(x, t_onset, t_end, 0.0)
            row[T_AREA] = area(x, t_onset, t_end, 0.0, 0.0)
    return values


@compiled
def beat_noise(
    level: FloatArray, usable: NDArray[np.bool_], beats: Indices, beat: FloatArray, reference: int,
    low: int, high: int,
) -> Marks:  # fmt: skip
    """(L,): root mean square of beats less their median within [low, high] of it, mV.

    Each difference less its own mean; NaN in a lead that is not usable.
    """
    num_leads, num_samples = level.shape
    noise = np.full(num_leads, np.nan)
    for lead in range(num_leads):
        if not usable[lead]:
            continue
        total, count = 0.0, 0
        for b in beats:
            start = b - reference
            if start + low < 0 or start + high >= num_samples:
                continue
            mean, square = 0.0, 0.0
            for i in range(low, high + 1):
                difference = level[lead, start + i] - beat[lead, i]
                mean += difference
                square += difference * difference
            length = high - low + 1
            total += square - mean * mean / length
            count += length
        if count:
            noise[lead] = np.sqrt(max(total, 0.0) / count)
    return noise
