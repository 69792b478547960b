"""From the marks of a record to the values of a report, and why a value could not be had."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal import amplitudes as columns
from esi_fast.signal.delineate import FLAT_MV, MOST_MISSING, Delineation
from esi_fast.signal.marking import ABSENT, P_END, P_ONSET, QRS_END, QRS_ONSET, T_END, T_ONSET
from esi_fast.signal.measurements import axis_in_range

Values = dict[str, float]
Reasons = dict[str, str]
Flags = NDArray[np.bool_]

EDGE_S = 0.3  # a beat nearer to the record's start may be cut
PREMATURE = 0.8  # of the median RR
MOST_PREMATURE = 0.25  # of the beats: where more come early, the rhythm is irregular
WIDE_MS = 120.0
SPIKE_BEFORE_S, SPIKE_AFTER_S = 0.08, 0.04  # of a paced beat, about its onset
LOW_LIMB_MV, LOW_CHEST_MV = 0.5, 1.0
LEAST_AREA_MV_S = 1e-4  # of P, QRS or T in I and aVF: below it there is no direction
_LEAD = {name: row for row, name in enumerate(STANDARD_LEADS)}
_NO_P = "no P wave precedes the beats alike"
_FLUTTER = "P-like waves follow each other as in atrial flutter"


def rhythm(found: Delineation, fs: float) -> tuple[Values, Reasons]:
    """Ventricular and atrial rate, and how regular the beats are; of three beats or more."""
    places = found.beats.tolist()
    ms = 1000.0 / fs
    all_intervals = [(b - a) * ms for a, b in pairwise(places)]
    edge = EDGE_S * fs
    whole = [place for place in places if place >= edge]
    intervals = [(b - a) * ms for a, b in pairwise(whole)]
    if len(intervals) < 3:
        intervals = all_intervals
    mean = sum(intervals) / len(intervals)
    steps = [(b - a) ** 2 for a, b in pairwise(intervals)]
    values = {
        "rr_interval": median(intervals),
        "rr_mean": mean,
        "rr_sd": math.sqrt(sum((rr - mean) ** 2 for rr in intervals) / len(intervals)),
        "rr_irregularity": math.sqrt(sum(steps) / len(steps)) / mean,
    }
    onsets = sorted([*found.common[P_ONSET][found.common[P_ONSET] >= 0].tolist(), *found.extra_p])
    # The first and the last beat may have theirs outside the record.
    inner = found.common[P_ONSET, 1:]
    count = int((inner >= 0).sum()) + len(found.extra_p)
    values["p_per_qrs"] = count / len(inner)
    if len(onsets) < 2:
        return values, {"atrial_rate": _FLUTTER if found.is_flutter else _NO_P}
    values["atrial_rate"] = 60_000.0 / median((b - a) * ms for a, b in pairwise(onsets))
    return values, {}


def kinds(found: Delineation, fs: float) -> tuple[Flags, Flags, Flags]:
    """(num_beats,) each: which beats are premature, wide and of another shape, paced."""
    num_beats = len(found.beats)
    ms = 1000.0 / fs
    intervals = np.diff(found.beats)
    is_premature = np.zeros(num_beats, np.bool_)
    is_premature[1:] = intervals < PREMATURE * median(intervals.tolist())
    widths = (found.common[QRS_END] - found.common[QRS_ONSET]) * ms
    is_other = found.group != found.dominant
    is_wide = is_other & (widths >= WIDE_MS)
    if is_premature.sum() > MOST_PREMATURE * num_beats:
        is_premature &= is_other
    is_paced = np.zeros(num_beats, np.bool_)
    for spike in found.spikes:
        delay = found.common[QRS_ONSET] - spike
        is_paced |= (delay <= SPIKE_BEFORE_S * fs) & (delay >= -SPIKE_AFTER_S * fs)
    return is_premature, is_wide & ~is_paced, is_paced


def limits_of_median(found: Delineation) -> NDArray[np.int64]:
    """(6,): onset and end of P, QRS and T in the median beat, as indices; -1 where absent."""
    places = found.median_marks[[P_ONSET, P_END, QRS_ONSET, QRS_END, T_ONSET, T_END]]
    last = found.median.shape[1] - 1
    return np.where(np.isnan(places), ABSENT, np.clip(np.rint(places), 0, last)).astype(np.int64)


def intervals(found: Delineation, fs: float) -> tuple[Values, Reasons]:
    """P duration, PR, QRS and QT of the median beat, ms."""
    p_onset, p_end, onset, end, t_end = (
        float(place) * 1000.0 / fs
        for place in found.median_marks[[P_ONSET, P_END, QRS_ONSET, QRS_END, T_END]]
    )
    values = {
        "p_duration": p_end - p_onset,
        "pr": onset - p_onset,
        "qrs": end - onset,
        "qt": t_end - onset,
    }
    reasons: Reasons = {}
    if math.isnan(p_onset):
        why = _FLUTTER if found.is_flutter else _NO_P
        reasons |= dict.fromkeys(("p_duration", "pr"), why)
    if math.isnan(t_end):
        reasons |= dict.fromkeys(("qt", "qtc_bazett", "qtc_fridericia"), "no T wave stands out")
    return values, reasons


def voltages(leads: NDArray[np.float64]) -> tuple[Values, Reasons]:
    """Voltage criteria from the (12, ...) table of `amplitudes.lead_values`."""
    lowest, top, span = leads[:, columns.LOWEST], leads[:, columns.R], leads[:, columns.SPAN]
    depth = -np.minimum(lowest, 0)
    low = np.nan
    if not np.isnan(span).any():
        low = float(span[:6].max() < LOW_LIMB_MV or span[6:].max() < LOW_CHEST_MV)
    values = {
        "sokolow_lyon": float(depth[_LEAD["V1"]] + np.maximum(top[_LEAD["V5"]], top[_LEAD["V6"]])),
        "cornell": float(top[_LEAD["aVL"]] + depth[_LEAD["V3"]]),
        "low_voltage": low,
    }
    needed = {
        "sokolow_lyon": ("V1", "V5", "V6"),
        "cornell": ("aVL", "V3"),
        "low_voltage": STANDARD_LEADS,
    }
    reasons = {}
    for name, names in needed.items():
        if math.isnan(values[name]):
            lost = [lead for lead in names if math.isnan(span[_LEAD[lead]])]
            reasons[name] = f"not measured: {', '.join(lost)}"
    return values, reasons


def axes(leads: NDArray[np.float64], fs: float, reasons: Reasons) -> tuple[Values, Reasons]:
    """Frontal axes of P, QRS and T, degrees; ``reasons`` are those of the intervals."""
    values, why = {}, {}
    areas = {
        "p_axis": (columns.P_AREA, "pr"),
        "qrs_axis": (columns.QRS_AREA, "qrs"),
        "t_axis": (columns.T_AREA, "qt"),
    }
    for name, (column, interval) in areas.items():
        x = leads[_LEAD["I"], column] / fs
        # An augmented lead is sqrt(3)/2 as long as a limb lead.
        y = leads[_LEAD["aVF"], column] / fs * 2.0 / math.sqrt(3.0)
        size = math.hypot(x, y)
        values[name] = math.nan
        if interval in reasons:
            why[name] = reasons[interval]
        elif math.isnan(size):
            why[name] = "not measured: I or aVF"
        elif size < LEAST_AREA_MV_S:
            why[name] = "the wave is too small in the frontal plane"
        else:
            values[name] = axis_in_range(math.degrees(math.atan2(y, x)))
    return values, why


def lead_quality(found: Delineation) -> dict[str, str]:
    """Why a lead was not measured; "" for one that was."""
    quality = {}
    for lead, row in _LEAD.items():
        why = ""
        if found.missing[row] > MOST_MISSING:
            why = f"missing: {100 * found.missing[row]:.0f} % of the samples"
        elif found.span[row] < FLAT_MV:
            why = f"flat: within {1000 * found.span[row]:.0f} uV"
        quality[lead] = why
    return quality


def why_too_few(found: Delineation, fs: float, num_samples: int) -> str:
    """Why a record with fewer than three beats has not been measured."""
    if not found.usable.any():
        return "no lead records anything"
    return f"{len(found.beats)} beats in {num_samples / fs:g} s; three are needed"
