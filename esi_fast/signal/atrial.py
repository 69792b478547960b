"""Whether the same wave is there in every beat, where, and between them; compiled with numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.arrays import FloatArray, Indices, median_few
from esi_fast.signal.compiled import compiled
from esi_fast.signal.marking import QRS_END

CLEARLY = 0.15  # a shifted wave must correlate better by this than an unshifted one
FLUTTER_S = 0.27  # atrial waves that follow each other faster are flutter waves
LEAST_SIZE, MOST_SIZE = 0.4, 2.0  # of a P against the median beat's
PAUSE = 1.5  # of the usual RR: a longer interval is a pause


@compiled
def without_line(
    beat: FloatArray, usable: NDArray[np.bool_], first: int, length: int
) -> FloatArray:
    """(L, length): the pattern of a wave, each lead less its own straight line; 0 where unusable.

    The norm over all leads is 1, so that no drift looks like a wave and no lead is heard twice.
    """
    pattern = np.zeros((beat.shape[0], length), np.float32)
    middle = 0.5 * (length - 1)
    spread = length * (length * length - 1) / 12.0
    norm = 0.0
    for lead in range(beat.shape[0]):
        if not usable[lead]:
            continue
        total, line = 0.0, 0.0
        for i in range(length):
            total += beat[lead, first + i]
            line += (i - middle) * beat[lead, first + i]
        for i in range(length):
            value = beat[lead, first + i] - total / length - line / spread * (i - middle)
            pattern[lead, i] = value
            norm += value * value
    if norm > 0:
        pattern /= np.float32(np.sqrt(norm))
    return pattern


@compiled
def likeness(
    level: FloatArray, usable: NDArray[np.bool_], start: int, pattern: FloatArray
) -> tuple[float, float]:
    """Correlation of the signal from ``start`` with a pattern of `without_line`, and its size."""
    length = pattern.shape[1]
    product, own = 0.0, 0.0
    middle = np.float32(0.5 * (length - 1))
    count = np.float32(length)
    spread = np.float32(length * (length * length - 1) / 12.0)
    ramp = np.arange(length).astype(np.float32)
    for lead in range(level.shape[0]):
        if not usable[lead]:
            continue
        x, y = level[lead, start : start + length], pattern[lead]
        dot, total, line, square = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for i in range(length):
            dot += x[i] * y[i]
            total += x[i]
            line += (ramp[i] - middle) * x[i]
            square += x[i] * x[i]
        product += dot
        own += square - total * total / count - line * line / spread
    return (product / np.sqrt(own) if own > 0 else 0.0), product


@compiled
def best_shift(
    level: FloatArray, usable: NDArray[np.bool_], start: int, pattern: FloatArray, furthest: int
) -> tuple[int, float, float]:
    """Shift, correlation and size of a wave against its pattern; 0 unless a shift fits clearly.

    The correlation is 0 where the wave lies outside the signal.
    """
    last = level.shape[1] - pattern.shape[1]
    shift, correlation, size = 0, 0.0, 0.0
    if 0 <= start <= last:
        correlation, size = likeness(level, usable, start, pattern)
    if correlation > 1 - CLEARLY:
        return shift, correlation, size
    needed = correlation + CLEARLY
    for k in range(-furthest, furthest + 1):
        if 0 <= start + k <= last:
            found, height = likeness(level, usable, start + k, pattern)
            if found > needed:
                needed, shift, correlation, size = found, k, found, height
    return shift, correlation, size


@compiled
def reproducibility(
    level: FloatArray, usable: NDArray[np.bool_], starts: Indices, pattern: FloatArray
) -> float:
    """Median over beats of the correlation of their P with its pattern; 0 if none lies inside."""
    found = np.empty(starts.shape[0])
    count = 0
    for start in starts:
        if start >= 0 and start + pattern.shape[1] <= level.shape[1]:
            found[count], _ = likeness(level, usable, start, pattern)
            count += 1
    return median_few(found[:count]) if count else 0.0


@compiled
def find_extra_p(
    level: FloatArray, usable: NDArray[np.bool_], aligned: Indices, common: Indices,
    pattern: FloatArray, p_size: float, offset: int, quiet_from: float, rr: float, fs: float,
    extra_p: Indices,
) -> tuple[int, bool]:  # fmt: skip
    """P-like waves between T and the next P: their number, and whether they are flutter waves.

    What recurs in (nearly) every interval is flutter, or, at the rate of a sinus node and halfway
    between two P waves, a second P that is not conducted. Else a P that is not conducted is
    followed by a pause, and comes when it is due. Where the pattern fits is written into
    ``extra_p``; ``offset`` is where it fits before a beat. Sought in the three leads where P is
    largest.
    """
    num_leads, length = pattern.shape
    energy = np.zeros(num_leads)
    for lead in range(num_leads):
        for i in range(length):
            energy[lead] += pattern[lead, i] ** 2
    largest = np.zeros(num_leads, np.bool_)
    share = 0.0
    for _ in range(3):
        lead = np.argmax(energy)
        largest[lead] = usable[lead]
        share += energy[lead]
        energy[lead] = 0
    room, count, num_close, num_halfway, num_due = 0, 0, 0, 0, 0
    margin = round(0.02 * fs)
    stride = max(1, round(0.006 * fs))
    due = np.zeros(aligned.shape[0], np.bool_)
    for j in range(aligned.shape[0] - 1):
        low = common[QRS_END, j] + round(0.25 * fs)
        if not np.isnan(quiet_from):
            low = aligned[j] + round(quiet_from) + margin
        this_p, next_p = aligned[j] + offset, aligned[j + 1] + offset
        high = next_p - margin - length
        if high < low + margin:
            continue
        room += 1
        best, best_start = 0.8, -1
        for start in range(max(0, low), high, stride):
            correlation, size = likeness(level, largest, start, pattern)
            correlation /= np.sqrt(share)
            size /= share * p_size
            if correlation > best and LEAST_SIZE < size < MOST_SIZE:
                best, best_start = correlation, start
        if best_start < 0:
            continue
        extra_p[count] = best_start
        interval = next_p - this_p
        if next_p - best_start < FLUTTER_S * fs:
            num_close += 1
        if abs(best_start - this_p - 0.5 * interval) < 0.1 * interval and best > 0.9:
            num_halfway += 1
        if interval > PAUSE * rr and abs(best_start - this_p - rr) < 0.2 * rr:
            due[count] = True
            num_due += 1
        count += 1
    if room >= 3 and count >= 0.8 * room:
        if num_close > 0.5 * count or num_halfway < 0.8 * room:
            return 0, True
        return count, False
    kept = 0
    for k in range(count):
        if due[k]:
            extra_p[kept] = extra_p[k]
            kept += 1
    return kept, False
