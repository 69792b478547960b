"""Measures a 12-lead ECG as an electrocardiograph does: beats, waves, intervals, axes, voltages.

The loops are compiled with numba (``delineate`` and what it calls); here their
findings become the values of a report.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import NUM_LEADS, STANDARD_LEADS
from esi_fast.signal import intervals
from esi_fast.signal.amplitudes import SPAN, beat_noise, lead_values
from esi_fast.signal.delineate import Delineation, delineate
from esi_fast.signal.marking import MARKS
from esi_fast.signal.measurements import (
    AMPLITUDES,
    HIGHEST_RATE,
    LOWEST_RATE,
    VALUES,
    Measurements,
    with_derived,
)
from esi_fast.signal.record_batch import MISSING_INT16
from esi_fast.signal.wave_settings import SETTINGS

Signal = NDArray[np.float32] | NDArray[np.int16]

NOISY = 0.2  # of the QRS from peak to peak: where beats differ by more, the lead is noisy
_COUNTS = tuple(name for name in VALUES if name.startswith("num_"))


def measure(signal: NDArray[np.floating], fs: float) -> Measurements:
    """Measure one record.

    Args:
        signal: (12, T), leads in standard order, mV, NaN where samples are missing. Where all leads
            are missing at the end, the record ends there.
        fs: sampling rate, Hz; 100 and more, where widths matter. Below 250 no pacing spikes are
            sought.

    Returns:
        ``Measurements``: its fields say what each value is. What cannot be measured is NaN, with
        the reason; nothing is raised for a record that is flat, short, saturated or empty.

    Raises:
        ValueError: the signal is not (12, T) of real numbers with T >= 1, or fs is not in
            50..10,000.
    """
    signal = np.asarray(signal)
    if signal.dtype.kind not in "iuf":
        raise ValueError(f"signal has dtype {signal.dtype}: it must be real numbers, in mV")
    if signal.ndim != 2 or signal.shape[0] != NUM_LEADS or signal.shape[1] == 0:
        raise ValueError(f"signal must be (12, T) with T >= 1, not {signal.shape}")
    with np.errstate(over="ignore"):  # what is beyond any voltage counts as missing
        signal = signal.astype(np.float32, copy=False)
    return measure_records(signal[None], fs)[0]


def measure_records(signal: Signal, fs: float, *, threads: int = 1) -> list[Measurements]:
    """Measure many records of one rate and length, as `measure` does each.

    Args:
        signal: (n, 12, T), standard lead order: float32 in mV with NaN where samples are missing,
            or int16 in uV with -32768 there (as `read_records` gives them).
        fs: sampling rate, Hz.
        threads: how many run at once, without the GIL; 0 takes as many as there are usable CPUs.
            The result does not depend on it.

    Raises:
        ValueError: the signal is neither float32 nor int16 or not (n, 12, T) with T >= 1, fs is not
            in 50..10,000, or threads is negative.
    """
    if signal.dtype not in (np.float32, np.int16):
        raise ValueError(f"signal has dtype {signal.dtype}: it must be float32 (mV) or int16 (uV)")
    if signal.ndim != 3 or signal.shape[1] != NUM_LEADS or signal.shape[2] == 0:
        raise ValueError(f"signal must be (n, 12, T) with T >= 1, not {signal.shape}")
    if not LOWEST_RATE <= fs <= HIGHEST_RATE:
        raise ValueError(f"fs must be in {LOWEST_RATE}..{HIGHEST_RATE} Hz, not {fs}")
    if threads < 0:
        raise ValueError(f"threads must be 0 (all CPUs) or more, got {threads}")
    num_threads = min(threads or len(os.sched_getaffinity(0)), len(signal))
    if num_threads <= 1:
        return [_measure(record, float(fs)) for record in signal]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(lambda record: _measure(record, float(fs)), signal))


def _measure(record: NDArray[np.float32] | NDArray[np.int16], fs: float) -> Measurements:
    signal = record.astype(np.float32, copy=False)
    if record.dtype == np.int16:
        signal = signal / np.float32(1000)
        signal[record == MISSING_INT16] = np.nan
    signal = signal[:, : _recorded(signal)]
    # numba compiles anew for what is read-only or has strides of its own.
    found = delineate(np.require(signal, requirements=["C", "W"]), fs, SETTINGS)
    return _report(found, fs, signal.shape[1])


def _recorded(signal: NDArray[np.float32]) -> int:
    """Samples until the last that any lead has: what pads a short recording is no gap in it."""
    num_samples: int = signal.shape[1]
    if not np.isnan(signal[:, -1]).all():
        return num_samples
    present = np.flatnonzero(~np.isnan(signal).all(axis=0))
    return int(present[-1]) + 1 if len(present) else num_samples


def _report(found: Delineation, fs: float, num_samples: int) -> Measurements:
    num_beats = len(found.beats)
    quality = intervals.lead_quality(found)
    marks: dict[str, Any] = {
        "num_beats": num_beats,
        "fiducials": {
            lead: dict(zip(MARKS, found.marks[:, row], strict=True))
            for row, lead in enumerate(STANDARD_LEADS)
        },
        "common": dict(zip(MARKS, found.common, strict=True)),
        "pacing_spikes": found.spikes,
        "lead_quality": quality,
    }
    if num_beats < 3:
        reason = intervals.why_too_few(found, fs, num_samples)
        nothing = np.zeros(num_beats, np.bool_)
        return Measurements(
            fs=fs,
            is_premature=nothing,
            is_wide=nothing.copy(),
            is_paced=nothing.copy(),
            reasons={name: reason for name in VALUES if name not in _COUNTS},
            **marks,
        )
    limits = intervals.limits_of_median(found)
    leads = lead_values(found.median, found.usable, limits, fs)
    values, reasons = intervals.rhythm(found, fs)
    for more, why in (intervals.intervals(found, fs), intervals.voltages(leads)):
        values |= more
        reasons |= why
    angles, why = intervals.axes(leads, fs, reasons)
    is_premature, is_wide, is_paced = intervals.kinds(found, fs)

    last = limits[5] if limits[5] >= 0 else limits[3]
    members = found.beats[found.group == found.dominant]
    noise = beat_noise(
        found.level, found.usable, members, found.median, found.reference, limits[2], last
    )
    for row, lead in enumerate(STANDARD_LEADS):
        if not quality[lead] and noise[row] > NOISY * leads[row, SPAN]:
            quality[lead] = f"noisy: beats differ from their median by {1000 * noise[row]:.0f} uV"
    single: dict[str, Any] = {**with_derived(values), **angles}
    return Measurements(
        fs=fs,
        **single,
        num_premature=int(is_premature.sum()),
        num_wide=int(is_wide.sum()),
        num_paced=int(is_paced.sum()),
        is_premature=is_premature,
        is_wide=is_wide,
        is_paced=is_paced,
        blocked_p=found.extra_p,
        amplitudes={
            lead: dict(zip(AMPLITUDES, row, strict=False))
            for lead, row in zip(STANDARD_LEADS, leads.tolist(), strict=True)
        },
        median_beat=found.median,
        median_beat_marks=dict(
            zip(MARKS, (found.median_marks * 1000.0 / fs).tolist(), strict=True)
        ),
        noise=dict(zip(STANDARD_LEADS, noise.tolist(), strict=True)),
        reasons=reasons | why,
        **marks,
    )
