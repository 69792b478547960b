"""P, QRS and T of every beat of a record, in all leads together and in each; compiled with numba.

Beats of one shape are measured on their median beat; what is found there is carried to each of
them. P is what precedes the beats of the commonest shape alike: in atrial fibrillation nothing
does, in flutter too much does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.arrays import (
    FloatArray,
    Indices,
    Marks,
    fill_gaps,
    median_few,
    ranges,
    variation,
)
from esi_fast.signal.atrial import (
    LEAST_SIZE,
    best_shift,
    find_extra_p,
    likeness,
    reproducibility,
    without_line,
)
from esi_fast.signal.beats import (
    group_beats,
    highest_apart,
    qrs_energy,
    qrs_slopes,
    without_companions,
)
from esi_fast.signal.bumps import find_p
from esi_fast.signal.compiled import compiled
from esi_fast.signal.marking import (
    ABSENT,
    P_END,
    P_ONSET,
    P_PEAK,
    QRS_END,
    QRS_ONSET,
    R_PEAK,
    T_END,
    T_ONSET,
    T_PEAK,
    keep_apart,
    mark_p,
    mark_qrs,
    mark_t,
    place,
    place_common,
)
from esi_fast.signal.median_beat import median_beat, subtract_baseline
from esi_fast.signal.pacing import find_spikes, remove_spikes
from esi_fast.signal.wave_settings import Settings

FLAT_MV = 0.01  # a lead that stays within this range records nothing
MOST_MISSING = 0.5


class Delineation(NamedTuple):
    """What is found in a record of n beats.

    Attributes:
        beats: (n,) int64, the reference of each beat: the same point of all complexes of a shape.
        group: (n,) int64, beats of one number are of one shape.
        common: (9, n) int64, a row a mark (`MARKS`), limits of all leads together; -1 where absent.
        marks: (9, L, n) int64, the same in each lead.
        extra_p: (m,) int64, onsets of P waves that no QRS follows.
        spikes: (k,) int64, pacing spikes.
        dominant: the number of the commonest shape.
        median: (L, N) float32 mV, the median beat of that shape, its level before the QRS at 0.
        reference: index in ``median`` of the beats' reference.
        median_marks: (9,) float64, the common limits in ``median``, NaN where absent.
        level: (L, T) float32 mV, the signal less its baseline: 0 before each QRS.
        missing: (L,) share of the samples that is missing.
        span: (L,) float32 mV, highest less lowest value.
        usable: (L,) bool, the leads that were measured.
        p_alike: correlation of the P waves with their median; NaN where none was sought.
        is_flutter: whether P-like waves follow each other faster than an atrium at rest.
    """

    beats: Indices
    group: Indices
    common: Indices
    marks: Indices
    extra_p: Indices
    spikes: Indices
    dominant: int
    median: FloatArray
    reference: int
    median_marks: Marks
    level: FloatArray
    missing: Marks
    span: FloatArray
    usable: NDArray[np.bool_]
    p_alike: float
    is_flutter: bool


@compiled
def delineate(signal: FloatArray, fs: float, settings: Settings) -> Delineation:
    """Find and mark the beats of a record.

    Args:
        signal: (12, T) float32 mV in standard order, NaN where missing.
        fs: Hz.
        settings: `SETTINGS`.

    Returns:
        ``Delineation``. With fewer than three beats only they are found, not their waves.
    """
    num_leads, num_samples = signal.shape
    filled, missing = fill_gaps(signal)
    span = ranges(filled)
    usable = (missing <= MOST_MISSING) & (span >= FLAT_MV)
    spikes = find_spikes(filled, usable, fs)
    remove_spikes(filled, spikes, fs)
    slope, scale = qrs_slopes(filled, usable, fs)
    beats = highest_apart(qrs_energy(slope, scale, fs), fs)
    group, aligned = group_beats(slope, scale, beats, fs)
    is_beat = without_companions(slope, scale, beats, group, fs)
    if not is_beat.all():
        beats = beats[is_beat]
        group, aligned = group_beats(slope, scale, beats, fs)
    num_beats = beats.shape[0]
    common = np.full((9, num_beats), ABSENT, np.int64)
    marks = np.full((9, num_leads, num_beats), ABSENT, np.int64)
    extra_p = np.empty(num_beats, np.int64)
    median_marks = np.full(9, np.nan)
    if num_beats < 3:
        common[R_PEAK] = aligned
        empty = np.zeros((num_leads, 0), np.float32)
        return Delineation(
            aligned, group, common, marks, extra_p[:0], spikes, 0, empty, 0, median_marks, filled,
            missing, span, usable, np.nan, False,
        )  # fmt: skip

    rough = subtract_baseline(
        filled, np.maximum(aligned - round(0.08 * fs), 0), max(1, round(0.01 * fs))
    )
    num_groups = group.max() + 1
    sizes = np.zeros(num_groups, np.int64)
    for number in group:
        sizes[number] += 1
    qrs_of_group = np.zeros((num_groups, 2))
    for number in range(num_groups):
        members = np.flatnonzero(group == number)
        qrs_of_group[number] = mark_qrs(
            rough, usable, aligned, members, fs, settings.qrs, common, marks
        )
    dominant = commonest(group, sizes, common)

    knots = np.maximum(common[QRS_ONSET] - round(0.012 * fs), 0)
    level = subtract_baseline(filled, knots, max(1, round(0.008 * fs)))
    intervals = (aligned[1:] - aligned[:-1]).astype(np.float64)
    rr = median_few(intervals)
    before = round(min(0.45 * fs, max(0.2 * fs, rr - 0.1 * fs)))
    # What of each beat is its own: from the end of the QRS before to the onset of the next.
    first, last = np.zeros(num_beats, np.int64), np.full(num_beats, num_samples)
    first[1:] = common[QRS_END, :-1] + round(0.04 * fs)
    last[:-1] = common[QRS_ONSET, 1:] - round(0.01 * fs)

    p_alike, is_flutter, num_extra = np.nan, False, 0
    median = np.zeros((num_leads, 0), np.float32)
    for step in range(num_groups):
        number = dominant if step == 0 else (step - 1 if step <= dominant else step)
        members = np.flatnonzero(group == number)
        followed = members[: members.shape[0] - (1 if members[-1] == num_beats - 1 else 0)]
        to_next = median_few(intervals[followed]) if followed.shape[0] else rr
        after = round(min(0.7 * fs, max(0.3 * fs, to_next + 0.05 * fs)))
        beat = median_beat(level, aligned[members], first[members], last[members], before, after)
        limits = qrs_of_group[number]
        qrs = (before + round(limits[0]), before + round(limits[1]))
        must_end = round(before + to_next - 0.12 * fs)
        t, t_onset, t_peak, t_end = mark_t(beat, usable, qrs, must_end, to_next, fs, settings)
        if not np.isnan(t[2]):
            low = max(qrs[1] + 1, round(t[2] - 0.16 * fs))
            length = max(4, min(beat.shape[1] - 1, round(t[2] + 0.04 * fs)) - low)
            low = min(low, beat.shape[1] - length)
            pattern = without_line(beat, usable, low, length)
            for j in members:
                start = aligned[j] - before
                if members.shape[0] > 2:
                    furthest = round(settings.t_shift * fs)
                    shift, correlation, _ = best_shift(
                        level, usable, start + low, pattern, furthest
                    )
                    start += shift if correlation > 0.5 else 0
                limit = num_samples * 2
                if j < num_beats - 1:
                    limit = common[QRS_ONSET, j + 1] + round(0.02 * fs)
                found = (t_onset, t_peak, t_end)
                rows = (T_ONSET, T_PEAK, T_END)
                place(marks, rows, j, start, found, limit, usable, num_samples)
                if start + t[2] < limit and start + t[1] < num_samples:
                    place_common(common, rows, j, start, t, num_samples)
        if step > 0:
            continue

        median = beat
        median_marks[QRS_ONSET] = before + qrs_of_group[number, 0]
        median_marks[R_PEAK] = before
        median_marks[QRS_END] = before + qrs_of_group[number, 1]
        median_marks[T_ONSET], median_marks[T_PEAK], median_marks[T_END] = t
        earliest = max(0, qrs[0] - round(0.36 * fs))
        if not np.isnan(t[1]):
            earliest = max(earliest, int(t[1] - rr + 0.08 * fs))
        earliest = max(0, min(earliest, qrs[0] - round(0.08 * fs)))
        peak = find_p(beat, usable, earliest, qrs[0], fs)
        if peak < 0:
            continue
        if not np.isnan(t[2]):
            earliest = max(earliest, int(t[2] - rr - 0.01 * fs))
        p, p_onset, p_peak, p_end = mark_p(
            beat, usable, qrs[0], min(earliest, peak - 2), peak, fs, settings.p
        )
        low = max(0, round(p[0] - 0.02 * fs))
        length = max(4, min(qrs[0] - round(0.008 * fs), round(p[2] + 0.02 * fs)) - low)
        pattern = without_line(beat, usable, low, length)
        p_size = likeness(beat, usable, low, pattern)[1]
        p_alike = reproducibility(level, usable, aligned[members] - before + low, pattern)
        least = settings.p_alike
        if variation(intervals) > 0.1:
            least = settings.p_alike_irregular
        # A beat is part of its own median: the fewer there are, the more it resembles it.
        if not p_alike > least + (1 - least) / members.shape[0]:
            continue
        quiet_from = np.nan if np.isnan(t[2]) else t[2] - before
        num_extra, is_flutter = find_extra_p(
            level,
            usable,
            aligned,
            common,
            pattern,
            p_size,
            low - before,
            quiet_from,
            rr,
            fs,
            extra_p,
        )
        extra_p += round(p[0]) - low
        if is_flutter:
            continue
        median_marks[P_ONSET], median_marks[P_PEAK], median_marks[P_END] = p
        for j in range(num_beats):
            # Beats of other shapes are aligned by their onset.
            start = aligned[j] + round(qrs_of_group[group[j], 0]) - qrs[0]
            furthest = round(settings.p_shift * fs)
            shift, correlation, size = best_shift(level, usable, start + low, pattern, furthest)
            is_usual = group[j] == dominant and shift == 0
            least = settings.p_of_beat if is_usual else settings.p_of_other
            if correlation < least or size < LEAST_SIZE * p_size:
                continue
            start += shift
            if j > 0 and start + p[0] < common[QRS_END, j - 1]:
                continue
            rows = (P_ONSET, P_PEAK, P_END)
            place(marks, rows, j, start, (p_onset, p_peak, p_end), num_samples, usable, num_samples)
            place_common(common, rows, j, start, p, num_samples)
    keep_apart(marks)
    return Delineation(
        aligned, group, common, marks, extra_p[:num_extra], spikes, dominant, median, before,
        median_marks, level, missing, span, usable, p_alike, is_flutter,
    )  # fmt: skip


@compiled
def commonest(group: Indices, sizes: Indices, common: Indices) -> int:
    """The commonest shape; of shapes about as common (in bigeminy) that of the narrowest QRS."""
    best, narrowest = 0, np.inf
    for number in range(sizes.shape[0]):
        if sizes[number] < 0.75 * sizes.max():
            continue
        member = np.flatnonzero(group == number)[0]
        width = common[QRS_END, member] - common[QRS_ONSET, member]
        if width < narrowest:
            best, narrowest = number, width
    return best
