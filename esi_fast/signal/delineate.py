"""P, QRS and T of every beat of a record, in all leads together and in each; compiled with numba.

Beats of one shape are measured on their median beat; what is found there is carried to each of
them. P is what precedes the beats of the commonest shape alike: in atrial fibrillation nothing
does, in flutter too much does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.beats import (
    FLAT_MV,
    MOST_MISSING,
    FloatArray,
    Indices,
    Marks,
    fill_gaps,
    group_beats,
    highest_apart,
    median_beat,
    median_few,
    qrs_energy,
    qrs_slopes,
    ranges,
    subtract_baseline,
    without_companions,
)
from esi_fast.signal.compiled import compiled
from esi_fast.signal.pacing import find_spikes, remove_spikes
from esi_fast.signal.waves import (
    Wave,
    find_p,
    find_t,
    lead_limits,
    lean,
    qrs_limits,
    spatial_velocity,
    wave_limits,
)

# Rows of `Delineation.marks`.
MARKS = (
    "p_onset", "p_peak", "p_end", "qrs_onset", "r_peak", "qrs_end", "t_onset", "t_peak", "t_end",
)  # fmt: skip
P_ONSET, P_PEAK, P_END, QRS_ONSET, R_PEAK, QRS_END, T_ONSET, T_PEAK, T_END = range(9)
ABSENT = -1
CLEARLY = 0.15  # a shifted wave must correlate better by this than an unshifted one
FLUTTER_S = 0.27  # atrial waves that follow each other faster are flutter waves
LEAST_SIZE, MOST_SIZE = 0.4, 2.0  # of a P against the median beat's
PAUSE = 1.5  # of the usual RR: a longer interval is a pause

# What a lead usually adds to the common limit of a wave, s (medians of the same 24 of LUDB).
P_ONSET_OF_LEAD = np.array([8, -1, 1, -3, 21, -3, 3, -2, 0, 0, 4, 6]) * 1e-3
P_END_OF_LEAD = np.array([5, 3, -8, 3, 2, -4, -20, -18, -7, -2, 2, 2]) * 1e-3
T_ONSET_OF_LEAD = np.array([4, 6, 18, 2, 12, 16, 8, -12, -20, -14, -4, 2]) * 1e-3
T_END_OF_LEAD = np.array([0, 4, -8, -1, -10, 2, -17, -10, 0, 4, 4, 3]) * 1e-3


class Settings(NamedTuple):
    """What was tuned.

    Attributes:
        p, qrs, t: how each wave is marked.
        p_alike: correlation between the beats' P and their median from which there is a P.
        p_alike_irregular: the same where the RR intervals vary by more than a tenth.
        p_of_beat, p_of_other: the same for one beat: of the commonest shape, of another.
        p_shift, t_shift: how far the wave of one beat may lie from its place, s.
        p_before_t_end: how far before the peak of the next P the T wave has ended, s.
    """

    p: Wave
    qrs: Wave
    t: Wave
    p_alike: float
    p_alike_irregular: float
    p_of_beat: float
    p_of_other: float
    p_shift: float
    t_shift: float
    p_before_t_end: float


SETTINGS = Settings(
    p=Wave(
        width=0.01, onset=0.2, end=0.22, noise_at_onset=1.5, noise_at_end=1.5, quiet=0.008,
        lead_width=0.016, lead_onset=0.18, lead_end=0.675, lead_noise_at_onset=2.0,
        lead_noise_at_end=3.0, lead_quiet=0.004, core=0.4, onset_bias=0.001, end_bias=-0.016,
        onset_trust=0.5, end_trust=0.5, doubt=2.0, furthest=0.03,
    ),
    qrs=Wave(
        width=0.006, onset=0.055, end=0.09, noise_at_onset=1.0, noise_at_end=3.0, quiet=0.016,
        lead_width=0.014, lead_onset=0.0425, lead_end=0.06, lead_noise_at_onset=3.0,
        lead_noise_at_end=3.0, lead_quiet=0.012, core=0.15, onset_bias=-0.002, end_bias=0.0,
        onset_trust=0.3, end_trust=0.6, doubt=0.0, furthest=0.03,
    ),
    t=Wave(
        width=0.012, onset=0.2475, end=0.2, noise_at_onset=4.0, noise_at_end=2.0, quiet=0.016,
        lead_width=0.02, lead_onset=0.15, lead_end=0.25, lead_noise_at_onset=3.0,
        lead_noise_at_end=3.0, lead_quiet=0.02, core=0.6, onset_bias=-0.004, end_bias=0.0,
        onset_trust=0.5, end_trust=0.6, doubt=2.0, furthest=0.06,
    ),
    p_alike=0.65, p_alike_irregular=0.73, p_of_beat=0.3, p_of_other=0.8, p_shift=0.03,
    t_shift=0.02, p_before_t_end=0.045,
)  # fmt: skip


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
def mark_qrs(
    rough: FloatArray, usable: NDArray[np.bool_], aligned: Indices, members: Indices, fs: float,
    wave: Wave, common: Indices, marks: Indices,
) -> tuple[float, float]:  # fmt: skip
    """Fill in the QRS rows of ``common`` and ``marks`` for the beats of one shape.

    Returns onset and end of all leads together, in samples from the beats' reference.
    """
    num_leads, num_samples = rough.shape
    references = aligned[members]
    before, after = round(0.25 * fs), round(0.30 * fs)
    beat = median_beat(
        rough, references, np.maximum(references - before, 0),
        np.minimum(references + after, num_samples), before, after,
    )  # fmt: skip
    onset, end = qrs_limits(beat, usable, before, fs, wave)
    if np.isnan(onset):  # nothing but straight lines
        onset, end = float(before), float(before)
    reach = round(0.015 * fs)
    limits = (round(onset) - reach, round(end) + reach)
    own_onset, own_end, clarity = lead_limits(beat, usable, limits, limits, fs, wave)
    nothing = np.zeros(num_leads)
    furthest = wave.furthest * fs
    onsets = lean(
        own_onset, clarity, nothing, onset + wave.onset_bias * fs, wave.onset_trust, wave.doubt,
        furthest,
    )  # fmt: skip
    ends = lean(
        own_end, clarity, nothing, end + wave.end_bias * fs, wave.end_trust, wave.doubt, furthest
    )
    last = num_samples - 1
    for j in members:
        start = aligned[j] - before
        common[QRS_ONSET, j] = min(max(0, start + round(onset)), last)
        common[QRS_END, j] = min(max(0, start + round(end)), last)
        common[R_PEAK, j] = aligned[j]
        for lead in range(num_leads):
            if usable[lead]:
                low = min(max(0, start + round(onsets[lead])), last)
                high = min(max(low, start + round(ends[lead])), last)
                marks[QRS_ONSET, lead, j], marks[QRS_END, lead, j] = low, high
                marks[R_PEAK, lead, j] = furthest_from_line(rough[lead], low, low, low, high)
    return onset - before, end - before


@compiled
def mark_t(
    beat: FloatArray, usable: NDArray[np.bool_], qrs: tuple[int, int], last: int, rr: float,
    fs: float, settings: Settings,
) -> tuple[tuple[float, float, float], Marks, Marks, Marks]:  # fmt: skip
    """T of a median beat: common onset, peak and end, then (L,) onset, peak and end of each lead.

    ``last`` is where it must have ended if no P is seen before; NaN where there is none.
    """
    num_leads, length = beat.shape
    nothing = np.full(num_leads, np.nan)
    last = min(max(last, qrs[1] + round(0.17 * fs)), length - 1)
    peak = find_t(beat, usable, qrs, last, rr, fs)
    if peak < 0:
        return (np.nan, np.nan, np.nan), nothing, nothing.copy(), nothing.copy()
    wave = settings.t
    # The next P, as this one stands before the QRS.
    first = max(qrs[0] - round(0.36 * fs), int(peak - rr + 0.08 * fs))
    p_peak = find_p(beat, usable, first, qrs[0], fs)
    if p_peak >= 0:
        last = min(last, int(p_peak + rr - settings.p_before_t_end * fs))
    last = min(max(last, peak + round(0.04 * fs)), length - 1)
    velocity, noise = spatial_velocity(beat, usable, max(1, round(wave.width * fs)), fs)
    low = min(qrs[1], peak - 1)
    onset, end = wave_limits(
        velocity, noise, peak, low, last, (round(0.12 * fs), round(0.14 * fs)), fs, wave
    )
    body = (max(qrs[1] + round(0.02 * fs), peak - round(0.09 * fs)), min(last, peak + round(0.10 * fs)))
    own_onset, own_end, clarity = lead_limits(beat, usable, body, (low, last), fs, wave)
    furthest = wave.furthest * fs
    onsets = lean(
        own_onset, clarity, T_ONSET_OF_LEAD * fs, onset + wave.onset_bias * fs, wave.onset_trust,
        wave.doubt, furthest,
    )  # fmt: skip
    ends = lean(
        own_end, clarity, T_END_OF_LEAD * fs, end + wave.end_bias * fs, wave.end_trust, wave.doubt,
        furthest,
    )  # fmt: skip
    peaks = np.empty(num_leads)
    for lead in range(num_leads):
        start = min(max(0, round(onsets[lead])), length - 1)
        stop = min(max(start, round(ends[lead])), length - 1)
        low, high = max(qrs[1], peak - round(0.06 * fs)), min(length - 1, peak + round(0.06 * fs))
        peaks[lead] = furthest_from_line(beat[lead], start, stop, low, high)
    return (onset, float(peak), end), onsets, peaks, ends


@compiled
def mark_p(
    beat: FloatArray, usable: NDArray[np.bool_], qrs_onset: int, first: int, peak: int, fs: float,
    wave: Wave,
) -> tuple[tuple[float, float, float], Marks, Marks, Marks]:  # fmt: skip
    """P about ``peak`` of a median beat, after ``first``; as `mark_t`."""
    num_leads, length = beat.shape
    width = max(1, round(wave.width * fs))
    velocity, noise = spatial_velocity(beat, usable, width, fs)
    last = qrs_onset - width // 2
    onset, end = wave_limits(
        velocity, noise, peak, max(first, peak - round(0.13 * fs)), min(last, peak + round(0.12 * fs)),
        (round(0.09 * fs), round(0.08 * fs)), fs, wave,
    )  # fmt: skip
    near, reach = round(0.07 * fs), round(0.11 * fs)
    own_onset, own_end, clarity = lead_limits(
        beat, usable, (max(first, peak - near), min(qrs_onset - round(0.012 * fs), peak + near)),
        (max(first, peak - reach), min(qrs_onset - 2, peak + reach)), fs, wave,
    )  # fmt: skip
    furthest = wave.furthest * fs
    onsets = lean(
        own_onset, clarity, P_ONSET_OF_LEAD * fs, onset + wave.onset_bias * fs, wave.onset_trust,
        wave.doubt, furthest,
    )  # fmt: skip
    ends = lean(
        own_end, clarity, P_END_OF_LEAD * fs, end + wave.end_bias * fs, wave.end_trust, wave.doubt,
        furthest,
    )  # fmt: skip
    peaks = np.empty(num_leads)
    for lead in range(num_leads):
        start = min(max(0, round(onsets[lead])), length - 1)
        stop = min(max(start, round(ends[lead])), length - 1)
        peaks[lead] = furthest_from_line(beat[lead], start, stop, start, stop)
    return (onset, float(peak), end), onsets, peaks, ends


@compiled
def place(
    marks: Indices, rows: tuple[int, int, int], beat: int, start: int,
    found: tuple[Marks, Marks, Marks], limit: int, usable: NDArray[np.bool_], num_samples: int,
) -> None:  # fmt: skip
    """Write a wave's onset, peak and end of each lead into ``marks`` for one beat.

    ``start`` is where the median beat lies. A wave whose peak is outside the record is absent, and
    so is one that ends beyond ``limit``; an onset or end outside the record is absent alone.
    """
    for lead in range(usable.shape[0]):
        if not usable[lead] or np.isnan(found[1][lead]):
            continue
        peak = start + round(found[1][lead])
        end = start + round(found[2][lead])
        if peak < 0 or peak >= num_samples or end >= limit:
            continue
        onset = start + round(found[0][lead])
        marks[rows[1], lead, beat] = peak
        marks[rows[0], lead, beat] = onset if onset >= 0 else ABSENT
        marks[rows[2], lead, beat] = end if end < num_samples else ABSENT


@compiled
def place_common(
    common: Indices, rows: tuple[int, int, int], beat: int, start: int,
    found: tuple[float, float, float], num_samples: int,
) -> None:  # fmt: skip
    """The same in the rows of all leads together."""
    for k in range(3):
        i = start + round(found[k])
        common[rows[k], beat] = i if 0 <= i < num_samples else ABSENT


@compiled
def variation(intervals: Marks) -> float:
    """Standard deviation over mean."""
    mean = intervals.mean()
    return float(np.sqrt(((intervals - mean) ** 2).mean()) / mean)


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
        offset = before - aligned[members[0]]
        qrs = (common[QRS_ONSET, members[0]] + offset, common[QRS_END, members[0]] + offset)
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
            level, usable, aligned, common, pattern, p_size, low - before, quiet_from, rr, fs,
            extra_p,
        )
        if is_flutter:
            continue
        median_marks[P_ONSET], median_marks[P_PEAK], median_marks[P_END] = p
        for j in range(num_beats):
            # Beats of other shapes are aligned by their onset.
            start = common[QRS_ONSET, j] - qrs[0]
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
