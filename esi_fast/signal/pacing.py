"""Pacing spikes: pulses too narrow for a heart; compiled with numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.arrays import FloatArray, Indices
from esi_fast.signal.compiled import compiled

LEAST_RATE_HZ = 250.0  # below it a spike is not told from a QRS
FLANK_S = 0.006  # a spike has come back within this time,
SURROUNDINGS_S = 0.010  # and what is this far away is no lower,
LEAST_SHARE = 0.75  # of which the spike must be this share
LEAST_MV = 0.2  # in
LEAST_LEADS = 3
APART_S = 0.02
MOST_PER_S = 7
DECAY_S = 0.014  # what an amplifier leaves of a spike is over


@compiled
def find_spikes(signal: FloatArray, usable: NDArray[np.bool_], fs: float) -> Indices:
    """Indices of the pacing spikes of a (L, T) mV signal; none below `LEAST_RATE_HZ`."""
    num_leads, num_samples = signal.shape
    found = np.empty(num_samples, np.int64)
    count = 0
    if fs < LEAST_RATE_HZ:
        return found[:0]
    flank = round(FLANK_S * fs)
    far = max(flank + 1, round(SURROUNDINGS_S * fs))
    num_with = np.zeros(num_samples, np.int8)
    height = np.zeros(num_samples, np.float32)
    for lead in range(num_leads):
        if not usable[lead]:
            continue
        x = signal[lead]
        for i in range(far, num_samples - far):
            before, after = x[i] - x[i - flank], x[i] - x[i + flank]
            least = min(abs(before), abs(after))
            if least < LEAST_MV or before * after < 0:
                continue
            if least > LEAST_SHARE * max(abs(x[i] - x[i - far]), abs(x[i] - x[i + far])):
                num_with[i] += 1
                height[i] += least
    i = 0
    while i < num_samples:
        if num_with[i] >= LEAST_LEADS:
            end = min(num_samples, i + max(1, round(APART_S * fs)))
            found[count] = i + np.argmax(height[i:end])
            count += 1
            i = end
        else:
            i += 1
    # No pacemaker fires that often: it is noise.
    return found[:0] if count > MOST_PER_S * num_samples / fs else found[:count]


@compiled
def remove_spikes(signal: FloatArray, spikes: Indices, fs: float) -> None:
    """Replace each spike by a straight line, in place."""
    num_samples = signal.shape[1]
    before, after = round(FLANK_S * fs), round(DECAY_S * fs)
    for spike in spikes:
        low, high = max(0, spike - before), min(num_samples - 1, spike + after)
        for lead in range(signal.shape[0]):
            step = (signal[lead, high] - signal[lead, low]) / np.float32(high - low)
            for i in range(low + 1, high):
                signal[lead, i] = signal[lead, low] + step * np.float32(i - low)
