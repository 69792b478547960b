"""The measurements of a clinical ECG report: names, units, definitions; and what machines wrote.

Every value has one name everywhere, in shards, captions and reports. Definitions follow the
AHA/ACCF/HRS recommendations (Kligfield et al., Circulation 2007;115:1306-1324; Surawicz et al.,
Circulation 2009;119:e235-e240; Rautaharju et al., Circulation 2009;119:e241-e250).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# MIMIC-IV-ECG writes 29999 where the machine measured nothing (its data dictionary says so).
NOT_MEASURED = 29999
# MIMIC-IV-ECG's columns: ms from the start of the machine's median beat, and degrees.
MACHINE_COLUMNS = (
    "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis",
    "t_axis",
)  # fmt: skip
LOWEST_RATE, HIGHEST_RATE = 50, 10_000  # of a signal that can be measured, Hz
# Rows of a lead's table of amplitudes.
AMPLITUDES = ("p", "q", "r", "s", "t", "j", "st60")


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured on a record; NaN where nothing could be, and ``reasons`` says why.

    Intervals are global: from the earliest onset to the latest end in all leads together, on the
    median beat of the commonest shape. Axes are the frontal angles of the area under the wave, from
    leads I and aVF. Sample indices count from the record's start at ``fs``; -1 is absent.

    Attributes:
        fs: sampling rate of what was measured, Hz.
        heart_rate: ventricular rate, 60 over the median RR interval, bpm.
        rr_interval, rr_mean, rr_sd: median, mean and standard deviation of the RR intervals, ms.
            A beat less than 0.3 s from the record's start may be cut: its interval does not
            count if three others are left.
        rr_irregularity: root mean square of the differences between successive RR intervals, over
            the mean interval: 0.02 to 0.06 in sinus rhythm, above 0.1 in atrial fibrillation.
        atrial_rate: 60 over the median interval between P waves, bpm.
        p_per_qrs: P waves a QRS: 0 none, 1 each QRS has its own, 2 every other P is blocked.
        p_duration, pr, qrs, qt: ms; PR from P onset to QRS onset, QT from QRS onset to T end.
        qtc_bazett, qtc_fridericia: QT over the square and the cube root of RR in seconds, ms.
        p_axis, qrs_axis, t_axis: degrees in (-180, 180]; 0 to the left, 90 to the feet.
        sokolow_lyon: depth of S in V1 plus the higher R of V5 and V6, mV (Sokolow & Lyon 1949).
        cornell: R in aVL plus depth of S in V3, mV (Casale et al. 1985).
        low_voltage: 1 if the QRS stays below 0.5 mV from peak to peak in all limb leads, or below
            1.0 mV in all chest leads; else 0.
        num_beats, num_premature, num_wide, num_paced: beats; early ones, which come after less than
            0.8 of the median RR; beats of another shape whose QRS takes 120 ms or more; beats
            with a pacing spike at their onset.
        is_premature, is_wide, is_paced: (num_beats,) bool.
        fiducials: lead -> mark -> (num_beats,) int64; marks are p_onset, p_peak, p_end, qrs_onset,
            r_peak, qrs_end, t_onset, t_peak, t_end.
        common: mark -> (num_beats,) int64, the same in all leads together.
        blocked_p: (m,) int64, onsets of P waves that no QRS follows.
        pacing_spikes: (k,) int64.
        amplitudes: lead -> name -> mV on the median beat, against its level before the QRS (P:
            before the P): p, q, r, s, t, and the ST level at the J point and 60 ms after it.
            Q and S are negative, 0 where there is none; a QRS without R is all Q.
        median_beat: (12, N) float32 mV, the median beat of the commonest shape.
        median_beat_marks: mark -> position in ``median_beat``, ms from its start.
        noise: lead -> root mean square of what the beats differ from their median, mV.
        lead_quality: lead -> ``""``, or why it was not measured, or not well.
        reasons: name of a value -> why it is NaN.
    """

    fs: float = math.nan
    heart_rate: float = math.nan
    rr_interval: float = math.nan
    rr_mean: float = math.nan
    rr_sd: float = math.nan
    rr_irregularity: float = math.nan
    atrial_rate: float = math.nan
    p_per_qrs: float = math.nan
    p_duration: float = math.nan
    pr: float = math.nan
    qrs: float = math.nan
    qt: float = math.nan
    qtc_bazett: float = math.nan
    qtc_fridericia: float = math.nan
    p_axis: float = math.nan
    qrs_axis: float = math.nan
    t_axis: float = math.nan
    sokolow_lyon: float = math.nan
    cornell: float = math.nan
    low_voltage: float = math.nan
    num_beats: int = 0
    num_premature: int = 0
    num_wide: int = 0
    num_paced: int = 0
    is_premature: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    is_wide: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    is_paced: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    fiducials: dict[str, dict[str, NDArray[np.int64]]] = field(default_factory=dict)
    common: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    blocked_p: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    pacing_spikes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    amplitudes: dict[str, dict[str, float]] = field(default_factory=dict)
    median_beat: NDArray[np.float32] = field(default_factory=lambda: np.empty((12, 0), np.float32))
    median_beat_marks: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    lead_quality: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def measured(self) -> dict[str, float]:
        """The values that are not NaN, by name: the mapping that captions and shards hold."""
        found = ((name, getattr(self, name)) for name in VALUES)
        return {name: float(value) for name, value in found if not math.isnan(value)}

    def as_machine(self) -> dict[str, float]:
        """The same record in MIMIC-IV-ECG's machine columns: ms and degrees, 29999 = not measured.

        Positions count from the start of the median beat.
        """
        values = {name: getattr(self, name, math.nan) for name in MACHINE_COLUMNS}
        values |= {name: place for name, place in self.median_beat_marks.items() if name in values}
        return {
            name: NOT_MEASURED if math.isnan(value) else value for name, value in values.items()
        }


