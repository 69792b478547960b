"""P, QRS and T of a median beat: where they are, and their limits in all leads and in each.

Compiled with numba. A beat is (L, N) float32 in mV; positions in it are float64, between samples,
NaN where nothing was found.

All leads together: the spatial velocity, the norm over leads of their slopes in units of their
noise, falls at a wave's limits to a share of its greatest value on the wave's flank. Each lead: the
same on its own slope. A lead's limit is then the common one, plus what is usual for the lead, plus
a part of what it shows itself: the more, the clearer its wave.

Provenance: global limits from all leads follow Kligfield et al. (Circulation 2007;115:1306-1324);
the spatial velocity is Rautaharju's and Pipberger's (Circulation 1964;30:853). The rest and its
numbers, tuned on simulated records and on the 24 recordings of LUDB whose id is a multiple of five,
are this project's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.arrays import FloatArray, Marks, highest, median_few, slopes, sort_few
from esi_fast.signal.compiled import compiled
from esi_fast.signal.wave_settings import Wave

BLOCK_S = 0.04  # of a curve, whose quietest blocks are its noise
# A QRS: activity of this share of its greatest, with gaps of at most this length where they fall
# below that share, else of twice that, and a weaker part of at most that before and after.
QRS_CORE, QRS_GAP_S, QRS_QUIET, QRS_TAIL_S = 0.3, 0.06, 0.12, 0.07
MEDIAN_SHARE = 0.5  # of the median lead in the leads' consensus
FLANK = 0.5  # a local maximum of this share of the greatest is a wave's outer flank


@compiled
def quiet_level(curve: FloatArray, block: int) -> float:
    """The lower quartile of the means of a curve's blocks: what it is where nothing happens."""
    num_blocks = max(1, curve.shape[0] // block)
    means = np.empty(num_blocks)
    for k in range(num_blocks):
        total = np.float32(0)
        for i in range(k * block, min(curve.shape[0], (k + 1) * block)):
            total += curve[i]
        means[k] = total / block
    sort_few(means)
    return float(means[num_blocks // 4])


@compiled
def lead_noise(slope: FloatArray, width: int, block: int) -> float:
    """The quiet level of a lead's absolute slope, mV, without the ends where it is 0."""
    return quiet_level(slope[width : slope.shape[0] - width], block)


@compiled
def spatial_velocity(
    beat: FloatArray, usable: NDArray[np.bool_], width: int, fs: float
) -> tuple[FloatArray, float]:
    """(N,): the norm over leads of their slopes, each in units of its noise; and its quiet level.

    A lead quieter than most counts as noisy as those.
    """
    num_leads, length = beat.shape
    velocity = np.zeros(length, np.float32)
    if length <= 2 * width + 1:
        return velocity, 0.0
    block = max(2, round(BLOCK_S * fs))
    slope = np.zeros((num_leads, length), np.float32)
    noise, ordered = np.zeros(num_leads), np.empty(num_leads)
    count = 0
    for lead in range(num_leads):
        if usable[lead]:
            slopes(beat[lead], width, slope[lead])
            for i in range(length):
                slope[lead, i] = abs(slope[lead, i])
            noise[lead] = lead_noise(slope[lead], width, block)
            ordered[count] = noise[lead]
            count += 1
    usual = median_few(ordered[:count])
    for lead in range(num_leads):
        if usable[lead]:
            unit = np.float32(1.0 / max(noise[lead], usual, 1e-4))
            for i in range(length):
                velocity[i] += (slope[lead, i] * unit) ** 2
    for i in range(width, length - width):
        velocity[i] = np.sqrt(velocity[i])
    velocity[:width] = velocity[width]
    velocity[length - width :] = velocity[length - width - 1]
    return velocity, quiet_level(velocity, block)


@compiled
def quiet_before(curve: FloatArray, start: int, stop: int, threshold: float, run: int) -> float:
    """Where the curve, followed from ``start`` down to ``stop``, falls below for ``run`` samples.

    Between two samples; the lowest point if it never does.
    """
    count = 0
    for i in range(start, stop, -1):
        count = count + 1 if curve[i] < threshold else 0
        if count == run or (count > 0 and i == stop + 1):
            i += count - 1
            if i == start:
                return float(i)
            return i + (threshold - curve[i]) / (curve[i + 1] - curve[i])
    lowest = stop
    for i in range(stop, start):
        if curve[i] < curve[lowest]:
            lowest = i
    return float(lowest)


@compiled
def quiet_after(curve: FloatArray, start: int, stop: int, threshold: float, run: int) -> float:
    """As `quiet_before`, from ``start`` up to ``stop``."""
    count = 0
    for i in range(start, stop):
        count = count + 1 if curve[i] < threshold else 0
        if count == run or (count > 0 and i == stop - 1):
            i -= count - 1
            if i == start:
                return float(i)
            return i - (threshold - curve[i]) / (curve[i - 1] - curve[i])
    lowest = stop
    for i in range(stop, start, -1):
        if curve[i] < curve[lowest]:
            lowest = i
    return float(lowest)


@compiled
def outer_flank(curve: FloatArray, low: int, high: int, from_left: bool) -> int:
    """The outermost local maximum within [low, high] that is high enough to be a wave's flank."""
    greatest = np.float32(0)
    for i in range(low + 1, high):
        if curve[i] >= curve[i - 1] and curve[i] >= curve[i + 1]:
            greatest = max(greatest, curve[i])
    if greatest == 0:
        return highest(curve, low, high)
    for step in range(low + 1, high):
        i = step if from_left else low + high - step
        if curve[i] >= curve[i - 1] and curve[i] >= curve[i + 1] and curve[i] >= FLANK * greatest:
            return i
    return low


@compiled
def outermost(velocity: FloatArray, centre: int, step: int, gap: int) -> int:
    """The last strong activity of a QRS from its centre on, before a gap that is quiet or long."""
    strong, quiet = QRS_CORE * velocity[centre], QRS_QUIET * velocity[centre]
    last, lowest = centre, velocity[centre]
    i = centre
    while 0 <= i < velocity.shape[0] and abs(i - last) <= (gap if lowest < quiet else 2 * gap):
        lowest = min(lowest, velocity[i])
        if velocity[i] >= strong:
            last, lowest = i, velocity[i]
        i += step
    return last


@compiled
def qrs_limits(
    beat: FloatArray, usable: NDArray[np.bool_], reference: int, fs: float, wave: Wave
) -> tuple[float, float]:
    """Onset and end of the QRS about ``reference``, of all leads together."""
    length = beat.shape[1]
    velocity, noise = spatial_velocity(beat, usable, max(1, round(wave.width * fs)), fs)
    near = round(0.07 * fs)
    low, high = max(0, reference - near), min(length - 1, reference + near)
    centre = highest(velocity, low, high)
    if velocity[centre] <= 0:
        return np.nan, np.nan
    run = max(2, round(wave.quiet * fs))
    # The outermost strong activity: what begins beyond a gap is another wave.
    gap = round(QRS_GAP_S * fs)
    first = outermost(velocity, centre, -1, gap)
    last = outermost(velocity, centre, 1, gap)
    tail = round(QRS_TAIL_S * fs)
    threshold = max(wave.onset * velocity[centre], wave.noise_at_onset * noise)
    onset = quiet_before(velocity, first, max(0, first - tail), threshold, run)
    threshold = max(wave.end * velocity[centre], wave.noise_at_end * noise)
    return onset, quiet_after(velocity, last, min(length - 1, last + tail), threshold, run)


@compiled
def wave_limits(
    velocity: FloatArray, noise: float, peak: int, low: int, high: int, reach: tuple[int, int],
    fs: float, wave: Wave,
) -> tuple[float, float]:  # fmt: skip
    """Onset and end of the P or T wave about ``peak`` within [low, high].

    ``reach`` is how far before and after the peak its flanks may lie.
    """
    run = max(2, round(wave.quiet * fs))
    flank = outer_flank(velocity, max(low, peak - reach[0]), max(peak, low + 1), True)
    threshold = max(wave.onset * velocity[flank], wave.noise_at_onset * noise)
    onset = quiet_before(velocity, flank, min(low, flank), threshold, run)
    flank = outer_flank(velocity, min(peak, high - 1), min(high, peak + reach[1]), False)
    threshold = max(wave.end * velocity[flank], wave.noise_at_end * noise)
    return onset, quiet_after(velocity, flank, max(high, flank), threshold, run)


@compiled
def lead_limits(
    beat: FloatArray, usable: NDArray[np.bool_], body: tuple[int, int], limits: tuple[int, int],
    fs: float, wave: Wave,
) -> tuple[Marks, Marks, Marks]:  # fmt: skip
    """Onset and end of a wave in each lead, and how clear it is there.

    Args:
        beat: (L, N) mV.
        usable: (L,).
        body: first and last index between which its flanks lie.
        limits: first and last index of the wave itself.
        fs: Hz.
        wave: how it is marked.

    Returns:
        (L,) each: onset, end, and greatest slope in units of the lead's noise; NaN, NaN, 0 in a
        lead that is not usable or level.
    """
    num_leads, length = beat.shape
    onset, end = np.full(num_leads, np.nan), np.full(num_leads, np.nan)
    clarity = np.zeros(num_leads)
    width = max(1, round(wave.lead_width * fs))
    run = max(2, round(wave.lead_quiet * fs))
    block = max(2, round(BLOCK_S * fs))
    slope = np.empty(length, np.float32)
    first, last = max(0, body[0]), min(length - 1, body[1])
    for lead in range(num_leads):
        if not usable[lead] or last <= first:
            continue
        slopes(beat[lead], width, slope)
        for i in range(length):
            slope[i] = abs(slope[i])
        greatest = np.float32(0)
        for i in range(first, last + 1):
            greatest = max(greatest, slope[i])
        if greatest <= 0:
            continue
        noise = lead_noise(slope, width, block)
        start, stop = first, last
        while slope[start] <= wave.core * greatest:
            start += 1
        while slope[stop] <= wave.core * greatest:
            stop -= 1
        threshold = max(wave.lead_onset * greatest, wave.lead_noise_at_onset * noise)
        onset[lead] = first_quiet(slope, start, max(0, limits[0]), -1, threshold, run)
        threshold = max(wave.lead_end * greatest, wave.lead_noise_at_end * noise)
        end[lead] = first_quiet(slope, stop, min(length - 1, limits[1]), 1, threshold, run)
        clarity[lead] = greatest / (noise + 1e-6)
    return onset, end, clarity


@compiled
def first_quiet(
    curve: FloatArray, start: int, stop: int, step: int, threshold: float, run: int
) -> float:
    """From ``start`` towards ``stop``: where the curve stays low for ``run`` samples, or there."""
    count = 0
    i = start
    while i != stop and 0 <= i < curve.shape[0] and (stop - i) * step > 0:
        count = count + 1 if curve[i] < threshold else 0
        if count == run:
            return float(i - step * (run - 1))
        i += step
    return float(stop)


@compiled
def weighted_median(values: Marks, weights: Marks) -> float:
    """The value below which half of the weight lies; NaN without weight."""
    half = 0.5 * weights.sum()
    best = np.nan
    for k in range(values.shape[0]):
        below = 0.0
        for i in range(values.shape[0]):
            if values[i] <= values[k]:
                below += weights[i]
        if below >= half > 0 and not values[k] >= best:
            best = values[k]
    return best


@compiled
def lean(
    own: Marks, clarity: Marks, usual: Marks, common: float, trust: float, doubt: float,
    furthest: float,
) -> Marks:  # fmt: skip
    """(L,): each lead's limit, between the leads' consensus with its usual deviation and its own.

    The consensus is halfway between the common limit and the median lead, weighted by clarity.
    ``usual``, ``furthest`` and all positions are in samples. A lead without a limit of its own has
    the usual one.
    """
    median = weighted_median(own - usual, clarity)
    consensus = common if np.isnan(median) else MEDIAN_SHARE * median + (1 - MEDIAN_SHARE) * common
    marks = consensus + usual
    for lead in range(own.shape[0]):
        if not np.isnan(own[lead]):
            deviation = min(max(own[lead] - marks[lead], -furthest), furthest)
            marks[lead] += trust * clarity[lead] / (clarity[lead] + doubt) * deviation
    return marks
