"""Small compiled loops that the others share: gaps, ranges, slopes, medians of few values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.compiled import compiled, compiled_without_nan

FloatArray = NDArray[np.float32]
Indices = NDArray[np.int64]
Marks = NDArray[np.float64]

MOST_MV = 1e6  # beyond any voltage


@compiled
def sort_few(values: NDArray[np.float64]) -> None:
    """Sort some dozens of values in place."""
    for i in range(1, values.shape[0]):
        value = values[i]
        k = i
        while k > 0 and values[k - 1] > value:
            values[k] = values[k - 1]
            k -= 1
        values[k] = value


@compiled
def median_few(values: NDArray[np.float64]) -> float:
    """The median of some dozens of values; NaN of none."""
    count = values.shape[0]
    if count == 0:
        return np.nan
    ordered = values.copy()
    sort_few(ordered)
    return 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])


@compiled
def fill_gaps(signal: FloatArray) -> tuple[FloatArray, NDArray[np.float64]]:
    """The signal with straight lines across what is missing, and the missing share of each lead."""
    num_leads, num_samples = signal.shape
    filled = np.empty((num_leads, num_samples), np.float32)
    missing = np.zeros(num_leads)
    for lead in range(num_leads):
        num_there = 0
        for i in range(num_samples):
            filled[lead, i] = signal[lead, i]
            num_there += abs(signal[lead, i]) <= MOST_MV  # no comparison holds for NaN
        if num_there == num_samples:
            continue
        last = -1  # the last sample that is there
        for i in range(num_samples):
            value = signal[lead, i]
            if not abs(value) <= MOST_MV:
                missing[lead] += 1
                continue
            filled[lead, i] = value
            if last < i - 1:
                start = filled[lead, last] if last >= 0 else value
                step = (value - start) / np.float32(i - last)
                for k in range(last + 1, i):
                    filled[lead, k] = start + step * np.float32(k - last)
            last = i
        end = filled[lead, last] if last >= 0 else np.float32(0)
        for k in range(last + 1, num_samples):
            filled[lead, k] = end
        missing[lead] /= num_samples
    return filled, missing


@compiled_without_nan
def ranges(signal: FloatArray) -> FloatArray:
    """Highest less lowest value of each lead."""
    spans = np.empty(signal.shape[0], np.float32)
    for lead in range(signal.shape[0]):
        low, high = signal[lead, 0], signal[lead, 0]
        for value in signal[lead]:
            low, high = min(low, value), max(high, value)
        spans[lead] = high - low
    return spans


@compiled
def slopes(signal: FloatArray, width: int, out: FloatArray) -> None:
    """Mean of the ``width`` samples after each sample less that of those before; 0 at the ends."""
    out[:] = 0
    inner = signal.shape[0] - 2 * width
    if inner < 1:
        return
    scale = np.float32(1.0 / width)
    middle = out[width : width + inner]
    for k in range(1, width + 1):
        after, before = signal[width + k :], signal[width - k :]
        for i in range(inner):
            middle[i] += (after[i] - before[i]) * scale


@compiled
def highest(curve: FloatArray, low: int, high: int) -> int:
    """Index of the greatest value within [low, high], the first of equal ones."""
    best = low
    for i in range(low + 1, high + 1):
        if curve[i] > curve[best]:
            best = i
    return best


@compiled
def furthest_from_line(beat: FloatArray, start: int, end: int, low: int, high: int) -> int:
    """Index within [low, high] that is furthest from the line through ``start`` and ``end``."""
    best, peak = np.float32(-1), low
    step = (beat[end] - beat[start]) / np.float32(max(1, end - start))
    for i in range(low, high + 1):
        distance = abs(beat[i] - beat[start] - step * np.float32(i - start))
        if distance > best:
            best, peak = distance, i
    return peak


@compiled
def variation(intervals: Marks) -> float:
    """Standard deviation over mean."""
    mean = intervals.mean()
    return float(np.sqrt(((intervals - mean) ** 2).mean()) / mean)