# Single values, in the order of a report: what shards hold.
VALUES = tuple(
    item.name
    for item in fields(Measurements)
    if item.type in ("float", "int") and item.name != "fs"
)


def intervals_from_machine(row: Mapping[str, str | float]) -> dict[str, float]:
    """Rate, intervals and axes from MIMIC-IV-ECG's machine columns.

    Args:
        row: ``rr_interval``, ``p_onset``, ``p_end``, ``qrs_onset``, ``qrs_end``, ``t_end`` (ms from
            the start of the machine's median beat) and ``p_axis``, ``qrs_axis``, ``t_axis``
            (degrees). A blank, 29999 or an implausible value counts as not measured.

    Returns:
        The measured ones of this module's keys; axes are in (-180, 180].
    """
    return intervals_from_columns([row.get(name, math.nan) for name in MACHINE_COLUMNS])


def intervals_from_columns(values: Sequence[str | float]) -> dict[str, float]:
    """As `intervals_from_machine`, from the values of ``MACHINE_COLUMNS`` in that order.

    Written out, without a loop or a table, as it runs for every record of an archive.
    """
    rr, p_onset, p_end, qrs_onset, qrs_end, t_end, p_axis, qrs_axis, t_axis = map(_number, values)
    # Beyond these limits a machine's number is an error, not a finding. No comparison holds for
    # NaN, and nothing infinite is plausible.
    found: dict[str, float] = {}
    if 150.0 <= rr <= 4000.0:
        found["rr_interval"] = rr
    if p_onset >= 0:
        if 20.0 <= p_end - p_onset <= 250.0:
            found["p_duration"] = p_end - p_onset
        if 40.0 <= qrs_onset - p_onset <= 600.0:
            found["pr"] = qrs_onset - p_onset
    if qrs_onset >= 0:
        if 30.0 <= qrs_end - qrs_onset <= 300.0:
            found["qrs"] = qrs_end - qrs_onset
        if 150.0 <= t_end - qrs_onset <= 900.0:
            found["qt"] = t_end - qrs_onset
    if -360.0 <= p_axis <= 360.0:
        found["p_axis"] = axis_in_range(p_axis)
    if -360.0 <= qrs_axis <= 360.0:
        found["qrs_axis"] = axis_in_range(qrs_axis)
    if -360.0 <= t_axis <= 360.0:
        found["t_axis"] = axis_in_range(t_axis)
    return with_derived(found)


def axis_in_range(degrees: float) -> float:
    """The same angle in (-180, 180]."""
    return -((180.0 - degrees) % 360.0 - 180.0)


def with_derived(found: dict[str, float]) -> dict[str, float]:
    """The same mapping, to which the rate and the corrected QT are added."""
    if "rr_interval" in found:
        rr_s = found["rr_interval"] / 1000.0
        found["heart_rate"] = 60.0 / rr_s
        if "qt" in found:
            found["qtc_bazett"] = found["qt"] / math.sqrt(rr_s)
            found["qtc_fridericia"] = found["qt"] / math.cbrt(rr_s)
    return found


# The numbers of an archive are some thousand whole ones: looked up, not parsed again.
@lru_cache(maxsize=8192)
def _number(value: str | float) -> float:
    """What was measured, or NaN."""
    try:
        number = float(value)
    except ValueError:
        return math.nan
    return math.nan if number == NOT_MEASURED else number
