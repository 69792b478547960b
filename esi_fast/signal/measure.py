"""Measurements of one record: what the machine wrote, and R peaks and rate from the signal.

The keys are the same everywhere: ``heart_rate`` (bpm), ``rr_interval``, ``p_duration``, ``pr``,
``qrs``, ``qt``, ``qtc_bazett``, ``qtc_fridericia`` (ms), ``p_axis``, ``qrs_axis``, ``t_axis``
(degrees). What was not measured is absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS

# MIMIC-IV-ECG writes 29999 where the machine measured nothing (its data dictionary says so).
NOT_MEASURED = 29999
# MIMIC-IV-ECG's columns: ms from the start of the machine's median beat, and degrees.
MACHINE_COLUMNS = (
    "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis",
    "t_axis",
)  # fmt: skip
REFRACTORY_S = 0.2
SEARCH_BAND_HZ = (5.0, 22.0)


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured on a record; NaN where nothing could be.

    Attributes:
        heart_rate: bpm.
        rr_interval, p_duration, pr, qrs, qt, qtc_bazett, qtc_fridericia: ms.
        p_axis, qrs_axis, t_axis: degrees.
        fiducials: lead -> name of the mark -> (num_beats,) int64 sample indices.
    """

    heart_rate: float = math.nan
    rr_interval: float = math.nan
    p_duration: float = math.nan
    pr: float = math.nan
    qrs: float = math.nan
    qt: float = math.nan
    qtc_bazett: float = math.nan
    qtc_fridericia: float = math.nan
    p_axis: float = math.nan
    qrs_axis: float = math.nan
    t_axis: float = math.nan
    fiducials: dict[str, dict[str, NDArray[np.int64]]] = field(default_factory=dict)

    def measured(self) -> dict[str, float]:
        """The values that are not NaN, by name: the mapping that captions and shards hold."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if isinstance(value, float) and not math.isnan(value)
        }


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
        found["p_axis"] = _axis(p_axis)
    if -360.0 <= qrs_axis <= 360.0:
        found["qrs_axis"] = _axis(qrs_axis)
    if -360.0 <= t_axis <= 360.0:
        found["t_axis"] = _axis(t_axis)
    return _with_derived(found)


def _axis(degrees: float) -> float:
    return -((180.0 - degrees) % 360.0 - 180.0)


def _with_derived(found: dict[str, float]) -> dict[str, float]:
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


def r_peaks(signal: NDArray[np.float32], fs: float) -> NDArray[np.int64]:
    """Sample indices of the QRS complexes of a record, all leads together.

    The squared slope of every lead in the QRS band (5 to 22 Hz, after Pan & Tompkins, IEEE TBME
    1985), each lead weighted to equal strength, is summed and smoothed over 100 ms; its maxima
    above a share of their own usual height, at least 200 ms apart, are the beats.

    Args:
        signal: (L, T) in mV, NaN where missing.
        fs: sampling rate in Hz.

    Returns:
        (num_beats,) int64, ascending; empty where no beat can be told from noise.
    """
    num_samples = signal.shape[1]
    if num_samples < fs:
        return np.empty(0, np.int64)
    filled = np.where(np.isnan(signal), np.float32(0), signal)
    spectrum = np.fft.rfft(filled, axis=1)
    frequency = np.fft.rfftfreq(num_samples, 1 / fs)
    low, high = SEARCH_BAND_HZ
    spectrum[:, (frequency < low) | (frequency > high)] = 0
    band = np.fft.irfft(spectrum, num_samples, axis=1)
    slope = np.diff(band, axis=1, prepend=band[:, :1])
    scale = np.percentile(np.abs(slope), 98, axis=1, keepdims=True)
    usable = scale[:, 0] > 0
    if not usable.any():
        return np.empty(0, np.int64)
    energy = np.square(slope[usable] / scale[usable]).mean(axis=0)
    width = max(3, round(0.1 * fs))
    energy = np.convolve(energy, np.ones(width) / width, mode="same")
    refractory = round(REFRACTORY_S * fs)
    is_peak = energy > 0
    is_peak[1:] &= energy[1:] > energy[:-1]
    is_peak[:-1] &= energy[:-1] >= energy[1:]
    candidates = np.flatnonzero(is_peak)
    kept: list[int] = []
    taken = np.zeros(num_samples, bool)
    for index in candidates[np.argsort(-energy[candidates], kind="stable")]:
        if not taken[index]:
            kept.append(int(index))
            taken[max(0, index - refractory) : index + refractory + 1] = True
    if not kept:
        return np.empty(0, np.int64)
    heights = energy[kept]
    # The strongest one a second are beats at any rate from 40 bpm up; their median shrugs off PVCs.
    usual = np.median(heights[: max(3, round(num_samples / fs))])
    return np.sort(np.asarray(kept, np.int64)[heights > 0.3 * usual])


def measure(signal: NDArray[np.float32], fs: float) -> Measurements:
    """Heart rate and median RR interval of a record, from its R peaks.

    Args:
        signal: (12, T) in mV, NaN where missing.
        fs: sampling rate in Hz.

    Returns:
        ``Measurements`` with ``rr_interval`` (median) and ``heart_rate``, NaN with fewer than three
        beats, and the R peaks as fiducials, the same for all leads.
    """
    peaks = r_peaks(signal, fs)
    fiducials = {lead: {"r_peak": peaks} for lead in STANDARD_LEADS}
    if len(peaks) < 3:
        return Measurements(fiducials=fiducials)
    found = {"rr_interval": float(np.median(np.diff(peaks))) * 1000.0 / fs}
    return Measurements(**_with_derived(found), fiducials=fiducials)
