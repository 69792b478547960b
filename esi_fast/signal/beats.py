"""Heartbeats: QRS complexes found on all leads together, and grouped by shape.

Compiled with numba. Signals are (L, T) float32 in mV; positions are sample indices.

Provenance: the squared slope of the QRS band, smoothed and thresholded, is Pan & Tompkins' (IEEE
TBME 1985;32:230-236); the median beat of aligned complexes of one shape is how electrocardiographs
measure (Kligfield et al., Circulation 2007;115:1306-1324). The code is this project's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.arrays import FloatArray, Indices, Marks, median_few, slopes, sort_few
from esi_fast.signal.compiled import compiled, compiled_without_nan

SLOPE_S = 0.012  # width of the averages whose difference is the slope of the QRS band
SMOOTHING_S = 0.05  # of the energy, to either side
REFRACTORY_S = 0.2
BEAT_SHARE = 0.25  # of the usual height of the energy: what is lower is no beat
# A beat stands out from the quietest quarter of the record by this factor, or there is only noise.
LEAST_CONTRAST = 2.0
SHAPE_S = 0.06  # of a complex, to either side of its reference: what is compared
SHIFT_S = 0.04  # furthest that a complex is shifted to fit
SAME_SHAPE = 0.85  # correlation
MOST_SHAPES = 6
# P and T waves as large as a low QRS: nearer to it than this, and of no more than this share of
# its sharpness.
COMPANION_S, COMPANION_SHARE = 0.36, 0.85


@compiled_without_nan
def qrs_slopes(
    signal: FloatArray, usable: NDArray[np.bool_], fs: float
) -> tuple[FloatArray, FloatArray]:
    """(L, T) slopes of the QRS band, and each lead's usual greatest slope in a second, or 0.

    The usual one is the upper quartile: at 15 beats a minute most seconds hold no beat.
    """
    num_leads, num_samples = signal.shape
    width = max(1, round(SLOPE_S * fs))
    num_seconds = max(1, int(num_samples / fs))
    slope = np.zeros((num_leads, num_samples), np.float32)
    scale = np.zeros(num_leads, np.float32)
    greatest = np.empty(num_seconds)
    for lead in range(num_leads):
        if not usable[lead]:
            continue
        slopes(signal[lead], width, slope[lead])
        for second in range(num_seconds):
            start = second * num_samples // num_seconds
            end = (second + 1) * num_samples // num_seconds
            highest = np.float32(0)
            for i in range(start, end):
                highest = max(highest, abs(slope[lead, i]))
            greatest[second] = highest
        sort_few(greatest)
        scale[lead] = greatest[num_seconds * 3 // 4]
    return slope, scale


@compiled_without_nan
def qrs_energy(slope: FloatArray, scale: FloatArray, fs: float) -> FloatArray:
    """Squared slope, each lead in units of its own and capped, summed over leads and smoothed."""
    num_leads, num_samples = slope.shape
    energy = np.zeros(num_samples, np.float32)
    for lead in range(num_leads):
        if scale[lead] <= 0:
            continue
        unit = np.float32(1) / scale[lead]
        for i in range(num_samples):
            height = min(abs(slope[lead, i]) * unit, np.float32(2))
            energy[i] += height * height
    half = round(SMOOTHING_S * fs)
    smooth = np.empty(num_samples, np.float32)
    total = 0.0
    for i in range(min(half, num_samples)):
        total += energy[i]
    for i in range(num_samples):
        if i + half < num_samples:
            total += energy[i + half]
        if i > half:
            total -= energy[i - half - 1]
        smooth[i] = total
    return smooth


@compiled
def quietest(curve: FloatArray) -> float:
    """About the lower quartile of a curve: of every 50th part of it."""
    few = np.empty(50)
    for k in range(50):
        few[k] = curve[k * curve.shape[0] // 50]
    sort_few(few)
    return float(few[12])


@compiled
def highest_apart(energy: FloatArray, fs: float) -> Indices:
    """Maxima of the energy at least `REFRACTORY_S` apart and high enough to be beats."""
    num_samples = energy.shape[0]
    refractory = round(REFRACTORY_S * fs)
    maxima = np.empty(num_samples, np.int64)
    count = 0
    for i in range(1, num_samples - 1):
        if energy[i] > 0 and energy[i] > energy[i - 1] and energy[i] >= energy[i + 1]:
            maxima[count] = i
            count += 1
    taken = np.zeros(num_samples, np.bool_)
    kept = np.empty(count, np.int64)
    num_kept = 0
    for k in np.argsort(-energy[maxima[:count]]):
        i = maxima[k]
        if not taken[i]:
            kept[num_kept] = i
            num_kept += 1
            taken[max(0, i - refractory) : i + refractory + 1] = True
    if num_kept == 0:
        return kept[:0]
    # The strongest ones, one a second: at 15 beats a minute a quarter of them are beats.
    num_usual = min(num_kept, max(3, round(num_samples / fs)))
    heights = np.empty(num_usual)
    for k in range(num_usual):
        heights[k] = energy[kept[k]]
    sort_few(heights)
    usual = heights[num_usual * 3 // 4]
    least = max(BEAT_SHARE * usual, LEAST_CONTRAST * quietest(energy))
    taken[:] = False
    for k in range(num_kept):
        taken[kept[k]] = energy[kept[k]] > least
    num_beats = 0
    for i in range(num_samples):
        if taken[i]:
            maxima[num_beats] = i
            num_beats += 1
    return maxima[:num_beats].copy()


@compiled
def best_fit(
    slope: FloatArray, weight: FloatArray, beat: int, half: int, shape: FloatArray, shift: int
) -> tuple[int, float]:
    """The shift by which a beat fits a shape (L, 2 half + 1) best, and the correlation there."""
    num_leads, num_samples = slope.shape
    best, best_shift = -2.0, 0
    for k in range(-shift, shift + 1):
        start = beat + k - half
        first, last = max(0, -start), min(2 * half + 1, num_samples - start)
        if last - first <= half:
            continue
        product, own, other = 0.0, 0.0, 0.0
        for lead in range(num_leads):
            if weight[lead] == 0:
                continue
            dot, square, norm = np.float32(0), np.float32(0), np.float32(0)
            x, y = slope[lead, start + first : start + last], shape[lead, first:last]
            for i in range(x.shape[0]):
                dot += x[i] * y[i]
                square += x[i] * x[i]
                norm += y[i] * y[i]
            product += dot * weight[lead]
            own += square * weight[lead]
            other += norm * weight[lead]
        if own > 0 and other > 0:
            correlation = product / np.sqrt(own * other)
            if correlation > best:
                best, best_shift = correlation, k
    return best_shift, best


@compiled
def group_beats(
    slope: FloatArray, scale: FloatArray, beats: Indices, fs: float
) -> tuple[Indices, Indices]:
    """The group of each beat, numbered from 0, and each beat shifted to fit its group.

    Beats are compared by the slopes of all leads. The first round finds up to `MOST_SHAPES` shapes,
    the second assigns every beat to the nearest; one that fits none is a group of its own.
    """
    num_leads, num_samples = slope.shape
    num_beats = beats.shape[0]
    half, shift = round(SHAPE_S * fs), round(SHIFT_S * fs)
    weight = np.zeros(num_leads, np.float32)
    for lead in range(num_leads):
        if scale[lead] > 0:
            weight[lead] = 1 / (scale[lead] * scale[lead])
    shapes = np.zeros((MOST_SHAPES, num_leads, 2 * half + 1), np.float32)
    counts = np.zeros(MOST_SHAPES, np.int64)
    num_shapes = 0
    group = np.full(num_beats, -1, np.int64)
    aligned = beats.copy()
    for is_second in (False, True):
        for j in range(num_beats):
            best, nearest, best_shift = -2.0, -1, 0
            for k in range(num_shapes):
                found, correlation = best_fit(slope, weight, beats[j], half, shapes[k], shift)
                if correlation > best:
                    best, nearest, best_shift = correlation, k, found
            if is_second:
                if best >= SAME_SHAPE:
                    group[j] = nearest
                    aligned[j] = beats[j] + best_shift
                continue
            start = beats[j] + best_shift - half
            if best < SAME_SHAPE:
                nearest, start = num_shapes, beats[j] - half
            if nearest == MOST_SHAPES or start < 0 or start + 2 * half + 1 > num_samples:
                continue
            num_shapes = max(num_shapes, nearest + 1)
            counts[nearest] += 1
            share = np.float32(1.0 / counts[nearest])
            for lead in range(num_leads):
                for i in range(2 * half + 1):
                    difference = slope[lead, start + i] - shapes[nearest, lead, i]
                    shapes[nearest, lead, i] += difference * share
    for j in range(num_beats):
        if group[j] < 0:
            group[j] = num_shapes
            num_shapes += 1
    return group, aligned


@compiled
def sharpness(slope: FloatArray, scale: FloatArray, beats: Indices, fs: float) -> Marks:
    """(n,): how sharply each complex turns, summed over leads, each in units of its own slopes."""
    num_leads, num_samples = slope.shape
    width, reach = max(1, round(SLOPE_S * fs)), round(0.04 * fs)
    sharp = np.zeros(beats.shape[0])
    for k in range(beats.shape[0]):
        low, high = max(width, beats[k] - reach), min(num_samples - width, beats[k] + reach + 1)
        for lead in range(num_leads):
            if scale[lead] <= 0:
                continue
            turn = np.float32(0)
            for i in range(low, high):
                turn = max(turn, abs(slope[lead, i + width] - slope[lead, i - width]))
            sharp[k] += turn / scale[lead]
    return sharp


@compiled
def are_companions(
    beats: Indices, sharp: Marks, members: Indices, hosts: Indices, fs: float
) -> bool:
    """Whether some complexes are P or T waves of others: with each, blunter, equally far away."""
    if members.shape[0] < max(3.0, 0.7 * hosts.shape[0]):
        return False
    lags = np.empty(members.shape[0])
    for k in range(members.shape[0]):
        nearest = beats[hosts[0]] - beats[members[k]]
        for host in hosts:
            lag = beats[host] - beats[members[k]]
            if abs(lag) < abs(nearest):
                nearest = lag
        lags[k] = nearest
    usual = median_few(lags)
    if abs(usual) > COMPANION_S * fs:
        return False
    if median_few(sharp[members]) > COMPANION_SHARE * median_few(sharp[hosts]):
        return False
    near = 0
    for lag in lags:
        near += abs(lag - usual) <= 0.03 * fs
    return near >= 0.8 * members.shape[0]


@compiled
def without_companions(
    slope: FloatArray, scale: FloatArray, beats: Indices, group: Indices, fs: float
) -> NDArray[np.bool_]:
    """(n,): which complexes are beats, not large P or T waves beside low QRS complexes."""
    is_beat = np.ones(beats.shape[0], np.bool_)
    if beats.shape[0] < 6:
        return is_beat
    sharp = sharpness(slope, scale, beats, fs)
    num_groups = group.max() + 1
    for number in range(num_groups):
        members = np.flatnonzero(group == number)
        for other in range(num_groups):
            hosts = np.flatnonzero(group == other)
            if other != number and are_companions(beats, sharp, members, hosts, fs):
                is_beat[members] = False
                break
    return is_beat
