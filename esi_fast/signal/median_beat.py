"""The median beat of beats of one shape, and the baseline that is taken off before.

Compiled with numba. The median of aligned complexes is what electrocardiographs measure (Kligfield
et al., Circulation 2007;115:1306-1324).
"""

from __future__ import annotations

import numpy as np

from esi_fast.signal.arrays import FloatArray, Indices
from esi_fast.signal.compiled import compiled, compiled_without_nan

MOST_AVERAGED = 32


@compiled
def subtract_baseline(signal: FloatArray, knots: Indices, half: int) -> FloatArray:
    """The signal less a line through its means around the knots, level before and after them."""
    num_leads, num_samples = signal.shape
    num_knots = knots.shape[0]
    out = np.empty((num_leads, num_samples), np.float32)
    level = np.empty(num_knots, np.float32)
    ramp = np.arange(num_samples).astype(np.float32)
    for lead in range(num_leads):
        for j in range(num_knots):
            start, end = max(0, knots[j] - half), min(num_samples, knots[j] + half + 1)
            total = np.float32(0)
            for i in range(start, end):
                total += signal[lead, i]
            level[j] = total / np.float32(max(1, end - start))
        for i in range(min(num_samples, knots[0])):
            out[lead, i] = signal[lead, i] - level[0]
        for j in range(num_knots - 1):
            start, end = knots[j], knots[j + 1]
            step = (level[j + 1] - level[j]) / np.float32(max(1, end - start))
            x, y = signal[lead, start:end], out[lead, start:end]
            for i in range(x.shape[0]):
                y[i] = x[i] - level[j] - step * ramp[i]
        for i in range(knots[num_knots - 1], num_samples):
            out[lead, i] = signal[lead, i] - level[num_knots - 1]
    return out


@compiled_without_nan
def sort_columns(rows: FloatArray, num_rows: int) -> None:
    """Sort every column of the first rows, by a network that compares whole rows.

    Batcher's merge exchange (Knuth, The Art of Computer Programming 3, algorithm 5.2.2M).
    """
    if num_rows < 2:
        return
    top = 1
    while 2 * top < num_rows:
        top *= 2
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            for i in range(num_rows - d):
                if i & p == r:
                    low, high = rows[i], rows[i + d]
                    for k in range(low.shape[0]):
                        a, b = low[k], high[k]
                        low[k], high[k] = min(a, b), max(a, b)
            d = q - p
            q //= 2
            r = p
        p //= 2


@compiled
def median_beat(
    signal: FloatArray, beats: Indices, first: Indices, last: Indices, before: int, after: int
) -> FloatArray:
    """(L, before + after + 1): the median over beats, aligned at index ``before``.

    Args:
        signal: (L, T) mV.
        beats: reference of each beat; the first `MOST_AVERAGED` count.
        first, last: the samples of each beat that count, from ``first`` up to ``last``; where no
            beat has any, the nearest median is repeated.
        before, after: how far the median reaches from the reference.
    """
    num_leads = signal.shape[0]
    num_beats = min(beats.shape[0], MOST_AVERAGED)
    length = before + after + 1
    out = np.zeros((num_leads, length), np.float32)
    rows = np.empty((num_beats, length), np.float32)
    counts = np.zeros(length, np.int64)
    for j in range(num_beats):
        start = beats[j] - before
        for k in range(max(0, first[j] - start, -start), min(length, last[j] - start)):
            counts[k] += 1
    some = 0  # the first index with a beat
    while some < length and counts[some] == 0:
        some += 1
    if some == length:
        return out
    for lead in range(num_leads):
        for j in range(num_beats):
            start = beats[j] - before
            low = min(length, max(0, first[j] - start, -start))
            high = max(low, min(length, last[j] - start))
            rows[j, :low] = np.float32(3e38)  # beyond any voltage: sorted to the end
            rows[j, high:] = np.float32(3e38)
            rows[j, low:high] = signal[lead, start + low : start + high]
        sort_columns(rows, num_beats)
        for k in range(length):
            count = counts[k]
            if count % 2:
                out[lead, k] = rows[count // 2, k]
            elif count > 0:
                middle = rows[count // 2 - 1, k] + rows[count // 2, k]
                out[lead, k] = np.float32(0.5) * middle
        out[lead, :some] = out[lead, some]
        for k in range(some + 1, length):
            if counts[k] == 0:
                out[lead, k] = out[lead, k - 1]
    return out
