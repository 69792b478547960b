"""Marks QRS, T and P on the median beat of one shape; compiled with numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.arrays import FloatArray, Indices, Marks, furthest_from_line
from esi_fast.signal.bumps import find_p, find_t
from esi_fast.signal.compiled import compiled
from esi_fast.signal.median_beat import median_beat
from esi_fast.signal.wave_settings import Settings, Wave
from esi_fast.signal.waves import lead_limits, lean, qrs_limits, spatial_velocity, wave_limits

# Rows of `Delineation.marks`.
MARKS = (
    "p_onset", "p_peak", "p_end", "qrs_onset", "r_peak", "qrs_end", "t_onset", "t_peak", "t_end",
)  # fmt: skip
P_ONSET, P_PEAK, P_END, QRS_ONSET, R_PEAK, QRS_END, T_ONSET, T_PEAK, T_END = range(9)
ABSENT = -1

# What a lead usually adds to the common limit of a wave, s (medians of the same 24 of LUDB).
P_ONSET_OF_LEAD = np.array([8, -1, 1, -3, 21, -3, 3, -2, 0, 0, 4, 6]) * 1e-3
P_END_OF_LEAD = np.array([5, 3, -8, 3, 2, -4, -20, -18, -7, -2, 2, 2]) * 1e-3
T_ONSET_OF_LEAD = np.array([4, 6, 18, 2, 12, 16, 8, -12, -20, -14, -4, 2]) * 1e-3
T_END_OF_LEAD = np.array([0, 4, -8, -1, -10, 2, -17, -10, 0, 4, 4, 3]) * 1e-3


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
        common[R_PEAK, j] = min(max(common[QRS_ONSET, j], aligned[j]), common[QRS_END, j])
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
    body = (
        max(qrs[1] + round(0.02 * fs), peak - round(0.09 * fs)),
        min(last, peak + round(0.10 * fs)),
    )
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
        low = min(max(start, peak - round(0.06 * fs)), stop)
        high = max(low, min(stop, peak + round(0.06 * fs)))
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
        velocity, noise, peak, max(first, peak - round(0.13 * fs)),
        min(last, peak + round(0.12 * fs)), (round(0.09 * fs), round(0.08 * fs)), fs, wave,
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
        marks[rows[0], lead, beat] = onset if 0 <= onset < num_samples else ABSENT
        marks[rows[2], lead, beat] = end if end < num_samples else ABSENT


@compiled
def keep_apart(marks: Indices) -> None:
    """Of each lead and beat: P ends before QRS begins, T begins after QRS ends.

    Waves are marked each on its own; where they meet, QRS, which is the steepest, is right.
    """
    for lead in range(marks.shape[1]):
        for beat in range(marks.shape[2]):
            qrs_onset, qrs_end = marks[QRS_ONSET, lead, beat], marks[QRS_END, lead, beat]
            if qrs_onset >= 0 and marks[P_END, lead, beat] > qrs_onset:
                marks[P_END, lead, beat] = max(qrs_onset, marks[P_PEAK, lead, beat])
            t_onset = marks[T_ONSET, lead, beat]
            if t_onset >= 0 and t_onset < qrs_end:
                marks[T_ONSET, lead, beat] = min(qrs_end, marks[T_PEAK, lead, beat])


@compiled
def place_common(
    common: Indices, rows: tuple[int, int, int], beat: int, start: int,
    found: tuple[float, float, float], num_samples: int,
) -> None:  # fmt: skip
    """The same in the rows of all leads together."""
    for k in range(3):
        i = start + round(found[k])
        common[rows[k], beat] = i if 0 <= i < num_samples else ABSENT
